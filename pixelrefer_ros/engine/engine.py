# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take in frames, regions and queries from any thread, and give out words."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.scheduler import Scheduler
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, PixelReferError, Task
from pixelrefer_ros.engine.ahead import Ahead
from pixelrefer_ros.engine.cameras import Cameras
from pixelrefer_ros.engine.desk import Desk
from pixelrefer_ros.engine.following import Following
from pixelrefer_ros.engine.jobs import check_task
from pixelrefer_ros.engine.outbox import Outbox
from pixelrefer_ros.engine.results import failed_answer
from pixelrefer_ros.engine.runner import Runner
from pixelrefer_ros.engine.statistics import collect
from pixelrefer_ros.engine.supply import Supply
from pixelrefer_ros.engine.types import QueryHandle
from pixelrefer_ros.engine.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.scheduler import Ticket
    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Answer, Description, Frame, Query, Region, Track
    from pixelrefer_ros.engine.cameras import Camera
    from pixelrefer_ros.engine.grounding import Grounder
    from pixelrefer_ros.engine.jobs import Job
    from pixelrefer_ros.engine.types import EngineConfig, EngineStats

_log = logging.getLogger(__name__)


class Engine(Views):
    """Keep the video, follow and describe regions as they come, and answer queries.

    Inputs may come from any thread and return quickly. Between ``start`` and ``stop`` (live) the
    models run in one thread, the trackers in another, and a remote grounder is waited for in a
    third; or all runs in that of the caller of ``step`` (lock-step). With a clock that follows
    the bag and ``record_timings=False``, equal inputs and steps give equal results.

    Every submitted query gets exactly one answer. Callbacks are called without locks held,
    from those threads or from the thread whose call ended the query; what they raise is
    reported through ``on_problem``.

    With a tracker a region is followed from where it was given: forward until it is removed or
    was not seen for its time to live, and back to the start of the window. What the tracker
    sees counts as if it had been given for those frames; what is given again corrects it.

    The time of a camera is the stamp of its newest kept frame, so that it makes no difference
    whether frames that ``wants`` refuses are offered or not.
    """

    def __init__(
        self,
        describer: RegionDescriber,
        config: EngineConfig,
        *,
        on_description: Callable[[Description], None],
        on_answer: Callable[[Answer], None],
        make_tracker: Callable[[], RegionTracker] | None = None,
        grounder: Grounder | None = None,
        on_tracks: Callable[[Frame, tuple[Track, ...]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_problem: Callable[[str], None] = _log.warning,
    ) -> None:
        """Join the parts; nothing runs yet.

        Args:
            describer: Called from one thread at a time.
            config: The settings.
            on_description: Gets every description.
            on_answer: Gets the answers to queries submitted without an ``on_answer`` of their
                own.
            make_tracker: Makes what follows the regions of one camera; called again when one
                has failed. None: regions are only where they are given.
            grounder: Finds what GROUND queries speak of, one at a time; in the thread of the
                describer, with which it shares the device, unless it is remote. None: they are
                refused.
            on_tracks: Gets every kept frame of a camera once the tracker has been through it,
                with the tracks of the regions it follows in the order they came. When regions
                are given for that frame or catch up with it later, it comes again. Frames may
                be left out live when the tracker is too slow.
            clock: Steady seconds, for deadlines and timings.
            on_problem: Gets a sentence about everything that was dropped or failed.
        """
        self._config = config
        self._on_answer = on_answer
        self._clock = clock
        # Guards the cameras and the desk. Taken before the scheduler's and the buffers' own
        # locks; never held while a callback or the model runs.
        super().__init__(Cameras(config), threading.Lock())
        self._scheduler: Scheduler[Job] = Scheduler(config.queue_size)
        self._outbox = Outbox(on_description, on_problem)
        self._desk = Desk(
            config,
            self._cameras,
            self._scheduler,
            describer,
            clock,
            self._outbox.count_dropped,
            searches_apart=grounder is not None and grounder.remote,
        )
        self._following = Following(
            self._cameras.choose(None),
            make_tracker,
            self._lock,
            self._outbox,
            round(config.window_s * NS_PER_S),
            on_tracks,
            self._tracked,
        )
        ahead = Ahead(
            self._cameras.choose(None),
            config.look_ahead,
            round(config.window_s * NS_PER_S),
            describer.frames_per_region,
            describer.vision_stats,
            self._desk.will_ask,
        )
        supply = Supply(
            self._cameras,
            self._desk,
            ahead,
            self._following,
            self._scheduler,
            self._outbox,
            self._lock,
        )
        self._runner = Runner(
            describer, grounder, config, self._scheduler, self._outbox, clock, supply
        )
        self._describer = describer
        self._grounds = grounder is not None

    # Frames and regions

    def add_frame(self, frame: Frame) -> bool:
        """Take in a frame; return whether it was kept.

        A frame more than half a second older than the newest means that time jumped back; one
        less late is passed over. After a jump the frames and regions of that
        camera are forgotten, its open queries end with CLOCK_JUMP, and the frame is the first
        of a new time. The picture of a kept frame becomes read-only.

        Raises:
            PixelReferError: UNKNOWN_CAMERA; BAD_REQUEST when it is no (H, W, 3) uint8 picture.
        """
        camera, frame = self._cameras.admit(frame)
        jumped = f"the time of camera '{camera.name}' jumped back"
        ended: list[Ticket[Job]] = []
        unbound: list[tuple[Ticket[Job], PixelReferError]] = []
        with self._lock:
            camera.frames_in += 1
            went_back = camera.goes_back(frame.stamp_ns)
            if went_back:
                camera.jumps += 1
                ended = self._clear([camera], ErrorCode.CLOCK_JUMP, jumped)
            kept, problems = camera.keep(frame)
            if kept:
                unbound = self._desk.bind_held(camera)
                self._desk.queue_due(camera)
        self._wake()
        if went_back:
            self._outbox.problem(f'{jumped}: its frames and regions are forgotten')
        self._outbox.problem(*problems)
        self._outbox.fail(ended, ErrorCode.CLOCK_JUMP, jumped)
        self._outbox.refuse(unbound)
        return kept

    def wants(self, camera: str, stamp_ns: int) -> bool:
        """Return whether ``add_frame`` would keep a frame, so that it need not be decoded.

        True for an unknown camera: ``add_frame`` says what is wrong.
        """
        try:
            state = self._cameras.find(camera)
        except PixelReferError:
            return True
        with self._lock:
            return state.wants(stamp_ns)

    def add_regions(self, regions: Sequence[Region]) -> list[PixelReferError | None]:
        """Take in observations of regions.

        Returns:
            One outcome per region, in order: None when it was taken in or waits for its image,
            else why not.
        """
        with self._lock:
            outcomes, problems, cameras = self._cameras.add_regions(regions)
            for camera in cameras:
                self._desk.queue_due(camera)
        self._wake()
        self._outbox.problem(*problems)
        return outcomes

    def remove_regions(
        self, region_ids: Sequence[str] = (), camera: str | None = None
    ) -> list[str]:
        """Forget regions and end their descriptions; queries that are under way go on.

        Args:
            region_ids: Which; none means all.
            camera: Of which camera; None means all, '' the only or first.

        Returns:
            The ids that were known.

        Raises:
            PixelReferError: UNKNOWN_CAMERA.
        """
        removed: list[str] = []
        cameras = self._cameras.choose(camera)
        with self._lock:
            for state in cameras:
                gone = state.store.remove(region_ids)
                removed += gone
                self._desk.forget(state, gone)
        return list(dict.fromkeys(removed))

    # Queries

    def submit(
        self,
        query: Query,
        *,
        on_answer: Callable[[Answer], None] | None = None,
        on_progress: Callable[[str, str, int], None] | None = None,
    ) -> QueryHandle:
        """Take in a query; it gets exactly one answer, errors included.

        What it looks at is settled now, or as soon as the images have come that it or its
        regions are ahead of, and the tracker has been through those up to its time; it waits
        for them ``pending_s`` at most.

        Args:
            query: The query.
            on_answer: Gets the answer, perhaps before this returns; None for the engine's.
            on_progress: Gets (stage, text so far, jobs ahead of it); the stages are 'queued'
                and those of the describer.
        """
        if query.task == Task.GROUND and query.window_s <= 0:
            query = replace(query, window_s=self._config.ground_window_s)
        handle = QueryHandle(query, on_answer or self._on_answer, on_progress, self._cancel)
        camera = query.camera
        try:
            check_task(query, grounds=self._grounds)
            with self._lock:
                state = self._cameras.of_query(query)
                camera = state.name
                ticket = self._desk.enter(handle, state)
        except PixelReferError as error:
            self._outbox.answer(handle, failed_answer(query, camera, error.code, str(error)))
            return handle
        self._following.wake()
        position = self._scheduler.position(ticket, self._clock())
        self._outbox.progress(handle, 'queued', '', position)
        return handle

    def reset(
        self,
        camera: str | None = None,
        *,
        code: ErrorCode = ErrorCode.CANCELED,
        message: str = 'the engine was reset',
    ) -> None:
        """Forget frames and regions, and end open queries and descriptions.

        Args:
            camera: Of which camera; None means all, '' the only or first.
            code: What the queries are answered with.
            message: The same in words.

        Raises:
            PixelReferError: UNKNOWN_CAMERA.
        """
        cameras = self._cameras.choose(camera)
        with self._lock:
            ended = self._clear(cameras, code, message)
        self._outbox.fail(ended, code, message)

    # Running

    def start(self) -> None:
        """Start the threads.

        Raises:
            RuntimeError: They run already, or a job or frame of the time before the last
                ``stop`` has still not come back from the model or the tracker; or one cannot
                be started, and then the engine is stopped.
        """
        with contextlib.ExitStack() as undo, self._lock:
            if self.alive:
                what = 'tracker' if self._following.alive else 'worker'
                raise RuntimeError(f'the {what} still runs; stop it and wait for it to end')
            undo.callback(self.stop)  # once the lock is free: the threads take it to end
            self._runner.start()
            self._following.start()
            self._desk.open()
            undo.pop_all()

    @property
    def alive(self) -> bool:
        """Return whether a thread runs, after ``stop`` one that has not come back in time."""
        return self._runner.alive or self._following.alive

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop the running jobs; end all queries with CANCELED, and refuse new ones.

        Frames and regions stay. When the model does not come back in time, the worker ends
        once it does.

        Args:
            timeout_s: How long to wait for the running jobs.
        """
        message = 'the engine was stopped'
        with self._lock:
            waiting, running = self._desk.close(message)
        self._outbox.fail(waiting, ErrorCode.CANCELED, message)
        if not self._runner.stop(timeout_s):
            self._outbox.problem(f'the running job did not stop within {timeout_s:g} s')
            self._outbox.fail(running, ErrorCode.CANCELED, message)
        if not self._following.stop(timeout_s):
            self._outbox.problem(f'the tracker did not stop within {timeout_s:g} s')

    def step(self) -> int:
        """Follow the regions, then run the job that is next and those that may run with it.

        All in the caller's thread.

        Returns:
            How many jobs ran; 0 when none was due.

        Raises:
            RuntimeError: The threads run, or this is called from within a job.
        """
        return self._runner.step()

    def run_until_idle(self) -> int:
        """Run all jobs that are due; return how many.

        Queries that wait for an image stay, until it comes or the clock has moved on.

        Raises:
            RuntimeError: As ``step``.
        """
        count = 0
        while ran := self.step():
            count += ran
        return count

    def stats(self) -> EngineStats:
        """Return the counts, and the state of the queue."""
        with self._lock:
            cameras = {one.name: one.stats() for one in self._cameras.choose(None)}
        return collect(
            cameras, self._scheduler, self._outbox, self._clock(), self._describer
        )

    # Called back by the parts

    def _cancel(self, handle: QueryHandle) -> None:
        waiting = self._desk.cancel(handle, 'canceled')
        self._outbox.fail(waiting, ErrorCode.CANCELED, 'canceled')

    def _tracked(self, camera: Camera) -> None:
        with self._lock:
            unbound = self._desk.bind_held(camera)
            followed = self._desk.followed(camera)
            self._desk.queue_due(camera)
        for handle, text in followed:
            self._outbox.progress(handle, 'track', text, 0)
        self._scheduler.wake()  # there may be a frame to look ahead at
        self._outbox.refuse(unbound)

    # Parts of the above

    def _wake(self) -> None:
        """Say that there are new frames or regions."""
        self._following.wake()
        self._scheduler.wake()

    def _clear(
        self, cameras: Sequence[Camera], code: ErrorCode, message: str
    ) -> list[Ticket[Job]]:
        """Forget what cameras have seen; return the waiting jobs that end with it."""
        self._runner.forget()
        return self._desk.clear(cameras, code, message)
