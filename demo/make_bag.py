# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make ``demo/tabletop.mcap`` and its ground truth: sixteen seconds on a simulated table.

The bag holds what a robot would record: a 640x480 camera, for ten seconds the detections of an
instance segmenter with ids (one of them boxes only), and the questions of a planner. Then the
segmenter is silent; the planner points at five things, once each, and goes on asking. Seven times
it asks for a thing in words alone, of which two are not there. Run it from the root of the
repository: ``python -m demo.make_bag``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.bags.truth import QueryTruth, RegionTruth, Spot, Truth, box_at
from pixelrefer_ros.bags.video import ORIGIN_NS, make_bag
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Query, Region, RegionKind, Task
from pixelrefer_ros.simulation.clips import ClipMaker
from pixelrefer_ros.simulation.world import (
    COLOURS,
    SHAPES,
    SIZES,
    CameraSpec,
    ThingSpec,
    WorldSpec,
)
from pixelrefer_ros.training.questions import MOTION_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

DURATION_S = 16.0
DETECTOR_STOPS_S = 10.0
CAMERA_HZ = 30.0
KEPT_HZ = 10.0  # by the node, unless told otherwise
DETECTOR_HZ = 5.0  # on every other image that is kept
MIN_AREA_PX = 250


@dataclass(frozen=True, slots=True)
class Act:
    """Hold one thing of the scene.

    Attributes:
        region_id: Its id in the detector's stream.
        look: (size, colour, shape).
        yaw_rad: Heading.
        path: Time in seconds to position in metres.
        motions: (from_s, to_s, motion) in order; still otherwise.
        box_only: The detector gives a box, no mask.
    """

    region_id: str
    look: tuple[str, str, str]
    yaw_rad: float
    path: Callable[[float], tuple[float, float, float]]
    motions: tuple[tuple[float, float, str], ...] = ()
    box_only: bool = False


def _ease(t: float, start: float, stop: float) -> float:
    return min(max((t - start) / (stop - start), 0.0), 1.0)


def _smooth(u: float) -> float:
    return u * u * (3 - 2 * u)


def _rolling_ball(t: float) -> tuple[float, float, float]:
    return -0.26 + 0.36 * _ease(t, 1.0, 4.5) - 0.30 * _ease(t, 12.0, 15.0), -0.15, 0.0


def _sliding_cube(t: float) -> tuple[float, float, float]:
    return 0.10 + 0.16 * _ease(t, 11.0, 13.2), 0.14 - 0.22 * _ease(t, 5.0, 8.2), 0.0


def _carried_cylinder(t: float) -> tuple[float, float, float]:
    up = sum(0.14 * (_smooth(_ease(t, a, a + 0.8)) - _smooth(_ease(t, b - 0.8, b)))
             for a, b in CARRIED_S)
    across = _smooth(_ease(t, 3.0, 6.4)) - _smooth(_ease(t, 11.4, 14.8))
    return -0.20 + 0.18 * across, 0.05, up


def _falling_ring(t: float) -> tuple[float, float, float]:
    speed, edge_s, edge_x = 0.22, 8.2, 0.36
    fall = max(t - edge_s, 0.0)
    z = max(-0.26, -0.5 * 9.81 * fall**2)
    landed = edge_s + (2 * 0.26 / 9.81) ** 0.5
    return edge_x + speed * (min(max(t, edge_s - 0.7), landed) - edge_s), -0.08, z


CARRIED_S = ((2.6, 6.8), (11.0, 15.2))

