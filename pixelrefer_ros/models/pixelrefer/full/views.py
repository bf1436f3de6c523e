# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold what the full PixelRefer sees of requests."""

from __future__ import annotations

from dataclasses import dataclass

from pixelrefer_ros.models.pixelrefer.sights import Cut, Picture, Sight


@dataclass(eq=False)
class View(Sight):
    """Hold a whole frame or a mask of one.

    Attributes:
        length: How many tokens it has.
        merge: Side in patches of the square one token of a whole frame stands for.
        cut: Where a mask was cut, and which cells belong to it; None for a whole frame.
        picture: What to encode; None when that is done.
    """

    length: int
    merge: int = 1
    cut: Cut | None = None
    picture: Picture | None = None

    def unseen(self) -> list[Picture]:
        """Return the picture, if it has to be encoded."""
        return [] if self.picture is None else [self.picture]
