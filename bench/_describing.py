# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the tabletop model: descriptions and answers over a clip, in this process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench import _common as common
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import NS_PER_S, Frame, RegionClip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.types import Utterance
    from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber

FRAMES = 8
WIDTH, HEIGHT = 640, 480
_WARM_UP = 2
_STAGES = ('preprocess', 'vision', 'language')


def clip() -> tuple[list[Frame], list[RegionClip]]:
    """Draw eight frames over two seconds, and the masks of eight regions in each of them."""
    frames = []
    regions: list[list[np.ndarray]] = []
    for number in range(FRAMES):
        picture, boxes = common.scene(WIDTH, HEIGHT, number / FRAMES)
        frames.append(Frame('', NS_PER_S + number * 2 * NS_PER_S // FRAMES, picture))
        regions.append([masks.decode(masks.encode_box(box, HEIGHT, WIDTH)) for box in boxes])
    every = tuple(range(FRAMES))
    return frames, [
        RegionClip(f'r{index}', every, [regions[number][index] for number in every])
        for index in range(len(regions[0]))
    ]


def describing(
    describer: PixelReferDescriber, count: int, thread_counts: Sequence[int]
) -> list[dict[str, Any]]:
    """Measure descriptions and questions about one and eight regions.

    On a CPU the engine describes region by region, so eight descriptions are eight calls; a
    question about eight regions is one. Nothing is known of the clip before the first of them. A
    second question differs from the first and is about the same clip.

    Args:
        describer: The model, on the CPU.
        count: Repetitions.
        thread_counts: Threads to let torch use, one after the other.

    Returns:
        One entry per task and number of threads.
    """
    frames, regions = clip()
    one = regions[:1]
    tasks: tuple[tuple[str, int, Callable[[], list[Utterance]]], ...] = (
        ('describe', 1, lambda: [describer.describe(frames, region) for region in one]),
        ('describe', 8, lambda: [describer.describe(frames, region) for region in regions]),
        ('question', 1, lambda: [describer.answer('What colour is it?', frames, one)]),
        ('2nd question', 1, lambda: [describer.answer('What shape is it?', frames, one)]),
        ('question', 8, lambda: [describer.answer('What colour is {r0}?', frames, regions)]),
        ('2nd question', 8, lambda: [describer.answer('What shape is {r5}?', frames, regions)]),
    )
    nothing_known = {'describe', 'question'}
    calls: list[int] = []
    hook = describer.model.tower.register_forward_pre_hook(lambda *_: calls.append(1))
    threads_before = torch.get_num_threads()
    rows = []
    try:
        for threads in thread_counts:
            torch.set_num_threads(threads)
            for task, region_count, work in tasks:
                rows.append(
                    {'task': task, 'regions': region_count, 'frames': FRAMES, 'threads': threads}
                    | _measure(
                        work,
                        describer.forget if task in nothing_known else lambda: None,
                        count,
                        calls,
                    )
                )
    finally:
        torch.set_num_threads(threads_before)
        hook.remove()
    return rows


def _measure(
    work: Callable[[], Sequence[Utterance]],
    prepare: Callable[[], None],
    count: int,
    calls: list[int],
) -> dict[str, Any]:
    """Time a task, and split the time as the model tells; ``prepare`` goes before each."""
    for _ in range(_WARM_UP):
        work()
    total_s = []
    stages: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    calls.clear()
    for _ in range(count):
        prepare()
        began = time.perf_counter()
        said = work()
        total_s.append(time.perf_counter() - began)
        for stage in _STAGES:
            stages[stage].append(sum(getattr(one, f'{stage}_s') for one in said))
    return {
        'total_ms': common.scaled(total_s, 1e3),
        **{f'{stage}_ms': common.scaled(stages[stage], 1e3) for stage in _STAGES},
        'tower_calls': len(calls) / count,
        'tokens_in': sum(one.tokens_in for one in said),
        'tokens_out': sum(one.tokens_out for one in said),
    }
