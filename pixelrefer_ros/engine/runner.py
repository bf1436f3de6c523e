# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the jobs of the queue one by one, in a worker thread or in steps."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, PixelReferError, Task, Timings
from pixelrefer_ros.engine.grounding import NotGroundedError, find, grounded_answer
from pixelrefer_ros.engine.jobs import (
    DescribeJob,
    Job,
    QueryJob,
    Stopper,
    classify,
    run_describe,
    run_query,
)
from pixelrefer_ros.engine.results import (
    failed_answer,
    make_answer,
    make_description,
    make_timings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.scheduler import Scheduler, Ticket
    from pixelrefer_ros.core.types import Answer, Utterance
    from pixelrefer_ros.engine.clips import Clip
    from pixelrefer_ros.engine.grounding import Found, Grounder
    from pixelrefer_ros.engine.outbox import Outbox
    from pixelrefer_ros.engine.types import EngineConfig

# The longest sleep of an idle worker with something ahead: the clock it is given need not run
# with the real one.
_NAP_S = 0.2

_MODEL_FAULTS = (ErrorCode.MODEL_ERROR, ErrorCode.OUT_OF_MEMORY)


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
    ) -> None:
        """Join the parts; nothing runs yet.

        Args:
            describer: The model.
            config: ``deadline_s`` and ``record_timings`` are used.
            scheduler: Where the jobs come from.
            outbox: Where the results go.
            clock: Steady seconds.
            prepare: Returns what a job looks at; None drops it. Raises PixelReferError.
            before_step: Called by ``step`` before it takes a job.
            grounder: Finds what GROUND queries speak of; None when nothing does.
            follow_up: Queues the rest of a GROUND query. Raises PixelReferError.
            newest_ns: Returns the stamp of the newest frame of a camera.
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
        self._newest_ns = newest_ns
        self._model = threading.Lock()
        self._quit = threading.Event()
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

    def step(self) -> bool:
        """Run the next job in the caller's thread; return False when none is due.

        Raises:
            RuntimeError: The worker runs, or another step is under way.
        """
        if self.alive:
            raise RuntimeError('the worker runs the jobs; stop it before stepping')
        if not self._model.acquire(blocking=False):
            raise RuntimeError('a step is under way already')
        try:
            self._before_step()
            return self._step()
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
            ran = False
            try:
                with self._model:
                    ran = self._step()
            except BaseException as error:
                # SystemExit and its like would end the thread, and with it all answers.
                self._outbox.problem(f'a job raised {error!r}')
            if not ran:
                ahead_s = self._scheduler.next_event_s() - self._clock()
                nap_s = None if ahead_s == math.inf else min(max(ahead_s, 0.001), _NAP_S)
                self._scheduler.wait(version, nap_s)

    def _step(self) -> bool:
        self.expire()
        ticket = self._scheduler.take(self._clock())
        if ticket is None:
            return False
        try:
            for place, other in enumerate(self._scheduler.waiting()):
                # what was found is being followed: that is its stage
                if isinstance(other.payload, QueryJob) and other.payload.found is None:
                    self._outbox.progress(other.payload.handle, 'queued', '', place + 1)
            job = ticket.payload
            if isinstance(job, QueryJob):
                self._answer(ticket, job)
            else:
                self._describe(ticket, job)
        finally:
            self._scheduler.end(ticket)
        return True

    def _answer(self, ticket: Ticket[Job], job: QueryJob) -> None:
        handle, started_s = job.handle, self._clock()
        stopper = Stopper(ticket, ticket.deadline_s, self._clock, self.expire)
        failure: tuple[ErrorCode, str] | None
        try:
            clip = self._prepare(job)
            if clip is None:
                raise PixelReferError(ErrorCode.NO_FRAMES, 'there is nothing to look at')
            if job.query.task == Task.GROUND:
                clip = self._find(ticket, job, clip, started_s, stopper)
                if clip is None:
                    return
            said = run_query(
                self._describer,
                job.query,
                clip,
                stopper,
                lambda stage, text: self._outbox.progress(handle, stage, text, 0),
            )
            failure = _failure(stopper, ticket, said)
            if failure is None:
                answer, total_s = self._make_answer(ticket, job, clip, said, started_s)
                self._outbox.answer(handle, answer, total_s)
                return
        except NotGroundedError as error:
            if error.misread:
                self._outbox.problem(f"query '{handle.query_id}': {error.misread}")
            assert job.clip is not None  # what the chain had
            answer = error.answer(handle.query, job.clip)
            self._outbox.answer(handle, self._aged(answer, job.camera))
            return
        except Exception as error:
            failure = stopper.cause or classify(error)
        except BaseException:
            self._outbox.fail([ticket], ErrorCode.CANCELED, 'the process was interrupted')
            raise
        if failure[0] in _MODEL_FAULTS:
            self._outbox.problem(f"query '{handle.query_id}' failed: {failure[1]}")
        self._outbox.answer(handle, failed_answer(handle.query, job.camera, *failure))

    def _find(
        self,
        ticket: Ticket[Job],
        job: QueryJob,
        video: Clip,
        started_s: float,
        stopper: Stopper,
    ) -> Clip | None:
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
            ticket.entered_s,
            started_s,
            stopper,
            lambda stage, text: self._outbox.progress(job.handle, stage, text, 0),
        )
        if found is None:
            raise PixelReferError(ErrorCode.MODEL_ERROR, 'the model stopped by itself')
        self._outbox.progress(job.handle, 'track', found.grounding.description, 0)
        try:
            self._follow_up(ticket, found)
        except PixelReferError as error:
            if stopper.cause is not None:
                raise
            self._outbox.problem(f"'{found.region.region_id}' is not followed: {error}")
            job.found = found
            return found.key_clip()
        return None

    def _make_answer(
        self, ticket: Ticket[Job], job: QueryJob, clip: Clip, said: Utterance, started_s: float
    ) -> tuple[Answer, float]:
        """Return the answer to a query, and the seconds it took."""
        found = job.found
        if found is None:
            timings, total_s = self._timings(ticket.entered_s, started_s, said, clip)
            answer = make_answer(job.query, clip, said, timings, self._describer.name)
        else:
            track = job.track or clip.looks[0].observations
            timings, total_s = self._timings(found.entered_s, found.started_s, said, clip)
            if self._config.record_timings:
                chat_s = sum(one.seconds for one in found.grounding.said)
                timings = replace(
                    timings,
                    language_s=timings.language_s + chat_s,
                    tracking_s=sum(one.tracking_s for one in track),
                )
            answer = grounded_answer(
                job.handle.query, found, clip, track, said, timings, self._describer.name
            )
        return self._aged(answer, job.camera), total_s

    def _aged(self, answer: Answer, camera: str) -> Answer:
        """Return an answer that says how old what it looked at is by now."""
        age_ns = max(0, self._newest_ns(camera) - answer.stamp_ns)
        return replace(answer, age_s=age_ns / NS_PER_S)

    def _describe(self, ticket: Ticket[Job], job: DescribeJob) -> None:
        started_s = self._clock()
        stopper = Stopper(ticket, started_s + self._config.deadline_s, self._clock, self.expire)
        failure: tuple[ErrorCode, str] | None
        try:
            clip = self._prepare(job)
            if clip is None:
                return
            said = run_describe(self._describer, clip, '', stopper)
            failure = _failure(stopper, ticket, said)
            if failure is None:
                timings, total_s = self._timings(ticket.entered_s, started_s, said, clip)
                description = make_description(clip, said, timings, self._describer.name)
                self._outbox.description(description, total_s)
                return
        except Exception as error:
            failure = stopper.cause or classify(error)
        if ticket.stop is None:
            self._outbox.count_failed()
            self._outbox.problem(f"describing region '{job.region_id}' failed: {failure[1]}")

    def _timings(
        self, entered_s: float, started_s: float, said: Utterance, clip: Clip
    ) -> tuple[Timings, float]:
        """Return the timings to publish, and the total for the statistics."""
        timings = make_timings(entered_s, started_s, self._clock(), said, clip)
        return timings if self._config.record_timings else Timings(), timings.total_s


def _failure(
    stopper: Stopper, ticket: Ticket[Job], said: Utterance
) -> tuple[ErrorCode, str] | None:
    """Return why what was said is no result; None when it is one.

    Words that were complete before the deadline was noticed count; those said after a cancel
    do not.
    """
    if ticket.stop is not None:
        return ticket.stop
    if said.canceled:
        return stopper.cause or (ErrorCode.MODEL_ERROR, 'the model stopped by itself')
    return None
