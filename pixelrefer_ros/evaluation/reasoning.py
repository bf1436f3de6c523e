# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure how well questions about simulated reasoning clips are grounded.

Key frames are scored as ReVSeg's rewards do (arXiv 2512.02835, section 3): the target is
visible in the key frame; the temporal score places the size of its box there between the
smallest and the largest of the sampled frames; the box counts when its IoU passes 0.5. Masks
are scored by J and F over all frames of the clip, none left out, as the evaluators of referring
video segmentation do. Where the target is absent, only saying so counts.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, Frame, PixelReferError
from pixelrefer_ros.evaluation.grounding import GROUNDED, NOT_PRESENT
from pixelrefer_ros.evaluation.segmentation import score_masks
from pixelrefer_ros.simulation.reasoning_clips import KINDS
from pixelrefer_ros.simulation.reasoning_questions import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from rich.table import Table

    from pixelrefer_ros.evaluation.grounding import Grounding
    from pixelrefer_ros.simulation.reasoning import ReasoningMaker
    from pixelrefer_ros.simulation.reasoning_clips import ReasoningClip
    from pixelrefer_ros.simulation.reasoning_questions import ReasoningQuestion

BETWEEN = 2
"""Frames between two that a model is shown: as many a second as the node keeps, or a few less."""
MIN_BOX_IOU = 0.5  # must be passed


@dataclass(frozen=True, slots=True)
class ReasoningScores:
    """Hold means in [0, 1] over questions; NaN where nothing was asked or tracked.

    Attributes:
        asked: Questions whose target is present.
        key_frame: How often the target is visible in the key frame.
        temporal: Temporal score r_t.
        box: How often the box passes IoU 0.5 in the key frame.
        region: J over the clip.
        boundary: F over the clip.
        j_and_f: Their mean.
        false_refusals: How often a present target was said to be absent.
        failures: How often there was no answer at all, present or absent.
        absent: Questions whose target is absent.
        refusals: How often that was said.
    """

    asked: int
    key_frame: float
    temporal: float
    box: float
    region: float
    boundary: float
    j_and_f: float
    false_refusals: float
    failures: float
    absent: int
    refusals: float


