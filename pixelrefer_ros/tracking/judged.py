# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold a place where a region may be with what speaks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelrefer_ros.tracking.geometry import Affine
    from pixelrefer_ros.tracking.looks import Match
    from pixelrefer_ros.tracking.visibility import Seen
    from pixelrefer_ros.tracking.window import Window


@dataclass(frozen=True, slots=True)
class Judged:
    """Hold a pose and how it was judged.

    Attributes:
        pose: From the reference to the frame.
        window: Part of the frame around it.
        match: How well the looks fit there.
        seen: What of the region is seen there.
        agreement: How well what is seen agrees with the reference, up to 1.
    """

    pose: Affine
    window: Window
    match: Match
    seen: Seen
    agreement: float

    def value(self) -> float:
        """Return a number to choose between poses by, larger for better ones."""
        return self.match.quality * self.seen.overlap
