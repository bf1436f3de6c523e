# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say how the weights of a large model are made smaller while they are read."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

NONE = 'none'
PACKAGES = {
    'bnb4': ('bitsandbytes', 'accelerate'),
    'bnb8': ('bitsandbytes', 'accelerate'),
    'torchao-int4': ('torchao', 'accelerate'),
    'torchao-int8': ('torchao', 'accelerate'),
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
    if name == NONE:
        return
    if name not in PACKAGES:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"quantization is '{name}', must be '{NONE}' or one of {', '.join(PACKAGES)}",
        )
    missing = [package for package in PACKAGES[name] if find_spec(package) is None]
    if missing:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"quantization '{name}' needs {' and '.join(missing)}: run "
            f"`pip install {' '.join(missing)}`, or set it to '{NONE}'",
        )


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
    if name == 'torchao-int4' and device_type != 'cuda':
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"quantization '{name}' runs on CUDA devices; on a CPU use 'torchao-int8' or 'bnb4'",
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
    from torchao.quantization import (  # type: ignore[import-not-found]
        Int4WeightOnlyConfig,
        Int8WeightOnlyConfig,
    )
    from transformers import TorchAoConfig

    # this layout has its kernels in torch itself, others need one more package
    kind = (
        Int4WeightOnlyConfig(int4_packing_format='tile_packed_to_4d', set_inductor_config=False)
        if name == 'torchao-int4'
        else Int8WeightOnlyConfig(set_inductor_config=False)
    )
    return TorchAoConfig(kind, modules_to_not_convert=_KEPT)
