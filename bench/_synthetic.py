# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make clips of one textured thing whose mask is known exactly.

The camera sways and zooms a little, the thing drifts, turns by up to 25 degrees either way and
grows and shrinks between 0.75 and 1.25, the light changes, and every frame has its own noise. An
occluder, if there is one, crosses the thing twice: a plank that leaves part of it to be seen, and
a board that hides all of it for some frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, HEIGHT, FRAMES, RATE_HZ = 640, 480, 100, 30.0
_MARGIN = 80
_RADIUS_PX = 56
_NOISE = 4.0
# RGB means of textures.
_GROUND, _DISTINCT, _OCCLUDER = (110, 120, 105), (190, 95, 60), (70, 85, 150)


@dataclass(frozen=True, slots=True)
class SyntheticClip:
    """Hold frames with exact masks.

    Attributes:
        images: (T, H, W, 3) uint8 RGB.
        masks: (T, H, W) bool, what is seen of the thing.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def make(seed: int, *, distinct: bool, occluded: bool, frames: int = FRAMES) -> SyntheticClip:
    """Make a clip; the same arguments make the same one.

    Args:
        seed: Which textures, outline and motions.
        distinct: Whether the thing has colours of its own, or the background's.
        occluded: Whether an occluder crosses it.
        frames: How many.
    """
    rng = np.random.default_rng(seed)
    size = (HEIGHT + 2 * _MARGIN, WIDTH + 2 * _MARGIN)
    ground = _texture(rng, size, _GROUND)
    side = 2 * round(1.5 * _RADIUS_PX)
    thing = _texture(rng, (side, side), _DISTINCT if distinct else _GROUND)
    outline = _outline(rng, side)
    cover = _texture(rng, (HEIGHT, 200), _OCCLUDER)
    phase = rng.uniform(0, 2 * math.pi, 6)
    images, masks = [], []
    for number in range(frames):
        t = number / FRAMES
        sway = [_wave(phase[0], t, 1.0) * 30, _wave(phase[1], t, 0.7) * 20]
        zoom = 1 + 0.05 * _wave(phase[2], t, 0.8)
        picture = _warp(ground, zoom, 0.0, (WIDTH / 2 + sway[0], HEIGHT / 2 + sway[1]))
        centre = (WIDTH * (0.35 + 0.3 * t) + sway[0], HEIGHT * 0.5 + 70 * _wave(phase[3], t, 0.9))
        angle_deg = 25 * math.sin(2 * math.pi * t)
        scale = 1 + 0.25 * math.sin(2 * math.pi * 1.3 * t)
        alpha = _warp(outline, scale, angle_deg, centre)
        picture = _over(picture, _warp(thing, scale, angle_deg, centre), alpha)
        if occluded:
            hidden = np.zeros((HEIGHT, WIDTH), np.float32)
            for begin, end, wide in ((0.15, 0.45, 60), (0.55, 0.85, 190)):
                along = (t - begin) / (end - begin)
                left = round(-wide + along * (WIDTH + wide))
                if 0 < along < 1:
                    part = slice(max(left, 0), max(left + wide, 0))
                    hidden[:, part] = 1.0
                    shown = cover[:, max(-left, 0) : wide]
                    picture[:, part] = shown[:, : picture[:, part].shape[1]]
            alpha = alpha * (1 - hidden)
        light = 1 + 0.25 * _wave(phase[4], t, 1.0)
        noisy = picture * light + rng.normal(0, _NOISE, picture.shape)
        images.append(np.clip(noisy, 0, 255).astype(np.uint8))
        masks.append(alpha > 0.5)
    return SyntheticClip(np.stack(images), np.stack(masks))


def _wave(phase: float, t: float, turns: float) -> float:
    """Return a sine that is 0 at time 0."""
    start = math.sin(phase)
    return (math.sin(2 * math.pi * turns * t + phase) - start) / (1 + abs(start))


def _texture(
    rng: np.random.Generator, size: tuple[int, int], mean: tuple[int, int, int]
) -> NDArray[np.float32]:
    picture = np.zeros((*size, 3), np.float32) + np.array(mean, np.float32)
    for sigma, spread in ((1.5, 14), (5, 18), (20, 14)):
        layer = cv2.GaussianBlur(rng.normal(size=(*size, 3)).astype(np.float32), (0, 0), sigma)
        grey = layer.mean(-1, keepdims=True)
        mixed = 0.35 * layer / layer.std() + 0.75 * grey / grey.std()
        picture += spread * mixed
    return np.clip(picture, 5, 250)


def _outline(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    angles = np.linspace(0, 2 * math.pi, 180, endpoint=False)
    radius = np.ones_like(angles)
    for order in (2, 3, 4, 5):
        radius += rng.uniform(0.03, 0.12) * np.cos(order * angles + rng.uniform(0, 2 * math.pi))
    points = np.stack((np.cos(angles), np.sin(angles)), -1) * (radius * _RADIUS_PX)[:, None]
    picture = np.zeros((side, side), np.uint8)
    corners = np.round((points + (side - 1) / 2) * 16).astype(np.int32)
    cv2.fillPoly(picture, [corners], 255, lineType=cv2.LINE_AA, shift=4)
    return picture.astype(np.float32) / 255


def _warp(
    picture: NDArray[np.float32], scale: float, angle_deg: float, centre: tuple[float, float]
) -> NDArray[np.float32]:
    """Put a picture on a frame with its middle at a place."""
    middle = ((picture.shape[1] - 1) / 2, (picture.shape[0] - 1) / 2)
    affine = cv2.getRotationMatrix2D(middle, angle_deg, scale)
    affine[:, 2] += np.array(centre) - middle
    warped: NDArray[np.float32] = cv2.warpAffine(picture, affine, (WIDTH, HEIGHT))
    return warped


def _over(
    below: NDArray[np.float32], above: NDArray[np.float32], alpha: NDArray[np.float32]
) -> NDArray[np.float32]:
    return below * (1 - alpha[..., None]) + above * alpha[..., None]
