# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How long do regions, frames and questions take, here and in the reference's schedule?

On the CPU a middle-sized model, on CUDA (where there is one) also the published sizes; weights
are random, which changes no time. (a) eight regions in eight frames, three questions each, side
by side with a schedule that follows the reference call by call; the words must be equal. (b) the
same work by stage. (c) other numbers of regions and frames. (d) tokens per second, beside what
the memory allows.

    python -m bench.speed [--quick]
"""

from __future__ import annotations

import gc
import pkgutil
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bench import _clip as clip
from bench import _common as common
from bench import _document as document
from bench import _plan as plan
from bench import _plots as plots
from bench import _sizes as sizes
from bench import _speed_tables as tables
from bench._counting import Counter
from bench._reference_schedule import ReferenceSchedule
from bench._stages import watching
from pixelrefer_ros import core

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixelrefer_ros.core.describer import Request
    from pixelrefer_ros.core.types import Utterance
    from pixelrefer_ros.models.pixelrefer import (
        PixelReferDescriber,
        PixelReferForConditionalGeneration,
        PixelReferProcessor,
    )

REGIONS = FRAMES = 8
SHAPES = ((1, 1), (1, 8), (8, 1))
ROWS = (1, 8)
DECODED = 64
NEEDED_GB = {'2B': 7.0, '7B': 22.0}
"""Free memory without which a published size is left out."""

COPIED = 2**28
"""Bytes that are copied to measure the memory."""


class Run:
    """Measure one model on one device.

    Attributes:
        size: Of the model, as in ``_sizes``.
        model: The model.
        processor: Its processor.
        answer: Tokens generated for each question.
    """

    def __init__(self, size: str, device: str, dtype: torch.dtype, answer: int) -> None:
        """Make a model of a size, with random weights."""
        wanted = sizes.config(size)
        self.size = size
        self.model: PixelReferForConditionalGeneration = sizes.random_model(wanted, device, dtype)
        self.processor: PixelReferProcessor = sizes.processor(wanted, clip.QUESTIONS)
        self.answer = answer

    def describer(self, answer: int = 0) -> PixelReferDescriber:
        """Return a describer that knows nothing, made ready."""
        made = sizes.describer(self.model, self.processor, answer or self.answer)
        made.voice.warm_up()
        say(made, clip.rounds(1, 1)[0])
        made.forget()
        return made

    def side_by_side(self, regions: int, frames: int) -> dict[str, Any]:
        """Ask everything in both ways, the reference's first; see (a) and (b).

        Ours is asked question by question, and once more everything at once.
        """
        rounds = clip.rounds(regions, frames)
        theirs = ReferenceSchedule(self.model, self.processor, self.answer)
        theirs.say(clip.rounds(1, 1)[0][0])
        reference_s, reference_stages, said = [], [], []
        for asked in rounds:
            with watching(self.model, theirs) as watch:
                began_s = watch.now()
                said.append([theirs.say(request) for request in asked])
                reference_s.append(watch.now() - began_s)
            reference_stages.append(watch.seconds)

        describer = self.describer()
        ours_s, ours_stages, calls, words, firsts, seen = [], [], [], [], [], []
        for asked in rounds:
            before = describer.vision_stats().misses
            with watching(self.model, describer.eyes) as watch:
                began_s = watch.now()
                told, first_s = say(describer, asked)
                ours_s.append(watch.now() - began_s)
            ours_stages.append(watch.seconds)
            calls.append(watch.calls['tower'])
            words.append(told)
            firsts.append(first_s)
            seen.append(describer.vision_stats().misses - before)

        at_once = [request for asked in rounds for request in asked]
        describer = self.describer()
        began_s = time.perf_counter()
        together, first_s = say(describer, at_once)
        together_s = time.perf_counter() - began_s

        theirs_all = [one for asked in said for one in asked]
        ours_all = [one for asked in words for one in asked]
        pairs = [*zip(theirs_all, ours_all, strict=True), *zip(theirs_all, together, strict=True)]
        return {
            'regions': regions,
            'frames': frames,
            'questions': len(rounds),
            'words_equal': sum(one.text == two.text for one, two in pairs),
            'words_compared': len(pairs),
            'different_words': len({one.text for one in theirs_all}),
            'tokens_in': sum(one.tokens_in for one in ours_all),
            'tokens_out': sum(one.tokens_out for one in ours_all),
            'tokens_out_reference': sum(one.tokens_out for one in theirs_all),
            'reference_s': reference_s,
            'ours_s': ours_s,
            'reference_first_token_s': [
                sum(one.first_token_s for one in asked) / len(asked) for asked in said
            ],
            'ours_first_token_s': firsts,
            'ours_together_s': together_s,
            'ours_together_first_token_s': first_s,
            'ours_tower_calls': calls,
            'ours_pictures_encoded': seen,
            'pictures_there_are': frames + 2 * regions * frames,
            'reference_stages_s': reference_stages,
            'ours_stages_s': ours_stages,
            'ratio': sum(reference_s) / sum(ours_s),
            'ratio_together': sum(reference_s) / together_s,
            'ratio_second_to_first': ours_s[0] / ours_s[1],
            'flops': self.flops(rounds, frames),
        }

    def flops(self, rounds: Sequence[Sequence[Request]], frames: int) -> dict[str, Any]:
        """Count the same work on the meta device."""
        counter = Counter.of(self.size)
        questions, _ = plan.lengths(self.processor, [asked[0] for asked in rounds], self.answer)
        work = plan.job(counter, clip.THINGS, len(rounds[0]), frames, questions)
        theirs, own = plan.reference(counter, work), plan.ours(counter, work)
        return {
            'reference': plan.total(theirs).as_dict(),
            'ours': plan.total(own).as_dict(),
            'ratio': plan.total(theirs).total / plan.total(own).total,
            'ratio_tower': plan.total(theirs).tower / plan.total(own).tower,
        }

    def shape(self, regions: int, frames: int) -> dict[str, Any]:
        """Ask about other numbers of regions and frames; see (c)."""
        describer = self.describer()
        results = []
        for asked in clip.rounds(regions, frames):
            began_s = time.perf_counter()
            told, first_s = say(describer, asked)
            results.append(
                {
                    'total_s': time.perf_counter() - began_s,
                    'first_token_s': first_s,
                    'tokens_in': sum(one.tokens_in for one in told),
                    'tokens_out': sum(one.tokens_out for one in told),
                }
            )
        return {'regions': regions, 'frames': frames, 'questions': results}

    def decoding(self, rows: int, tokens: int, copy_gb_s: float) -> dict[str, Any]:
        """Measure tokens per second after the first, and what the memory allows; see (d).

        Each step reads the language model's weights once, for all rows, and the keys and values
        of every row.
        """
        config = self.model.config
        describer = self.describer(tokens)
        asked = clip.rounds(rows, FRAMES)[1]
        say(describer, asked)  # pictures and prompts are known from here on
        told, first_s, total_s = say_timed(describer, asked)
        steps = max(one.tokens_out for one in told) - 1
        read = sum(one.nbytes for one in self.model.model.layers.parameters())
        read += self.model.lm_head.weight.nbytes
        width = config.hidden_size // config.num_attention_heads
        per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * width
        slots = sum(one.tokens_in + one.tokens_out // 2 for one in told)
        read += per_token * slots * self.model.dtype.itemsize
        step_s = (total_s - first_s) / steps
        # a copy reads and writes each byte; a step only reads
        limit = rows * 2 * copy_gb_s * 1e9 / read
        return {
            'rows': rows,
            'steps': steps,
            'first_token_s': first_s,
            'step_ms': 1e3 * step_s,
            'tokens_per_s': rows / step_s,
            'bytes_per_step': read,
            'limit_tokens_per_s': limit,
            'share_of_limit': rows / step_s / limit,
        }


def say(describer: PixelReferDescriber, asked: Sequence[Request]) -> tuple[list[Utterance], float]:
    """Ask together; return the words and the seconds to the first token of any."""
    told, first_s, _ = say_timed(describer, asked)
    return told, first_s


def say_timed(
    describer: PixelReferDescriber, asked: Sequence[Request]
) -> tuple[list[Utterance], float, float]:
    """Ask together; return the words, the seconds to the first token, and to the last.

    Raises:
        PixelReferError: What went wrong with a request.
    """
    began_s = time.perf_counter()
    firsts: list[float] = []

    def progress(_: str, text: str) -> None:
        if text and not firsts:
            firsts.append(time.perf_counter() - began_s)

    told: dict[int, Any] = {}
    describer.say([replace(one, on_progress=progress) for one in asked], told.__setitem__)
    total_s = time.perf_counter() - began_s
    for outcome in told.values():
        if isinstance(outcome, Exception):
            raise outcome
    return [told[place] for place in range(len(asked))], firsts[0], total_s


def copy_gb_s(device: str) -> float:
    """Return how many 10^9 bytes a second can be copied (each is read and written)."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        if device == 'cuda':
            torch.cuda.synchronize()

    return COPIED / min(common.repeat(copy, 5)) / 1e9


