# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draw random tabletop worlds: objects, their motions, the camera and the light.

Units are metres and seconds; the table top is the plane z = 0, its centre the origin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

COLOURS: dict[str, tuple[float, float, float]] = {
    'red': (0.85, 0.08, 0.08),
    'orange': (0.95, 0.45, 0.02),
    'yellow': (0.92, 0.85, 0.08),
    'green': (0.08, 0.60, 0.12),
    'blue': (0.06, 0.16, 0.85),
    'purple': (0.48, 0.10, 0.62),
    'white': (0.92, 0.92, 0.92),
    'black': (0.05, 0.05, 0.05),
}
SHAPES = ('ball', 'cube', 'cylinder', 'bottle', 'mug', 'ring')
# Largest extent in metres. The gaps keep neighbouring classes apart whatever the camera.
SIZES: dict[str, tuple[float, float]] = {
    'small': (0.042, 0.050),
    'medium': (0.068, 0.078),
    'large': (0.104, 0.120),
}
MOTIONS = ('still', 'sliding', 'rolling', 'falling', 'carried')

TABLE_HALF = (0.34, 0.26)
GRAVITY = 9.81


@dataclass(frozen=True, slots=True)
class ThingSpec:
    """Describe one object: what it looks like and where it is at each time.

    Attributes:
        colour: Key of ``COLOURS``.
        shape: One of ``SHAPES``.
        size: Key of ``SIZES``.
        motion: One of ``MOTIONS``: what it does at some time of the clip.
        extent_m: Largest extent.
        rgb: Its colour, jittered around the named one.
        yaw_rad: Heading about z at rest.
        position: Function of time in seconds to the (x, y, z) of its lowest centre point.
        moving: Function of time to the motion it has at that moment.
        hand: Function of time to the height of a robot's hand above its grip on the object,
            in metres; None when there is no hand.
    """

    colour: str
    shape: str
    size: str
    motion: str
    extent_m: float
    rgb: tuple[float, float, float]
    yaw_rad: float
    position: Callable[[float], NDArray[np.float64]]
    moving: Callable[[float], str]
    hand: Callable[[float], float] | None = None


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """Aim a camera at the table; the drift moves it linearly over the clip."""

    azimuth_deg: float
    elevation_deg: float
    distance_m: float
    lookat: tuple[float, float, float]
    drift_azimuth_deg_per_s: float = 0.0
    drift_distance_per_s: float = 0.0
    drift_lookat_per_s: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def at(self, time_s: float) -> CameraSpec:
        """Return the still camera at a time."""
        return CameraSpec(
            self.azimuth_deg + self.drift_azimuth_deg_per_s * time_s,
            self.elevation_deg,
            self.distance_m + self.drift_distance_per_s * time_s,
            (
                self.lookat[0] + self.drift_lookat_per_s[0] * time_s,
                self.lookat[1] + self.drift_lookat_per_s[1] * time_s,
                self.lookat[2] + self.drift_lookat_per_s[2] * time_s,
            ),
        )


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """Hold everything a renderer needs; the light is a lamp over the table, or the sun."""

    things: tuple[ThingSpec, ...]
    camera: CameraSpec
    table_material: int
    floor_material: int
    table_tint: tuple[float, float, float]
    floor_tint: tuple[float, float, float]
    floor_depth_m: float
    lamp: bool
    light_dir: tuple[float, float, float]
    light_diffuse: float
    ambient: float


def footprint_m(shape: str, extent_m: float) -> float:
    """Return the radius of the circle an object covers on the table."""
    return {
        'ball': 0.5,
        'cube': 0.5 * 2**0.5 / 3**0.5,
        'cylinder': 0.37,
        'bottle': 0.23,
        'mug': 0.5,
        'ring': 0.5,
    }[shape] * extent_m


def _still(p: NDArray[np.float64]) -> Callable[[float], NDArray[np.float64]]:
    return lambda _t: p


def _line(
    p: NDArray[np.float64], v: NDArray[np.float64], start_s: float, stop_s: float
) -> Callable[[float], NDArray[np.float64]]:
    return lambda t: p + v * (min(max(t, start_s), stop_s) - start_s)


def _during(name: str, start_s: float, stop_s: float) -> Callable[[float], str]:
    return lambda t: name if start_s <= t < stop_s else 'still'


def _on_table(p: NDArray[np.float64], margin: float) -> bool:
    return bool(abs(p[0]) <= TABLE_HALF[0] - margin and abs(p[1]) <= TABLE_HALF[1] - margin)


