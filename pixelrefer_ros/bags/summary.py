# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sum a run up in numbers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pixelrefer_ros.core.types import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pixelrefer_ros.bags.story import Story


@dataclass(frozen=True)
class Summary:
    """Hold the numbers of a run; ``save`` writes them as JSON.

    Attributes:
        bag: Name of the input bag.
        model: Names of the models that spoke, joined by commas.
        duration_s: Image time from the first to the last image.
        questions: Questions asked.
        answered: Those answered without an error.
        right: Those answered right; None without ground truth.
        scored_questions: Those the ground truth knows.
        by_kind: Per kind of question, (right, asked).
        errors: Answers with an error, counted by its name.
        descriptions: Descriptions given.
        right_descriptions: Those right in every attribute; None without ground truth.
        scored_descriptions: Those the ground truth knows.
        by_attribute: Per attribute, (right, judged).
        latency_ms: p50 and p95 of the time from entering the queue to the words, over
            descriptions and answers; None where times were not measured.
        frames_in: Images in the bag.
        frames_dropped: Images that were lost or unreadable.
    """

    bag: str
    model: str
    duration_s: float
    questions: int
    answered: int
    right: int | None
    scored_questions: int
    by_kind: dict[str, tuple[int, int]]
    errors: dict[str, int]
    descriptions: int
    right_descriptions: int | None
    scored_descriptions: int
    by_attribute: dict[str, tuple[int, int]]
    latency_ms: dict[str, float | None]
    frames_in: int
    frames_dropped: int

    def save(self, path: Path) -> None:
        """Write the numbers as JSON."""
        path.write_text(json.dumps(self.as_dict(), indent=2) + '\n', encoding='utf-8')

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them."""
        return asdict(self)


def summarise(story: Story, frames_dropped: int | None = None) -> Summary:
    """Sum a story up.

    Args:
        story: What was seen, asked and said.
        frames_dropped: Images that did not arrive; None for those that could not be read.
    """
    answers = [asked.answer for asked in story.asked if asked.answer]
    failed = [answer for answer in answers if answer.error_code != ErrorCode.OK]
    done = [answer for answer in answers if answer.error_code == ErrorCode.OK]
    judged = [asked for asked in story.asked if asked.right is not None]
    judged_said = [said for said in story.said if said.right is not None]
    seconds = [said.description.timings.total_s for said in story.said]
    seconds += [answer.timings.total_s for answer in done]
    truth = story.has_truth
    return Summary(
        bag=story.name,
        model=', '.join(story.models),
        duration_s=round(story.duration_s, 3),
        questions=len(story.asked),
        answered=len(done),
        right=sum(bool(asked.right) for asked in judged) if truth else None,
        scored_questions=len(judged),
        by_kind=_shares((asked.kind or 'other', bool(asked.right)) for asked in judged),
        errors=_counts(answer.error_code.name for answer in failed),
        descriptions=len(story.said),
        right_descriptions=sum(bool(said.right) for said in judged_said) if truth else None,
        scored_descriptions=len(judged_said),
        by_attribute=_shares(pair for said in judged_said for pair in said.verdicts.items()),
        latency_ms={name: percentile_ms(seconds, part) for name, part in _PERCENTILES.items()},
        frames_in=story.frames_in,
        frames_dropped=story.frames_unreadable if frames_dropped is None else frames_dropped,
    )


_PERCENTILES = {'p50': 0.50, 'p95': 0.95}


def percentile_ms(seconds: Sequence[float], part: float) -> float | None:
    """Return the smallest value that this part of the values does not exceed, in ms.

    None when there are no values, or none was measured (all are 0).
    """
    if not any(seconds):
        return None
    ordered = sorted(seconds)
    return round(ordered[max(0, math.ceil(part * len(ordered)) - 1)] * 1e3, 3)


def _counts(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _shares(pairs: Iterable[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    shares: dict[str, tuple[int, int]] = {}
    for name, right in pairs:
        good, total = shares.get(name, (0, 0))
        shares[name] = (good + right, total + 1)
    return dict(sorted(shares.items()))