def core_import_s() -> float:
    """Return how long a fresh Python takes to import all of ``pixelrefer_ros.core``."""
    names = [f'pixelrefer_ros.core.{one.name}' for one in pkgutil.iter_modules(core.__path__)]
    script = (
        'import time; began = time.perf_counter()\n'
        f'import {", ".join(names)}\n'
        'print(time.perf_counter() - began)'
    )
    command = [sys.executable, '-c', script]
    return min(
        float(subprocess.run(command, check=True, capture_output=True, cwd=common.ROOT).stdout)
        for _ in range(3)
    )


def measure(size: str, device: str, dtype: torch.dtype, quick: bool) -> dict[str, Any]:
    """Measure one model on one device."""
    common.say(f'{size} on {device} ...')
    if device == 'cuda':
        gc.collect()  # the model before
        torch.cuda.empty_cache()
    run = Run(size, device, dtype, 4 if quick else plan.ANSWER_TOKENS)
    regions, frames = (2, 2) if quick else (REGIONS, FRAMES)
    speed_gb_s = copy_gb_s(device)
    result: dict[str, Any] = {
        'model': size,
        'device': torch.cuda.get_device_name() if device == 'cuda' else 'cpu',
        'dtype': str(dtype).removeprefix('torch.'),
        'threads': torch.get_num_threads(),
        'parameters': run.model.num_parameters(),
        'parameters_tower': sum(one.numel() for one in run.model.tower.parameters()),
        'copy_gb_s': speed_gb_s,
        'side_by_side': run.side_by_side(regions, frames),
    }
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()  # what follows is ours alone
    shapes = SHAPES[:1] if quick else (*SHAPES, (regions, frames))
    result['shapes'] = [run.shape(*shape) for shape in shapes]
    result['decoding'] = [
        run.decoding(rows, 8 if quick else DECODED, speed_gb_s)
        for rows in (ROWS[:1] if quick else ROWS)
    ]
    if device == 'cuda':
        result['peak_memory_mib'] = torch.cuda.max_memory_allocated() / 2**20
    return result


