# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Score the masks found for the expressions of a data set.

As their owners do: J and F over every annotated frame of a video, none left out, averaged over
expressions. Where a data set tells referring from reasoning expressions, the whole is the mean
of those two means; expressions of any other kind are scored apart and not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, overload

import cv2
import numpy as np

from pixelrefer_ros.bags.video import read_picture
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, Frame, PixelReferError
from pixelrefer_ros.evaluation.grounding import GROUNDED
from pixelrefer_ros.evaluation.segmentation import score_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.table import Table

    from pixelrefer_ros.evaluation.datasets import Sample
    from pixelrefer_ros.evaluation.grounding import Grounding

# Pictures have no times: their order is what counts.
_STEP_NS = NS_PER_S // 10
_KEPT = 32
_WHOLE = ('referring', 'reasoning')


class Film(Sequence[Frame]):
    """Read the pictures of a video as they are wanted; a few are kept."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Keep the paths, in order; nothing is read yet."""
        self._paths = tuple(paths)
        self._read = lru_cache(_KEPT)(self._frame)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame]: ...

    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame]:
        """Return a frame; stamps are a tenth of a second apart.

        Raises:
            PixelReferError: BAD_REQUEST when a picture is missing or broken.
        """
        if isinstance(index, slice):
            return [self._read(i) for i in range(len(self))[index]]
        return self._read(range(len(self))[index])

    def _frame(self, index: int) -> Frame:
        return Frame('', (index + 1) * _STEP_NS, read_picture(self._paths[index]))


@dataclass(frozen=True, slots=True)
class ExpressionScore:
    """Hold the scores of one expression, each in [0, 1].

    Attributes:
        video: Name of the video.
        expression: Identity of the expression within the video.
        kind: Of the expression, '' where the data set has none.
        status: How grounding ended.
        region: J.
        boundary: F.
    """

    video: str
    expression: str
    kind: str
    status: str
    region: float
    boundary: float


@dataclass(frozen=True, slots=True)
class Means:
    """Hold means over expressions; NaN where there are none.

    Attributes:
        expressions: How many.
        region: J.
        boundary: F.
    """

    expressions: int
    region: float
    boundary: float

    @property
    def mean(self) -> float:
        """Return J&F."""
        return (self.region + self.boundary) / 2


@dataclass(frozen=True, slots=True)
class DataSetScores:
    """Hold the scores of a run, expression by expression."""

    scores: tuple[ExpressionScore, ...]

    @property
    def kinds(self) -> dict[str, Means]:
        """Return the means per kind; none where the data set has no kinds."""
        names = dict.fromkeys(one.kind for one in self.scores if one.kind)
        return {kind: _means([s for s in self.scores if s.kind == kind]) for kind in names}

    @property
    def whole(self) -> Means:
        """Return the means over all, as the owners form them."""
        kinds = self.kinds
        if all(kind in kinds for kind in _WHOLE):
            parts = [kinds[kind] for kind in _WHOLE]
            return Means(
                sum(one.expressions for one in parts),
                float(np.mean([one.region for one in parts])),
                float(np.mean([one.boundary for one in parts])),
            )
        counted = [one for one in self.scores if not one.kind or one.kind in _WHOLE]
        return _means(counted)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: NaN is None."""
        return {
            **_plain(self.whole),
            'kinds': {kind: _plain(means) for kind, means in self.kinds.items()},
            'scores': [asdict(one) for one in self.scores],
        }


def evaluate(
    samples: Iterable[Sample],
    ground: Callable[[Sequence[Frame], str], Grounding],
    *,
    on_sample: Callable[[int], None] = lambda _: None,
) -> DataSetScores:
    """Find every expression in its video, and score the masks.

    What is not found has empty masks, which is right where there is no target.

    Args:
        samples: As ``datasets.samples`` gives them.
        ground: Answers an expression about frames, with masks.
        on_sample: Called with the number of expressions done.

    Raises:
        PixelReferError: BAD_REQUEST when there are no expressions, or their masks are hidden,
            missing or broken; what ``ground`` raises.
    """
    scores: list[ExpressionScore] = []
    for sample in samples:
        truths = sample.masks()
        if truths is None:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST, 'this split comes without masks: its owners keep them to '
                'score by themselves; take another split')
        answer = ground(Film(sample.frames), sample.text)
        found = answer.masks if answer.status == GROUNDED else None
        pairs = [
            (_fitted(None if found is None else found[i], truth), truth)
            for i, truth in enumerate(truths) if truth is not None
        ]
        if not pairs:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST, f'no frame of {sample.video} is annotated for expression '
                f'{sample.expression}: unpack the data set again')
        marks = score_masks(pairs)
        scores.append(ExpressionScore(sample.video, sample.expression, sample.kind, answer.status,
                                      marks.region, marks.boundary))
        on_sample(len(scores))
    if not scores:
        raise PixelReferError(ErrorCode.BAD_REQUEST, 'there are no expressions to evaluate on')
    return DataSetScores(tuple(scores))


def _fitted(
    mask: NDArray[np.bool_] | None, truth: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Return a mask in the size of the annotation, which may not be that of the picture."""
    if mask is None or mask.shape == truth.shape:
        return mask
    size = truth.shape[1], truth.shape[0]
    return cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def _means(scores: Sequence[ExpressionScore]) -> Means:
    if not scores:
        return Means(0, math.nan, math.nan)
    return Means(len(scores), float(np.mean([s.region for s in scores])),
                 float(np.mean([s.boundary for s in scores])))


def _plain(means: Means) -> dict[str, Any]:
    values = {'region': means.region, 'boundary': means.boundary, 'j_and_f': means.mean}
    return {'expressions': means.expressions,
            **{k: None if math.isnan(v) else round(v, 4) for k, v in values.items()}}


def table(result: DataSetScores) -> Table:
    """Return the scores as a table, a row per kind of expression and one for all."""
    from rich.table import Table

    made = Table('expressions', 'asked', 'J', 'F', 'J&F', box=None, pad_edge=False)

    def share(value: float) -> str:
        return '-' if math.isnan(value) else f'{value:.1%}'

    for name, means in (*result.kinds.items(), ('all', result.whole)):
        made.add_row(name, str(means.expressions),
                     *map(share, (means.region, means.boundary, means.mean)))
    return made
