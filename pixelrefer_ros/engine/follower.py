# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow the regions of one camera: through new frames, and through those there are already."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import ErrorCode, PixelReferError, RegionKind
from pixelrefer_ros.engine.faults import Faults, words
from pixelrefer_ros.engine.pursuit import Prompt, Pursuit, Way
from pixelrefer_ros.engine.sightings import judge, take_over

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Frame, Track
    from pixelrefer_ros.core.video_buffer import FrameView
    from pixelrefer_ros.engine.cameras import Camera
    from pixelrefer_ros.engine.ledger import Ledger
    from pixelrefer_ros.engine.sightings import Find, Followed

# Live, this many frames may wait for the tracker before it begins to leave some out.
_BACKLOG_FRAMES = 4
# Regions started, or frames gone through by a pursuit, between two frames of the camera. More
# than one, or a pursuit would never catch up with a tracker that is busy all the time.
_SLICE = 3


class Follower:
    """Follow the regions of one camera.

    The tracker goes through the kept frames in order. A region given in the frame it has come
    to is started there. One given in an older frame is started on a fork, which goes up to the
    tracker and is handed over; another fork goes back from there to fill in the window. Forks
    advance a few frames at a time, between the frames of the tracker.

    The ledger is what it shares with other threads, under the engine's lock; the rest belongs
    to the thread that calls ``work``. What comes of frames or regions that have been forgotten
    meanwhile is not entered: the generation tells of frames, the life of regions.
    """

    def __init__(
        self,
        camera: Camera,
        ledger: Ledger,
        make_tracker: Callable[[], RegionTracker],
        lock: threading.Lock,
        report: Callable[[str], None],
        emit: Callable[[Frame, tuple[Track, ...]], None],
    ) -> None:
        """Start without frames and regions.

        Args:
            camera: Its frames are followed, and its store is told.
            ledger: Where regions come from, and what is found goes.
            make_tracker: Makes the tracker when there is something to follow.
            lock: The engine's.
            report: Gets a sentence about everything that failed.
            emit: Gets a frame and the tracks in it, without the lock held.
        """
        self._camera = camera
        self._store = camera.store
        self._ledger = ledger
        self._make_tracker = make_tracker
        self._lock = lock
        self._emit = emit
        self._mine = 0  # the generation the following belong to
        self._root: RegionTracker | None = None  # follows nothing, only forked
        self._tracker: RegionTracker | None = None  # None when there is nothing to follow
        self._at: Frame | None = None  # the frame the tracker has seen last
        self._followed: dict[str, Followed] = {}
        self._orphans: dict[str, int] = {}  # lives of regions whose tracker has failed
        self._unusable: set[int] = set()  # stamps of frames that a tracker has failed on
        self._faults = Faults(report)
        self._news = False  # whether there are tracks that have not been given out

    def work(self, *, live: bool) -> bool:
        """Do a little of what there is to do; return False when there is nothing.

        Args:
            live: Leave frames out when too many wait.
        """
        with self._lock:
            if self._mine != self._ledger.generation:
                self._begin_anew()
            gone = [
                i for i, one in self._followed.items() if self._store.life(i) != one.life
            ]
        self._let_go(gone)
        started = 0
        while started < _SLICE and self._start_next():
            started += 1
        with self._lock:
            frame = self._next_frame(live) if self._mine == self._ledger.generation else None
        if frame is not None:
            self._publish()  # of the frame before
            self._go_through(frame)
        pursued = 0
        while pursued < _SLICE and self._pursue():
            pursued += 1
        # What is started in one frame, perhaps in several slices, is given out together.
        if frame is not None or started < _SLICE:
            self._publish()
        self._faults.flush()
        return frame is not None or bool(started or pursued)

    def _publish(self) -> None:
        """Give out the tracks in the frame the tracker has come to, if there are new ones."""
        with self._lock:
            news, self._news = self._news, False
            here, tracks = self._ledger.here, self._ledger.tracks()
            if self._mine != self._ledger.generation:
                return
        if news and here is not None:
            self._emit(here, tracks)

    def _begin_anew(self) -> None:
        self._mine = self._ledger.generation
        self._news = False
        self._tracker = self._at = None
        self._followed.clear()
        self._orphans.clear()
        self._unusable.clear()
        self._faults.clear()

    def _next_frame(self, live: bool) -> Frame | None:
        newest_ns = self._camera.newest_ns()
        if newest_ns is None or newest_ns <= self._ledger.here_ns:
            return None
        waiting = self._camera.buffer.view().between(self._ledger.here_ns + 1, newest_ns)
        return waiting[len(waiting) // _BACKLOG_FRAMES if live else 0]

    def _let_go(self, region_ids: list[str]) -> None:
        """Stop following regions that are not known any more."""
        try:
            for region_id in region_ids:
                del self._followed[region_id]
                if self._tracker is not None:
                    self._tracker.remove(region_id)
        except Exception as error:
            self._tracker_failed(error)
        if self._tracker is not None and not self._tracker.region_ids:
            self._tracker = None

    def _go_through(self, frame: Frame) -> None:
        """Take the tracker to the next frame of the camera."""
        finds: list[Find] = []
        took_s: float | None = None
        if self._tracker is not None:
            try:
                began_s = time.perf_counter()
                sightings = self._tracker.step(frame)
                took_s = time.perf_counter() - began_s
                finds = judge(sightings, frame, self._followed, took_s)
                self._at = frame
            except Exception as error:
                self._unusable.add(frame.stamp_ns)
                self._tracker_failed(error)
        self._faults.frame()
        with self._lock:
            if self._mine != self._ledger.generation:
                return
            self._ledger.went_through(frame, took_s)
            view = self._camera.buffer.view()
            self._unusable = {s for s in self._unusable if s >= view.stamps_ns[0]}
            self._ledger.enter(frame, finds, self._followed)
            for find in finds:
                self._ledger.show(find, self._followed[find.region_id], frame)
            self._rebuild(view)
        self._news = True

    def _start_next(self) -> bool:
        """Start the next region on the tracker; return False when none is to be started there.

        Those that were given in older frames become pursuits.
        """
        with self._lock:
            if self._mine != self._ledger.generation:
                return False
            here = self._ledger.here
            free = self._tracker is None or self._at is here
            prompt, missed = self._ledger.next_prompt(free=free)
        for one in missed:
            self._not_started(one, '', 'its image has left the buffer')
        if prompt is None or here is None:
            return False
        followed = self._followed.get(prompt.region_id)
        if followed is None or followed.life != prompt.life:
            followed = prompt.followed()
        finds: list[Find] = []
        fill: Prompt | None = None
        try:
            if self._tracker is None:
                self._tracker = self._fork()
            self._at = here
            sighting = self._tracker.start(here, prompt.region)
            self._followed[prompt.region_id] = followed
            finds = judge([sighting], here, {prompt.region_id: followed})
            fill = prompt.as_seen(sighting)
        except Exception as error:
            self._not_started(prompt, '', error)
            if not _is_about_region(error):
                self._tracker_failed(error)
            self._let_go([])
        with self._lock:
            if self._ledger.prompts.get((prompt.region_id, prompt.stamp_ns)) is prompt:
                del self._ledger.prompts[prompt.region_id, prompt.stamp_ns]
            if self._mine != self._ledger.generation:
                return True
            self._ledger.enter(here, finds, self._followed)
            for find in finds:
                self._ledger.overtake(find.region_id)
                self._ledger.show(find, followed, here)
                self._news = True
            if fill is not None:
                self._ledger.pursue(Way.BACK, fill, here)
        return True

    def _pursue(self) -> bool:
        """Take one pursuit one step further; return False when none can go on now."""
        with self._lock:
            if self._mine != self._ledger.generation:
                return False
            before = len(self._ledger.pursuits)
            top = None if self._tracker is None else self._at
            pursuit, frame = self._ledger.next_pursuit(top, self._unusable)
            if pursuit is None:
                return len(self._ledger.pursuits) < before
        prompt = pursuit.next_prompt()
        try:
            pursuit.tidy()
            if prompt is not None:
                self._start_pursuit(pursuit, prompt)
            elif frame is not None:
                self._step_pursuit(pursuit, frame)
            else:
                self._hand_over(pursuit)
        except Exception as error:
            if prompt is None and frame is not None:
                self._unusable.add(frame.stamp_ns)
            self._give_up(pursuit, error)
        return True

    def _start_pursuit(self, pursuit: Pursuit, prompt: Prompt) -> None:
        frame = pursuit.at
        try:
            if pursuit.tracker is None:
                pursuit.tracker = self._fork()
            sighting = pursuit.tracker.start(frame, prompt.region)
            finds = judge([sighting], frame, pursuit.regions)
            fill = prompt.as_seen(sighting) if pursuit.way is Way.UP and prompt.fills else None
        except Exception as error:
            self._not_started(prompt, f' {pursuit.way.value}', error)
            with self._lock:
                pursuit.regions.pop(prompt.region_id, None)
            if not _is_about_region(error):
                pursuit.start_over()
            return
        pursuit.waiting.remove(prompt)
        pursuit.started.append(prompt)
        with self._lock:
            if self._mine == self._ledger.generation:
                self._ledger.enter(frame, finds, pursuit.regions, pursuit.book)
                if fill is not None:
                    self._ledger.pursue(Way.BACK, fill, frame)

    def _step_pursuit(self, pursuit: Pursuit, frame: Frame) -> None:
        assert pursuit.tracker is not None
        began_s = time.perf_counter()
        sightings = pursuit.tracker.step(frame)
        finds = judge(sightings, frame, pursuit.regions, time.perf_counter() - began_s)
        pursuit.at = frame
        with self._lock:
            if self._mine == self._ledger.generation:
                self._ledger.enter(frame, finds, pursuit.regions, pursuit.book)

    def _hand_over(self, pursuit: Pursuit) -> None:
        """Let the tracker go on with the regions of a pursuit that has come up to it."""
        assert pursuit.tracker is not None
        if self._tracker is None:
            self._tracker, self._at = pursuit.tracker, pursuit.at
        else:
            try:
                for region_id in pursuit.regions:
                    self._tracker.adopt(pursuit.tracker, region_id, pursuit.at)
            except Exception as error:
                self._tracker_failed(error)
                raise
        with self._lock:
            if self._mine != self._ledger.generation:
                return
            self._ledger.pursuits.remove(pursuit)
            here = self._ledger.here
            for region_id, followed in pursuit.regions.items():
                take_over(followed, self._followed.get(region_id))
                self._followed[region_id] = followed
                if pursuit.at is here and followed.find is not None:
                    self._ledger.show(followed.find, followed, here)
                    self._news = True

    # Failures

    def _fork(self) -> RegionTracker:
        if self._root is None:
            self._root = self._make_tracker()
        return self._root.fork()

    def _tracker_failed(self, error: Exception) -> None:
        """Let the tracker go; its regions are followed by a new one from the next frame on."""
        self._orphans.update({i: one.life for i, one in self._followed.items()})
        self._tracker = self._root = None
        self._faults.note(
            f"the tracker of camera '{self._camera.name}' failed and begins anew: {words(error)}"
        )

    def _give_up(self, pursuit: Pursuit, error: Exception) -> None:
        with self._lock:
            if pursuit in self._ledger.pursuits:
                self._ledger.pursuits.remove(pursuit)
        if pursuit.way is Way.UP:
            self._orphans.update({i: one.life for i, one in pursuit.regions.items()})
        names = ', '.join(f"'{region_id}'" for region_id in pursuit.regions)
        self._faults.note(f'following {names} {pursuit.way.value} in time failed: {words(error)}')

    def _rebuild(self, view: FrameView) -> None:
        """Pursue the regions that lost their tracker from where they were seen last.

        The lock is held.
        """
        orphans, self._orphans = self._orphans, {}
        taken = self._ledger.catching_up()
        for region_id, life in orphans.items():
            if self._store.life(region_id) != life or region_id in taken:
                continue
            seen = [
                one
                for one in self._store.observations(region_id)
                if one.stamp_ns <= self._ledger.here_ns
            ]
            frame = view.at(seen[-1].stamp_ns) if seen else None
            if frame is None:
                self._faults.note(f"region '{region_id}' is followed no more: give it again")
                continue
            region = replace(
                self._store.region(region_id),
                kind=RegionKind.MASK,
                stamp_ns=frame.stamp_ns,
                mask=seen[-1].mask,
            )
            prompt = Prompt(region, life, frame.stamp_ns, fills=False)
            self._ledger.pursue(Way.UP, prompt, frame)

    def _not_started(self, prompt: Prompt, how: str, why: Exception | str) -> None:
        reason = words(why) if isinstance(why, Exception) else why
        self._faults.note(f"region '{prompt.region_id}' is not followed{how}: {reason}")


def _is_about_region(error: Exception) -> bool:
    """Return whether a tracker refused a region, rather than failed."""
    return isinstance(error, PixelReferError) and error.code == ErrorCode.BAD_REGION