def main() -> None:
    """Measure, print and write."""
    options = common.options('How long regions, frames and questions take.')
    about = common.machine()
    common.introduce('speed', about)
    wanted = [('mid', 'cpu', torch.float32)]
    if torch.cuda.is_available():
        wanted.append(('mid', 'cuda', torch.float32))
        free_gb = torch.cuda.mem_get_info()[0] / 1e9
        for size, needed_gb in NEEDED_GB.items():
            if free_gb >= needed_gb:
                wanted.append((size, 'cuda', torch.bfloat16))
            else:
                common.say(f'{free_gb:.1f} GB are free on the GPU, {size} needs {needed_gb:g}')
    else:
        common.say('no CUDA device: not measured on a GPU')
    runs = [measure(*one, options.quick) for one in (wanted[:1] if options.quick else wanted)]
    for result in runs:
        tables.show(result)
    if not options.quick:
        results = {'machine': about, 'core_import_s': core_import_s(), 'runs': runs}
        common.write('speed', results)
        document.put(results)
        plots.speed(runs[0])
    for result in runs:
        same = result['side_by_side']
        # in bfloat16 sums of other order round to other words
        if result['dtype'] == 'float32' and same['words_equal'] < same['words_compared']:
            sys.exit(
                f'only {same["words_equal"]} of {same["words_compared"]} answers of the '
                f'{result["model"]} model on {result["device"]} have the words of the reference'
            )


if __name__ == '__main__':
    main()
