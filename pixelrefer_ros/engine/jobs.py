# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run one job with a describer, and turn what came of it into a result or an error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import (
    Answer,
    Description,
    ErrorCode,
    Evidence,
    PixelReferError,
    Query,
    Task,
    Timings,
    Utterance,
)
from pixelrefer_ros.engine.clips import without_names
from pixelrefer_ros.engine.faults import words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.scheduler import Ticket
    from pixelrefer_ros.engine.clips import Clip, Look
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
    """

    camera: str
    handle: QueryHandle
    clip: Clip | None
    as_of_ns: int = 0
    guests: Guests | None = None

    def settled(self) -> Query:
        """Return the query with the time it is about, when that is settled."""
        query = self.handle.query
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


def check_task(query: Query) -> None:
    """Check that a query is one that can be served.

    Raises:
        PixelReferError: UNSUPPORTED or BAD_REQUEST.
    """
    if query.task == Task.GROUND:
        raise PixelReferError(
            ErrorCode.UNSUPPORTED,
            'finding things from words is not supported; ask about a region instead',
        )
    if query.task not in (Task.DESCRIBE, Task.ASK):
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'task {query.task!r} is none of DESCRIBE, ASK, GROUND'
        )
    if query.task == Task.ASK and not query.text.strip():
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


def confidence(utterance: Utterance) -> float:
    """Return the mean token probability of an utterance, in [0, 1]; 0 when it has none."""
    if math.isnan(utterance.mean_logprob):
        return 0.0
    return math.exp(min(0.0, utterance.mean_logprob))


def make_description(
    clip: Clip, utterance: Utterance, timings: Timings, model: str
) -> Description:
    """Return the description of the one region of a clip."""
    (look,) = clip.looks
    newest = clip.frames[-1]
    return Description(
        camera=clip.camera,
        region_id=look.region_id,
        label=look.label,
        stamp_ns=newest.stamp_ns,
        frame_id=newest.frame_id,
        text=utterance.text,
        confidence=confidence(utterance),
        box=look.observations[-1].box,
        frame_stamps_ns=clip.stamps_ns,
        timings=timings,
        tokens_in=utterance.tokens_in,
        tokens_out=utterance.tokens_out,
        model=model,
    )


def make_answer(
    query: Query, clip: Clip, utterance: Utterance, timings: Timings, model: str
) -> Answer:
    """Return the answer to a query, with what was looked at as its evidence."""
    newest = clip.frames[-1]
    return Answer(
        query_id=query.query_id,
        stamp_ns=newest.stamp_ns,
        frame_id=newest.frame_id,
        camera=clip.camera,
        text=utterance.text,
        confidence=confidence(utterance),
        region_ids=tuple(look.region_id for look in clip.looks),
        evidence=tuple(_evidence(clip, look) for look in clip.looks),
        window_start_ns=clip.window_start_ns,
        window_end_ns=clip.window_end_ns,
        frame_stamps_ns=clip.stamps_ns,
        timings=timings,
        tokens_in=utterance.tokens_in,
        tokens_out=utterance.tokens_out,
        model=model,
    )


def _evidence(clip: Clip, look: Look) -> Evidence:
    """Return where a region was seen; the score is 1 where it was given."""
    newest = look.observations[-1]
    frame_id = next(f.frame_id for f in clip.frames if f.stamp_ns == newest.stamp_ns)
    track = tuple(seen.mask for seen in look.observations)
    return Evidence(
        camera=clip.camera,
        region_id=look.region_id,
        stamp_ns=newest.stamp_ns,
        frame_id=frame_id,
        box=newest.box,
        mask=track[-1],
        score=newest.score,
        track_stamps_ns=tuple(seen.stamp_ns for seen in look.observations),
        track_masks=track,
    )


def make_timings(
    entered_s: float, started_s: float, ended_s: float, said: Utterance, clip: Clip
) -> Timings:
    """Return where the time went; tracking is that of the regions in the frames used."""
    seen = [one for look in clip.looks for one in look.observations]
    return Timings(
        queue_s=max(0.0, started_s - entered_s),
        preprocess_s=said.preprocess_s,
        vision_s=said.vision_s,
        language_s=said.language_s,
        tracking_s=sum(one.tracking_s for one in seen),
        total_s=max(0.0, ended_s - entered_s),
    )


def failed_answer(query: Query, camera: str, code: ErrorCode, message: str) -> Answer:
    """Return the answer that says why there is none."""
    return Answer(
        query_id=query.query_id,
        stamp_ns=query.stamp_ns,
        camera=camera,
        error_code=code,
        error_msg=message,
    )
