# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Does memory stay flat while regions come and go for 10 000 frames?

Each backend follows a drifting scene in a process of its own: regions are given as boxes, points
and masks, corrected by a detector, caught up on forks and adopted, and forgotten; now and then
the camera changes its resolution. SAM 2 has a tiny random configuration: its masks mean nothing,
what it stores is what the large ones store, smaller.

    python -m bench.soak [--quick]
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import _common as common
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import NS_PER_S, Frame, PixelReferError, Region, RegionKind
from pixelrefer_ros.tracking.registry import tracker_factory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Box

BACKENDS = ('anchored', 'sam2')
WIDTH, HEIGHT = 320, 240
SIZES = ((HEIGHT, WIDTH), (180, 240))
FRAMES, QUICK_FRAMES = 10_000, 300
FLAT_PERCENT = 2.0
# of all frames: what is allocated once, and what the allocator keeps, shows here
WARM_UP = 0.1
MOST_REGIONS = 3
COUNTED = ('given', 'corrected', 'adopted', 'removed', 'refused')
_MOMENTS = 60
_ADD, _CORRECT, _FORK, _RESIZE = 25, 10, 100, 1000
_FORK_FRAMES = 8
_SAMPLES = 100


def flatness(rss_mib: Sequence[float]) -> dict[str, Any]:
    """Judge the memory of a run from samples taken at even distances.

    Returns:
        Resident memory in MiB at the end of the warm-up (median of the tenth after it), how far
        the later samples lie below and above that in percent, the growth of the median from the
        first to the last fifth, and whether all stays within ``FLAT_PERCENT``.
    """
    later = list(rss_mib[round(WARM_UP * len(rss_mib)) :])
    tenth, fifth = max(1, len(later) // 10), max(1, len(later) // 5)
    base = statistics.median(later[:tenth])
    below, above = (100.0 * (pick(later) - base) / base for pick in (min, max))
    grown = statistics.median(later[-fifth:]) - statistics.median(later[:fifth])
    return {
        'after_warm_up_mib': base,
        'lowest_percent': below,
        'highest_percent': above,
        'growth_mib': grown,
        'flat': max(-below, above) <= FLAT_PERCENT,
    }


class Scene:
    """Hold a scene that drifts to and fro, in two resolutions, drawn once."""

    def __init__(self) -> None:
        """Draw it."""
        self._drawn = [
            [common.scene(width, height, moment / _MOMENTS) for moment in range(_MOMENTS)]
            for height, width in SIZES
        ]

    def at(self, number: int) -> tuple[Frame, list[Box]]:
        """Return frame ``number`` at 10 Hz, and the boxes of the eight discs in it."""
        phase = number % (2 * _MOMENTS)
        moment = min(phase, 2 * _MOMENTS - 1 - phase)
        image, boxes = self._drawn[number // _RESIZE % len(SIZES)][moment]
        return Frame('', number * NS_PER_S // 10, image), boxes


def region(region_id: str, kind: RegionKind, box: Box, frame: Frame) -> Region:
    """Point at a disc in one of the three ways."""
    if kind == RegionKind.BOX:
        return Region(region_id, kind, box=box)
    if kind == RegionKind.POINTS:
        middle = (box.x + box.width / 2, box.y + box.height / 2)
        return Region(region_id, kind, points=(middle, (0.0, 0.0)), point_labels=(1, 0))
    height, width = frame.image.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    radius = box.width / 2
    disc = np.hypot(rows - box.y - radius, columns - box.x - radius) <= radius
    return Region(region_id, kind, mask=masks.encode(disc))


class Soak:
    """Follow the scene with one tracker, and do to it all that can be done."""

    def __init__(self, tracker: RegionTracker, scene: Scene, done: dict[str, int]) -> None:
        """Follow nothing yet; count in ``done``."""
        self.tracker = tracker
        self._scene = scene
        self._done = done

    def frame(self, number: int) -> None:
        """Take frame ``number``."""
        frame, boxes = self._scene.at(number)
        self.tracker.step(frame)
        if number % _CORRECT == 0 and self.tracker.region_ids:
            region_id = self.tracker.region_ids[-1]
            self._start('corrected', frame, region_id, boxes)
        if number % _ADD == 0:
            while len(self.tracker.region_ids) >= MOST_REGIONS:
                self.tracker.remove(self.tracker.region_ids[0])
                self._done['removed'] += 1
            self._start('given', frame, f'region {number // _ADD}', boxes)
        if number % _FORK == 0 and number % _RESIZE > _FORK_FRAMES:
            self._catch_up(number)

    def _start(self, what: str, frame: Frame, region_id: str, boxes: list[Box]) -> None:
        serial = int(region_id.split()[-1])
        given = region(region_id, RegionKind(serial % 3), boxes[serial % len(boxes)], frame)
        try:
            self.tracker.start(frame, given)
            self._done[what] += 1
        except PixelReferError:
            self._done['refused'] += 1

    def _catch_up(self, number: int) -> None:
        """Give a region in the past, follow it up to now on a fork, and take it over."""
        fork = Soak(self.tracker.fork(), self._scene, self._done)
        region_id = f'fork {number // _FORK}'
        first = number - _FORK_FRAMES
        frame, boxes = self._scene.at(first)
        fork._start('given', frame, region_id, boxes)
        for later in range(first + 1, number + 1):
            frame, _ = self._scene.at(later)
            fork.tracker.step(frame)
        if region_id in fork.tracker.region_ids:
            self.tracker.adopt(fork.tracker, region_id, frame)
            self._done['adopted'] += 1


def make(backend: str) -> RegionTracker:
    """Return a tracker; SAM 2 with tiny random weights."""
    if backend != 'sam2':
        return tracker_factory(backend)()
    import torch

    from bench._tiny_sam2 import tiny_model
    from pixelrefer_ros.tracking.sam2 import Sam2Tracker
    from pixelrefer_ros.tracking.sam2_model import Segmenter

    torch.set_num_threads(1)
    return Sam2Tracker(Segmenter(tiny_model(), 'tiny'))


def run(backend: str, frames: int) -> dict[str, Any]:
    """Follow for that many frames; return what was done, the memory and the time."""
    import cv2

    cv2.setNumThreads(1)
    done = dict.fromkeys(COUNTED, 0)
    soak = Soak(make(backend), Scene(), done)
    every = max(1, frames // _SAMPLES)
    rss_mib = []
    followed = 0
    began = time.process_time()
    for number in range(frames):
        soak.frame(number)
        followed += len(soak.tracker.region_ids)
        if number % every == 0:
            gc.collect()
            rss_mib.append(common.rss_mib())
    cpu_s = time.process_time() - began
    return {
        'backend': backend,
        'frames': frames,
        **done,
        'mean_regions': followed / frames,
        'cpu_ms_per_frame': 1e3 * cpu_s / frames,
        **flatness(rss_mib),
        'rss_mib': rss_mib,
    }


def row(result: dict[str, Any]) -> list[object]:
    """Return a row of the table."""
    spread = f'{result["lowest_percent"]:+.1f} to {result["highest_percent"]:+.1f}'
    figures = [result[key] for key in (*COUNTED, 'cpu_ms_per_frame', 'after_warm_up_mib')]
    flat = 'yes' if result['flat'] else 'no'
    return [result['backend'], *figures, spread, result['growth_mib'], flat]


def main() -> None:
    """Measure, print and write."""
    options = common.options('Memory over 10 000 frames while regions come and go.')
    about = common.machine()
    frames = QUICK_FRAMES if options.quick else FRAMES
    os.environ['OMP_NUM_THREADS'] = '1'
    common.introduce('soak', about)
    results = []
    for backend in BACKENDS:
        common.say(f'{backend}, {frames} frames ...')
        # a process each: memory one has given back must not hide what another takes
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
            results.append(pool.submit(run, backend, frames).result())
    columns = ['backend', *COUNTED, 'CPU ms', 'MiB', 'range %', 'growth MiB', 'flat']
    common.show(
        f'memory of a tracker over {frames} frames of {WIDTH}x{HEIGHT} and '
        f'{SIZES[1][1]}x{SIZES[1][0]}, up to {MOST_REGIONS} regions at once',
        columns,
        [row(one) for one in results],
        f'CPU: per frame. MiB: resident memory of the process after a warm-up of {WARM_UP:.0%} of '
        f'the frames; flat: never more than {FLAT_PERCENT:g} % from what it was then.',
    )
    if not options.quick:
        settings = {'frames': frames, 'sizes': SIZES, 'most_regions': MOST_REGIONS}
        common.write('soak', {'machine': about, 'settings': settings, 'runs': results})


if __name__ == '__main__':
    main()
