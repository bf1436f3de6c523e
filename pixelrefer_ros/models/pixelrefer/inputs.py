# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold what the processor hands to the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.object_tokenizer import CellLayout


@dataclass(frozen=True)
class Pictures:
    """Hold pictures cut into patches, one after another.

    Attributes:
        patches: (N, 588) uint8, channel, row, column; patches in raster order.
        grids: Per picture, (rows, columns) of patches.
    """

    patches: Tensor
    grids: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RegionInputs:
    """Hold all pictures of some masks; every distinct picture once.

    Attributes:
        frames: The distinct whole frames.
        contexts: The distinct context crops.
        crops: The object crops, one per mask.
        frame_index: (M,) int64, frame of each mask.
        context_index: (M,) int64, context crop of each mask.
        layout: Cells of the masks in their crops.
    """

    frames: Pictures
    contexts: Pictures
    crops: Pictures
    frame_index: Tensor
    context_index: Tensor
    layout: CellLayout
