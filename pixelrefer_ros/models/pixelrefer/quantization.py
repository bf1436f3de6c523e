# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make the weights of a describer's language model smaller: one byte each, or half of one.

Only weights change, activations keep their number format (weight-only quantisation), because a
word at a time is limited by how fast weights come from memory. What sees stays as it is: tower
and region encoder are limited by arithmetic, which weights that must be unpacked first only slow
down, and they are small beside the language model. So do the embeddings, which ``lm_head`` may
share.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.quantization import INT4, INT8, NONE, check, torchao_kind

logger = logging.getLogger(__name__)

PACKAGES = {INT8: ('torchao',), INT4: ('torchao',)}
"""Kinds of quantisation and the packages each needs."""

GROUP = 32
"""How many neighbouring weights of a row share a scale and an offset, of int4."""

_ROWS = 16
"""The int4 kernels take rows in blocks of as many."""


def check_quantization(name: str) -> None:
    """Refuse a quantisation that is unknown or whose packages are not installed.

    Raises:
        PixelReferError: MODEL_ERROR with what to do.
    """
    check(name, PACKAGES)


def quantize(model: Any, name: str) -> None:
    """Make the linear layers of a model's language model smaller, in place.

    Args:
        model: Qwen2ForCausalLM or a relative, on the device where it will run: it cannot be
            moved afterwards.
        name: 'none', 'torchao-int8' (one scale per row; any device and number format) or
            'torchao-int4' (one scale and offset per ``GROUP`` weights; on CUDA for bfloat16
            alone).

    Raises:
        PixelReferError: MODEL_ERROR with what to do when the kind is unknown, torchao is not
            installed, or there are no kernels for this model.
    """
    check_quantization(name)
    if name == NONE:
        return
    layers = model.model.layers
    if name == INT4:
        _check_shapes(layers)
        weight = next(layers.parameters())
        kind = int4_kind(weight.device.type, weight.dtype)
    else:
        kind = torchao_kind(name)
    from torchao.quantization import (  # type: ignore[import-not-found,unused-ignore]
        quantize_,
    )

    before = weight_bytes(layers)
    quantize_(layers, kind)
    logger.info(
        'quantization %s: the language model takes %.0f MiB, it was %.0f MiB',
        name,
        weight_bytes(layers) / 2**20,
        before / 2**20,
    )


def weight_bytes(module: nn.Module) -> int:
    """Return what the weights of a module take, quantised or not."""
    return sum(map(_bytes, module.parameters()))


def _bytes(weight: torch.Tensor) -> int:
    """Return what a tensor takes with all that it is made of."""
    if not hasattr(weight, '__tensor_flatten__'):
        return weight.nbytes
    parts, _ = weight.__tensor_flatten__()
    return sum(_bytes(getattr(weight, part)) for part in parts)


def _check_shapes(layers: nn.Module) -> None:
    """Refuse layers the int4 kernels cannot take.

    Raises:
        PixelReferError: MODEL_ERROR with what to do.
    """
    for where, layer in layers.named_modules():
        if isinstance(layer, nn.Linear) and (
            layer.in_features % GROUP or layer.out_features % _ROWS
        ):
            raise PixelReferError(
                ErrorCode.MODEL_ERROR,
                f"quantization '{INT4}' takes groups of {GROUP} weights and {_ROWS} rows; layer "
                f"{where} has {layer.out_features} rows of {layer.in_features}: use '{INT8}'",
            )


def int4_kind(device_type: str, dtype: torch.dtype) -> Any:
    """Return torchao's configuration of int4 for a device and a number format.

    Raises:
        PixelReferError: MODEL_ERROR with what to do when there are no kernels for them.
    """
    if device_type == 'cuda':
        if dtype != torch.bfloat16:
            raise PixelReferError(
                ErrorCode.MODEL_ERROR,
                f"quantization '{INT4}' on CUDA takes a model in bfloat16, this one is in "
                f"{str(dtype).removeprefix('torch.')}: set dtype to 'bfloat16', or use '{INT8}'",
            )
        return torchao_kind(INT4, GROUP)
    try:
        # torchao has the layout of torch's CPU kernels among its prototypes
        from torchao.prototype.quantization.int4 import (  # type: ignore[import-not-found,unused-ignore]
            PrototypeInt4WeightOnlyConfig,
        )
    except ImportError as error:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"quantization '{INT4}' on a CPU needs torchao 0.18: run `pip install "
            f"'torchao==0.18.*'`, or use '{INT8}'",
        ) from error
    return PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
