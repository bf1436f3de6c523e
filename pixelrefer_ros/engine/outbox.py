# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hand results to the callbacks, each once, whatever the callbacks do; and count them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import ErrorCode
from pixelrefer_ros.engine.jobs import QueryJob
from pixelrefer_ros.engine.results import failed_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixelrefer_ros.core.scheduler import Ticket
    from pixelrefer_ros.core.types import Answer, Description, PixelReferError
    from pixelrefer_ros.engine.jobs import Job
    from pixelrefer_ros.engine.types import QueryHandle

_LATENCIES_KEPT = 256
_CALLS_KEPT = 256


class Outbox:
    """Deliver descriptions, answers, progress and problems; never raises.

    All methods may be called from any thread; those that deliver, without a lock held.
    """

    def __init__(
        self, on_description: Callable[[Description], None], on_problem: Callable[[str], None]
    ) -> None:
        """Set where descriptions and problems go; answers go where their handles say."""
        self._on_description = on_description
        self._on_problem = on_problem
        self._lock = threading.Lock()
        self._latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._calls: deque[int] = deque(maxlen=_CALLS_KEPT)
        self._done = self._dropped = self._failed = 0

    def description(self, description: Description, latency_s: float) -> None:
        """Deliver a description."""
        self._count(latency_s)
        try:
            self._on_description(description)
        except Exception as error:
            self.problem(f'on_description raised {error!r}')

    def answer(self, handle: QueryHandle, answer: Answer, latency_s: float = 0.0) -> None:
        """Deliver the answer to a query, unless it has one already."""
        if not handle.claim():
            return
        self._count(latency_s if answer.error_code == ErrorCode.OK else None)
        try:
            handle.on_answer(answer)
        except Exception as error:
            self.problem(f"on_answer raised {error!r} for query '{handle.query_id}'")
        finally:
            handle.mark_done()

    def fail(self, tickets: Iterable[Ticket[Job]], code: ErrorCode, message: str) -> None:
        """Answer those of the tickets that are queries with an error."""
        for ticket in tickets:
            job = ticket.payload
            if isinstance(job, QueryJob):
                query = job.handle.query
                self.answer(job.handle, failed_answer(query, job.camera, code, message))

    def refuse(self, unbound: Iterable[tuple[Ticket[Job], PixelReferError]]) -> None:
        """Answer queries that came to nothing with what is wrong with them."""
        for ticket, error in unbound:
            self.fail([ticket], error.code, str(error))

    def progress(self, handle: QueryHandle, stage: str, text: str, position: int) -> None:
        """Tell how far a query is, if somebody listens and it has no answer yet."""
        if handle.on_progress is None or handle.claimed:
            return
        try:
            handle.on_progress(stage, text, position)
        except Exception as error:
            self.problem(f"on_progress raised {error!r} for query '{handle.query_id}'")

    def problem(self, *texts: str) -> None:
        """Report what was dropped or failed."""
        for text in texts:
            # There is nowhere left to report to when the report itself fails.
            with contextlib.suppress(Exception):
                self._on_problem(text)

    def count_failed(self) -> None:
        """Count a description that failed."""
        self._count(None)

    def count_dropped(self) -> None:
        """Count a description that gave way."""
        with self._lock:
            self._dropped += 1

    def count_call(self, size: int) -> None:
        """Count a call of the describer that asks this many things."""
        with self._lock:
            self._calls.append(size)

    def mean_batch(self) -> float:
        """Return how many things the last calls of the describer asked on average; 0 before."""
        with self._lock:
            return sum(self._calls) / len(self._calls) if self._calls else 0.0

    def counts(self) -> tuple[int, int, int]:
        """Return how many jobs are done, dropped and failed."""
        with self._lock:
            return self._done, self._dropped, self._failed

    def latency_ms(self, *parts: float) -> list[float]:
        """Return quantiles of the latency of the last jobs done; 0 when there are none."""
        with self._lock:
            values = sorted(self._latencies_s)
        if not values:
            return [0.0 for _ in parts]
        return [values[min(len(values) - 1, int(part * len(values)))] * 1e3 for part in parts]

    def _count(self, latency_s: float | None) -> None:
        with self._lock:
            if latency_s is None:
                self._failed += 1
            else:
                self._done += 1
                self._latencies_s.append(latency_s)
