# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow regions with a tracker that knows on some frames, and one that is quick on the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.tracker import Sighting
from pixelrefer_ros.core.types import ErrorCode, PixelReferError, Region, RegionKind, TrackState
from pixelrefer_ros.tracking.presence import Presence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Frame

KEY_PERIOD_FRAMES = 10
"""Frames from one key frame to the next, where nothing else is said."""

_AGREE_IOU = 0.5


@dataclass(slots=True)
class _Followed:
    """Hold what is known of one region beside what the two trackers know.

    Attributes:
        presence: Its state, judged from what both saw.
        unseen: The key tracker did not see it in the newest key frame.
        corrected: It was pointed at after the newest key frame.
        quick_mask: What the quick tracker saw of it in the newest frame.
    """

    presence: Presence = field(default_factory=Presence)
    unseen: bool = False
    corrected: bool = False
    quick_mask: NDArray[np.bool_] | None = None


class AutoTracker:
    """Join two trackers; implements ``core.tracker.RegionTracker``.

    The quick one follows every frame and is re-anchored on each mask the key tracker finds in a
    key frame. What the key tracker does not see in a key frame stays unseen until it does, or
    until somebody points at it. New regions are shown to the key tracker, whatever the frame;
    corrections between key frames go to the quick one alone, and win over the key tracker in the
    next key frame where the two disagree.

    Attributes:
        name: Of the backend.
    """

    name = 'auto'

    def __init__(
        self,
        key_tracker: RegionTracker,
        between_tracker: RegionTracker,
        key_period_frames: int = KEY_PERIOD_FRAMES,
    ) -> None:
        """Follow nothing yet.

        Args:
            key_tracker: Sees the key frames only.
            between_tracker: Sees all frames.
            key_period_frames: Frames from one key frame to the next, 1 or more.
        """
        if key_period_frames < 1:
            raise ValueError(f'key_period_frames is {key_period_frames}, must be 1 or more')
        self._key = key_tracker
        self._between = between_tracker
        self._period = key_period_frames
        self._regions: dict[str, _Followed] = {}
        self._key_stamp_ns: int | None = None
        self._since_key = 0

    @property
    def region_ids(self) -> tuple[str, ...]:
        """Return the regions that are followed, in the order they first came."""
        return tuple(self._regions)

    def start(self, frame: Frame, region: Region) -> Sighting:
        """Follow a region from this frame on, or correct it; see ``RegionTracker``.

        Raises:
            PixelReferError: BAD_REGION when there is nothing to follow; what the key tracker
                raises.
        """
        followed = self._regions.get(region.region_id)
        if followed is not None and self._key_stamp_ns != frame.stamp_ns:
            sighting = self._between.start(frame, region)
            followed.corrected, followed.quick_mask = True, sighting.mask
        else:
            sighting = self._start_both(frame, region)
            followed = followed or _Followed()
            self._regions[region.region_id] = followed
        followed.unseen = False
        state = followed.presence.given(frame.stamp_ns, _share(sighting.mask))
        return Sighting(region.region_id, state, sighting.score, sighting.mask)

    def step(self, frame: Frame) -> list[Sighting]:
        """Follow all regions into the next frame; see ``RegionTracker``.

        A key frame takes as long as the key tracker does: nothing is returned before.

        Raises:
            PixelReferError: OUT_OF_MEMORY or MODEL_ERROR.
        """
        if not self._regions:
            # costs nothing, and a region may be added on this frame
            self._key.step(frame)
            self._between.step(frame)
            self._key_stamp_ns, self._since_key = frame.stamp_ns, 0
            return []
        told = {sighting.region_id: sighting for sighting in self._between.step(frame)}
        for region_id, followed in self._regions.items():
            followed.quick_mask = told[region_id].mask
        self._since_key += 1
        if self._since_key >= self._period:
            told = self._take_key_frame(frame)
        return [
            self._judge(followed, told[region_id], frame)
            for region_id, followed in self._regions.items()
        ]

    def remove(self, region_id: str) -> None:
        """Stop following a region; does nothing when it is not known."""
        self._regions.pop(region_id, None)
        self._key.remove(region_id)
        self._between.remove(region_id)

    def fork(self) -> AutoTracker:
        """Return a tracker without regions that shares the models."""
        return AutoTracker(self._key.fork(), self._between.fork(), self._period)

    def adopt(self, other: RegionTracker, region_id: str, frame: Frame) -> None:
        """Take a region over from a fork that has followed it up to this frame.

        Raises:
            TypeError: The other is of another kind.
            KeyError: It does not follow the region.
        """
        if not isinstance(other, AutoTracker):
            raise TypeError(f'an AutoTracker cannot take over from {type(other).__name__}')
        followed = other._regions.pop(region_id)
        if not self._regions:
            self._key_stamp_ns, self._since_key = other._key_stamp_ns, other._since_key
        self._key.adopt(other._key, region_id, frame)
        self._between.adopt(other._between, region_id, frame)
        self._regions[region_id] = followed

    def _start_both(self, frame: Frame, region: Region) -> Sighting:
        """Show a region to both trackers, to the quick one as the key tracker sees it."""
        if self._regions and self._key_stamp_ns != frame.stamp_ns:
            # the key tracker takes prompts for the frame it saw last
            self._take_key_frame(frame)
        sighting = self._key.start(frame, region)
        self._key_stamp_ns, self._since_key = frame.stamp_ns, 0
        try:
            mask = sighting.mask
            self._between.start(
                frame, region if mask is None else _as_region(region.region_id, mask)
            )
        except PixelReferError:
            if region.region_id not in self._regions:
                self._key.remove(region.region_id)
            raise
        return sighting

    def _take_key_frame(self, frame: Frame) -> dict[str, Sighting]:
        """Ask the key tracker about the frame the quick one saw last, and anchor that on it."""
        told = {sighting.region_id: sighting for sighting in self._key.step(frame)}
        self._key_stamp_ns, self._since_key = frame.stamp_ns, 0
        for region_id, followed in self._regions.items():
            mask, quick = told[region_id].mask, followed.quick_mask
            if followed.corrected and quick is not None and _iou(mask, quick) < _AGREE_IOU:
                told[region_id] = self._key.start(frame, _as_region(region_id, quick))
                mask = told[region_id].mask
            followed.corrected, followed.unseen = False, mask is None
            if mask is not None and told[region_id].state != TrackState.OCCLUDED:
                self._anchor(frame, region_id, mask)
        return told

    def _anchor(self, frame: Frame, region_id: str, mask: NDArray[np.bool_]) -> None:
        """Show the quick tracker a mask; one of too little to follow changes nothing."""
        try:
            self._between.start(frame, _as_region(region_id, mask))
        except PixelReferError as error:
            if error.code != ErrorCode.BAD_REGION:
                raise

    def _judge(self, followed: _Followed, sighting: Sighting, frame: Frame) -> Sighting:
        """Return what is told of a region, from what the tracker of this frame saw of it."""
        mask = None if followed.unseen else sighting.mask
        presence = followed.presence
        hidden = sighting.state == TrackState.OCCLUDED
        state = presence.see(frame.stamp_ns, _share(mask), hidden=hidden)
        if not presence.in_sight:
            return Sighting(sighting.region_id, state, 0.0, None)
        return Sighting(sighting.region_id, state, sighting.score, mask)


def _as_region(region_id: str, mask: NDArray[np.bool_]) -> Region:
    return Region(region_id, RegionKind.MASK, mask=masks.encode(mask))


def _share(mask: NDArray[np.bool_] | None) -> float:
    return 0.0 if mask is None else float(mask.mean())


def _iou(first: NDArray[np.bool_] | None, second: NDArray[np.bool_]) -> float:
    if first is None or first.shape != second.shape:
        return 0.0
    together = int((first | second).sum())
    return int((first & second).sum()) / together if together else 0.0
