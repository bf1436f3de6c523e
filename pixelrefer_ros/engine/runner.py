# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the jobs of the queue, those together that may be, in a worker thread or in steps."""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.engine.batches import Batches
from pixelrefer_ros.engine.delivery import Delivery
from pixelrefer_ros.engine.errand import Errand
from pixelrefer_ros.engine.faults import words
from pixelrefer_ros.engine.grounding import find
from pixelrefer_ros.engine.jobs import Job, QueryJob, Stopper, joins

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.scheduler import Scheduler, Ticket
    from pixelrefer_ros.core.types import Frame
    from pixelrefer_ros.engine.clips import Clip
    from pixelrefer_ros.engine.grounding import Found, Grounder
    from pixelrefer_ros.engine.outbox import Outbox
    from pixelrefer_ros.engine.types import EngineConfig

# The longest sleep of an idle worker with something ahead: the clock it is given need not run
# with the real one.
_NAP_S = 0.2


class Runner:
    """Own the describer: whoever runs a job, one thread at a time calls it."""

    def __init__(
        self,
        describer: RegionDescriber,
        config: EngineConfig,
        scheduler: Scheduler[Job],
        outbox: Outbox,
        clock: Callable[[], float],
        prepare: Callable[[Job], Clip | None],
        before_step: Callable[[], None],
        grounder: Grounder | None,
        follow_up: Callable[[Ticket[Job], Found], None],
        newest_ns: Callable[[str], int],
        next_ahead: Callable[[], Frame | None],
        on_forgotten: Callable[[], None],
    ) -> None:
        """Join the parts; nothing runs yet.

        Args:
            describer: The model.
            config: ``deadline_s``, ``max_batch`` and ``record_timings`` are used.
            scheduler: Where the jobs come from.
            outbox: Where the results go.
            clock: Steady seconds.
            prepare: Returns what a job looks at; None drops it. Raises PixelReferError.
            before_step: Called by ``step`` before it takes a job.
            grounder: Finds what GROUND queries speak of; None when nothing does.
            follow_up: Queues the rest of a GROUND query. Raises PixelReferError.
            newest_ns: Returns the stamp of the newest frame of a camera.
            next_ahead: Returns a frame to be looked at while there is nothing else to do, each
                once; None when there is none.
            on_forgotten: Told when the describer forgets all frames.
        """
        self._describer = describer
        self._config = config
        self._scheduler = scheduler
        self._outbox = outbox
        self._clock = clock
        self._prepare = prepare
        self._before_step = before_step
        self._grounder = grounder
        self._follow_up = follow_up
        self._next_ahead = next_ahead
        self._on_forgotten = on_forgotten
        self._delivery = Delivery(
            describer.name,
            scheduler,
            outbox,
            clock,
            newest_ns,
            record_timings=config.record_timings,
        )
        self._batches = Batches(describer, self._delivery, config.max_batch, outbox.count_call)
        self._model = threading.Lock()
        self._quit = threading.Event()
        # The frames that the describer has seen for another engine are not those of this one.
        self._stale = threading.Event()
        self._stale.set()
        self._worker: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Return whether the worker thread runs."""
        return self._worker is not None and self._worker.is_alive()

    def start(self) -> None:
        """Start the worker thread.

        Raises:
            RuntimeError: It still runs.
        """
        if self.alive:
            raise RuntimeError('the worker still runs; stop it and wait for its job to end')
        self._quit.clear()
        self._worker = threading.Thread(target=self._work, name='engine', daemon=True)
        self._worker.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask the worker to end after its job, and wait; return whether it has ended."""
        self._quit.set()
        self._scheduler.wake()
        worker = self._worker
        if worker is None or worker is threading.current_thread():
            return True
        worker.join(timeout_s)
        return not worker.is_alive()

    def forget(self) -> None:
        """Have the describer forget all frames before it sees others: time jumped back."""
        self._stale.set()
        self._scheduler.wake()

    def step(self) -> int:
        """Run what is next in the caller's thread; return how many jobs, 0 when none is due.

        Raises:
            RuntimeError: The worker runs, or another step is under way.
        """
        if self.alive:
            raise RuntimeError('the worker runs the jobs; stop it before stepping')
        if not self._model.acquire(blocking=False):
            raise RuntimeError('a step is under way already')
        try:
            self._before_step()
            return self._step(math.inf)
        finally:
            self._model.release()

    def expire(self) -> None:
        """Answer the queries that waited past their deadline."""
        self._outbox.fail(
            self._scheduler.expire(self._clock()),
            ErrorCode.TIMEOUT,
            'the deadline passed before the model was free; ask less often, or allow more time',
        )

    def _work(self) -> None:
        while not self._quit.is_set():
            version = self._scheduler.version
            worked = False
            try:
                with self._model:
                    worked = bool(self._step(self._batches.room())) or self._look_ahead()
            except BaseException as error:
                # SystemExit and its like would end the thread, and with it all answers.
                self._outbox.problem(f'a job raised {error!r}')
            if not worked:
                ahead_s = self._scheduler.next_event_s() - self._clock()
                nap_s = None if ahead_s == math.inf else min(max(ahead_s, 0.001), _NAP_S)
                self._scheduler.wait(version, nap_s)
        try:
            with self._model:
                self._forget()  # it need not hold the memory while nothing runs
        except Exception as error:
            self._outbox.problem(f'the describer could not forget: {words(error)}')

    def _forget(self) -> None:
        self._on_forgotten()
        self._describer.forget()

    def _step(self, room: float) -> int:
        """Run what is next; return how many jobs that was.

        Args:
            room: As of ``joins``. In lock-step nobody waits, and time must not matter.
        """
        self.expire()
        if self._stale.is_set():
            self._stale.clear()
            self._forget()
        max_batch = self._config.max_batch
        tickets = self._scheduler.take(
            self._clock(), lambda before, one: joins(before, one, max_batch, room)
        )
        errands = [self._errand(ticket) for ticket in tickets]
        try:
            for place, other in enumerate(self._scheduler.waiting() if tickets else ()):
                # what was found is being followed: that is its stage
                if isinstance(other.payload, QueryJob) and other.payload.found is None:
                    position = place + len(tickets)
                    self._outbox.progress(other.payload.handle, 'queued', '', position)
            self._batches.run([errand for errand in errands if self._look(errand)])
        finally:
            for errand in errands:
                if not errand.over:
                    self._delivery.interrupted(errand)
        return len(tickets)

    def _errand(self, ticket: Ticket[Job]) -> Errand:
        """Return what holds a job while it runs."""
        started_s, job = self._clock(), ticket.payload
        if isinstance(job, QueryJob):
            stopper = Stopper(ticket, ticket.deadline_s, self._clock, self.expire)
            tell = partial(self._progress, job)
            return Errand(ticket, started_s, stopper, tell)
        deadline_s = started_s + self._config.deadline_s
        stopper = Stopper(ticket, deadline_s, self._clock, self.expire)
        return Errand(ticket, started_s, stopper, None)

    def _progress(self, job: QueryJob, stage: str, text: str) -> None:
        self._outbox.progress(job.handle, stage, text, 0)

    def _look(self, errand: Errand) -> bool:
        """Settle what a job looks at; return False when it is over with that."""
        job = errand.job
        try:
            clip = self._prepare(job)
            if clip is None:
                if isinstance(job, QueryJob):
                    raise PixelReferError(ErrorCode.NO_FRAMES, 'there is nothing to look at')
                self._delivery.end(errand)
                return False
            if isinstance(job, QueryJob) and job.searches:
                clip = self._find(errand, job, clip)
                if clip is None:
                    self._delivery.end(errand)
                    return False
            errand.look_at(clip)
        except Exception as error:
            self._delivery.failed(errand, error)
            return False
        return True

    def _find(self, errand: Errand, job: QueryJob, video: Clip) -> Clip | None:
        """Find what a GROUND query speaks of, and hand the rest of it on.

        Returns:
            None when the rest is a job of its own; else what is to be described now, because
            the key frame has left the buffer while the model was at it.

        Raises:
            NotGroundedError: Nothing was found.
            PixelReferError: What the model raises, or why it was stopped.
        """
        assert self._grounder is not None  # or the query would have been refused
        found = find(
            self._grounder,
            job.handle.query,
            video,
            errand.ticket.entered_s,
            errand.started_s,
            errand.stopper,
            partial(self._progress, job),
        )
        if found is None:
            raise PixelReferError(ErrorCode.MODEL_ERROR, 'the model stopped by itself')
        self._progress(job, 'track', found.grounding.description)
        try:
            self._follow_up(errand.ticket, found)
        except PixelReferError as error:
            if errand.stopper.cause is not None:
                raise
            self._outbox.problem(f"'{found.region.region_id}' is not followed: {error}")
            job.found = found
            return found.key_clip()
        return None

    def _look_ahead(self) -> bool:
        """Let the describer look at one frame; return False when there was nothing to see."""
        while (frame := self._next_ahead()) is not None:
            try:
                if self._describer.look_ahead(frame):
                    return True
            except Exception as error:
                self._outbox.problem(f'looking ahead failed: {words(error)}')
                return True
        return False
