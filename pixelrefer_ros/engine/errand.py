# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put one job to a describer in parts, and put the words of the parts together again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import Task, Utterance
from pixelrefer_ros.engine.jobs import DescribeJob
from pixelrefer_ros.engine.texts import without_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.scheduler import Ticket
    from pixelrefer_ros.engine.clips import Clip
    from pixelrefer_ros.engine.jobs import Job, Stopper

_STAGES = ('preprocess', 'vision', 'language')


class Errand:
    """Hold a job while it runs: what it asks of the describer, and what was said.

    A description of several regions is asked for region by region; each part is a request of
    its own, and the regions of one job may share a call with those of others.

    Attributes:
        ticket: Of the job.
        started_s: When it began to run.
        stopper: Says when it has to stop.
        clip: What it looks at; set by ``look_at``.
        over: Whether it has had its result, or needs none.
    """

    def __init__(
        self,
        ticket: Ticket[Job],
        started_s: float,
        stopper: Stopper,
        on_progress: Callable[[str, str], None] | None,
    ) -> None:
        """Begin.

        Args:
            ticket: Of the job.
            started_s: On the steady clock.
            stopper: Watches the ticket.
            on_progress: Gets (stage, words so far); None when nobody listens.
        """
        self.ticket = ticket
        self.started_s = started_s
        self.stopper = stopper
        self.over = False
        self._on_progress = on_progress
        self._stage = 0
        self._texts: list[str] = []
        self._said: list[tuple[int, Utterance] | None] = []

    @property
    def job(self) -> Job:
        """Return the job."""
        return self.ticket.payload

    def look_at(self, clip: Clip) -> None:
        """Settle what the job looks at, and with that its parts."""
        self.clip = clip
        job = self.job
        alone = isinstance(job, DescribeJob) or job.query.task == Task.DESCRIBE
        self._parts = [clip.only(look) for look in clip.looks] if alone else [clip]
        self._task = Task.DESCRIBE if alone else Task.ASK
        self._texts = ['' for _ in self._parts]
        self._said = [None for _ in self._parts]

    def __len__(self) -> int:
        """Return how many parts it has."""
        return len(self._parts)

    def request(self, part: int) -> Request:
        """Return what is asked in one part; the masks are drawn now."""
        clip, text = self._parts[part], ''
        if not isinstance(self.job, DescribeJob):
            text = self.job.query.text
            text = without_names(text) if self._task == Task.DESCRIBE else text
        return Request(
            self._task,
            clip.frames,
            clip.region_clips(),
            text,
            lambda: self.over or self.stopper(),
            None if self._on_progress is None else lambda *told: self._progress(part, *told),
        )

    def take(self, part: int, said: Utterance, call: int) -> bool:
        """Take in the words of one part; return whether that was the last, or the end.

        Args:
            part: Which.
            said: The words.
            call: Number of the describer's call; the parts of one call share its time.
        """
        self._said[part] = (call, said)
        self._texts[part] = said.text
        return said.canceled or None not in self._said

    def said(self) -> Utterance:
        """Return the words of all parts as one utterance.

        Its log-probability is the mean over the tokens. The time of a call counts once.
        """
        calls = [one for one in self._said if one is not None]
        said = [one for _, one in calls]
        if len(self) == 1:
            return said[0]
        tokens_out = sum(one.tokens_out for one in said)
        return Utterance(
            text=self._so_far(),
            tokens_in=sum(one.tokens_in for one in said),
            tokens_out=tokens_out,
            mean_logprob=sum(one.mean_logprob * one.tokens_out for one in said)
            / max(1, tokens_out),
            preprocess_s=_over_calls([(call, one.preprocess_s) for call, one in calls]),
            vision_s=_over_calls([(call, one.vision_s) for call, one in calls]),
            language_s=_over_calls([(call, one.language_s) for call, one in calls]),
            canceled=len(said) < len(self) or any(one.canceled for one in said),
        )

    def _progress(self, part: int, stage: str, text: str) -> None:
        """Pass on how far a part is: of several, the farthest stage and all words."""
        assert self._on_progress is not None
        self._stage = max(self._stage, _STAGES.index(stage))
        self._texts[part] = text
        self._on_progress(_STAGES[self._stage], self._so_far())

    def _so_far(self) -> str:
        if len(self) == 1:
            return self._texts[0]
        return '\n'.join(
            f'{look.region_id}: {text}'
            for look, text, said in zip(self.clip.looks, self._texts, self._said, strict=True)
            if text or said
        )


def _over_calls(seconds: Sequence[tuple[int, float]]) -> float:
    """Return the time of some calls, each told by several parts of it.

    Args:
        seconds: (number of the call, seconds).
    """
    longest: dict[int, float] = {}
    for call, one in seconds:
        longest[call] = max(longest.get(call, 0.0), one)
    return sum(longest.values())