ACTS = (
    Act('obj_1', ('large', 'red', 'mug'), 2.2, lambda _t: (-0.22, 0.17, 0.0)),
    Act('obj_2', ('small', 'blue', 'ball'), 0.0, _rolling_ball,
        ((1.0, 4.5, 'rolling'), (12.0, 15.0, 'rolling'))),
    Act('obj_3', ('medium', 'green', 'cube'), 0.5, _sliding_cube,
        ((5.0, 8.2, 'sliding'), (11.0, 13.2, 'sliding'))),
    Act('obj_4', ('large', 'yellow', 'bottle'), 0.0, lambda _t: (-0.115, 0.20, 0.0),
        box_only=True),
    Act('obj_5', ('medium', 'white', 'cylinder'), 0.8, _carried_cylinder,
        tuple((a, b, 'carried') for a, b in CARRIED_S)),
    Act('obj_6', ('large', 'purple', 'ring'), 0.0, _falling_ring,
        ((7.5, 8.2, 'sliding'), (8.2, 8.5, 'falling'))),
)

# What the planner points at, once: (seconds, its name for it, act, how)
POINTED = (
    (10.2, 'the_mug', 'obj_1', RegionKind.BOX),
    (10.3, 'the_ball', 'obj_2', RegionKind.MASK),
    (10.4, 'the_cube', 'obj_3', RegionKind.POINTS),
    (10.5, 'the_bottle', 'obj_4', RegionKind.BOX),
    (10.6, 'the_cylinder', 'obj_5', RegionKind.MASK),
)

# (seconds, region ids, question, kind, accepted answers)
QUESTIONS: tuple[tuple[float, tuple[str, ...], str, str, tuple[str, ...]], ...] = (
    (1.2, ('obj_1',), 'What colour is {obj_1}?', 'colour', ('red',)),
    (1.6, ('obj_4',), 'What is {obj_4}?', 'shape', ('bottle',)),
    (2.1, ('obj_3',), 'How big is it?', 'size', ('medium',)),
    (2.6, ('obj_1',), 'Is this a mug?', 'attribute', ('yes',)),
    (3.2, ('obj_2',), 'What is it doing?', 'motion', ('rolling',)),
    (3.6, ('obj_2',), 'Is it moving?', 'moving', ('yes',)),
    (3.9, ('obj_1',), 'Is it moving?', 'moving', ('no',)),
    (4.3, ('obj_2', 'obj_1'), 'Is {obj_2} left or right of {obj_1}?', 'left or right', ('right',)),
    (4.8, ('obj_5',), 'What is happening to it?', 'motion', ('being carried',)),
    (5.2, ('obj_4',), 'What brand is it?', 'unanswerable', ("I can't tell",)),
    (5.6, ('obj_3',), 'Is {obj_3} blue?', 'attribute', ('no',)),
    (6.1, ('obj_2', 'obj_4'), 'Which is closer to the camera, {obj_2} or {obj_4}?', 'closer',
     ('obj_2',)),
    (6.6, ('obj_1',), 'What is next to it?', 'neighbour', ('yellow bottle',)),
    (7.2, ('obj_3',), 'How does it move?', 'motion', ('sliding',)),
    (7.6, ('obj_2',), 'Is it moving?', 'moving', ('no',)),
    (8.1, ('obj_5',), 'What shape is it?', 'shape', ('cylinder',)),
    (8.6, ('obj_3', 'obj_1'), 'Is {obj_3} to the left of {obj_1}?', 'left or right', ('no',)),
    (9.1, ('obj_6',), 'What happened to {obj_6}?', 'motion', ('falling',)),
    (9.4, ('obj_5',), 'How heavy is it?', 'unanswerable', ("I can't tell",)),
    (9.7, ('obj_2',), 'What colour is it?', 'colour', ('blue',)),
    (12.6, ('the_cylinder',), 'What is happening to it?', 'motion', ('being carried',)),
    (12.9, ('the_cube',), 'Is it moving?', 'moving', ('yes',)),
    (13.4, ('the_mug',), 'What colour is it?', 'colour', ('red',)),
    (14.2, ('the_ball',), 'What is it doing?', 'motion', ('rolling',)),
    (14.6, ('the_ball', 'the_cube'), 'Is {the_ball} left or right of {the_cube}?',
     'left or right', ('left',)),
    (15.0, ('the_bottle',), 'What is it?', 'shape', ('bottle',)),
    (15.5, ('the_cube',), 'What colour is it?', 'colour', ('green',)),
)

