# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How well, how surely and how fast does the anchored tracker follow?

Three kinds of clips, one core:

* synthetic ones with exact masks (``bench/_synthetic.py``): mean IoU over all frames after the
  first, a frame in which nothing is to be seen counting 1 when nothing is claimed; correlation
  of score and IoU over the frames in which something is to be seen, all clips of a setting
  together; milliseconds of processor time per frame and object;
* simulated tabletops at 10 Hz, of worlds that nobody trained on: J, F and J&F per thing over all
  frames after the first, given as exact mask and as box; and how long after a thing was last to
  be seen it is reported LOST;
* real clips, without truth: followed forward, then back from the result; IoU with the first mask.

    python -m bench.tracking [--quick] [--sheets FOLDER]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from bench import _common as common
from bench import _synthetic as synthetic
from bench import _tabletop_clips as tabletop
from bench._following import draw_sheet, follow
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Box, Region, RegionKind
from pixelrefer_ros.evaluation.segmentation import region_similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEEDS = range(100, 105)
CLIPS = 24
MEDIA = common.ROOT / '..' / 'shared' / 'media'
REAL_SIZE = (640, 360)
LENGTHS = (30, 60, 89)
LOST_WITHIN_S = 0.5
# Boxes in the first picture, drawn by hand at 640x360.
REAL: dict[str, dict[str, Box]] = {
    '03_blocks': {
        'K': Box(244, 62, 45, 50),
        'W': Box(269, 229, 46, 46),
        'P': Box(560, 42, 45, 52),
    },
    '04_coffee': {'mug': Box(397, 203, 100, 106), 'kettle': Box(222, 146, 196, 176)},
    '16_robotarm': {'arm': Box(138, 62, 252, 186)},
}


def run_synthetic(
    distinct: bool, occluded: bool, seeds: range, sheets: Path | None
) -> dict[str, Any]:
    """Follow the clips of one setting."""
    overlaps, seen_overlaps, scores, cpu_ms = [], [], [], []
    for seed in seeds:
        clip = synthetic.make(seed, distinct=distinct, occluded=occluded)
        region = Region('thing', RegionKind.MASK, mask=masks.encode(clip.masks[0]))
        runs = follow(list(clip.images), [region], synthetic.RATE_HZ)
        run = runs['thing']
        cpu_ms += run.cpu_ms
        for sighting, truth in zip(run.sightings[1:], clip.masks[1:], strict=True):
            mask = np.zeros_like(truth) if sighting.mask is None else sighting.mask
            overlaps.append(region_similarity(mask, truth))
            if truth.any():
                seen_overlaps.append(overlaps[-1])
                scores.append(sighting.score)
        if sheets is not None:
            name = f'synthetic_{int(distinct)}{int(occluded)}_{seed}.png'
            draw_sheet(sheets / name, list(clip.images), runs, every=3)
    return {
        'object': 'distinct' if distinct else "the background's colours",
        'occluded': occluded,
        'clips': len(seeds),
        'mean_iou': float(np.mean(overlaps)),
        'score_correlation': float(np.corrcoef(scores, seen_overlaps)[0, 1]),
        'cpu_ms_per_frame_and_object': times(cpu_ms),
    }


def times(cpu_ms: list[float]) -> dict[str, float]:
    """Return median, 95th percentile and mean of milliseconds."""
    return common.summary(cpu_ms) | {'mean': float(np.mean(cpu_ms))}


def run_tabletop(count: int, sheets: Path | None) -> list[dict[str, Any]]:
    """Follow the things of simulated clips, given as masks and as boxes."""
    told: dict[RegionKind, list[dict[str, Any]]] = {RegionKind.MASK: [], RegionKind.BOX: []}
    for number, clip in enumerate(tabletop.clips(count)):
        for kind, judged in told.items():
            runs = tabletop.follow_things(clip, kind)
            judged += [
                {'clip': number} | tabletop.judge(clip, thing, run) for thing, run in runs.items()
            ]
            if sheets is not None:
                named = {str(thing): run for thing, run in runs.items()}
                name = f'tabletop_{kind.name.lower()}_{number:02d}.png'
                draw_sheet(sheets / name, list(clip.images), named, every=2)
    return [summarize(kind, count, judged) for kind, judged in told.items()]


