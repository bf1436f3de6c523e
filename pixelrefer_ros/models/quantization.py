# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say what all ways to make weights smaller have in common; torch is not imported for it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE = 'none'
INT8 = 'torchao-int8'
INT4 = 'torchao-int4'


def check(name: str, packages: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a quantisation that is unknown or whose packages are not installed.

    Args:
        name: 'none' or a kind.
        packages: What each kind needs.

    Raises:
        PixelReferError: MODEL_ERROR with what to do.
    """
    if name == NONE:
        return
    if name not in packages:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"quantization is '{name}', must be '{NONE}' or one of {', '.join(packages)}",
        )
    missing = [package for package in packages[name] if find_spec(package) is None]
    if missing:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"quantization '{name}' needs {' and '.join(missing)}: run "
            f"`pip install {' '.join(missing)}`, or set it to '{NONE}'",
        )


def torchao_kind(name: str, group: int = 128) -> Any:
    """Return torchao's configuration of 'torchao-int8', or of 'torchao-int4' on CUDA.

    Args:
        name: Which.
        group: How many neighbouring weights share a scale, of int4; int8 has one per row.
    """
    from torchao.quantization import (  # type: ignore[import-not-found,unused-ignore]
        Int4WeightOnlyConfig,
        Int8WeightOnlyConfig,
    )

    if name == INT8:
        return Int8WeightOnlyConfig(set_inductor_config=False)
    # this layout has its kernels in torch itself, others need one more package
    return Int4WeightOnlyConfig(
        group_size=group, int4_packing_format='tile_packed_to_4d', set_inductor_config=False
    )
