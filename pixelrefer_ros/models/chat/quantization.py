# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say how the weights of a large model are made smaller while they are read."""

from __future__ import annotations

from typing import Any

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.quantization import INT4, INT8, NONE, check, torchao_kind

PACKAGES = {
    'bnb4': ('bitsandbytes', 'accelerate'),
    'bnb8': ('bitsandbytes', 'accelerate'),
    INT4: ('torchao', 'accelerate'),
    INT8: ('torchao', 'accelerate'),
}
"""Kinds of quantisation and the packages each needs."""

# What sees stays as it is: it is small beside the language model, and boxes suffer first.
# transformers reads these as patterns of whole module names, from their beginning.
_KEPT = ['.*visual', '.*vision_tower', '.*vision_model', '.*multi_modal_projector', 'lm_head']


def check_quantization(name: str) -> None:
    """Refuse a quantisation that is unknown or whose packages are not installed.

    Raises:
        PixelReferError: MODEL_ERROR with what to do.
    """
    check(name, PACKAGES)


def quantization_config(name: str, device_type: str) -> Any:
    """Return what ``from_pretrained`` takes as ``quantization_config``; None for 'none'.

    Args:
        name: 'none' or a key of ``PACKAGES``.
        device_type: 'cpu' or 'cuda'.

    Raises:
        PixelReferError: As ``check_quantization``; MODEL_ERROR when there are no kernels for it
            on such a device.
    """
    check_quantization(name)
    if name == INT4 and device_type != 'cuda':
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"quantization '{name}' runs on CUDA devices; on a CPU use '{INT8}' or 'bnb4'",
        )
    if name == NONE:
        return None
    if name.startswith('bnb'):
        import torch
        from transformers import BitsAndBytesConfig

        if name == 'bnb8':
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_KEPT)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type='nf4',
            bnb_4bit_compute_dtype=torch.bfloat16,
            llm_int8_skip_modules=_KEPT,
        )
    from transformers import TorchAoConfig

    return TorchAoConfig(torchao_kind(name), modules_to_not_convert=_KEPT)
