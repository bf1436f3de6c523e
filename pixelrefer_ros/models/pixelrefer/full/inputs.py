# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold what the processor hands to the model, where no eyes are between them: in tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.inputs import Pictures
    from pixelrefer_ros.models.pixelrefer.object_tokenizer import CellLayout


@dataclass(frozen=True)
class FrameInputs:
    """Hold whole frames.

    Attributes:
        pictures: The frames; patches in raster order.
        merge: Side in patches of the square one token stands for; grids are multiples of it.
        kept: Per frame, (rows / merge * columns / merge,) bool: the tokens the language model
            reads.
    """

    pictures: Pictures
    merge: int
    kept: tuple[Tensor, ...]

    @property
    def token_counts(self) -> list[int]:
        """Per frame, how many tokens the language model reads."""
        return [int(kept.sum()) for kept in self.kept]


@dataclass(frozen=True)
class ObjectInputs:
    """Hold the object crops of some masks.

    Attributes:
        crops: One per mask.
        layout: Cells of the masks in their crops.
        token_counts: Per mask, how many tokens it has; 0 for an empty mask.
    """

    crops: Pictures
    layout: CellLayout
    token_counts: tuple[int, ...]
