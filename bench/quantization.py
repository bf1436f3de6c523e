# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What do weights of one or half a byte cost the tabletop model in accuracy?

The same questions about the same simulated clips, which training never saw, are put to the model
as it is and with its language model quantised, on the CPU. On CUDA int4 has other kernels for the
same numbers.

    python -m bench.quantization [--clips N] [--quick]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import _common as common
from pixelrefer_ros.evaluation.tabletop import FIRST_SEED, KEYS, Interviewer, Tally, interview
from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber
from pixelrefer_ros.models.pixelrefer.quantization import PACKAGES, quantize, weight_bytes
from pixelrefer_ros.models.quantization import NONE
from pixelrefer_ros.simulation.clips import ClipMaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.simulation.clips import Clip

CLIPS = 20


@dataclass
class Candidate:
    """Hold a model and how it did.

    Attributes:
        kind: Of quantisation.
        describer: The model.
        tallies: Right answers, of the wordings of training and of others.
        answers: All it said, in order.
        asked_s: How long it spoke and looked.
    """

    kind: str
    describer: PixelReferDescriber
    tallies: dict[bool, Tally] = field(default_factory=lambda: {False: Tally(), True: Tally()})
    answers: list[str] = field(default_factory=list)
    asked_s: float = 0.0

    def meet(self, clip: Clip, number: int) -> None:
        """Answer the questions about a clip; its number chooses them."""
        interviewer = Interviewer(self.describer)

        def look(regions: tuple[int, ...]) -> Callable[[str], str]:
            ask = interviewer.look(clip, regions)

            def note(text: str) -> str:
                self.answers.append(ask(text))
                return self.answers[-1]

            return note

        began = time.perf_counter()
        interview(clip, look, np.random.default_rng(number), self.tallies)
        self.asked_s += time.perf_counter() - began


def load(kind: str) -> Candidate:
    """Load the tabletop model with one kind of weights."""
    describer = PixelReferDescriber.load('tabletop', device='cpu')
    quantize(describer.model, kind)
    return Candidate(kind, describer)


def outcome(candidate: Candidate, plain: Candidate) -> dict[str, Any]:
    """Return what is written of a candidate."""
    model = candidate.describer.model
    seen, other = candidate.tallies[False], candidate.tallies[True]
    same = np.mean([a == b for a, b in zip(candidate.answers, plain.answers, strict=True)])
    scores = {key: seen.score(key) for key in KEYS}
    return {
        'language_layers_mib': weight_bytes(model.model.layers) / 2**20,
        'model_mib': weight_bytes(model) / 2**20,
        'mean_score': float(np.nanmean(list(scores.values()))),
        'mean_score_other_wording': float(np.nanmean([other.score(key) for key in KEYS])),
        'scores': scores,
        'same_answers': float(same),
        'questions': len(candidate.answers),
        'seconds': candidate.asked_s,
    }


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print sizes and scores side by side."""
    kinds = list(results)
    plain = results[NONE]
    rows: list[list[object]] = [
        [what, *(results[kind][key] for kind in kinds)]
        for key, what in (
            ('language_layers_mib', 'layers of the language model, MiB'),
            ('model_mib', 'all weights, MiB'),
        )
    ]
    rows.append([])
    for key, what in (
        ('mean_score', 'mean score, %'),
        ('mean_score_other_wording', 'the same, other wordings, %'),
        ('same_answers', 'answers as without, word by word, %'),
    ):
        rows.append([what, *(100 * results[kind][key] for kind in kinds)])
    loss = [100 * (plain['mean_score'] - results[kind]['mean_score']) for kind in kinds]
    rows.append(['lost, points', *loss])
    rows.append([])
    rows += [
        [f'{key}, %', *(100 * results[kind]['scores'][key] for kind in kinds)] for key in KEYS
    ]
    rows += [[], ['seconds', *(results[kind]['seconds'] for kind in kinds)]]
    common.show(
        'weights of the language model, tabletop model on a CPU',
        ['', *kinds],
        rows,
        f'{plain["questions"]} questions; a score is the mean over the classes of a question. '
        'Weights are float32 where they are not quantised.',
    )


def main() -> None:
    """Run it and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument(
        '--clips', type=int, default=CLIPS, help=f'simulated clips to ask about ({CLIPS})'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='a smoke test on one clip: its figures mean nothing and no file is written',
    )
    chosen = parser.parse_args()
    about = common.machine()
    common.introduce('quantization', about)
    candidates = [load(kind) for kind in (NONE, *PACKAGES)]
    clips = 1 if chosen.quick else chosen.clips
    maker = ClipMaker()
    try:
        for done in range(clips):
            clip = maker.make(FIRST_SEED + done)
            for candidate in candidates:
                candidate.meet(clip, FIRST_SEED + done)
            common.say(f'{done + 1} of {clips} clips')
    finally:
        maker.close()
    results = {one.kind: outcome(one, candidates[0]) for one in candidates}
    show(results)
    if not chosen.quick:
        common.write('quantization', {'machine': about, 'clips': clips, 'kinds': results})


if __name__ == '__main__':
    main()
