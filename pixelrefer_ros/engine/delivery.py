# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""End jobs: turn what was said, or what went wrong, into the one result of each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, Timings
from pixelrefer_ros.engine.grounding import NotGroundedError, grounded_answer
from pixelrefer_ros.engine.jobs import DescribeJob, QueryJob, classify
from pixelrefer_ros.engine.results import (
    failed_answer,
    make_answer,
    make_description,
    make_timings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.core.scheduler import Scheduler
    from pixelrefer_ros.core.types import Answer, Utterance
    from pixelrefer_ros.engine.errand import Errand
    from pixelrefer_ros.engine.jobs import Job
    from pixelrefer_ros.engine.outbox import Outbox

_MODEL_FAULTS = (ErrorCode.MODEL_ERROR, ErrorCode.OUT_OF_MEMORY)
_BY_ITSELF = (ErrorCode.MODEL_ERROR, 'the model stopped by itself')


class Delivery:
    """Give each errand its end, once."""

    def __init__(
        self,
        model: str,
        scheduler: Scheduler[Job],
        outbox: Outbox,
        clock: Callable[[], float],
        newest_ns: Callable[[str], int],
        *,
        record_timings: bool,
    ) -> None:
        """Set where results go.

        Args:
            model: Name of the describer.
            scheduler: Where the jobs came from.
            outbox: Where the results go.
            clock: Steady seconds.
            newest_ns: Returns the stamp of the newest frame of a camera.
            record_timings: False leaves the timings of all results 0.
        """
        self._model = model
        self._scheduler = scheduler
        self._outbox = outbox
        self._clock = clock
        self._newest_ns = newest_ns
        self._record_timings = record_timings

    def said(self, errand: Errand) -> None:
        """End an errand with its words, unless it was stopped before they were complete.

        Words that were complete before the deadline was noticed count; those said after a
        cancel do not.
        """
        said = errand.said()
        if errand.ticket.stop is None and not said.canceled:
            self._publish(errand, said)
            self.end(errand)
        else:
            self.stopped(errand)

    def stopped(self, errand: Errand) -> None:
        """End an errand that was stopped."""
        self._fail(errand, *(errand.stopper.cause or _BY_ITSELF))

    def failed(self, errand: Errand, error: BaseException) -> None:
        """End an errand that something was raised for."""
        if isinstance(error, NotGroundedError):
            self._not_grounded(errand, error)
        else:
            self._fail(errand, *(errand.stopper.cause or classify(error)))

    def interrupted(self, errand: Errand) -> None:
        """End an errand in a process that ends."""
        self._outbox.fail([errand.ticket], ErrorCode.CANCELED, 'the process was interrupted')
        self.end(errand)

    def end(self, errand: Errand) -> None:
        """Note that the job has had its result, or needs none."""
        errand.over = True
        self._scheduler.end(errand.ticket)

    def _publish(self, errand: Errand, said: Utterance) -> None:
        job = errand.job
        if isinstance(job, DescribeJob):
            timings, total_s = self._timings(errand.ticket.entered_s, errand.started_s, errand)
            description = make_description(errand.clip, said, timings, self._model)
            self._outbox.description(description, total_s)
        else:
            answer, total_s = self._answer(errand, job, said)
            self._outbox.answer(job.handle, answer, total_s)

    def _answer(self, errand: Errand, job: QueryJob, said: Utterance) -> tuple[Answer, float]:
        """Return the answer to a query, and the seconds it took."""
        clip, found = errand.clip, job.found
        if found is None:
            timings, total_s = self._timings(errand.ticket.entered_s, errand.started_s, errand)
            answer = make_answer(job.query, clip, said, timings, self._model)
        else:
            track = job.track or clip.looks[0].observations
            timings, total_s = self._timings(found.entered_s, found.started_s, errand)
            if self._record_timings:
                chat_s = sum(one.seconds for one in found.grounding.said)
                timings = replace(
                    timings,
                    language_s=timings.language_s + chat_s,
                    tracking_s=sum(one.tracking_s for one in track),
                )
            answer = grounded_answer(
                job.handle.query, found, clip, track, said, timings, self._model
            )
        return self._aged(answer, job.camera), total_s

    def _timings(
        self, entered_s: float, started_s: float, errand: Errand
    ) -> tuple[Timings, float]:
        """Return the timings to publish, and the total for the statistics."""
        timings = make_timings(entered_s, started_s, self._clock(), errand.said(), errand.clip)
        return timings if self._record_timings else Timings(), timings.total_s

    def _aged(self, answer: Answer, camera: str) -> Answer:
        """Return an answer that says how old what it looked at is by now."""
        age_ns = max(0, self._newest_ns(camera) - answer.stamp_ns)
        return replace(answer, age_s=age_ns / NS_PER_S)

    def _not_grounded(self, errand: Errand, error: NotGroundedError) -> None:
        job = errand.job
        assert isinstance(job, QueryJob)
        assert job.clip is not None  # what the chain had
        if error.misread:
            self._outbox.problem(f"query '{job.handle.query_id}': {error.misread}")
        answer = self._aged(error.answer(job.handle.query, job.clip), job.camera)
        self._outbox.answer(job.handle, answer)
        self.end(errand)

    def _fail(self, errand: Errand, code: ErrorCode, message: str) -> None:
        job = errand.job
        if isinstance(job, QueryJob):
            if code in _MODEL_FAULTS:
                self._outbox.problem(f"query '{job.handle.query_id}' failed: {message}")
            self._outbox.answer(
                job.handle, failed_answer(job.handle.query, job.camera, code, message)
            )
        elif errand.ticket.stop is None:
            self._outbox.count_failed()
            self._outbox.problem(f"describing region '{job.region_id}' failed: {message}")
        self.end(errand)
