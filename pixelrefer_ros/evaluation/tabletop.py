# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure what the tabletop model knows, on simulated clips it has never seen.

Every answer is decoded greedily. A score is the mean over classes of the share of right answers
in the class, so that always giving the commonest answer does not pay: a model that always says
"no" scores 50 % on yes-or-no questions.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelrefer_ros.core.types import NS_PER_S, Frame, RegionClip
from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber
from pixelrefer_ros.simulation.clips import ClipMaker
from pixelrefer_ros.training.questions import (
    ONE_KINDS,
    PAIR_KINDS,
    Question,
    ask_of,
    verdict_in,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.simulation.clips import Clip

KEYS = ('colour', 'shape', 'size', 'motion', 'moving', 'attribute_yes_no', 'left_right', 'closer',
        'neighbour', 'description_all', 'unanswerable')
FIRST_SEED = 1_000_000_000
"""Training uses seeds below this one."""


@dataclass(slots=True)
class Tally:
    """Count right answers per key and class."""

    right: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    asked: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, question: Question, said: str) -> None:
        """Score one answer."""
        self.asked[question.key, question.case] += 1
        self.right[question.key, question.case] += verdict_in(question, said)

    def per_class(self, key: str) -> dict[str, tuple[int, int]]:
        """Return (right, asked) per class of a key."""
        return {case: (self.right[k, case], n)
                for (k, case), n in sorted(self.asked.items()) if k == key}

    def score(self, key: str) -> float:
        """Return the balanced score of a key in [0, 1], NaN when it was never asked.

        The neighbour counts where there is one to be named.
        """
        classes = self.per_class(key)
        if key == 'neighbour':
            classes.pop('nothing', None)
        return float(np.mean([r / n for r, n in classes.values()])) if classes else float('nan')


class Interviewer:
    """Ask a describer many questions about the same regions; it sees them once."""

    def __init__(self, describer: RegionDescriber) -> None:
        """Keep the describer."""
        self._describer = describer

    def look(self, clip: Clip, regions: tuple[int, ...]) -> Callable[[str], str]:
        """Show some regions of a clip; return a function from question to answer.

        Questions and answers speak of ``<objectK>``, K being the place in ``regions``.
        """
        shown = [[i for i, seen in enumerate(clip.things[k].visible) if seen] for k in regions]
        steps = sorted({i for some in shown for i in some})
        frames = [
            Frame('', round(float(clip.times_s[i]) * NS_PER_S), clip.images[i]) for i in steps
        ]
        # each region is named as questions speak of it, so that it is called so in answers
        looks = [
            RegionClip(
                f'<object{place}>',
                tuple(steps.index(i) for i in some),
                [clip.mask(i, k) for i in some],
            )
            for place, (k, some) in enumerate(zip(regions, shown, strict=True))
        ]
        return lambda text: self._describer.answer(text, frames, looks).text


def interview(
    clip: Clip, look: Callable[[tuple[int, ...]], Callable[[str], str]],
    rng: np.random.Generator, tallies: dict[bool, Tally],
) -> None:
    """Ask every kind of question about one region and about one pair, in both wordings."""
    things = [k for k, t in enumerate(clip.things) if sum(t.visible) >= 2 and t.visible[-1]]
    chosen = [(k,) for k in rng.permutation(things)[:2].tolist()]
    together = [k for k in things if all(clip.things[k].visible)]
    if len(together) > 1:
        chosen += [tuple(rng.permutation(together)[:2].tolist())]
    for regions in chosen:
        frames = tuple(
            tuple(i for i, seen in enumerate(clip.things[k].visible) if seen) for k in regions)
        ask = look(regions)
        for kind in ONE_KINDS if len(regions) == 1 else PAIR_KINDS:
            for held_out, tally in tallies.items():
                question = ask_of(clip, regions, frames, kind, rng, held_out=held_out)
                if question is not None and question.key:
                    tally.add(question, ask(question.text))


def evaluate(
    model: str = 'tabletop', clips: int = 500, seed: int = 0, *, device: str = 'cpu',
    quantization: str = 'none',
    on_clip: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Interview a model about simulated clips.

    Args:
        model: Model name or directory.
        clips: How many clips.
        seed: Which ones; no seed gives clips of the training set.
        device: 'cpu' or 'cuda'.
        quantization: Of the language model's weights: 'none', 'torchao-int8' or 'torchao-int4'.
        on_clip: Called with the number of clips done.

    Returns:
        Balanced scores in [0, 1] by key of ``KEYS``; the same under ``heldout_wording``;
        ``per_class`` counts; what was run.
    """
    describer = PixelReferDescriber.load(model, device=device, quantization=quantization)
    interviewer = Interviewer(describer)
    maker = ClipMaker()
    tallies = {False: Tally(), True: Tally()}
    began = time.monotonic()
    try:
        for i in range(clips):
            number = FIRST_SEED + seed * 1_000_000 + i
            clip = maker.make(number)
            interview(clip, lambda regions, clip=clip: interviewer.look(clip, regions),  # type: ignore[misc]
                      np.random.default_rng(number), tallies)
            on_clip(i + 1)
    finally:
        maker.close()
    seen, unseen = tallies[False], tallies[True]
    return {
        **{key: round(seen.score(key), 4) for key in KEYS},
        'heldout_wording': {key: round(unseen.score(key), 4) for key in KEYS},
        'per_class': {key: seen.per_class(key) for key in KEYS},
        'model': model, 'clips': clips, 'seed': seed,
        'questions': sum(seen.asked.values()) + sum(unseen.asked.values()),
        'seconds': round(time.monotonic() - began, 1),
    }


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + '\n')
