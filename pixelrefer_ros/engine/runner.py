# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the jobs of the queue, those together that may be, in worker threads or in steps."""

from __future__ import annotations

import math
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.engine.batches import Batches
from pixelrefer_ros.engine.delivery import Delivery
from pixelrefer_ros.engine.errand import Errand
from pixelrefer_ros.engine.faults import words
from pixelrefer_ros.engine.grounding import find
from pixelrefer_ros.engine.jobs import SEARCH, SPEAK, Job, QueryJob, Stopper, joins
from pixelrefer_ros.engine.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.scheduler import Scheduler, Ticket
    from pixelrefer_ros.engine.clips import Clip
    from pixelrefer_ros.engine.grounding import Grounder
    from pixelrefer_ros.engine.outbox import Outbox
    from pixelrefer_ros.engine.supply import Supply
    from pixelrefer_ros.engine.types import EngineConfig


class Runner:
    """Own the describer and the grounder: one thread at a time calls each.

    What a server does is waited for in a thread of its own.
    """

    def __init__(
        self,
        describer: RegionDescriber,
        grounder: Grounder | None,
        config: EngineConfig,
        scheduler: Scheduler[Job],
        outbox: Outbox,
        clock: Callable[[], float],
        supply: Supply,
    ) -> None:
        """Join the parts; nothing runs yet.

        Args:
            describer: The model.
            grounder: Finds what GROUND queries speak of; None when nothing does.
            config: ``deadline_s``, ``max_batch`` and ``record_timings`` are used.
            scheduler: Where the jobs come from.
            outbox: Where the results go.
            clock: Steady seconds.
            supply: Has what the jobs need.
        """
        self._describer = describer
        self._config = config
        self._scheduler = scheduler
        self._outbox = outbox
        self._clock = clock
        self._grounder = grounder
        self._supply = supply
        self._delivery = Delivery(
            describer.name,
            scheduler,
            outbox,
            clock,
            supply.newest_ns,
            record_timings=config.record_timings,
        )
        self._batches = Batches(describer, self._delivery, config.max_batch, outbox.count_call)
        self._model = threading.Lock()
        # The frames that the describer has seen for another engine are not those of this one.
        self._stale = threading.Event()
        self._stale.set()
        self._workers = [
            Worker('engine', SPEAK, self._speak, scheduler, clock, outbox.problem, self._leave)
        ]
        if grounder is not None and grounder.remote:
            self._workers.append(
                Worker('engine search', SEARCH, self._search, scheduler, clock, outbox.problem)
            )

    @property
    def alive(self) -> bool:
        """Return whether a worker thread runs."""
        return any(worker.alive for worker in self._workers)

    def start(self) -> None:
        """Start the worker threads, none of which runs.

        Raises:
            RuntimeError: One cannot be started; those before it run.
        """
        for worker in self._workers:
            worker.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask the workers to end after their jobs, and wait; return whether they have ended."""
        until_s = time.monotonic() + timeout_s
        for worker in self._workers:
            worker.ask_to_end()
        left = [worker.join(max(0.0, until_s - time.monotonic())) for worker in self._workers]
        return all(left)

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
            self._supply.catch_up()
            self._refresh()
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

    def _speak(self) -> bool:
        """Do what is next for the describer; return False when there was nothing."""
        with self._model:
            self._refresh()
            return bool(self._step(self._batches.room(), SPEAK)) or self._look_ahead()

    def _search(self) -> bool:
        """Look for what the next GROUND query speaks of; return False when there was none."""
        return bool(self._step(1, SEARCH))

    def _leave(self) -> None:
        """Have the describer forget: it need not hold the memory while nothing runs."""
        try:
            with self._model:
                self._forget()
        except Exception as error:
            self._outbox.problem(f'the describer could not forget: {words(error)}')

    def _refresh(self) -> None:
        """Have the describer forget when that is due."""
        if self._stale.is_set():
            self._stale.clear()
            self._forget()

    def _forget(self) -> None:
        self._supply.forgotten()
        self._describer.forget()

    def _step(self, room: float, lane: str | None = None) -> int:
        """Run what is next; return how many jobs that was.

        Args:
            room: As of ``joins``. In lock-step nobody waits, and time must not matter.
            lane: Of which jobs; None for all, as in lock-step.
        """
        self.expire()
        max_batch = self._config.max_batch
        tickets = self._scheduler.take(
            self._clock(), lambda before, one: joins(before, one, max_batch, room), lane
        )
        errands = [self._errand(ticket) for ticket in tickets]
        try:
            if tickets:
                self._tell_positions(len(tickets), lane)
            self._batches.run([errand for errand in errands if self._look(errand)])
        finally:
            for errand in errands:
                if not errand.over:
                    self._delivery.interrupted(errand)
        return len(tickets)

    def _tell_positions(self, ahead: int, lane: str | None) -> None:
        """Tell the queries that wait how many jobs are before them, ``ahead`` of them running."""
        now_s = self._clock()
        for ticket in self._scheduler.waiting(lane):
            job = ticket.payload
            # what was found is being followed: that is its stage
            if isinstance(job, QueryJob) and job.found is None:
                self._outbox.progress(job.handle, 'queued', '', ahead)
            ahead += not ticket.held(now_s)

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
            clip = self._supply.clip(job)
            if clip is None:
                if isinstance(job, QueryJob):
                    raise PixelReferError(ErrorCode.NO_FRAMES, 'there is nothing to look at')
                self._delivery.end(errand)
                return False
            if isinstance(job, QueryJob) and job.searches:
                self._find(errand, job, clip)
                self._delivery.end(errand)
                return False
            errand.look_at(clip)
        except Exception as error:
            self._delivery.failed(errand, error)
            return False
        return True

    def _find(self, errand: Errand, job: QueryJob, video: Clip) -> None:
        """Find what a GROUND query speaks of, and hand the rest of it on as a job of its own.

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
        self._supply.follow_up(errand.ticket, found)

    def _look_ahead(self) -> bool:
        """Let the describer look at one frame; return False when there was nothing to see."""
        while (frame := self._supply.next_ahead()) is not None:
            try:
                if self._describer.look_ahead(frame):
                    return True
            except Exception as error:
                self._outbox.problem(f'looking ahead failed: {words(error)}')
                return True
        return False
