# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose the frames in which a model looks at regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.sampling import spread
from pixelrefer_ros.core.types import Frame, RegionClip, TrackState

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Sequence

    from pixelrefer_ros.core.regions import Observation
    from pixelrefer_ros.core.video_buffer import FrameView

_IN_SIGHT = (TrackState.NEW, TrackState.TRACKED, TrackState.REACQUIRED)
_SURE = 0.5  # score
_LARGE = 0.5  # part of the largest area


@dataclass(frozen=True, slots=True)
class Look:
    """Hold one region of a clip: what was seen of it in the chosen frames, oldest first."""

    region_id: str
    label: str
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Clip:
    """Hold what a model looks at.

    Attributes:
        camera: Name of the camera.
        frames: Oldest first.
        looks: The regions, each seen in some of the frames.
        window_start_ns: Start of the window that was asked for.
        window_end_ns: Its end.
    """

    camera: str
    frames: tuple[Frame, ...]
    looks: tuple[Look, ...]
    window_start_ns: int
    window_end_ns: int

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Return the stamps of the frames, oldest first."""
        return tuple(frame.stamp_ns for frame in self.frames)

    def only(self, look: Look) -> Clip:
        """Return the part that shows one region."""
        stamps = {seen.stamp_ns for seen in look.observations}
        frames = tuple(frame for frame in self.frames if frame.stamp_ns in stamps)
        return Clip(self.camera, frames, (look,), self.window_start_ns, self.window_end_ns)

    def sights(self) -> set[Hashable]:
        """Return a name for each thing there is to be seen.

        A thing is a region in its frames, or, without regions, the frames themselves. Two clips
        share a name where the same is seen, which costs once.
        """
        if not self.looks:
            return {(self.camera, self.stamps_ns)}
        return {
            (
                self.camera,
                look.region_id,
                tuple((seen.stamp_ns, seen.runs.tobytes()) for seen in look.observations),
            )
            for look in self.looks
        }

    def region_clips(self) -> tuple[RegionClip, ...]:
        """Return the regions as a describer wants them, masks drawn."""
        index = {frame.stamp_ns: i for i, frame in enumerate(self.frames)}
        return tuple(
            RegionClip(
                look.region_id,
                tuple(index[seen.stamp_ns] for seen in look.observations),
                tuple(masks.decode(seen.mask) for seen in look.observations),
            )
            for look in self.looks
        )


def look_back(
    observations: Sequence[Observation], end_ns: int, window_ns: int
) -> tuple[Observation, ...]:
    """Return the observations in the window before a time.

    When there are none in it, the window reaches back from the newest observation before it
    instead.

    Args:
        observations: Oldest first.
        end_ns: End of the window, included.
        window_ns: Length of the window.
    """
    past = [seen for seen in observations if seen.stamp_ns <= end_ns]
    if not past:
        return ()
    if past[-1].stamp_ns < end_ns - window_ns:
        end_ns = past[-1].stamp_ns
    return tuple(seen for seen in past if seen.stamp_ns >= end_ns - window_ns)


def worth_showing(observations: Sequence[Observation]) -> Sequence[Observation]:
    """Return the observations that show a region well; all when none does.

    Given observations alone are all taken: whoever gives them chooses. Once a tracker added its
    own, those are left out that it is unsure of or finds hidden, and those where the region
    covers much less of the image than where it covers most. The last one stays, small or not:
    it shows what the region's motion came to.
    """
    if not any(seen.tracked for seen in observations):
        return observations
    sure = [
        seen
        for seen in observations
        if not seen.tracked or (seen.state in _IN_SIGHT and seen.score >= _SURE)
    ]
    parts = [seen.area / (seen.height * seen.width) for seen in sure]
    largest = max(parts, default=0.0)
    good = [
        seen
        for seen, part in zip(sure, parts, strict=True)
        if part >= _LARGE * largest or seen is sure[-1]
    ]
    return good or observations


def make_clip(
    camera: str,
    view: FrameView,
    looks: Sequence[Look],
    frames_per_region: int,
    window_ns: tuple[int, int],
    ahead_ns: Collection[int],
) -> Clip:
    """Return a clip of some frames of each region, spread over time, the newest always in.

    Of a tracked region only frames that show it well are taken, when there are any. Several
    regions share frames where that keeps the spread.

    Args:
        camera: Name of the camera.
        view: The frames in its buffer.
        looks: The regions, with all that was seen of them.
        frames_per_region: How many frames of each to take at most.
        window_ns: Start and end of the window that was asked for.
        ahead_ns: Stamps of frames the describer has seen already, taken where that keeps the
            spread.
    """
    used: set[int] = set()
    chosen: list[Look] = []
    for look in looks:
        by_stamp = {seen.stamp_ns: seen for seen in worth_showing(look.observations)}
        stamps = spread(sorted(by_stamp), frames_per_region, prefer={*used, *ahead_ns})
        used.update(stamps)
        chosen.append(Look(look.region_id, look.label, tuple(by_stamp[s] for s in stamps)))
    frames = tuple(frame for frame in view.frames if frame.stamp_ns in used)
    return Clip(camera, frames, tuple(chosen), *window_ns)
