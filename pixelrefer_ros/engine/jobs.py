# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run one job with a describer, and turn what came of it into a result or an error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import (
    ErrorCode,
    PixelReferError,
    Query,
    Task,
    Utterance,
)
from pixelrefer_ros.engine.clips import without_names
from pixelrefer_ros.engine.faults import words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.describer import RegionDescriber
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


def run_query(
    describer: RegionDescriber,
    query: Query,
    clip: Clip,
    should_stop: Callable[[], bool],
    on_progress: Callable[[str, str], None],
) -> Utterance:
    """Answer a question, or describe the regions of a clip one after the other."""
    if query.task == Task.ASK:
        return describer.answer(
            query.text,
            clip.frames,
            clip.region_clips(),
            should_stop=should_stop,
            on_progress=on_progress,
        )
    said: list[Utterance] = []
    lines: list[str] = []
    for look in clip.looks:
        head = f'{look.region_id}: ' if len(clip.looks) > 1 else ''

        def progress(stage: str, text: str, head: str = head) -> None:
            on_progress(stage, '\n'.join([*lines, head + text] if text else lines))

        said.append(
            run_describe(describer, clip.only(look), without_names(query.text), should_stop,
                         progress)
        )
        lines.append(head + said[-1].text)
        if said[-1].canceled or should_stop():
            break
    canceled = len(said) < len(clip.looks) or any(one.canceled for one in said)
    return _join(said, '\n'.join(lines), canceled)


def run_describe(
    describer: RegionDescriber,
    clip: Clip,
    hint: str,
    should_stop: Callable[[], bool],
    on_progress: Callable[[str, str], None] | None = None,
) -> Utterance:
    """Describe the one region of a clip."""
    (region,) = clip.region_clips()
    return describer.describe(
        clip.frames, region, hint=hint, should_stop=should_stop, on_progress=on_progress
    )


def _join(said: Sequence[Utterance], text: str, canceled: bool) -> Utterance:
    """Return one utterance for several; log-probabilities are averaged over the tokens."""
    tokens_out = sum(one.tokens_out for one in said)
    return Utterance(
        text=text,
        tokens_in=sum(one.tokens_in for one in said),
        tokens_out=tokens_out,
        mean_logprob=sum(one.mean_logprob * one.tokens_out for one in said) / max(1, tokens_out),
        preprocess_s=sum(one.preprocess_s for one in said),
        vision_s=sum(one.vision_s for one in said),
        language_s=sum(one.language_s for one in said),
        canceled=canceled,
    )
