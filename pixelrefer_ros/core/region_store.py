# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Remember what was seen of each region of a camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.regions import Observation, check_not_ahead, match_frame, observe
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, Frame, PixelReferError, Region

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pixelrefer_ros.core.video_buffer import FrameView


class _Known:
    """Hold one region of the store."""

    __slots__ = ('first_ns', 'newest', 'observations', 'region')

    def __init__(self, region: Region, first: Observation) -> None:
        self.region = region
        self.first_ns = min(first.given_ns, first.stamp_ns)
        self.newest = first
        self.observations = {first.stamp_ns: first}


@dataclass(slots=True)
class _Waiting:
    """Hold a region ahead of its image, and where it is attached meanwhile."""

    region: Region
    provisional: Observation | None = None


class RegionStore:
    """Remember the regions of one camera: which frames each was seen in, and where.

    The same id given at several stamps is one region; it has at most one observation per kept
    frame, the one whose stamp is nearest to that of the frame. A region ahead of the newest
    frame waits for its image; when the newest frame is within the tolerance it is attached to
    that one meanwhile, so that a camera that stands still does not keep it waiting.

    Not thread-safe: the owner holds a lock. Time is that of the newest frame.
    """

    def __init__(
        self, *, max_regions: int, ttl_s: float, tolerance_s: float, pending_s: float
    ) -> None:
        """Set the limits.

        Args:
            max_regions: Regions known at a time. A newer region takes the place of the one
                not seen for longest.
            ttl_s: Time to live after the newest observation, for regions that do not say.
            tolerance_s: How far the stamp of a region may be from that of a kept frame.
            pending_s: How far ahead of the newest frame a region may be.
        """
        self._max_regions = max_regions
        self._ttl_ns = round(ttl_s * NS_PER_S)
        self._tolerance_ns = round(tolerance_s * NS_PER_S)
        self._pending_ns = round(pending_s * NS_PER_S)
        self._known: dict[str, _Known] = {}
        self._waiting: list[_Waiting] = []

    def add(self, region: Region, view: FrameView) -> str | None:
        """Take in a region, or let it wait for its image.

        Args:
            region: A region of this camera.
            view: The frames in the buffer.

        Returns:
            The id of the region that had to go to make room, if any.

        Raises:
            PixelReferError: BAD_REGION; BAD_STAMP when its image has gone, or is too far
                ahead; NO_FRAMES when it means the newest image and there is none; QUEUE_FULL
                when too many other regions are as new.
        """
        if not region.region_id:
            raise PixelReferError(ErrorCode.BAD_REGION, 'a region needs a region_id')
        newest = view.newest()
        if newest is None:
            if not region.stamp_ns:
                raise PixelReferError(
                    ErrorCode.NO_FRAMES,
                    f"region '{region.region_id}' means the newest image, and none has come from "
                    'the camera; is it running, and its topic right?',
                )
            self._wait(_Waiting(region))
            return None
        if region.stamp_ns <= newest.stamp_ns:
            return self._attach(region, self._frame_of(region, view), view)[1]
        check_not_ahead(region.region_id, region.stamp_ns, newest.stamp_ns, self._pending_ns)
        waiting = _Waiting(region)
        evicted = None
        if region.stamp_ns - newest.stamp_ns <= self._tolerance_ns:
            waiting.provisional, evicted = self._attach(region, newest, view)
        self._wait(waiting)
        return evicted

    def advance(self, view: FrameView, left_ns: Iterable[int] = ()) -> list[str]:
        """Follow the buffer to its newest frame.

        Args:
            view: The frames in the buffer; at least one.
            left_ns: Stamps of the frames that have left it.

        Returns:
            What was dropped and why, for the log.
        """
        problems: list[str] = []
        for stamp_ns in left_ns:
            for known in self._known.values():
                known.observations.pop(stamp_ns, None)
        newest_ns = view.stamps_ns[-1]
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            region = entry.region
            try:
                if region.stamp_ns <= newest_ns:
                    self._settle(entry, view)
                else:
                    check_not_ahead(
                        region.region_id, region.stamp_ns, newest_ns, self._pending_ns
                    )
                    self._waiting.append(entry)
            except PixelReferError as error:
                problems.append(f'region dropped: {error}')
        for region_id, known in list(self._known.items()):
            ttl_ns = (
                round(known.region.ttl_s * NS_PER_S) if known.region.ttl_s > 0 else self._ttl_ns
            )
            if newest_ns - known.newest.given_ns > ttl_ns:
                del self._known[region_id]
        return problems

    def remove(self, region_ids: Collection[str] = ()) -> list[str]:
        """Forget these regions, all when none is named; return the ids that were known."""
        wanted = set(region_ids)
        gone = [i for i in (*self._known, *self.pending_ids()) if not wanted or i in wanted]
        for region_id in gone:
            self._known.pop(region_id, None)
        self._waiting = [w for w in self._waiting if w.region.region_id not in gone]
        return list(dict.fromkeys(gone))

    def observations(self, region_id: str) -> tuple[Observation, ...]:
        """Return the observations of a region whose frames are kept, oldest first."""
        known = self._known.get(region_id)
        if known is None:
            return ()
        return tuple(sorted(known.observations.values(), key=lambda seen: seen.stamp_ns))

    def newest(self, region_id: str) -> Observation:
        """Return the newest observation of a known region, even when its frame has gone.

        Raises:
            KeyError: The region is not known.
        """
        return self._known[region_id].newest

    def first_ns(self, region_id: str) -> int:
        """Return when a known region was first seen.

        Raises:
            KeyError: The region is not known.
        """
        return self._known[region_id].first_ns

    def region(self, region_id: str) -> Region:
        """Return a known region as it was given last, with the stamp of its newest frame.

        Raises:
            KeyError: The region is not known.
        """
        known = self._known[region_id]
        return replace(known.region, stamp_ns=known.newest.stamp_ns)

    def ids(self) -> tuple[str, ...]:
        """Return the ids of the known regions in the order they first came."""
        return tuple(self._known)

    def pending_ids(self) -> tuple[str, ...]:
        """Return the ids of the observations that wait for their image."""
        return tuple(waiting.region.region_id for waiting in self._waiting)

    def pinned(self) -> set[int]:
        """Return the stamps of the frames of the newest observations, not to be thinned away."""
        return {known.newest.stamp_ns for known in self._known.values()}

    def _wait(self, waiting: _Waiting) -> None:
        """Let a region wait; the oldest gives way when too many wait, as with a dead camera."""
        self._waiting.append(waiting)
        if len(self._waiting) > 4 * self._max_regions:
            del self._waiting[0]

    def _settle(self, waiting: _Waiting, view: FrameView) -> None:
        """Attach a region whose image can no longer be ahead."""
        region, old = waiting.region, waiting.provisional
        known = self._known.get(region.region_id)
        if old is not None:
            if known is None:
                return
            frame = view.nearest(region.stamp_ns)
            if frame is None or frame.stamp_ns == old.stamp_ns:
                return
            seen = observe(region, frame)
            if known.observations.get(old.stamp_ns) is old:
                del known.observations[old.stamp_ns]
            self._enter(known, seen)
            return
        self._attach(region, self._frame_of(region, view), view)

    def _frame_of(self, region: Region, view: FrameView) -> Frame:
        """Return the kept frame a region speaks of."""
        frame = match_frame(region, view, self._tolerance_ns)
        if frame is None:
            raise PixelReferError(ErrorCode.NO_FRAMES, 'no image has come from the camera')
        return frame

    def _attach(
        self, region: Region, frame: Frame, view: FrameView
    ) -> tuple[Observation, str | None]:
        """Enter what a region says about a frame; return it and the id that made room."""
        seen = observe(region, frame)
        known = self._known.get(region.region_id)
        evicted = None
        if known is None:
            evicted = self._make_room(seen, region.region_id)
            self._known[region.region_id] = _Known(region, seen)
        else:
            if seen.given_ns >= known.newest.given_ns:
                known.region = region
            self._enter(known, seen)
        return seen, evicted

    def _enter(self, known: _Known, seen: Observation) -> None:
        old = known.observations.get(seen.stamp_ns)
        if old is not None and old.offset_ns < seen.offset_ns:
            return
        known.observations[seen.stamp_ns] = seen
        known.first_ns = min(known.first_ns, seen.given_ns, seen.stamp_ns)
        if seen.given_ns >= known.newest.given_ns or known.newest is old:
            known.newest = seen

    def _make_room(self, seen: Observation, region_id: str) -> str | None:
        if len(self._known) < self._max_regions:
            return None
        stalest = min(self._known, key=lambda i: self._known[i].newest.given_ns)
        if self._known[stalest].newest.given_ns >= seen.given_ns:
            raise PixelReferError(
                ErrorCode.QUEUE_FULL,
                f"region '{region_id}': {self._max_regions} regions as new as this are known "
                'already; remove some, or raise max_regions',
            )
        del self._known[stalest]
        return stalest
