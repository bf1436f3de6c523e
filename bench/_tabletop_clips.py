# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow every thing of simulated tabletop clips and compare with the exact masks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._following import Run, follow
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Region, RegionKind, TrackState
from pixelrefer_ros.evaluation.segmentation import score_masks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixelrefer_ros.core.types import Box
    from pixelrefer_ros.simulation.clips import Clip

WIDTH, HEIGHT, RATE_HZ, FRAMES = 640, 480, 10.0, 31
# Worlds are drawn by seeds from here on; training uses smaller ones.
FIRST_SEED = 3_000_000_000
_MIN_AREA_PX = 60


def clips(count: int) -> Iterator[Clip]:
    """Render clips of worlds nobody has seen."""
    from pixelrefer_ros.simulation.clips import ClipMaker
    from pixelrefer_ros.simulation.render import MATERIALS
    from pixelrefer_ros.simulation.world import sample_world

    maker = ClipMaker(WIDTH, HEIGHT, supersample=1)
    times_s = (np.arange(FRAMES) / RATE_HZ).astype(np.float32)
    for number in range(count):
        rng = np.random.default_rng(FIRST_SEED + number)
        world = sample_world(rng, float(times_s[-1]), MATERIALS)
        yield maker.film(world, times_s, None)
    maker.close()


def follow_things(clip: Clip, kind: RegionKind) -> dict[int, Run]:
    """Give every thing seen in the first frame, as mask or box, and follow all at once."""
    regions = []
    for thing in range(len(clip.things)):
        truth = clip.mask(0, thing)
        if np.count_nonzero(truth) < _MIN_AREA_PX:
            continue
        mask = masks.encode(truth)
        box: Box | None = masks.bounding_box(mask)
        if kind == RegionKind.BOX:
            regions.append(Region(str(thing), kind, box=box))
        else:
            regions.append(Region(str(thing), kind, mask=mask))
    runs = follow(clip.images, regions, RATE_HZ)
    return {int(region_id): run for region_id, run in runs.items()}


def judge(clip: Clip, thing: int, run: Run) -> dict[str, Any]:
    """Score one thing over the frames after the first, and how soon its loss was reported."""
    truths = [clip.mask(number, thing) for number in range(len(clip.images))]
    found = [sighting.mask for sighting in run.sightings]
    scores = score_masks(zip(found[1:], truths[1:], strict=True))
    facts = clip.things[thing]
    return {
        'thing': f'{facts.size} {facts.colour} {facts.shape}, {facts.motion or "moving"}',
        'j': scores.region,
        'f': scores.boundary,
        'j_and_f': scores.mean,
        'cpu_ms': run.cpu_ms,
        'lost_after_s': _lost_after_s(truths, [one.state for one in run.sightings]),
    }


def _lost_after_s(
    truths: list[np.ndarray[Any, Any]], states: list[TrackState]
) -> float | None:
    """Return how long after enough of the thing was last to be seen it was LOST.

    None where it is seen to the end, or not gone for half a second; infinite when never.
    """
    shown = [np.count_nonzero(truth) >= _MIN_AREA_PX for truth in truths]
    last = max(number for number, one in enumerate(shown) if one)
    if len(shown) - 1 - last < 0.5 * RATE_HZ:
        return None
    for number in range(last + 1, len(states)):
        if states[number] == TrackState.LOST:
            return (number - last) / RATE_HZ
    return math.inf