@dataclass(frozen=True, slots=True)
class ReasoningResult:
    """Hold the scores of a run.

    Attributes:
        scores: Over all questions.
        kinds: Per kind of question, in the order of ``KINDS``.
        statuses: How often each status was given.
        seconds: How long the answers took.
    """

    scores: ReasoningScores
    kinds: dict[str, ReasoningScores]
    statuses: dict[str, int]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: NaN is None."""
        return {
            **_plain(self.scores),
            'kinds': {kind: _plain(scores) for kind, scores in self.kinds.items()},
            'statuses': self.statuses,
            'seconds': round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class _Mark:
    """Hold the scores of one question; what does not apply is NaN."""

    kind: str
    present: bool
    refused: bool
    failed: bool
    tracked: bool
    key_frame: float = math.nan
    temporal: float = math.nan
    box: float = math.nan
    region: float = math.nan
    boundary: float = math.nan


def examples(
    clips: int = 200, seed: int = 0, *, held_out: bool = False, between: int = 0,
    size: tuple[int, int] = (384, 288), ahead: bool = False,
) -> Iterator[tuple[ReasoningClip, ReasoningQuestion]]:
    """Render clips that no training uses, one question each; every fifth round asks in vain.

    Args:
        clips: How many.
        seed: Which ones.
        held_out: Word the questions as training never does.
        between: Frames between two sampled ones.
        size: Width and height of the pictures.
        ahead: Render the next clips in a process beside; they are the same.
    """
    from pixelrefer_ros.simulation.reasoning import EVALUATION_SEED

    first = EVALUATION_SEED + seed * 1_000_000
    film = _Film(range(first, first + clips), held_out, between, size)
    if ahead:
        # imported here: the rest needs no torch
        from torch.utils.data import DataLoader

        load: Any = DataLoader  # typed for its own base class, and takes any sequence
        yield from load(film, batch_size=None, collate_fn=_as_it_is, num_workers=1,
                        multiprocessing_context='spawn')
        return
    try:
        yield from (film[i] for i in range(clips))
    finally:
        film.close()


class _Film:
    """Render clips by their place in a run, and ask of each what it was made for."""

    def __init__(
        self, numbers: range, held_out: bool, between: int, size: tuple[int, int]
    ) -> None:
        self._numbers, self._held_out = numbers, held_out
        self._between, self._size = between, size
        self._maker: ReasoningMaker | None = None  # made where it renders

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> tuple[ReasoningClip, ReasoningQuestion]:
        from pixelrefer_ros.simulation.reasoning import ReasoningMaker

        if self._maker is None:
            self._maker = ReasoningMaker(*self._size)
        number = self._numbers[place]
        clip = self._maker.make(number, between=self._between)
        question = ask(clip, clip.kind, clip.absent, np.random.default_rng((number, 9)),
                       held_out=self._held_out)
        if question is None:  # the maker asked with the same numbers
            raise RuntimeError(f'clip {number} does not answer the question it was made for')
        return clip, question

    def close(self) -> None:
        if self._maker is not None:
            self._maker.close()


def _as_it_is(example: tuple[ReasoningClip, ReasoningQuestion]
              ) -> tuple[ReasoningClip, ReasoningQuestion]:
    return example


def evaluate(
    clips: Iterable[tuple[ReasoningClip, ReasoningQuestion]],
    ground: Callable[[list[Frame], str], Grounding], *,
    on_clip: Callable[[int], None] = lambda _: None,
) -> ReasoningResult:
    """Ask about clips and score what is answered.

    Args:
        clips: Clips with their questions, as ``examples`` gives them.
        ground: Answers a question about frames, oldest first, stamped from 0 on.
        on_clip: Called with the number of clips done.

    Raises:
        PixelReferError: BAD_REQUEST when there are no clips, or an answer does not fit its clip.
    """
    return compare(clips, {'': ground}, on_clip=on_clip)['']


def compare(
    clips: Iterable[tuple[ReasoningClip, ReasoningQuestion]],
    grounds: Mapping[str, Callable[[list[Frame], str], Grounding]], *,
    on_clip: Callable[[int], None] = lambda _: None,
) -> dict[str, ReasoningResult]:
    """Ask several about the same clips, each clip being rendered once.

    Args:
        clips: As for ``evaluate``.
        grounds: Who answers, by name.
        on_clip: As for ``evaluate``.

    Returns:
        By name.

    Raises:
        PixelReferError: As ``evaluate``.
    """
    marks: dict[str, list[_Mark]] = {name: [] for name in grounds}
    statuses: dict[str, Counter[str]] = {name: Counter() for name in grounds}
    seconds = dict.fromkeys(grounds, 0.0)
    done = 0
    for clip, question in clips:
        frames = frames_of(clip)
        for name, ground in grounds.items():
            began_s = time.monotonic()
            answer = ground(frames, question.text)
            seconds[name] += time.monotonic() - began_s
            statuses[name][answer.status] += 1
            marks[name].append(_mark(clip, question, answer))
        done += 1
        on_clip(done)
    if not done:
        raise PixelReferError(ErrorCode.BAD_REQUEST, 'there are no clips to evaluate on')
    return {name: _result(marks[name], statuses[name], seconds[name]) for name in grounds}


def _result(
    marks: Sequence[_Mark], statuses: Mapping[str, int], seconds: float
) -> ReasoningResult:
    by_kind = {kind: [m for m in marks if m.kind == kind] for kind in KINDS}
    return ReasoningResult(
        _scores(marks), {kind: _scores(some) for kind, some in by_kind.items() if some},
        dict(statuses), seconds)


def frames_of(clip: ReasoningClip) -> list[Frame]:
    """Return the clip as frames of one camera, stamped from 0 on."""
    return [Frame('', round(float(t) * NS_PER_S), image)
            for t, image in zip(clip.times_s, clip.images, strict=True)]


def temporal_score(box_areas: NDArray[np.integer[Any]], at: float, visible: bool) -> float:
    """Return r_t: where a box area lies between the smallest and the largest (equation 7).

    Args:
        box_areas: (S,) areas of the target's box in the sampled frames, 0 where not visible.
        at: The area in the key frame.
        visible: Whether the target is visible there; if not the score is 0.

    Returns:
        In [0, 1]. The paper leaves open what holds when all areas are equal: here 1.
    """
    if not visible:
        return 0.0
    least, most = float(np.min(box_areas)), float(np.max(box_areas))
    if most <= least:
        return 1.0
    return min(max((at - least) / (most - least), 0.0), 1.0)


def box_iou(
    a: Sequence[float] | NDArray[Any], b: Sequence[float] | NDArray[Any]
) -> float:
    """Return the intersection over union of two boxes x0, y0, x1, y1, ends exclusive."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width * height)
    return shared / (float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - shared)


