# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write stories for tabletop worlds: what moves, falls, is carried or hit, and when.

A story lasts ``STEPS`` steps from first to last sampled frame; events begin and end well inside
it, and movements begin at least two steps apart where there is room, so that the frames tell
their order. Units are metres and seconds.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.simulation.world import (
    COLOURS,
    GRAVITY,
    SHAPES,
    SIZES,
    TABLE_HALF,
    CameraSpec,
    ThingSpec,
    WorldSpec,
    footprint_m,
    sample_camera,
    sample_world,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = 15
"""Steps of a story: sixteen sampled frames have fifteen gaps."""
STARTS = (1.4, 4.0, 6.6, 9.2)  # steps at which movements may begin
LAST_STOP = 12.8  # steps: what stops is seen at rest in the last frames
MIN_TRAVEL_M = 0.09
MIN_SPEED = 0.06  # of what still moves at the end, m/s
ROLES = ('stay', 'move', 'go', 'fall', 'carry', 'hit')
"""What a thing does: stay, move and stop, go on until the end, fall off the table, be carried by
the arm, hit another thing (which then moves)."""


@dataclass(frozen=True, slots=True)
class Event:
    """Say that something happens to one thing.

    Attributes:
        kind: 'sliding', 'rolling', 'falling', 'carried' or 'hits'.
        thing: Index of the thing.
        start_s: When it begins.
        end_s: When it ends; the end of the clip when it goes on. Equal to the start of 'hits'.
        other: Index of the thing that is hit, -1 otherwise.
    """

    kind: str
    thing: int
    start_s: float
    end_s: float
    other: int = -1


@dataclass(frozen=True, slots=True)
class Story:
    """Hold a world and what happens in it.

    Attributes:
        world: Things, camera and light.
        events: In order of their start.
        roles: Per thing, one of ``ROLES``, or 'hit by' for what was hit.
        span_s: Seconds from first to last sampled frame.
    """

    world: WorldSpec
    events: tuple[Event, ...]
    roles: tuple[str, ...]
    span_s: float


class Path:
    """Move along straight lines between points in time; at rest before and after."""

    def __init__(self, times_s: list[float], points: list[NDArray[np.float64]]) -> None:
        """Keep the points, (3,) each, with their ascending times."""
        self.times_s = np.array(times_s)
        self._points = np.array(points)

    def __call__(self, time_s: float) -> NDArray[np.float64]:
        """Return the position, (3,)."""
        return np.array([np.interp(time_s, self.times_s, self._points[:, i]) for i in range(3)])

    def at(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the positions at several times, (T, 3)."""
        return np.stack([np.interp(times_s, self.times_s, self._points[:, i]) for i in range(3)],
                        axis=1)


@dataclass(slots=True)
class _Draft:
    """Hold one thing while the story is written."""

    look: tuple[str, str, str]  # colour, shape, size
    extent_m: float
    path: Path
    role: str
    events: list[tuple[str, float, float]]
    hand: tuple[float, float] | None = None  # from the grip to letting go

    @property
    def radius(self) -> float:
        return footprint_m(self.look[1], self.extent_m)


def _hand_height(grip_s: float, leave_s: float, step_s: float, time_s: float) -> float:
    """Return how far the open hand is above its grip: it comes down, holds, goes up."""
    away = max(grip_s - time_s, time_s - leave_s, 0.0)
    return min(away / (1.2 * step_s), 1.0) * 0.55


def _flat(x: float, y: float) -> NDArray[np.float64]:
    return np.array([x, y, 0.0])


def _on_table(p: NDArray[np.float64], margin: float) -> bool:
    return bool(abs(p[0]) <= TABLE_HALF[0] - margin and abs(p[1]) <= TABLE_HALF[1] - margin)


def _towards(angle: float) -> NDArray[np.float64]:
    return _flat(math.cos(angle), math.sin(angle))


class StoryTeller:
    """Draw stories that keep to what a question needs."""

    def __init__(self, rng: np.random.Generator, materials: int) -> None:
        """Keep the source of randomness and the number of table materials."""
        self._rng = rng
        self._materials = materials

    def tell(self, roles: list[str], alike: bool = False) -> Story:
        """Draw a story in which things have given roles.

        Args:
            roles: One of ``ROLES`` per thing, 'hit' for two things. Three to six things.
            alike: Make the first two things share colour or shape.
        """
        while True:
            span = float(self._rng.uniform(4.0, 8.0))
            # Light, table and floor are those of the short clips.
            scene = sample_world(self._rng, span, self._materials)
            camera = self._camera()
            drafts = self._stage(roles, alike, span, camera, scene.floor_depth_m)
            if drafts is not None:
                return self._finish(drafts, scene, camera, span)

    def _camera(self) -> CameraSpec:
        """Draw a camera that drifts slowly enough for a long clip."""
        camera = sample_camera(self._rng)
        return dataclasses.replace(
            camera, drift_azimuth_deg_per_s=camera.drift_azimuth_deg_per_s / 4,
            drift_distance_per_s=camera.drift_distance_per_s / 4,
            drift_lookat_per_s=tuple(d / 4 for d in camera.drift_lookat_per_s))  # type: ignore[arg-type]

    def _stage(
        self, roles: list[str], alike: bool, span: float, camera: CameraSpec, depth: float
    ) -> list[_Draft] | None:
        """Place every thing; None when one finds no room."""
        rng = self._rng
        slots = rng.permutation(len(STARTS)).tolist()
        drafts: list[_Draft] = []
        for number, role in enumerate(roles):
            slot = 0.0
            if role != 'stay':
                slot = STARTS[slots.pop()] if slots else STARTS[rng.integers(len(STARTS))]
                slot += rng.uniform(0, 0.5)
            for _ in range(40):
                looks = [d.look for d in drafts]
                new = self._act(role, slot, span, depth, looks, alike and number == 1)
                if new is not None and self._fits(new, drafts, span, camera):
                    drafts += new
                    break
            else:
                return None
        return drafts

    def _look(
        self, others: list[tuple[str, str, str]], alike: bool, rolls: bool = False
    ) -> tuple[str, str, str]:
        """Draw colour, shape and size; often like another thing in some of them.

        No more than two things look the same.
        """
        rng = self._rng
        while True:
            look = [str(rng.choice(tuple(COLOURS))), str(rng.choice(SHAPES)),
                    str(rng.choice(tuple(SIZES)))]
            if others and (alike or rng.random() < 0.5):
                other = others[0] if alike else others[rng.integers(len(others))]
                shared = rng.choice((0, 1, 2), p=(0.45, 0.35, 0.2))
                for i in range(3) if shared == 2 else (int(shared),):
                    look[i] = other[i]
            if rolls:
                look[1] = 'ball'
            if others.count((look[0], look[1], look[2])) < 2 and (
                    not alike or look[0] == others[0][0] or look[1] == others[0][1]):
                return look[0], look[1], look[2]

    def _act(
        self, role: str, slot: float, span: float, depth: float,
        others: list[tuple[str, str, str]], alike: bool,
    ) -> list[_Draft] | None:
        """Draw one thing with its role, two for a hit; None when it leaves the table."""
        rng, step = self._rng, span / STEPS
        look = self._look(others, alike, role == 'hit' and rng.random() < 0.75)
        extent = float(rng.uniform(*SIZES[look[2]]))
        radius = footprint_m(look[1], extent)
        motion = 'rolling' if look[1] == 'ball' else 'sliding'
        p = _flat(rng.uniform(-1, 1) * (TABLE_HALF[0] - radius),
                  rng.uniform(-1, 1) * (TABLE_HALF[1] - radius))
        start = slot * step
        if role == 'stay':
            return [_Draft(look, extent, Path([0.0], [p]), role, [])]
        if role == 'fall':
            return [self._fall(look, extent, start, step, depth, motion)]
        if role == 'carry':
            return self._carry(look, extent, p, start, step)
        if role == 'hit':
            return self._hit(look, extent, p, start, step, others)
        heading = _towards(rng.uniform(0, 2 * math.pi))
        if role == 'go':
            stop = span * 1.05
            travel = max(MIN_SPEED * (stop - start), rng.uniform(0.12, 0.4))
        else:
            stop = min(start + rng.uniform(2.2, 6.0) * step, LAST_STOP * step)
            travel = min(rng.uniform(0.11, 0.32), 0.4 * (stop - start))
        end = p + travel * heading
        if travel < MIN_TRAVEL_M or not _on_table(end, radius):
            return None
        return [_Draft(look, extent, Path([start, stop], [p, end]), role,
                       [(motion, start, min(stop, span))])]

    def _fall(
        self, look: tuple[str, str, str], extent: float, start: float, step: float, depth: float,
        motion: str,
    ) -> _Draft:
        """Return a thing that goes over the left, right or near edge down to the floor."""
        rng = self._rng
        radius = footprint_m(look[1], extent)
        side = int(rng.integers(3))
        if side == 2:
            edge, out = _flat(rng.uniform(-0.25, 0.25), -TABLE_HALF[1]), _flat(0, -1)
        else:
            sign = 1.0 if side else -1.0
            edge, out = _flat(sign * TABLE_HALF[0], rng.uniform(-0.2, 0.12)), _flat(sign, 0)
        edge = edge + out * radius * 0.4
        travel = rng.uniform(0.12, 0.3) + radius
        over = min(start + rng.uniform(2.0, 4.0) * step, LAST_STOP * step - 0.3)
        speed = min(travel / (over - start), 0.45)
        land_s = math.sqrt(2 * depth / GRAVITY)
        air = np.linspace(0, land_s, 9)[1:]
        drop = [edge + out * speed * t - np.array([0, 0, 0.5 * GRAVITY * t * t]) for t in air]
        path = Path([start, over, *(over + air).tolist()],
                    [edge - out * speed * (over - start), edge, *drop])
        return _Draft(look, extent, path, 'fall',
                      [(motion, start, over), ('falling', over, over + land_s)])

    def _carry(
        self, look: tuple[str, str, str], extent: float, p: NDArray[np.float64], start: float,
        step: float,
    ) -> list[_Draft] | None:
        """Return a thing that the arm lifts, moves and puts down."""
        rng = self._rng
        # The arm comes down first; what it takes begins to move after that.
        stop = min(start + rng.uniform(3.5, 5.5) * step, LAST_STOP * step)
        up = _flat(0, 0) + np.array([0, 0, rng.uniform(0.07, 0.14)])
        end = p + rng.uniform(0.12, 0.3) * _towards(rng.uniform(0, 2 * math.pi))
        if stop - start < 2.5 * step or not _on_table(end, footprint_m(look[1], extent)):
            return None
        u = (stop - start) * 0.22
        path = Path([start, start + u, stop - u, stop], [p, p + up, end + up, end])
        return [_Draft(look, extent, path, 'carry', [('carried', start, stop)], (start, stop))]

    def _hit(
        self, look: tuple[str, str, str], extent: float, p: NDArray[np.float64], start: float,
        step: float, others: list[tuple[str, str, str]],
    ) -> list[_Draft] | None:
        """Return a thing that runs into another, and the other, which moves on slowing down."""
        rng = self._rng
        second = self._look([*others, look], False)
        if second == look:
            return None
        size = float(rng.uniform(*SIZES[second[2]]))
        radius, other = footprint_m(look[1], extent), footprint_m(second[1], size)
        heading = _towards(rng.uniform(0, 2 * math.pi))
        meet = p + rng.uniform(0.10, 0.25) * heading
        contact = start + rng.uniform(2.0, 3.5) * step
        q = meet + (radius + other) * heading
        end = q + rng.uniform(0.10, 0.22) * heading
        stop = min(contact + rng.uniform(2.0, 3.5) * step, LAST_STOP * step)
        if (not _on_table(meet, radius) or not _on_table(end, other)
                or stop - contact < 1.5 * step):
            return None
        u = np.linspace(0, 1, 7)[1:]
        on = Path([contact, *(contact + u * (stop - contact)).tolist()],
                  [q, *(q + (end - q) * (1 - (1 - x) ** 2) for x in u)])
        first, then = ('rolling' if s == 'ball' else 'sliding' for s in (look[1], second[1]))
        return [
            _Draft(look, extent, Path([start, contact], [p, meet]), 'hit',
                   [(first, start, contact), ('hits', contact, contact)]),
            _Draft(second, size, on, 'hit by', [(then, contact, stop)]),
        ]

    def _fits(
        self, new: list[_Draft], drafts: list[_Draft], span: float, camera: CameraSpec
    ) -> bool:
        """Tell whether new things keep clear of the others, and the camera sees what they do."""
        times = np.linspace(0, span, 4 * STEPS + 1)
        tracks = {id(d): d.path.at(times) for d in (*new, *drafts)}
        for a in new:
            for b in drafts:
                clear = a.radius + b.radius + 0.006
                gap = tracks[id(a)] - tracks[id(b)]
                near = (gap[:, 0] ** 2 + gap[:, 1] ** 2 < clear**2) & (np.abs(gap[:, 2]) < 0.14)
                if near.any():
                    return False
            for t, p in zip(times[::4], tracks[id(a)][::4], strict=True):
                if p[2] > -0.01 and not _in_view(camera.at(float(t)), p, a.extent_m):
                    return False
        return True

    def _finish(
        self, drafts: list[_Draft], scene: WorldSpec, camera: CameraSpec, span: float
    ) -> Story:
        rng, step = self._rng, span / STEPS
        things, events = [], []
        for k, draft in enumerate(drafts):
            colour, shape, size = draft.look
            rgb = np.clip(np.array(COLOURS[colour]) * rng.uniform(0.85, 1.1)
                          + rng.uniform(-0.03, 0.03, 3), 0, 1)
            hand = None
            if draft.hand is not None:
                grip, leave = draft.hand

                def hand(t: float, grip: float = grip, leave: float = leave) -> float:
                    return _hand_height(grip, leave, step, t)

            spans = [e for e in draft.events if e[0] != 'hits']

            def moving(t: float, spans: list[tuple[str, float, float]] = spans) -> str:
                return next((name for name, a, b in spans if a <= t < b), 'still')

            things.append(ThingSpec(
                colour, shape, size, spans[-1][0] if spans else 'still', draft.extent_m,
                tuple(float(c) for c in rgb), float(rng.uniform(0, 2 * math.pi)),  # type: ignore[arg-type]
                draft.path, moving, hand))
            events += [Event(name, k, a, b, k + 1 if name == 'hits' else -1)
                       for name, a, b in draft.events]
        events.sort(key=lambda e: (e.start_s, e.thing))
        world = dataclasses.replace(scene, things=tuple(things), camera=camera)
        return Story(world, tuple(events), tuple(d.role for d in drafts), span)


def project(camera: CameraSpec, p: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return where a point lies in a 4:3 picture of 45 degrees height.

    Returns:
        x and y in units of the picture's width and height, and the height in metres that the
        picture shows at the point's distance (negative behind the camera).
    """
    azimuth, elevation = math.radians(camera.azimuth_deg), math.radians(camera.elevation_deg)
    forward = np.array([math.cos(elevation) * math.cos(azimuth),
                        math.cos(elevation) * math.sin(azimuth), math.sin(elevation)])
    right = np.array([math.sin(azimuth), -math.cos(azimuth), 0.0])
    ray = p - np.array(camera.lookat) + camera.distance_m * forward
    height = 2 * float(ray @ forward) * math.tan(math.radians(22.5))
    return (0.5 + float(ray @ right) / (height * 4 / 3),
            0.5 - float(ray @ np.cross(right, forward)) / height, height)


def _in_view(camera: CameraSpec, p: NDArray[np.float64], extent_m: float) -> bool:
    """Tell whether most of a thing lies in the picture."""
    x, y, height = project(camera, p + np.array([0, 0, extent_m / 2]))
    room = 0.4 * extent_m / max(height, 1e-6)  # so much of it lies beside its middle
    return height > 0 and room * 0.75 < x < 1 - room * 0.75 and room < y < 1 - room
