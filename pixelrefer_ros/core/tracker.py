# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define what the engine asks of something that follows regions from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Frame, Region, TrackState


@dataclass(frozen=True, slots=True)
class Sighting:
    """Say what a tracker knows of one region in one frame.

    Attributes:
        region_id: Name of the region.
        state: NEW in the frame it was given in; OCCLUDED while it is believed to be there but
            hardly seen; LOST when it is not known where it is.
        score: How sure the tracker is of the mask, in [0, 1].
        mask: (H, W) bool, what is visible of it; None when nothing is (always when LOST).
    """

    region_id: str
    state: TrackState
    score: float
    mask: NDArray[np.bool_] | None


class RegionTracker(Protocol):
    """Follow regions of one camera through frames.

    A tracker knows no time: the next frame is the one ``step`` gets, so that a region is
    followed backward by stepping through older and older frames. Not thread-safe.

    Attributes:
        name: Of the backend, as it appears in diagnostics.
    """

    name: str

    @property
    def region_ids(self) -> tuple[str, ...]:
        """Return the regions that are followed, in the order they first came."""
        ...

    def start(self, frame: Frame, region: Region) -> Sighting:
        """Follow a region from this frame on.

        A box or points become a mask first. A region that is known already is corrected: its
        state goes on (REACQUIRED when it was OCCLUDED or LOST), what is known of its looks is
        kept where it still fits. Other regions are not disturbed. The frame is the one of the
        last ``step``, or, before any, the first one.

        Args:
            frame: The frame the region was given in.
            region: Where it is in the frame.

        Raises:
            PixelReferError: BAD_REGION when there is nothing to follow, saying why.
        """
        ...

    def step(self, frame: Frame) -> list[Sighting]:
        """Follow all regions into the next frame; return one sighting per region.

        A frame of another size than the last one is scaled for: the regions go on.

        Raises:
            PixelReferError: OUT_OF_MEMORY or MODEL_ERROR.
        """
        ...

    def remove(self, region_id: str) -> None:
        """Stop following a region; does nothing when it is not known."""
        ...

    def fork(self) -> RegionTracker:
        """Return a tracker without regions that shares the model, to follow other frames."""
        ...

    def adopt(self, other: RegionTracker, region_id: str, frame: Frame) -> None:
        """Take a region over from a tracker that has followed it up to this frame.

        Args:
            other: A tracker forked from the same one, or from this. It is not stepped any more
                afterwards, but others of its regions may be taken over too.
            region_id: Which of its regions. One of the same name here is replaced.
            frame: The frame both have seen last.
        """
        ...