def _mark(clip: ReasoningClip, question: ReasoningQuestion, answer: Grounding) -> _Mark:
    """Score one answer."""
    count = len(clip.images)
    if answer.key is not None and not 0 <= answer.key < count:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'the key frame {answer.key} is none of the {count} frames of '
            'the clip: count from 0 among the frames that were given')
    if answer.masks is not None and len(answer.masks) != count:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'{len(answer.masks)} masks do not fit the {count} frames of '
            'the clip: give one per frame, None where the target is not seen')
    grounded = answer.status == GROUNDED
    refused = answer.status == NOT_PRESENT
    failed, tracked = not (grounded or refused), answer.masks is not None
    target = question.target
    if target is None:
        return _Mark(question.kind, False, refused, failed, tracked)
    key_frame = temporal = box = 0.0
    if grounded and answer.key is not None:
        boxes = clip.boxes[:, target]
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        visible = bool(clip.areas[answer.key, target] > 0)
        key_frame = float(visible)
        temporal = temporal_score(areas[list(clip.sampled)], float(areas[answer.key]), visible)
        if visible and answer.box is not None:
            box = float(box_iou(answer.box, boxes[answer.key]) > MIN_BOX_IOU)
    masks = answer.masks if grounded and answer.masks is not None else [None] * count
    scores = score_masks((mask, clip.mask(i, target)) for i, mask in enumerate(masks))
    return _Mark(question.kind, True, refused, failed, tracked, key_frame, temporal, box,
                 scores.region, scores.boundary)


def _scores(marks: Sequence[_Mark]) -> ReasoningScores:
    present = [m for m in marks if m.present]
    absent = [m for m in marks if not m.present]
    # Without any mask nothing was tracked, and J and F say nothing.
    tracked = any(m.tracked for m in marks)

    def mean(values: Iterable[float]) -> float:
        some = list(values)
        return float(np.mean(some)) if some else math.nan

    region = mean(m.region for m in present) if tracked else math.nan
    boundary = mean(m.boundary for m in present) if tracked else math.nan
    return ReasoningScores(
        asked=len(present),
        key_frame=mean(m.key_frame for m in present),
        temporal=mean(m.temporal for m in present),
        box=mean(m.box for m in present),
        region=region, boundary=boundary, j_and_f=(region + boundary) / 2,
        false_refusals=mean(m.refused for m in present),
        failures=mean(m.failed for m in marks),
        absent=len(absent),
        refusals=mean(m.refused for m in absent),
    )


def _plain(scores: ReasoningScores) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and math.isnan(v)
            else round(v, 4) for name, v in dataclasses.asdict(scores).items()}


def table(result: ReasoningResult) -> Table:
    """Return the scores in % as a table, a row per kind of question and one for all.

    It fits into 80 columns.
    """
    from rich.table import Table

    made = Table('kind', 'asked', 'key frame', 'r_t', 'box', 'J', 'F', 'J&F', 'false no',
                 'failed', 'absent', 'said so', box=None, pad_edge=False, collapse_padding=True)

    def share(value: float) -> str:
        return '-' if math.isnan(value) else f'{100 * value:.1f}'

    for name, s in (*result.kinds.items(), ('all', result.scores)):
        made.add_row(name, str(s.asked), *map(share, (
            s.key_frame, s.temporal, s.box, s.region, s.boundary, s.j_and_f, s.false_refusals,
            s.failures)), str(s.absent), share(s.refusals))
    return made