# What to find in words alone: (seconds, how far back to look, 0 for as far as the node does,
# what, region id of what it is, '' when nothing is). Each has one answer in its window, in which
# nothing moves at first: what was going on before cannot be told from it.
FINDINGS: tuple[tuple[float, float, str, str], ...] = (
    (5.0, 0.0, 'Find the yellow bottle.', 'obj_4'),
    (6.2, 0.0, 'Is there a red ball?', ''),
    (7.5, 0.0, 'Which object moved first?', 'obj_2'),
    (8.0, 0.0, 'Show me the object that the arm just moved.', 'obj_5'),
    (9.9, 10.0, 'Which object fell?', 'obj_6'),
    (15.9, 5.6, 'Which object did the robot pick up?', 'obj_5'),
    (15.9, 5.6, 'Which object fell?', ''),
)


def _thing(act: Act) -> ThingSpec:
    size, colour, shape = act.look
    extent = sum(SIZES[size]) / 2

    def moving(t: float) -> str:
        return next((m for a, b, m in act.motions if a <= t < b), 'still')

    carried = any(m == 'carried' for _, _, m in act.motions)

    def hand(t: float) -> float:
        # Comes down before it grips and goes up after it let go.
        return 0.25 * min(max(_ease(t, a - 0.1, a - 1.8), _ease(t, b + 0.1, b + 1.6))
                          for a, b in CARRIED_S)

    return ThingSpec(colour, shape, size, 'carried' if carried else 'still', extent,
                     COLOURS[colour], act.yaw_rad, lambda t: np.array(act.path(t)), moving,
                     hand if carried else None)


def scene() -> WorldSpec:
    """Return the table of the demo."""
    return WorldSpec(
        things=tuple(_thing(act) for act in ACTS),
        camera=CameraSpec(92.0, -38.0, 0.86, (0.01, -0.01, 0.0), drift_azimuth_deg_per_s=-0.4),
        table_material=0, floor_material=3, table_tint=(1.0, 0.98, 0.95),
        floor_tint=(0.8, 0.82, 0.86), floor_depth_m=0.26, lamp=True,
        light_dir=(0.25, 0.28, -1.0), light_diffuse=0.6, ambient=0.35)


