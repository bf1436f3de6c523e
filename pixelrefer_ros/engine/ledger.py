# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep what the threads share about following the regions of one camera."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from pixelrefer_ros.engine.guests import Guests
from pixelrefer_ros.engine.pursuit import Prompt, Pursuit, Way, join
from pixelrefer_ros.engine.sightings import changed, make_track

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pixelrefer_ros.core.regions import Observation
    from pixelrefer_ros.core.types import Frame, Region, Track
    from pixelrefer_ros.core.video_buffer import FrameView
    from pixelrefer_ros.engine.cameras import Camera
    from pixelrefer_ros.engine.guests import Book
    from pixelrefer_ros.engine.sightings import Find, Followed
    from pixelrefer_ros.engine.types import CameraStats

_PROMPTS_MAX = 1024  # that wait; the oldest gives way
_TIMINGS_KEPT = 256


class Ledger:
    """Hold the regions to be followed, how far the tracker has come, and what it found.

    Not thread-safe: whoever calls holds the engine's lock.

    Attributes:
        generation: Grows when all is forgotten; what comes of an older one is void.
        prompts: Regions to be followed, by id and stamp of the frame they were given in.
        pursuits: Those that are followed through frames the tracker has been through.
        here: The newest frame the tracker has been through; None before any.
    """

    def __init__(self, camera: Camera, window_ns: int) -> None:
        """Begin without frames and regions.

        Args:
            camera: Whose regions are followed.
            window_ns: How far back from where they were given.
        """
        self._camera = camera
        self._window_ns = window_ns
        self.generation = 0
        self.prompts: dict[tuple[str, int], Prompt] = {}
        self.pursuits: list[Pursuit] = []
        self.here: Frame | None = None
        self._tracks: dict[str, Track] = {}  # in that frame
        self._frames_tracked = 0
        self._timings_ms: deque[float] = deque(maxlen=_TIMINGS_KEPT)

    @property
    def here_ns(self) -> int:
        """Return the stamp of the newest frame the tracker has been through; -1 before any."""
        return -1 if self.here is None else self.here.stamp_ns

    def given(self, region: Region, seen: Observation, life: int) -> None:
        """Take in a region that was given in a kept frame."""
        key = (region.region_id, seen.stamp_ns)
        self.prompts[key] = Prompt(region, life, seen.stamp_ns)
        if len(self.prompts) > _PROMPTS_MAX:
            del self.prompts[next(iter(self.prompts))]

    def clear(self) -> None:
        """Forget everything: the frames and regions of the camera are forgotten."""
        self.generation += 1
        self.prompts.clear()
        self.pursuits.clear()
        self._tracks.clear()
        self.here = None

    def invite(
        self,
        regions: Sequence[tuple[Region, Observation]],
        window: FrameView,
        is_over: Callable[[], bool],
        *,
        roughly: bool = False,
    ) -> Guests:
        """Let the regions that came with a query be followed through its window.

        Args:
            regions: With what they say about their frames.
            window: The frames of the window.
            is_over: As of ``Guests``.
            roughly: As of ``Guests``.
        """
        given = ((region.region_id, seen) for region, seen in regions)
        guests = Guests(given, is_over, roughly=roughly)
        for region, seen in regions:
            frame = self._camera.buffer.view().at(seen.stamp_ns)
            life = guests.life(region.region_id)
            if frame is None or life is None or not window.frames:
                continue
            prompt = Prompt(region, life, seen.stamp_ns)
            for way in (Way.BACK, Way.FORTH):
                pursuit = Pursuit(
                    way,
                    frame,
                    book=guests,
                    first_ns=window.stamps_ns[0],
                    last=window.frames[-1],
                )
                join(self.pursuits, pursuit, prompt)
        return guests

    def owes(
        self,
        region_ids: Collection[str],
        as_of_ns: int,
        guests: Guests | None = None,
        *,
        alone: bool = False,
    ) -> bool:
        """Return whether regions are still to be followed up to a time.

        Args:
            region_ids: Which; none means all.
            as_of_ns: Image time.
            guests: Those that came with the query.
            alone: The query is about its guests alone.
        """
        if guests is not None and any(one.book is guests for one in self.pursuits):
            return True
        if alone:
            return False
        known = self._camera.store.ids()
        ids = set(known).intersection(region_ids or known)
        busy = {prompt.region_id for prompt in self.prompts.values()}
        store = self._camera.store
        busy.update(i for one in self.pursuits if one.book is store for i in one.regions)
        if ids & busy:
            return True
        frame = self._camera.buffer.view().at_or_before(as_of_ns)
        behind = frame is not None and self.here_ns < frame.stamp_ns
        return behind and not ids.isdisjoint(self._tracks)

    def catching_up(self) -> set[str]:
        """Return the regions that are on their way up to the tracker, or about to be."""
        ids = {i for one in self.pursuits if one.way is Way.UP for i in one.regions}
        return ids.union(prompt.region_id for prompt in self.prompts.values())

    def next_prompt(self, *, free: bool) -> tuple[Prompt | None, list[Prompt]]:
        """Turn prompts of older frames into pursuits.

        Args:
            free: Whether regions can be started in the newest frame the tracker has been
                through. They cannot where it has failed: a new one begins before that frame.

        Returns:
            The first prompt for that frame, which stays, and those whose frames have gone.
        """
        store, view = self._camera.store, self._camera.buffer.view()
        rising = {i for one in self.pursuits if one.way is Way.UP for i in one.regions}
        chosen: Prompt | None = None
        missed: list[Prompt] = []
        for key, prompt in list(self.prompts.items()):
            here = prompt.stamp_ns == self.here_ns
            frame = self.here if here else view.at(prompt.stamp_ns)
            given = store.at(prompt.region_id, prompt.stamp_ns)
            if store.life(prompt.region_id) != prompt.life:
                del self.prompts[key]
            elif frame is None:
                del self.prompts[key]
                missed.append(prompt)
            elif given is None or given.tracked:  # its image came, and was another one
                del self.prompts[key]
            elif prompt.stamp_ns > self.here_ns:
                continue
            elif prompt.stamp_ns < store.newest_given(prompt.region_id).stamp_ns:
                del self.prompts[key]
                self.pursue(Way.BACK, prompt, frame)
                self.pursue(Way.FORTH, prompt, frame)
            elif here:
                chosen = chosen or (prompt if free else None)
            elif prompt.region_id not in rising:
                del self.prompts[key]
                self.pursue(Way.UP, prompt, frame)
        return chosen, missed

    def pursue(self, way: Way, prompt: Prompt, frame: Frame) -> None:
        """Let a region be followed from a frame the tracker has been through already."""
        first_ns = frame.stamp_ns - self._window_ns
        pursuit = Pursuit(way, frame, book=self._camera.store, first_ns=first_ns)
        join(self.pursuits, pursuit, prompt)

    def overtake(self, region_id: str) -> None:
        """Give up catching up with a region: the tracker follows it from a newer frame."""
        for pursuit in self.pursuits:
            if pursuit.way is Way.UP:
                pursuit.regions.pop(region_id, None)

    def next_pursuit(
        self, top: Frame | None, unusable: Collection[int]
    ) -> tuple[Pursuit | None, Frame | None]:
        """Return the pursuit that goes on next and the frame it goes to, None at its end.

        Those a query waits for go first, then those that catch up. Those with nothing left to
        do are given up.

        Args:
            top: The frame the tracker has seen last; None when it follows nothing.
            unusable: Stamps of frames to pass over.
        """
        if self.here is None:
            return None, None
        view = self._camera.buffer.view()
        store = self._camera.store
        for pursuit in sorted(
            self.pursuits, key=lambda one: (one.book is store, one.way is not Way.UP)
        ):
            rises = pursuit.way is Way.UP
            end = top if rises and top is not None else self.here
            frame, book = pursuit.next_frame(view, end, unusable), pursuit.book
            for region_id, followed in list(pursuit.regions.items()):
                over = book.life(region_id) != followed.life
                if not over and not rises:
                    over = frame is None or book.at(region_id, frame.stamp_ns) is not None
                if over:
                    del pursuit.regions[region_id]
            if not pursuit.regions:
                self.pursuits.remove(pursuit)
                continue
            arrived = rises and (top is None or pursuit.at.stamp_ns == top.stamp_ns)
            if frame is not None or pursuit.next_prompt() is not None or arrived:
                return pursuit, frame
        return None, None

    def tracks(self) -> tuple[Track, ...]:
        """Return the newest track of every known region that is followed."""
        return tuple(self._tracks[i] for i in self._camera.store.ids() if i in self._tracks)

    def went_through(self, frame: Frame, took_s: float | None) -> None:
        """Note that a frame is over.

        Args:
            frame: The frame.
            took_s: How long the tracker took; None when there was nothing to follow.
        """
        self.here = frame
        self._tracks.clear()
        if took_s is not None:
            self._frames_tracked += 1
            self._timings_ms.append(took_s * 1e3)

    def enter(
        self,
        frame: Frame,
        finds: Sequence[Find],
        regions: Mapping[str, Followed],
        book: Book | None = None,
    ) -> None:
        """Enter what was found of these regions in a frame.

        Args:
            frame: The frame.
            finds: What was found.
            regions: What is remembered of them, by id.
            book: Where to enter it; None for the store of the camera.
        """
        book = book or self._camera.store
        if frame.stamp_ns not in self._camera.buffer.view():
            return
        for find in finds:
            followed = regions.get(find.region_id)
            if followed is not None and book.life(find.region_id) == followed.life:
                book.track(find.region_id, frame.stamp_ns, find.seen)

    def show(self, find: Find, followed: Followed, frame: Frame) -> None:
        """Make the track of a region in the newest frame, and see whether it changed."""
        store = self._camera.store
        if store.life(find.region_id) != followed.life:
            return
        label = store.region(find.region_id).label
        self._tracks[find.region_id] = make_track(find, followed, frame, label)
        if changed(find, followed, frame.stamp_ns):
            self._camera.plan.hasten(find.region_id)

    def with_stats(self, stats: CameraStats) -> CameraStats:
        """Return the counts of the camera with those of tracking."""
        timings = sorted(self._timings_ms)
        stamps_ns = self._camera.buffer.view().stamps_ns
        return replace(
            stats,
            frames_tracked=self._frames_tracked,
            tracking_lag_frames=sum(stamp_ns > self.here_ns for stamp_ns in stamps_ns),
            tracking_ms_p50=timings[len(timings) // 2] if timings else 0.0,
        )