def _smooth(u: float) -> float:
    u = min(max(u, 0.0), 1.0)
    return u * u * (3 - 2 * u)


def _fall(
    rng: np.random.Generator, radius: float, depth: float, span_s: float
) -> tuple[Callable[[float], NDArray[np.float64]], float, float]:
    """Return a path over a table edge to the floor, with the start and end of the fall."""
    side = rng.integers(3)
    speed = rng.uniform(0.15, 0.35)
    drop_s = rng.uniform(0.25, 0.7) * span_s
    if side == 2:  # the near edge
        edge = np.array([rng.uniform(-0.25, 0.25), -TABLE_HALF[1], 0.0])
        v = np.array([0.0, -speed, 0.0])
    else:
        sign = 1.0 if side else -1.0
        edge = np.array([sign * TABLE_HALF[0], rng.uniform(-0.2, 0.12), 0.0])
        v = np.array([sign * speed, 0.0, 0.0])
    edge = edge + v / speed * radius * 0.4
    land_s = math.sqrt(2 * depth / GRAVITY)
    begin = drop_s - rng.uniform(0.3, 0.9)

    def position(t: float) -> NDArray[np.float64]:
        if t <= drop_s:
            return edge + v * (max(t, begin) - drop_s)
        air = min(t - drop_s, land_s)
        after = edge + v * air
        return after + np.array([0.0, 0.0, -0.5 * GRAVITY * air * air])

    return position, drop_s, drop_s + land_s


def _carry(
    rng: np.random.Generator, p: NDArray[np.float64], span_s: float
) -> Callable[[float], NDArray[np.float64]]:
    """Return a path that lifts and moves sideways, somewhere in mid-carry at time 0."""
    lift = rng.uniform(0.07, 0.18)
    aside = np.array([rng.uniform(-0.16, 0.16), rng.uniform(-0.12, 0.12), 0.0])
    start = rng.uniform(-0.6, 0.2) * span_s
    up_s = rng.uniform(0.4, 1.0)
    across_s = rng.uniform(0.9, 1.6) * span_s

    def position(t: float) -> NDArray[np.float64]:
        u = t - start
        return p + np.array([0, 0, lift * _smooth(u / up_s)]) + aside * _smooth(u / across_s)

    return position


def sample_thing(
    rng: np.random.Generator, span_s: float, depth: float, motion: str | None = None
) -> ThingSpec:
    """Draw one object with its motion over a span of seconds."""
    shape = str(rng.choice(SHAPES))
    if motion is None:
        motion = str(rng.choice(('still', 'move', 'falling', 'carried'), p=(0.4, 0.34, 0.1, 0.16)))
    if motion in ('sliding', 'rolling', 'move'):
        if motion == 'rolling':
            shape = 'ball'
        elif motion == 'sliding' and shape == 'ball':
            shape = 'cube'
        elif motion == 'move' and rng.random() < 0.3:
            shape = 'ball'  # as many rolling as sliding objects would be too many balls
        motion = 'rolling' if shape == 'ball' else 'sliding'
    size = str(rng.choice(tuple(SIZES)))
    extent = float(rng.uniform(*SIZES[size]))
    colour = str(rng.choice(tuple(COLOURS)))
    rgb = tuple(float(c) for c in np.clip(
        np.array(COLOURS[colour]) * rng.uniform(0.85, 1.1) + rng.uniform(-0.03, 0.03, 3), 0, 1))
    radius = footprint_m(shape, extent)
    while True:
        p = np.array([rng.uniform(-1, 1) * (TABLE_HALF[0] - radius),
                      rng.uniform(-1, 1) * (TABLE_HALF[1] - radius), 0.0])
        if motion == 'falling':
            position, fall_s, land_s = _fall(rng, radius, depth, span_s)
            moving = _during('falling', fall_s, land_s)
        elif motion == 'carried':
            position, moving = _carry(rng, p, span_s), _during('carried', -math.inf, math.inf)
        elif motion == 'still':
            position, moving = _still(p), _during('still', -math.inf, math.inf)
        else:
            speed, heading = rng.uniform(0.06, 0.22), rng.uniform(0, 2 * math.pi)
            start = rng.uniform(-0.2, 0.25) * span_s
            stop = start + rng.uniform(0.75, 2.0) * span_s
            v = speed * np.array([math.cos(heading), math.sin(heading), 0.0])
            position = _line(p - v * max(0.0, -start), v, start, stop)
            moving = _during(motion, start, stop)
        if motion in ('falling', 'carried') or all(
            _on_table(position(t), radius) for t in (0.0, span_s / 2, span_s)
        ):
            return ThingSpec(colour, shape, size, motion, extent, rgb,  # type: ignore[arg-type]
                             float(rng.uniform(0, 2 * math.pi)), position, moving,
                             (lambda _t: 0.0) if motion == 'carried' else None)


