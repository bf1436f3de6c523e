# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose what a model looks at: the regions a query means, and their frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.regions import check_not_ahead, match_frame, observe
from pixelrefer_ros.core.sampling import spread
from pixelrefer_ros.core.types import (
    NS_PER_S,
    ErrorCode,
    Frame,
    PixelReferError,
    RegionClip,
    Task,
    TrackState,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixelrefer_ros.core.region_store import RegionStore
    from pixelrefer_ros.core.regions import Observation
    from pixelrefer_ros.core.types import Query, Region
    from pixelrefer_ros.core.video_buffer import FrameView
    from pixelrefer_ros.engine.guests import Guests

_IN_SIGHT = (TrackState.NEW, TrackState.TRACKED, TrackState.REACQUIRED)
_SURE = 0.5  # score
_LARGE = 0.5  # part of the largest area

_NAME = re.compile(r'\{([^{}]+)\}')


def names_in(text: str) -> tuple[str, ...]:
    """Return the region ids that '{region_id}' in a text names, each once, in order."""
    return tuple(dict.fromkeys(_NAME.findall(text)))


def without_names(text: str) -> str:
    """Return a text as a hint for one region: '{region_id}' reads 'it'; '' if only names."""
    if not re.sub(r'[\W_]+', '', _NAME.sub('', text)):
        return ''
    return _NAME.sub('it', text).strip()


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
) -> Clip:
    """Return a clip of some frames of each region, spread over time, the newest always in.

    Of a tracked region only frames that show it well are taken, when there are any. Several
    regions share frames where that keeps the spread.
    """
    used: set[int] = set()
    chosen: list[Look] = []
    for look in looks:
        by_stamp = {seen.stamp_ns: seen for seen in worth_showing(look.observations)}
        stamps = spread(sorted(by_stamp), frames_per_region, prefer=used)
        used.update(stamps)
        chosen.append(Look(look.region_id, look.label, tuple(by_stamp[s] for s in stamps)))
    frames = tuple(frame for frame in view.frames if frame.stamp_ns in used)
    return Clip(camera, frames, tuple(chosen), *window_ns)


def wanted(query: Query) -> tuple[str, ...]:
    """Return the ids a query speaks of; none means all of the camera."""
    given = (region.region_id for region in query.regions)
    return tuple(dict.fromkeys([*query.region_ids, *given, *names_in(query.text)]))


