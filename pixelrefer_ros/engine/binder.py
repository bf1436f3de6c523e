# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find out what a query or a description looks at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.regions import check_not_ahead, match_frame, observe
from pixelrefer_ros.core.sampling import spread
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, PixelReferError, Task
from pixelrefer_ros.engine.clips import Clip, Look, look_back, make_clip
from pixelrefer_ros.engine.texts import names_in

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pixelrefer_ros.core.region_store import RegionStore
    from pixelrefer_ros.core.regions import Observation
    from pixelrefer_ros.core.types import Query, Region
    from pixelrefer_ros.core.video_buffer import FrameView
    from pixelrefer_ros.engine.guests import Guests


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
        needs_regions: Whether it takes no question about the video as a whole.
        window_ns: How far back to look when the query does not say.
        tolerance_ns: How far a region's stamp may be from that of a kept frame.
        pending_ns: How far ahead of the newest frame a query may be.
        ahead_ns: Stamps of frames the describer has seen already; better than their neighbours.
    """

    camera: str
    view: FrameView
    store: RegionStore
    frames_per_region: int
    needs_regions: bool
    window_ns: int
    tolerance_ns: int
    pending_ns: int
    ahead_ns: Collection[int]

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
        if not looks:
            return self._whole(query)
        return self._of_looks(looks, (start_ns, end_ns))

    def video(self, query: Query) -> Clip:
        """Return all frames of the window of a query, without regions.

        When there are none in it, the window reaches back from the newest frame before it
        instead, as with ``look_back``.

        Raises:
            PixelReferError: NO_FRAMES or BAD_STAMP.
        """
        start_ns, end_ns = self.window(query)
        last = self.view.at_or_before(end_ns)
        assert last is not None  # no window ends before the oldest frame
        if last.stamp_ns < start_ns:
            start_ns, end_ns = start_ns + last.stamp_ns - end_ns, last.stamp_ns
        frames = self.view.between(start_ns, end_ns)
        return Clip(self.camera, frames, (), start_ns, end_ns)

    def _whole(self, query: Query) -> Clip:
        """Return some frames of the window of a query that is about no region.

        As many as the model wants of a region, spread over time, the newest always in.

        Raises:
            PixelReferError: NO_FRAMES, or BAD_REQUEST when the model sees regions alone.
        """
        if self.needs_regions or query.task == Task.DESCRIBE:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                'no region is known at that time; send a region with the question, or add one '
                'first' + ('' if self.needs_regions else ', or ask about the whole image (ASK)'),
            )
        video = self.video(query)
        stamps = spread(video.stamps_ns, self.frames_per_region, prefer=self.ahead_ns)
        frames = tuple(frame for frame in video.frames if frame.stamp_ns in stamps)
        return replace(video, frames=frames)

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
        return self._of_looks([look], window)

    def _of_looks(self, looks: Sequence[Look], window_ns: tuple[int, int]) -> Clip:
        return make_clip(
            self.camera, self.view, looks, self.frames_per_region, window_ns, self.ahead_ns
        )

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
        return [
            Look(region_id, self.store.region(region_id).label, seen)
            for region_id in self.store.ids()
            if (seen := look_back(self.store.observations(region_id), end_ns, window_ns))
        ]

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
                if self.view.at(one.stamp_ns) is not None:  # it may have left the buffer since
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
