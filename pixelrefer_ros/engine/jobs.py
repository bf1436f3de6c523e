# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say what there is to do, which of it runs together, and when it has to stop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import ErrorCode, PixelReferError, Query, Task
from pixelrefer_ros.engine.faults import words

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from pixelrefer_ros.core.regions import Observation
    from pixelrefer_ros.core.scheduler import Ticket
    from pixelrefer_ros.engine.clips import Clip
    from pixelrefer_ros.engine.grounding import Found
    from pixelrefer_ros.engine.guests import Guests
    from pixelrefer_ros.engine.types import QueryHandle


@dataclass(slots=True)
class QueryJob:
    """Answer a query.

    Attributes:
        camera: Name of the camera it is about.
        handle: The query.
        clip: What it looks at; None while an image it needs is still to come or to be tracked.
        as_of_ns: Newest image when it only waits for the tracker; else 0.
        guests: What is seen of the regions that came with it; None while they are not followed.
        found: What a GROUND query was about, once that is known.
        track: All that was seen of that in the window, oldest first, once it was followed.
    """

    camera: str
    handle: QueryHandle
    clip: Clip | None
    as_of_ns: int = 0
    guests: Guests | None = None
    found: Found | None = None
    track: tuple[Observation, ...] = ()

    @property
    def searches(self) -> bool:
        """Return whether it is still to be found what the query is about."""
        return self.handle.query.task == Task.GROUND and self.found is None

    @property
    def query(self) -> Query:
        """Return what is to be answered: the query, or what is left of it once all is found."""
        asked = self.handle.query
        return asked if self.found is None else self.found.query(asked)

    def settled(self) -> Query:
        """Return the query with the time it is about, when that is settled."""
        query = self.query
        return replace(query, stamp_ns=query.stamp_ns or self.as_of_ns)

    def leave_guests(self) -> None:
        """Let the regions that came with it be followed no more."""
        if self.guests is not None:
            self.guests.close()


@dataclass(frozen=True, slots=True)
class DescribeJob:
    """Describe a region as it is when the job runs."""

    camera: str
    region_id: str


Job = QueryJob | DescribeJob

SPEAK, SEARCH = '', 'search'
"""Lanes: of what the describer says, and of what is looked for by a server."""


def size(job: Job) -> int:
    """Return how many things a job asks of the describer, as far as that is settled."""
    if isinstance(job, QueryJob) and job.clip is not None and job.query.task == Task.DESCRIBE:
        return len(job.clip.looks)
    return 1


def sights(jobs: Sequence[Job]) -> int:
    """Return how many different things some jobs have to see; descriptions are not settled."""
    seen: set[Hashable] = set()
    for place, job in enumerate(jobs):
        clip = job.clip if isinstance(job, QueryJob) else None
        seen |= {place} if clip is None else clip.sights()
    return len(seen)


def joins(
    before: Sequence[Ticket[Job]], ticket: Ticket[Job], max_batch: int, room: float
) -> bool:
    """Return whether a job runs together with those before it.

    No word comes before all is seen, so a job joins as long as there is room for what it has to
    see, or when that is seen for those before it anyway. Questions of one priority are no
    exception: the first in line has the nearest deadline.
    What a GROUND query is about is found alone: another model does that.

    Args:
        before: At least one.
        ticket: Of the next job in the line.
        max_batch: How many things may be asked of the describer together.
        room: How many things may be seen before the first word.
    """
    running = [one.payload for one in before]
    jobs = [*running, ticket.payload]
    if any(isinstance(job, QueryJob) and job.searches for job in jobs):
        return False
    if sum(map(size, jobs)) > max_batch:
        return False
    return sights(jobs) <= max(room, sights(running))


class Stopper:
    """Tell a describer when to stop, and remember why."""

    def __init__(
        self,
        ticket: Ticket[Job],
        deadline_s: float,
        clock: Callable[[], float],
        poll: Callable[[], None],
    ) -> None:
        """Watch a ticket and a deadline.

        Args:
            ticket: Its ``stop`` is set when the job is canceled.
            deadline_s: When to give up, on the clock.
            clock: Steady seconds.
            poll: Called at every question, so that the deadlines of other jobs are kept while
                this one runs.
        """
        self._ticket = ticket
        self._deadline_s = deadline_s
        self._clock = clock
        self._poll = poll
        self._timeout: tuple[ErrorCode, str] | None = None

    def __call__(self) -> bool:
        """Return whether to stop."""
        self._poll()
        if self._timeout is None and self._clock() >= self._deadline_s:
            self._timeout = (ErrorCode.TIMEOUT, 'the deadline passed while the model was at it')
        return self.cause is not None

    @property
    def cause(self) -> tuple[ErrorCode, str] | None:
        """Return why the job was to stop; None when it was not."""
        return self._ticket.stop or self._timeout


def check_task(query: Query, *, grounds: bool) -> None:
    """Check that a query is one that can be served.

    Args:
        query: The query.
        grounds: Whether there is a model that finds things from words.

    Raises:
        PixelReferError: UNSUPPORTED or BAD_REQUEST.
    """
    if query.task == Task.GROUND:
        if not grounds:
            raise PixelReferError(
                ErrorCode.UNSUPPORTED,
                'finding things from words needs a vision language model: set grounding.model or '
                'grounding.url, or ask about a region instead',
            )
        if query.region_ids or query.regions:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                'a GROUND query finds what its text speaks of and takes no regions; ask about '
                'regions with ASK',
            )
    if query.task not in (Task.DESCRIBE, Task.ASK, Task.GROUND):
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'task {query.task!r} is none of DESCRIBE, ASK, GROUND'
        )
    if query.task in (Task.ASK, Task.GROUND) and not query.text.strip():
        raise PixelReferError(ErrorCode.BAD_REQUEST, 'a question needs text')


def classify(error: BaseException) -> tuple[ErrorCode, str]:
    """Return the code and words for anything a describer raised."""
    if isinstance(error, PixelReferError):
        return error.code, str(error)
    # By name, because the engine runs without torch.
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError'
    if out_of_memory or 'out of memory' in str(error).lower():
        return (
            ErrorCode.OUT_OF_MEMORY,
            f'the model ran out of memory; ask about fewer regions or frames ({words(error)})',
        )
    return ErrorCode.MODEL_ERROR, f'the model failed: {words(error)}'
