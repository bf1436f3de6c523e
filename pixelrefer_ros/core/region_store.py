# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Remember what was seen of each region of a camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.regions import Observation, check_not_ahead, match_frame, observe
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, Frame, PixelReferError, Region

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from pixelrefer_ros.core.types import Box
    from pixelrefer_ros.core.video_buffer import FrameView

# A given box that overlaps the tracked one less than this says that the tracker was elsewhere.
# A detector's box around the whole of a thing that is half hidden overlaps more.
_CONTRADICTS_IOU = 0.3


class _Known:
    """Hold one region of the store; ``newest`` is given, ``seen`` given or tracked."""

    __slots__ = ('first_ns', 'life', 'newest', 'observations', 'region', 'seen')

    def __init__(self, region: Region, first: Observation, life: int) -> None:
        self.region = region
        self.first_ns = min(first.given_ns, first.stamp_ns)
        self.newest = self.seen = first
        self.observations = {first.stamp_ns: first}
        self.life = life

    def enter(self, seen: Observation) -> None:
        """Enter an observation, and keep the newest up to date."""
        self.observations[seen.stamp_ns] = seen
        if seen.given_ns >= self.seen.given_ns or seen.stamp_ns == self.seen.stamp_ns:
            self.seen = seen

    def take_back(self, stamps_ns: Iterable[int]) -> None:
        """Remove observations that turned out wrong."""
        for stamp_ns in stamps_ns:
            if self.observations.pop(stamp_ns, None) is self.seen:
                kept = self.observations.values()
                self.seen = max(kept, key=lambda one: one.given_ns, default=self.newest)


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

    A tracker adds what it sees in the other frames. What was given of a frame stands over what
    was tracked; when the two are far apart, the tracked observations around it are taken back,
    to the next given ones.

    Not thread-safe: the owner holds a lock. Time is that of the newest frame.
    """

    def __init__(
        self,
        *,
        max_regions: int,
        ttl_s: float,
        tolerance_s: float,
        pending_s: float,
        on_given: Callable[[Region, Observation, int], None] | None = None,
    ) -> None:
        """Set the limits.

        Args:
            max_regions: Regions known at a time. A newer region takes the place of the one
                not seen for longest.
            ttl_s: Time to live after the newest observation, for regions that do not say.
            tolerance_s: How far the stamp of a region may be from that of a kept frame.
            pending_s: How far ahead of the newest frame a region may be.
            on_given: Told of every given observation that is entered: the region, what was
                made of it, and the region's ``life``.
        """
        self._max_regions = max_regions
        self._ttl_ns = round(ttl_s * NS_PER_S)
        self._tolerance_ns = round(tolerance_s * NS_PER_S)
        self._pending_ns = round(pending_s * NS_PER_S)
        self._on_given = on_given
        self._lives = 0
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
            if newest_ns - known.seen.given_ns > ttl_ns:
                del self._known[region_id]
        return problems

    def track(self, region_id: str, stamp_ns: int, seen: Observation | None) -> None:
        """Enter what a tracker saw of a known region in a kept frame.

        Args:
            region_id: The region.
            stamp_ns: Stamp of the frame, which must be in the buffer.
            seen: Where it is; None when it is not seen, which takes back what was tracked there
                before.

        Raises:
            KeyError: The region is not known.
        """
        known = self._known[region_id]
        old = known.observations.get(stamp_ns)
        if old is not None and not old.tracked:
            return
        if seen is not None:
            known.enter(seen)
        elif old is not None:
            known.take_back([stamp_ns])

    def life(self, region_id: str) -> int | None:
        """Return a number that no other region has or had, not even of the same id.

        None when the region is not known.
        """
        known = self._known.get(region_id)
        return None if known is None else known.life

    def at(self, region_id: str, stamp_ns: int) -> Observation | None:
        """Return the observation of a region in one frame; None when there is none."""
        known = self._known.get(region_id)
        return None if known is None else known.observations.get(stamp_ns)

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
        return self._known[region_id].seen

    def newest_given(self, region_id: str) -> Observation:
        """Return the newest observation of a known region that was given, not tracked.

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
        """Return a known region as it was given last, with the stamp of that frame.

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
        return {known.seen.stamp_ns for known in self._known.values()}

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
            self._enter(known, region, seen)
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
            self._lives += 1
            known = _Known(region, seen, self._lives)
            self._known[region.region_id] = known
            self._tell(known, region, seen)
        else:
            if seen.given_ns >= known.newest.given_ns:
                known.region = region
            self._enter(known, region, seen)
        return seen, evicted

    def _enter(self, known: _Known, region: Region, seen: Observation) -> None:
        old = known.observations.get(seen.stamp_ns)
        if old is not None:
            if not old.tracked and old.offset_ns < seen.offset_ns:
                return
            if old.tracked and _iou(old.box, seen.box) < _CONTRADICTS_IOU:
                known.take_back(_tracked_around(known, seen.stamp_ns))
        known.enter(seen)
        known.first_ns = min(known.first_ns, seen.given_ns, seen.stamp_ns)
        if seen.given_ns >= known.newest.given_ns or known.newest is old:
            known.newest = seen
        self._tell(known, region, seen)

    def _tell(self, known: _Known, region: Region, seen: Observation) -> None:
        if self._on_given is not None:
            self._on_given(region, seen, known.life)

    def _make_room(self, seen: Observation, region_id: str) -> str | None:
        if len(self._known) < self._max_regions:
            return None
        older = [i for i, one in self._known.items() if one.newest.given_ns < seen.given_ns]
        if not older:
            raise PixelReferError(
                ErrorCode.QUEUE_FULL,
                f"region '{region_id}': {self._max_regions} regions as new as this are known "
                'already; remove some, or raise max_regions',
            )
        stalest = min(older, key=lambda i: self._staleness(self._known[i]))
        del self._known[stalest]
        return stalest

    @staticmethod
    def _staleness(known: _Known) -> tuple[int, int]:
        return known.seen.given_ns, known.newest.given_ns


def _iou(one: Box, other: Box) -> float:
    """Return the overlap of two boxes, as a part of what they cover together."""
    width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    both = max(0, width) * max(0, height)
    return both / (one.width * one.height + other.width * other.height - both)


def _tracked_around(known: _Known, stamp_ns: int) -> list[int]:
    """Return the stamps of the tracked observations from the given one before to the one after."""
    given = [one.stamp_ns for one in known.observations.values() if not one.tracked]
    start_ns = max((s for s in given if s < stamp_ns), default=-1)
    end_ns = min((s for s in given if s > stamp_ns), default=None)
    return [
        one.stamp_ns
        for one in known.observations.values()
        if one.tracked
        and start_ns < one.stamp_ns
        and (end_ns is None or one.stamp_ns < end_ns)
    ]