@dataclass(frozen=True, slots=True)
class Binder:
    """Find out what a query means.

    Attributes:
        camera: Name of the camera it is about.
        view: The frames in its buffer.
        store: The regions it knows.
        frames_per_region: How many frames of a region the model wants.
        window_ns: How far back to look when the query does not say.
        tolerance_ns: How far a region's stamp may be from that of a kept frame.
        pending_ns: How far ahead of the newest frame a query may be.
    """

    camera: str
    view: FrameView
    store: RegionStore
    frames_per_region: int
    window_ns: int
    tolerance_ns: int
    pending_ns: int

    def waits(self, query: Query) -> bool:
        """Return whether an image the query speaks of is still to come.

        Raises:
            PixelReferError: NO_FRAMES or BAD_STAMP when it cannot come.
        """
        newest_ns = self._newest_ns()
        self._check_stamps(query, newest_ns)
        if max([query.stamp_ns, *(region.stamp_ns for region in query.regions)]) > newest_ns:
            return True
        if query.task == Task.GROUND:
            return False  # it is about no region
        known = set(self.store.ids())
        unseen = set(self.store.pending_ids()) - known
        ids = wanted(query)
        return bool(unseen & set(ids)) if ids else bool(unseen) and not known

    def clip(self, query: Query, guests: Guests | None = None) -> Clip:
        """Return what a query looks at, as far as the images are there.

        Args:
            query: The query.
            guests: What a tracker saw of the regions that come with it.

        Raises:
            PixelReferError: NO_FRAMES, BAD_STAMP, UNKNOWN_REGION, BAD_REGION or BAD_REQUEST.
        """
        start_ns, end_ns = self.window(query)
        looks = self._looks(query, end_ns, end_ns - start_ns, guests)
        return make_clip(
            self.camera, self.view, looks, self.frames_per_region, (start_ns, end_ns)
        )

    def video(self, query: Query) -> Clip:
        """Return all frames of the window of a query, without regions.

        Raises:
            PixelReferError: NO_FRAMES or BAD_STAMP.
        """
        start_ns, end_ns = self.window(query)
        frames = self.view.between(start_ns, end_ns)
        if not frames:
            raise PixelReferError(ErrorCode.NO_FRAMES, 'the window of the question has no image')
        return Clip(self.camera, tuple(frames), (), start_ns, end_ns)

    def window(self, query: Query) -> tuple[int, int]:
        """Return the start and end of the time a query is about.

        Raises:
            PixelReferError: NO_FRAMES or BAD_STAMP.
        """
        newest_ns = self._newest_ns()
        self._check_stamps(query, newest_ns)
        # A time within the tolerance before the oldest image means that image.
        end_ns = max(min(query.stamp_ns or newest_ns, newest_ns), self.view.stamps_ns[0])
        window_ns = round(query.window_s * NS_PER_S) if query.window_s > 0 else self.window_ns
        return end_ns - window_ns, end_ns

    def region_clip(self, region_id: str) -> Clip | None:
        """Return what a description of a known region looks at; None when its images are gone.

        The window reaches back from the newest observation.
        """
        observations = self.store.observations(region_id)
        if not observations:
            return None
        end_ns = observations[-1].stamp_ns
        seen = look_back(observations, end_ns, self.window_ns)
        look = Look(region_id, self.store.region(region_id).label, seen)
        window = (end_ns - self.window_ns, end_ns)
        return make_clip(self.camera, self.view, [look], self.frames_per_region, window)

    def _newest_ns(self) -> int:
        newest = self.view.newest()
        if newest is None:
            raise PixelReferError(
                ErrorCode.NO_FRAMES,
                'no image has come from the camera yet; is it running, and its topic right?',
            )
        return newest.stamp_ns

    def _check_stamps(self, query: Query, newest_ns: int) -> None:
        if query.stamp_ns:
            ahead_ns = query.stamp_ns - newest_ns
            if ahead_ns > self.pending_ns:
                raise PixelReferError(
                    ErrorCode.BAD_STAMP,
                    f'the question is about a time {ahead_ns / NS_PER_S:.3f} s after the newest '
                    'image; stamp 0 means the newest image',
                )
            behind_ns = self.view.stamps_ns[0] - query.stamp_ns
            if behind_ns > self.tolerance_ns:
                raise PixelReferError(
                    ErrorCode.BAD_STAMP,
                    f'the question is about a time {behind_ns / NS_PER_S:.3f} s before the oldest '
                    'image in the buffer; ask earlier, or raise the buffer window',
                )
        for region in query.regions:
            if region.stamp_ns:
                check_not_ahead(region.region_id, region.stamp_ns, newest_ns, self.pending_ns)

    def _looks(
        self, query: Query, end_ns: int, window_ns: int, guests: Guests | None
    ) -> list[Look]:
        ids = wanted(query)
        given: dict[str, list[Region]] = {}
        for region in query.regions:
            given.setdefault(region.region_id, []).append(region)
        if ids:
            return [
                self._look(region_id, given, query.region_ids, end_ns, window_ns, guests)
                for region_id in ids
            ]
        looks = [
            Look(region_id, self.store.region(region_id).label, seen)
            for region_id in self.store.ids()
            if (seen := look_back(self.store.observations(region_id), end_ns, window_ns))
        ]
        if not looks:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                'no region is known at that time; send a region with the question, or add one '
                'first',
            )
        return looks

    def _look(
        self,
        region_id: str,
        given: dict[str, list[Region]],
        listed: Sequence[str],
        end_ns: int,
        window_ns: int,
        guests: Guests | None,
    ) -> Look:
        """Return what was seen of one region until the end of the window."""
        regions = given.get(region_id, [])
        seen: dict[int, Observation] = {}
        label = regions[-1].label if regions else ''
        if not regions or (region_id in listed and region_id in self.store.ids()):
            known = self._known(region_id)
            seen = {one.stamp_ns: one for one in known if one.stamp_ns <= end_ns}
            label = label or self.store.region(region_id).label
        if guests is not None:
            for one in guests.tracked(region_id):
                seen.setdefault(one.stamp_ns, one)
        for region in regions:
            new = self.given(region, end_ns)
            old = seen.get(new.stamp_ns)
            if old is not None and guests is not None and guests.roughly:
                continue
            if old is None or old.tracked or new.offset_ns <= old.offset_ns:
                seen[new.stamp_ns] = new
        # A region that comes with the question may sit on a frame just after its time.
        ordered = sorted(seen.values(), key=lambda one: one.stamp_ns)
        late_ns = self.tolerance_ns if regions else 0
        if guests is not None:
            window_ns += late_ns  # its first frame is not to be left out for that
        past = look_back(ordered, end_ns + late_ns, window_ns)
        if not past:
            raise PixelReferError(
                ErrorCode.BAD_STAMP,
                f"region '{region_id}' was first seen after the time the question is about",
            )
        return Look(region_id, label, past)

    def _known(self, region_id: str) -> tuple[Observation, ...]:
        if region_id not in self.store.ids():
            if region_id in self.store.pending_ids():
                raise PixelReferError(
                    ErrorCode.BAD_STAMP, f"the image of region '{region_id}' has not come"
                )
            names = ', '.join(self.store.ids()) or 'none'
            raise PixelReferError(
                ErrorCode.UNKNOWN_REGION,
                f"region '{region_id}' is not known; known are: {names}",
            )
        seen = self.store.observations(region_id)
        if not seen:
            raise PixelReferError(
                ErrorCode.NO_FRAMES, f"the images of region '{region_id}' have left the buffer"
            )
        return seen

    def given(self, region: Region, end_ns: int) -> Observation:
        """Return what a region that comes with the question says about its frame.

        Args:
            region: The region; with stamp 0 it means the last image by the end.
            end_ns: End of the window.

        Raises:
            PixelReferError: BAD_REGION, BAD_STAMP or NO_FRAMES.
        """
        if not region.region_id:
            raise PixelReferError(ErrorCode.BAD_REGION, 'a region needs a region_id')
        frame = (
            match_frame(region, self.view, self.tolerance_ns)
            if region.stamp_ns
            else self.view.at_or_before(end_ns) or self.view.frames[0]
        )
        if frame is None:
            raise PixelReferError(ErrorCode.NO_FRAMES, 'no image has come from the camera yet')
        return observe(region, frame)
