# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Judge what a tracker says of regions: what counts as seen, and the track it makes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.regions import observe_sighting
from pixelrefer_ros.core.types import Track, TrackState
from pixelrefer_ros.engine.motion import MotionWatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pixelrefer_ros.core.regions import Observation
    from pixelrefer_ros.core.tracker import Sighting
    from pixelrefer_ros.core.types import Frame

# A hidden region counts as seen while this part of what it covered when in sight is visible.
_VISIBLE = 0.3

_AWAY = (TrackState.OCCLUDED, TrackState.LOST)


@dataclass(slots=True)
class Followed:
    """Hold what is remembered of a followed region from frame to frame.

    Attributes:
        life: Of the region in the store.
        last_seen_ns: Stamp of the newest frame it was given or seen in.
        area: Pixels it covered when it was last in sight.
        find: What the tracker said last.
        motion: Whether it moves.
    """

    life: int
    last_seen_ns: int
    area: int = 0
    find: Find | None = None
    motion: MotionWatch = field(default_factory=MotionWatch)

    @property
    def away(self) -> bool:
        """Return whether it was not in sight when the tracker looked last."""
        return self.find is not None and self.find.state in _AWAY


@dataclass(frozen=True, slots=True)
class Find:
    """Hold what a tracker says of a region in a frame.

    Attributes:
        region_id: The region.
        state: What the tracker made of it.
        score: How sure it is, in [0, 1].
        visible: Where it is; None when nothing is visible of it.
        counts: Whether that is enough to look at.
        returned: Whether it was away before.
    """

    region_id: str
    state: TrackState
    score: float
    visible: Observation | None
    counts: bool
    returned: bool

    @property
    def seen(self) -> Observation | None:
        """Return what is to be remembered of it."""
        return self.visible if self.counts else None


def judge(
    sightings: Sequence[Sighting],
    frame: Frame,
    regions: Mapping[str, Followed],
    took_s: float = 0.0,
) -> list[Find]:
    """Return what is found of these regions in a frame, and remember it.

    Args:
        sightings: What the tracker says; of other regions it is passed over.
        frame: The frame.
        regions: What is remembered, by id.
        took_s: How long the tracker took for all of them.

    Raises:
        PixelReferError: MODEL_ERROR when a mask has not the size of the frame.
    """
    share_s = took_s / max(1, len(sightings))
    finds = []
    for sighting in sightings:
        followed = regions.get(sighting.region_id)
        if followed is None:
            continue
        visible = observe_sighting(sighting, frame, share_s)
        counts = visible is not None
        if visible is not None:
            if sighting.state == TrackState.OCCLUDED:
                counts = visible.area >= _VISIBLE * followed.area
            else:
                followed.area = visible.area
            if counts:
                followed.last_seen_ns = max(followed.last_seen_ns, frame.stamp_ns)
        score = min(1.0, max(0.0, float(sighting.score)))
        returned = followed.away and sighting.state not in _AWAY
        find = Find(sighting.region_id, sighting.state, score, visible, counts, returned)
        followed.find = find
        finds.append(find)
    return finds


def take_over(followed: Followed, before: Followed | None) -> None:
    """Go on from what was remembered of a region before a fork followed it anew."""
    if before is None or before.life != followed.life:
        return
    followed.motion = before.motion
    find = followed.find
    if find is not None and before.away and not followed.away:
        followed.find = replace(find, state=TrackState.REACQUIRED, returned=True)


def changed(find: Find, followed: Followed, stamp_ns: int) -> bool:
    """Return whether a region is back in sight, or has begun or stopped to move.

    Args:
        find: What was found in the frame.
        followed: What is remembered; its motion takes the frame in.
        stamp_ns: Stamp of the frame.
    """
    moved = (
        find.seen is not None
        and find.state not in _AWAY
        and followed.motion.update(stamp_ns, find.seen.box)
    )
    return moved or find.returned


def make_track(find: Find, followed: Followed, frame: Frame, label: str) -> Track:
    """Return the track of a region in a frame."""
    visible = find.visible
    return Track(
        region_id=find.region_id,
        camera=frame.camera,
        stamp_ns=frame.stamp_ns,
        state=find.state,
        score=find.score,
        box=None if visible is None else visible.box,
        mask=None if visible is None else visible.mask,
        last_seen_ns=followed.last_seen_ns,
        label=label,
    )