def film() -> Iterator[tuple[float, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield (seconds, (480, 640, 3) uint8 image, (480, 640) uint8 object numbers)."""
    maker = ClipMaker(640, 480, supersample=2, shadow=2048)
    world = scene()
    times = np.arange(0.0, DURATION_S, 1 / CAMERA_HZ)
    try:
        for start in range(0, len(times), 30):
            part = times[start:start + 30]
            clip = maker.film(world, part.astype(np.float32), None)
            yield from zip(part.tolist(), clip.images, clip.numbers, strict=True)
    finally:
        maker.close()


def _region(name: str, kind: RegionKind, mask: NDArray[np.bool_]) -> Region:
    if kind == RegionKind.BOX:
        return Region(name, kind, box=masks.bounding_box(masks.encode(mask)))
    if kind == RegionKind.POINTS:
        return Region(name, kind, points=_points(mask))
    return Region(name, kind, mask=masks.encode(mask))


def _points(mask: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Return two points well inside a mask, as a person would click."""
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    reach = 0.5 * float(depth[y, x])
    return ((float(x), float(y)), (float(x) + reach, float(y)))


def truth(tracks: dict[str, list[Spot]]) -> Truth:
    """Return what is true of the scene.

    Args:
        tracks: Where the things of ``FINDINGS`` are to be seen, by region id.
    """
    plain = {act.region_id: f'the {act.look[1]} {act.look[2]}' for act in ACTS}
    regions = {}
    names = {act.region_id: [act.region_id] for act in ACTS}
    for _, name, act_id, _ in POINTED:
        names[act_id].append(name)
    for act in ACTS:
        size, colour, shape = act.look
        look = {'colour': (colour,), 'shape': (shape,), 'size': (size,)}
        edges = sorted({0.0, DURATION_S, *(t for a, b, _ in act.motions for t in (a, b))})
        spans = []
        for a, b in pairwise(edges):
            motion = next((m for s, e, m in act.motions if s <= a < e), 'still')
            spans.append(RegionTruth(a, b, {**look, 'motion': (MOTION_WORDS[motion],)}))
        for name in names[act.region_id]:
            regions[name] = tuple(spans)
    return Truth(
        origin_ns=ORIGIN_NS,
        queries={
            **{f'q{i:02d}': QueryTruth(accept=accepted, kind=kind)
               for i, (_, _, _, kind, accepted) in enumerate(QUESTIONS, 1)},
            **{f'g{i:02d}': QueryTruth(kind='find', track=plain.get(target, ''),
                                    absent=not target)
               for i, (_, _, _, target) in enumerate(FINDINGS, 1)},
        },
        regions=regions,
        vocabulary={'colour': tuple(COLOURS), 'shape': SHAPES, 'size': tuple(SIZES),
                    'motion': tuple(MOTION_WORDS.values())},
        tracks={plain[target]: thinned(spots) for target, spots in tracks.items()})


def thinned(track: list[Spot]) -> tuple[Spot, ...]:
    """Leave out the spots that the others tell, to the pixel; one a second stays."""
    kept, first = track[:1], 0
    for i in range(2, len(track)):
        ends = [track[first], track[i]]
        told = ends[1].at_s - ends[0].at_s <= 1.0
        for spot in track[first + 1 : i]:
            box = box_at(ends, spot.at_s)
            told = told and box is not None and all(
                abs(a - b) <= 1
                for a, b in zip((box.x, box.y, box.width, box.height), spot[1:], strict=True))
        if not told:
            first = i - 1
            kept.append(track[first])
    return (*kept, *track[1:][-1:])


def main() -> None:
    """Write the bag and the truth beside it."""
    folder = Path(__file__).parent
    detections: list[tuple[float, Region]] = []
    frames: list[tuple[float, NDArray[np.uint8]]] = []
    every, kept = round(CAMERA_HZ / DETECTOR_HZ), round(CAMERA_HZ / KEPT_HZ)
    tracks: dict[str, list[Spot]] = {target: [] for *_, target in FINDINGS if target}
    index = {act.region_id: k for k, act in enumerate(ACTS)}
    pointed = {round(at_s * CAMERA_HZ): (name, index[act_id], kind)
               for at_s, name, act_id, kind in POINTED}
    for i, (time_s, image, numbers) in enumerate(film()):
        frames.append((time_s, image))
        if i % every == 0 and time_s < DETECTOR_STOPS_S:
            for k, act in enumerate(ACTS):
                mask = numbers == k + 1
                if mask.sum() >= MIN_AREA_PX:
                    kind = RegionKind.BOX if act.box_only else RegionKind.MASK
                    detections.append((time_s, _region(act.region_id, kind, mask)))
        if i % kept == 0:
            for name, track in tracks.items():
                box = masks.bounding_box(masks.encode(numbers == index[name] + 1))
                if box is not None:
                    track.append(Spot(round(time_s, 3), box.x, box.y, box.width, box.height))
        if i in pointed:
            name, k, kind = pointed[i]
            detections.append((time_s, _region(name, kind, numbers == k + 1)))
    queries = [
        (at_s, Query(f'q{i:02d}', text, Task.ASK, region_ids=ids))
        for i, (at_s, ids, text, _, _) in enumerate(QUESTIONS, 1)
    ]
    queries += [
        (at_s, Query(f'g{i:02d}', text, Task.GROUND, window_s=window_s))
        for i, (at_s, window_s, text, _) in enumerate(FINDINGS, 1)
    ]
    made = make_bag(iter(frames), folder / 'tabletop.mcap', camera='camera', regions=detections,
                    queries=queries, quality=82, overwrite=True)
    truth(tracks).save(folder / 'tabletop.truth.json')
    print(made)


if __name__ == '__main__':
    main()
