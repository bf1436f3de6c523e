# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Decide what runs next: by priority, deadline and arrival, bounded, newest wins."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

T = TypeVar('T')


@dataclass(eq=False, slots=True)
class Ticket(Generic[T]):
    """Stand for one job in the queue or running.

    Attributes:
        payload: The job.
        priority: Higher goes first.
        deadline_s: When to give up, on the caller's clock.
        key: Jobs with a key are replaced by newer ones with the same key and give way when the
            queue is full; None for jobs that must be answered.
        entered_s: When it came.
        held_until_s: Not run before this time, unless released.
        lane: What it runs in: jobs of different lanes run side by side.
        admitted: Whether it came as the rest of a job that was let in before.
        stop: Why it was canceled while it ran; None while nobody wants it to stop.
    """

    payload: T
    priority: int
    deadline_s: float
    key: Hashable | None
    entered_s: float
    held_until_s: float
    arrival: int
    lane: str = ''
    admitted: bool = False
    stop: tuple[ErrorCode, str] | None = None

    def held(self, now_s: float) -> bool:
        """Return whether it may not run yet."""
        return now_s < self.held_until_s

    def rank(self) -> tuple[int, float, int]:
        """Return what the queue is ordered by, smallest first."""
        return (-self.priority, self.deadline_s, self.arrival)


@dataclass(slots=True)
class SchedulerCounts:
    """Count what became of the jobs.

    Attributes:
        entered: Taken into the queue.
        refused: Not taken because the queue was full.
        replaced: Given up for a newer one with the same key.
        displaced: Given up because the queue was full.
        expired: Waited past their deadline.
        canceled: Canceled while they waited.
        taken: Handed out to run.
    """

    entered: int = 0
    refused: int = 0
    replaced: int = 0
    displaced: int = 0
    expired: int = 0
    canceled: int = 0
    taken: int = 0


