# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow a few regions through frames that the camera's tracker has been through already."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import RegionKind
from pixelrefer_ros.engine.sightings import Followed

if TYPE_CHECKING:
    from collections.abc import Collection

    from pixelrefer_ros.core.tracker import RegionTracker, Sighting
    from pixelrefer_ros.core.types import Frame, Region
    from pixelrefer_ros.core.video_buffer import FrameView
    from pixelrefer_ros.engine.guests import Book

# Regions of one pursuit. They share the work on a frame, but wait for each other.
_MOST = 8


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ask for a region to be followed from the frame it was given in.

    Attributes:
        region: Where it is in the frame.
        life: Of the region in the store; the prompt is void once that is over.
        stamp_ns: Stamp of the frame.
        fills: Whether the frames before it are to be filled in too.
    """

    region: Region
    life: int
    stamp_ns: int
    fills: bool = True

    @property
    def region_id(self) -> str:
        """Return the name of the region."""
        return self.region.region_id

    def as_seen(self, sighting: Sighting) -> Prompt | None:
        """Return the prompt with the mask a tracker made of it; None when it made none."""
        if sighting.mask is None or not sighting.mask.any():
            return None
        mask = masks.encode(sighting.mask)
        region = replace(self.region, kind=RegionKind.MASK, mask=mask, box=None, points=())
        return replace(self, region=region, fills=False)

    def followed(self) -> Followed:
        """Return what is known of the region when it begins to be followed."""
        return Followed(self.life, self.stamp_ns)


class Way(Enum):
    """Say where a pursuit goes."""

    UP = 'forward'  # to where the tracker is, and over to it
    BACK = 'back'  # until the region was seen, or the window ends
    FORTH = 'on'  # until the region was seen


@dataclass(slots=True, eq=False)
class Pursuit:
    """Hold a fork of the tracker and what it is after.

    Attributes:
        way: Where it goes.
        at: The frame it has come to; at first the one the regions were given in.
        waiting: The prompts still to be started.
        started: Those that were.
        regions: What is remembered of its regions, those to be started included.
        tracker: None before the first was started.
        book: What is seen of them goes there.
        first_ns: BACK goes no further.
        last: FORTH goes no further; None for where the tracker is.
    """

    way: Way
    at: Frame
    waiting: list[Prompt] = field(default_factory=list)
    started: list[Prompt] = field(default_factory=list)
    regions: dict[str, Followed] = field(default_factory=dict)
    tracker: RegionTracker | None = None
    _: KW_ONLY
    book: Book
    first_ns: int = 0
    last: Frame | None = None

    def add(self, prompt: Prompt) -> None:
        """Take in a region before the pursuit begins."""
        self.waiting.append(prompt)
        self.regions[prompt.region_id] = prompt.followed()

    def next_prompt(self) -> Prompt | None:
        """Return the next region to be started; None when all are."""
        self.waiting = [one for one in self.waiting if one.region_id in self.regions]
        return self.waiting[0] if self.waiting else None

    def tidy(self) -> None:
        """Stop following regions that were given up."""
        if self.tracker is not None:
            for region_id in self.tracker.region_ids:
                if region_id not in self.regions:
                    self.tracker.remove(region_id)

    def start_over(self) -> None:
        """Begin again with a new fork, as this one has failed."""
        self.tracker = None
        self.waiting = [*self.started, *self.waiting]
        self.started = []

    def next_frame(
        self, view: FrameView, end: Frame, unusable: Collection[int]
    ) -> Frame | None:
        """Return the next frame on the way; None at its end.

        Args:
            view: The frames in the buffer.
            end: Where the tracker is.
            unusable: Stamps of frames to pass over.
        """
        at_ns, end = self.at.stamp_ns, self.last or end
        if self.way is Way.BACK:
            ahead = view.between(self.first_ns, at_ns - 1)[::-1]
        else:
            # The buffer may have thinned the last frame away.
            ahead = view.between(at_ns + 1, end.stamp_ns - 1)
            ahead += (end,) if end.stamp_ns > at_ns else ()
        return next((frame for frame in ahead if frame.stamp_ns not in unusable), None)


def join(pursuits: list[Pursuit], pursuit: Pursuit, prompt: Prompt) -> None:
    """Let a region be pursued, together with others on the same way from the same frame.

    Args:
        pursuits: Those there are.
        pursuit: A new one, taken when there is none like it that has not begun.
        prompt: The region.
    """
    for one in pursuits:
        fresh = one.tracker is None and len(one.regions) < _MOST
        same = one.way is pursuit.way and one.at is pursuit.at and one.book is pursuit.book
        if fresh and same and prompt.region_id not in one.regions:
            pursuit = one
            break
    else:
        pursuits.append(pursuit)
    pursuit.add(prompt)
