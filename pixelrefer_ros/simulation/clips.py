# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make short clips of tabletop worlds, with masks and the facts that hold in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.imaging import decode_compressed, encode_jpeg
from pixelrefer_ros.simulation.render import MATERIALS, TabletopRenderer
from pixelrefer_ros.simulation.world import WorldSpec, footprint_m, sample_world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_AREA_PX = 90  # at 384 px picture width: smaller is not usable


@dataclass(frozen=True, slots=True)
class ThingFacts:
    """Hold what is true of one object over a clip.

    Attributes:
        colour: Colour name.
        shape: Shape name.
        size: Size name.
        motion: Motion name, or '' when the frames do not settle it.
        visible: Per frame, whether enough of it is seen.
        centre: (T, 2) x, y of the visible pixels' mean in units of the picture's width and
            height; NaN where not visible.
        distance_m: (T,) distance from the camera.
        neighbour: Index of the object beside it in the last frame, -1 for none, -2 when not
            clear.
    """

    colour: str
    shape: str
    size: str
    motion: str
    visible: tuple[bool, ...]
    centre: NDArray[np.float32]
    distance_m: NDArray[np.float32]
    neighbour: int


@dataclass(frozen=True, slots=True)
class Clip:
    """Hold frames with masks.

    Attributes:
        images: (T, H, W, 3) uint8 RGB.
        numbers: (T, H, W) uint8, 0 background, k + 1 object k.
        times_s: (T,) seconds.
        things: One per object.
    """

    images: NDArray[np.uint8]
    numbers: NDArray[np.uint8]
    times_s: NDArray[np.float32]
    things: tuple[ThingFacts, ...]

    def mask(self, frame: int, thing: int) -> NDArray[np.bool_]:
        """Return the (H, W) bool mask of an object in a frame."""
        return self.numbers[frame] == thing + 1


def motion_over(positions: NDArray[np.float64], motion: str) -> str:
    """Name what an object did between the first and last frame; '' when the frames don't tell.

    Args:
        positions: (T, 3) metres at the frames in which it is visible.
        motion: What its path is: a name of ``MOTIONS``.
    """
    if len(positions) < 2:
        return ''
    travel = float(np.linalg.norm(positions[-1] - positions[0]))
    if motion == 'still':
        return 'still'
    if motion == 'falling':
        return 'falling' if positions[0][2] > -0.02 and positions[-1][2] < -0.05 else ''
    return motion if travel >= 0.06 else ''


def _neighbour(positions: NDArray[np.float64], radii: Sequence[float], k: int) -> int:
    gaps = [
        float(np.linalg.norm(positions[j] - positions[k])) - radii[j] - radii[k]
        if j != k else np.inf
        for j in range(len(radii))
    ]
    order = np.argsort(gaps)
    nearest = gaps[order[0]]
    if nearest > 0.10:
        return -1
    second = gaps[order[1]] if len(gaps) > 2 else np.inf
    if nearest <= 0.05 and second >= nearest + 0.03:
        return int(order[0])
    return -2


def facts_of(
    world: WorldSpec,
    times_s: NDArray[np.float32],
    numbers: NDArray[np.uint8],
    camera_positions: NDArray[np.float64],
    min_area_px: int = MIN_AREA_PX,
) -> tuple[ThingFacts, ...]:
    """Derive the facts of every object from the world and its rendered masks.

    Args:
        world: The world that was rendered.
        times_s: (T,) seconds.
        numbers: (T, H, W) object numbers.
        camera_positions: (T, 3) metres.
        min_area_px: Fewer visible pixels count as not visible.
    """
    count, (_, height, width) = len(world.things), numbers.shape
    positions = np.array([[th.position(float(t)) for th in world.things] for t in times_s])
    radii = [footprint_m(t.shape, t.extent_m) for t in world.things]
    facts = []
    for k, thing in enumerate(world.things):
        visible, centre = [], np.full((len(times_s), 2), np.nan, np.float32)
        for i in range(len(times_s)):
            ys, xs = np.nonzero(numbers[i] == k + 1)
            visible.append(len(xs) >= min_area_px)
            if visible[-1]:
                centre[i] = (xs.mean() + 0.5) / width, (ys.mean() + 0.5) / height
        distance = np.linalg.norm(positions[:, k] - camera_positions, axis=1).astype(np.float32)
        shown = np.flatnonzero(np.array(visible))
        neighbour = -2
        if count > 1 and visible[-1]:
            neighbour = _neighbour(positions[-1], radii, k)
            if neighbour >= 0 and (numbers[-1] == neighbour + 1).sum() < min_area_px:
                neighbour = -2
        facts.append(ThingFacts(
            thing.colour, thing.shape, thing.size, motion_over(positions[shown, k], thing.motion),
            tuple(visible), centre, distance, neighbour))
    return tuple(facts)


def degrade(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make a clean render look like a camera picture: JPEG, noise, exposure."""
    if rng.random() < 0.5:
        image = decode_compressed(encode_jpeg(image, int(rng.integers(55, 96))))
    if rng.random() < 0.5:
        gain, sigma = rng.uniform(0.85, 1.12), rng.uniform(0, 5)
        noisy = image * np.float32(gain) + rng.normal(0, sigma, image.shape).astype(np.float32)
        image = np.clip(noisy, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image)


class ClipMaker:
    """Make clips by seed; the same seed gives the same clip."""

    def __init__(
        self, width: int = 384, height: int = 288, supersample: float = 4 / 3, shadow: int = 512
    ) -> None:
        """Make the renderer; pictures are drawn larger and averaged down by ``supersample``."""
        self._size = (width, height)
        self._renderer = TabletopRenderer(round(width * supersample), round(height * supersample),
                                          shadow=shadow)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()

    def make(self, seed: int, frames: int = 4, span_s: float | None = None) -> Clip:
        """Make one clip.

        Args:
            seed: Which clip.
            frames: Number of frames.
            span_s: Seconds between first and last frame; drawn from 1.2 to 2.4 when None.
        """
        rng = np.random.default_rng(seed)
        span = float(rng.uniform(1.2, 2.4)) if span_s is None else span_s
        world = sample_world(rng, span, MATERIALS)
        step = span / max(frames - 1, 1)
        times = np.arange(frames) * step
        times[1:-1] += rng.uniform(-0.2, 0.2, max(frames - 2, 0)) * step
        return self.film(world, times.astype(np.float32), rng)

    def film(
        self, world: WorldSpec, times_s: NDArray[np.float32], rng: np.random.Generator | None
    ) -> Clip:
        """Render a world at given times, as a camera would see it when ``rng`` is given."""
        self._renderer.dress(world)
        images, numbers, cameras = [], [], []
        for t in times_s:
            image, number = self._renderer.render(world, float(t))
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
            number = cv2.resize(number, self._size, interpolation=cv2.INTER_NEAREST_EXACT)
            images.append(image if rng is None else degrade(rng, image))
            numbers.append(number)
            cameras.append(self._renderer.camera_position(world.camera.at(float(t))))
        stack = np.stack(numbers)
        area = MIN_AREA_PX * stack.shape[2] ** 2 // 384**2
        return Clip(np.stack(images), stack, times_s,
                    facts_of(world, times_s, stack, np.array(cameras), area))