def summarize(kind: RegionKind, count: int, judged: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over things, and what became of those that were lost."""
    delays_s = [one['lost_after_s'] for one in judged if one['lost_after_s'] is not None]
    return {
        'given': kind.name.lower(),
        'clips': count,
        'things': len(judged),
        **{key: float(np.mean([one[key] for one in judged])) for key in ('j', 'f', 'j_and_f')},
        'share_of_things_below_0.8': float(np.mean([one['j_and_f'] < 0.8 for one in judged])),
        'cpu_ms_per_frame_and_object': times([ms for one in judged for ms in one['cpu_ms']]),
        'gone': len(delays_s),
        'reported_lost_in_time': sum(delay <= LOST_WITHIN_S for delay in delays_s),
        'never_reported_lost': sum(math.isinf(delay) for delay in delays_s),
        'worst': sorted(
            ({'clip': one['clip'], 'thing': one['thing'], 'j_and_f': one['j_and_f']}
             for one in judged), key=lambda one: one['j_and_f'],
        )[:8],
    }  # fmt: skip


def read_video(path: Path, count: int) -> list[NDArray[np.uint8]]:
    """Read the first pictures of a video at ``REAL_SIZE``, RGB."""
    capture = cv2.VideoCapture(str(path))
    pictures = []
    while len(pictures) < count:
        there, picture = capture.read()
        if not there:
            break
        small = cv2.resize(picture, REAL_SIZE, interpolation=cv2.INTER_AREA)
        pictures.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    return pictures


def run_real(lengths: tuple[int, ...], sheets: Path | None) -> list[dict[str, Any]]:
    """Follow things in real clips forward and back."""
    results = []
    for name, boxes in REAL.items():
        path = MEDIA / f'{name}.mp4'
        if not path.is_file():
            common.say(f'no {path.name}: left out')
            continue
        pictures = read_video(path, max(lengths) + 1)
        regions = [Region(thing, RegionKind.BOX, box=box) for thing, box in boxes.items()]
        runs = follow(pictures, regions, 30.0)
        if sheets is not None:
            draw_sheet(sheets / f'real_{name}.png', pictures, runs, every=5)
        for thing, run in runs.items():
            first = run.sightings[0].mask
            assert first is not None
            cycle = {
                str(length): cycle_iou(pictures[: length + 1], first, run.sightings[length].mask)
                for length in lengths
            }
            results.append({'clip': name, 'thing': thing, 'cycle_iou': cycle})
    return results


def cycle_iou(
    pictures: list[NDArray[np.uint8]],
    first: NDArray[np.bool_],
    reached: NDArray[np.bool_] | None,
) -> float:
    """Return the IoU of the first mask and where the way back ends; 0 when it was lost."""
    if reached is None or not reached.any():
        return 0.0
    region = Region('back', RegionKind.MASK, mask=masks.encode(reached))
    back = follow(pictures[::-1], [region], 30.0)['back'].sightings[-1].mask
    return 0.0 if back is None else region_similarity(back, first)


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    common.show(
        f'synthetic clips, {synthetic.FRAMES} frames of {synthetic.WIDTH}x{synthetic.HEIGHT}',
        ['object', 'occluded', 'mean IoU', 'score~IoU', 'CPU ms', 'mean'],
        [
            [one['object'], 'yes' if one['occluded'] else 'no', one['mean_iou'],
             one['score_correlation'] if one['occluded'] else math.nan,
             *cpu(one)]
            for one in results['synthetic']
        ],
        'CPU ms: per frame and object, median and mean.',
    )  # fmt: skip
    common.show(
        f'simulated tabletops, {tabletop.FRAMES} frames at {tabletop.RATE_HZ:g} Hz',
        ['given as', 'clips', 'things', 'J', 'F', 'J&F', 'CPU ms', 'mean', 'gone', 'LOST in time'],
        [
            [*(one[key] for key in ('given', 'clips', 'things', 'j', 'f', 'j_and_f')), *cpu(one),
             *(one[key] for key in ('gone', 'reported_lost_in_time'))]
            for one in results['tabletop']
        ],
        f'LOST in time: within {LOST_WITHIN_S:g} s of when it was last to be seen.',
    )  # fmt: skip
    if results['real']:
        lengths = list(results['real'][0]['cycle_iou'])
        common.show(
            'real clips, 640x360, forward and back',
            ['clip', 'thing', *(f'{length} frames' for length in lengths)],
            [[one['clip'], one['thing'], *one['cycle_iou'].values()] for one in results['real']],
            'IoU of the first mask, made of a box, and where the way back ends.',
        )


def cpu(result: dict[str, Any]) -> tuple[float, float]:
    """Return the median and mean milliseconds of a result."""
    told = result['cpu_ms_per_frame_and_object']
    return told['median'], told['mean']


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description='How well the anchored tracker follows.')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='a smoke test of some seconds: its figures mean little and no file is written',
    )
    parser.add_argument('--sheets', type=Path, help='folder for pictures of what was followed')
    options = parser.parse_args()
    about = common.machine()
    common.introduce('tracking', about)
    seeds = SEEDS[:1] if options.quick else SEEDS
    common.say('synthetic clips ...')
    results: dict[str, Any] = {
        'synthetic': [
            run_synthetic(distinct, occluded, seeds, options.sheets)
            for distinct in (True, False)
            for occluded in (False, True)
        ]
    }
    common.say('simulated tabletops ...')
    results['tabletop'] = run_tabletop(2 if options.quick else CLIPS, options.sheets)
    common.say('real clips ...')
    results['real'] = run_real(LENGTHS[:1] if options.quick else LENGTHS, options.sheets)
    show(results)
    if not options.quick:
        common.write('tracking', {'machine': about, 'backend': 'anchored'} | results)


if __name__ == '__main__':
    main()
