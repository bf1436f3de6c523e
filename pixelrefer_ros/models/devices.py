# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose where a model runs, and in which number format."""

from __future__ import annotations

import logging
from typing import Any

import cv2
import torch

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

logger = logging.getLogger(__name__)

SMALL_MODEL = 20_000_000
"""Parameters below which a model is too small for several CPU threads."""

DTYPES = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}


def pick_device(device: str) -> torch.device:
    """Return the device to run on.

    Args:
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.

    Raises:
        PixelReferError: MODEL_ERROR when it is another word, or CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if device == 'auto':
        place = torch.device('cuda' if available else 'cpu')
        logger.info("device 'auto': took %s", place)
        return place
    try:
        place = torch.device(device)
    except RuntimeError:
        place = torch.device('meta')
    if place.type not in ('cpu', 'cuda'):
        raise PixelReferError(
            ErrorCode.MODEL_ERROR, f"device is '{device}', must be 'auto', 'cpu' or 'cuda'"
        )
    if place.type == 'cuda' and not available:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"device is '{device}' and torch finds no CUDA device; use 'cpu' or 'auto'",
        )
    if place.type == 'cuda' and (place.index or 0) >= torch.cuda.device_count():
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"device is '{device}' and there are {torch.cuda.device_count()} CUDA devices",
        )
    return place


def pick_dtype(dtype: str) -> torch.dtype | None:
    """Return a number format by name; None for 'auto'.

    Raises:
        PixelReferError: MODEL_ERROR when it is another word.
    """
    if dtype == 'auto':
        return None
    if dtype not in DTYPES:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR, f"dtype is '{dtype}', must be 'auto' or one of {list(DTYPES)}"
        )
    return DTYPES[dtype]


def spare_threads(model: Any) -> None:
    """Run a small model on a CPU in one thread, for the whole process.

    Its kernels last microseconds; threads that meet after each cost more than they save, and
    on a busy machine, where one of them always waits for a core, a hundred times as much.

    Args:
        model: Of transformers.
    """
    if model.device.type == 'cpu' and model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