class Scheduler(Generic[T]):
    """Keep the jobs that wait, and those that run together.

    Jobs of one lane run one after the other or together, and those of another are neither
    before nor behind them in the line. Whoever takes jobs takes them of one lane, or of all as
    if they were one.

    The caller gives the time, so that tests and replays have their own. All methods may be
    called from any thread; each is atomic, so a job is either still waiting when it is
    canceled, and the canceler has it, or it runs, and is asked to stop.
    """

    def __init__(self, max_size: int) -> None:
        """Set how many jobs may wait in each lane, those admitted before not counted."""
        self._max_size = max_size
        self._condition = threading.Condition()
        self._waiting: list[Ticket[T]] = []
        self._running: list[Ticket[T]] = []
        self._arrivals = 0
        self._version = 0
        self._counts = SchedulerCounts()

    def put(
        self,
        payload: T,
        *,
        now_s: float,
        priority: int = 0,
        deadline_s: float = math.inf,
        key: Hashable | None = None,
        held_until_s: float = -math.inf,
        admitted: bool = False,
        lane: str = '',
    ) -> tuple[Ticket[T], Ticket[T] | None]:
        """Take in a job.

        A job with a key takes the place in the line of the waiting one with the same key, so
        that jobs replaced often are not put off for ever. When its lane is full, the
        last in line of those with a key gives way to a job that ranks before it. A job that was
        admitted before, and comes as the rest of itself, needs no room and takes none.

        Returns:
            The ticket, and the ticket that gave way, if any.

        Raises:
            PixelReferError: QUEUE_FULL.
        """
        with self._condition:
            self._arrivals += 1
            ticket = Ticket(
                payload,
                priority,
                deadline_s,
                key,
                now_s,
                held_until_s,
                self._arrivals,
                lane,
                admitted,
            )
            line = _of_lane(self._waiting, lane)
            out = next((t for t in line if key is not None and t.key == key), None)
            if out is not None:
                ticket.arrival = out.arrival
                ticket.entered_s = out.entered_s
                self._counts.replaced += 1
            elif not admitted and sum(not t.admitted for t in line) >= self._max_size:
                keyed = [t for t in line if t.key is not None]
                out = max(keyed, key=Ticket.rank, default=None)
                if out is None or out.rank() < ticket.rank():
                    self._counts.refused += 1
                    raise PixelReferError(
                        ErrorCode.QUEUE_FULL,
                        f'{self._max_size} jobs are waiting already; try again later',
                    )
                self._counts.displaced += 1
            if out is not None:
                self._waiting.remove(out)
            self._waiting.append(ticket)
            self._counts.entered += 1
            self._wake()
            return ticket, out

    def take(
        self,
        now_s: float,
        joins: Callable[[Sequence[Ticket[T]], Ticket[T]], bool] | None = None,
        lane: str | None = None,
    ) -> list[Ticket[T]]:
        """Hand out the job that is next, and those that run together with it.

        Jobs past their deadline are left for ``expire``.

        Args:
            now_s: The time.
            joins: Says whether the job that is next in line runs together with those before it.
                The first that does not is the end, so that no job overtakes another. Called
                under the lock, so it must not call the scheduler. None: one job alone.
            lane: Which lane they are taken from; None for all.

        Returns:
            First in line first; none when none is due.

        Raises:
            RuntimeError: Those before have not all been ended.
        """
        with self._condition:
            if _of_lane(self._running, lane):
                raise RuntimeError('end the jobs that run before taking others')
            due = [
                t
                for t in _of_lane(self._waiting, lane)
                if not t.held(now_s) and now_s < t.deadline_s
            ]
            taken: list[Ticket[T]] = []
            for ticket in sorted(due, key=Ticket.rank):
                if taken and not (joins and joins(taken, ticket)):
                    break
                taken.append(ticket)
            self._waiting = [t for t in self._waiting if t not in taken]
            self._running += taken
            self._counts.taken += len(taken)
            return taken

    def end(self, ticket: Ticket[T]) -> None:
        """Note that a job that was handed out runs no longer."""
        with self._condition:
            if ticket in self._running:
                self._running.remove(ticket)
                self._wake()

    def release(self, ticket: Ticket[T]) -> None:
        """Let a held job run from now on."""
        with self._condition:
            ticket.held_until_s = -math.inf
            self._wake()

    def expire(self, now_s: float) -> list[Ticket[T]]:
        """Remove and return the waiting jobs whose deadline has come, first in line first."""
        with self._condition:
            out = [t for t in self._waiting if t.deadline_s <= now_s]
            self._counts.expired += len(out)
            return self._remove(out)

    def cancel(
        self, which: Callable[[Ticket[T]], bool], code: ErrorCode, message: str
    ) -> list[Ticket[T]]:
        """Remove and return the waiting jobs that are meant, and ask the running ones to stop.

        Args:
            which: Says of a ticket whether it is meant; called under the lock, so it must not
                call the scheduler.
            code: Why, for the ``stop`` of the running jobs.
            message: The same in words.
        """
        with self._condition:
            for running in self._running:
                if running.stop is None and which(running):
                    running.stop = (code, message)
            out = [t for t in self._waiting if which(t)]
            self._counts.canceled += len(out)
            return self._remove(out)

    def position(self, ticket: Ticket[T], now_s: float) -> int:
        """Return how many jobs of its lane go before this one, the running ones included.

        Those that are held are not in its way.
        """
        with self._condition:
            line = _of_lane(self._waiting, ticket.lane)
            ahead = sum(t.rank() < ticket.rank() and not t.held(now_s) for t in line)
            return ahead + sum(t is not ticket for t in _of_lane(self._running, ticket.lane))

    def waiting(self, lane: str | None = None) -> list[Ticket[T]]:
        """Return the jobs that wait in a lane, or in all, first in line first."""
        with self._condition:
            return sorted(_of_lane(self._waiting, lane), key=Ticket.rank)

    @property
    def running(self) -> list[Ticket[T]]:
        """Return the jobs that run; of a lane, first in line first."""
        with self._condition:
            return list(self._running)

    @property
    def version(self) -> int:
        """Return a number that grows whenever ``take`` may have more to hand out."""
        return self._version

    @property
    def counts(self) -> SchedulerCounts:
        """Return the counts so far."""
        with self._condition:
            c = self._counts
            return SchedulerCounts(
                c.entered, c.refused, c.replaced, c.displaced, c.expired, c.canceled, c.taken
            )

    def next_event_s(self, lane: str | None = None) -> float:
        """Return when a waiting job is next due or past its deadline; infinity if never.

        Args:
            lane: Of which lane; None for all.
        """
        with self._condition:
            return min(
                (
                    min(t.deadline_s, t.held_until_s if t.held_until_s > -math.inf else math.inf)
                    for t in _of_lane(self._waiting, lane)
                ),
                default=math.inf,
            )

    def wait(self, version: int, timeout_s: float | None = None) -> None:
        """Wait until ``version`` is no longer this one.

        Args:
            version: Read before ``take`` came back empty, so that no change is missed.
            timeout_s: Longest wait; None waits for ever.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._version != version, timeout_s)

    def wake(self) -> None:
        """End all waits."""
        with self._condition:
            self._wake()

    def _wake(self) -> None:
        self._version += 1
        self._condition.notify_all()

    def _remove(self, out: list[Ticket[T]]) -> list[Ticket[T]]:
        self._waiting = [t for t in self._waiting if t not in out]
        return sorted(out, key=Ticket.rank)


def _of_lane(tickets: Sequence[Ticket[T]], lane: str | None) -> list[Ticket[T]]:
    """Return the tickets of a lane; all for None."""
    return [ticket for ticket in tickets if lane is None or ticket.lane == lane]