def _apart(a: ThingSpec, b: ThingSpec, span_s: float) -> bool:
    """Tell whether two objects keep clear of each other over the span."""
    clear = (footprint_m(a.shape, a.extent_m) + footprint_m(b.shape, b.extent_m)) + 0.004
    for t in np.linspace(0, span_s, 7):
        d = a.position(float(t)) - b.position(float(t))
        if d[0] ** 2 + d[1] ** 2 < clear**2 and abs(d[2]) < 0.14:
            return False
    return True


def sample_camera(rng: np.random.Generator) -> CameraSpec:
    """Draw a camera that looks at the table from its near side, still or slowly drifting."""
    still = rng.random() < 0.5
    return CameraSpec(
        azimuth_deg=90 + rng.uniform(-14, 14),
        elevation_deg=-rng.uniform(28, 52),
        distance_m=rng.uniform(0.72, 0.94),
        lookat=(rng.uniform(-0.04, 0.04), rng.uniform(-0.05, 0.03), rng.uniform(-0.02, 0.03)),
        drift_azimuth_deg_per_s=0.0 if still else rng.uniform(-2.5, 2.5),
        drift_distance_per_s=0.0 if still else rng.uniform(-0.02, 0.02),
        drift_lookat_per_s=(0.0, 0.0, 0.0) if still else (
            rng.uniform(-0.015, 0.015), rng.uniform(-0.015, 0.015), 0.0),
    )


def sample_world(rng: np.random.Generator, span_s: float, materials: int) -> WorldSpec:
    """Draw a world of 2 to 6 objects.

    Args:
        rng: Source of randomness.
        span_s: Seconds the clip lasts.
        materials: Number of table and floor materials the renderer has.
    """
    depth = float(rng.uniform(0.22, 0.34))
    wanted = int(rng.integers(2, 7))
    things: list[ThingSpec] = []
    for _ in range(40):
        if len(things) == wanted:
            break
        # At most one object is carried: there is one arm.
        thing = sample_thing(rng, span_s, depth)
        if thing.motion == 'carried' and any(t.motion == 'carried' for t in things):
            continue
        # Often put a still object beside another, so that neighbours are common.
        if things and thing.motion == 'still' and rng.random() < 0.45:
            other = things[int(rng.integers(len(things)))]
            gap = (footprint_m(other.shape, other.extent_m)
                   + footprint_m(thing.shape, thing.extent_m) + rng.uniform(0.006, 0.04))
            angle = rng.uniform(0, 2 * math.pi)
            p = other.position(span_s) + gap * np.array([math.cos(angle), math.sin(angle), 0.0])
            p[2] = 0.0
            if not _on_table(p, footprint_m(thing.shape, thing.extent_m)):
                continue
            thing = ThingSpec(thing.colour, thing.shape, thing.size, 'still', thing.extent_m,
                              thing.rgb, thing.yaw_rad, _still(p), thing.moving)
        if all(_apart(thing, other, span_s) for other in things):
            things.append(thing)
    angle, tilt = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.7)
    grey = rng.uniform(0.6, 1.0)
    table_material = int(rng.integers(materials))
    floor_grey = rng.uniform(0.45, 1.0)
    lamp = bool(rng.random() < 0.6)
    return WorldSpec(
        things=tuple(things),
        camera=sample_camera(rng),
        table_material=table_material,
        floor_material=(table_material + int(rng.integers(1, materials))) % materials,
        table_tint=tuple(float(c) for c in np.clip(grey + rng.uniform(-0.12, 0.12, 3), 0, 1)),  # type: ignore[arg-type]
        floor_tint=tuple(  # type: ignore[arg-type]
            float(c) for c in np.clip(floor_grey + rng.uniform(-0.12, 0.12, 3), 0, 1)),
        floor_depth_m=depth,
        lamp=lamp,
        light_dir=(math.cos(angle) * tilt, math.sin(angle) * tilt, -1.0),
        light_diffuse=float(rng.uniform(0.35, 0.65)),
        ambient=float(rng.uniform(0.25, 0.45)),
    )
