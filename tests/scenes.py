# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draw a scene with something to follow: a textured square that moves through a textured room."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

HEIGHT, WIDTH, SIDE = 180, 240, 40


@cache
def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Return a picture with blobs a few pixels wide."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.clip((soft - 127) * 4 + 127, 0, 255).astype(np.uint8)


def corner(step: int) -> tuple[int, int]:
    """Return where the square is, x and y of its corner."""
    return 30 + 4 * step, 50 + step


def scene(step: int, *, visible: bool = True) -> np.ndarray:
    """Return a grey room with a red square that moves to the right, (H, W, 3) uint8 RGB."""
    room = texture(1, HEIGHT, WIDTH) // 4 + np.uint8(100)
    if visible:
        x, y = corner(step)
        square = texture(2, SIDE, SIDE) // 3 + np.array([150, 10, 10], np.uint8)
        room[y:y + SIDE, x:x + SIDE] = square
    return room


def truth(step: int) -> np.ndarray:
    """Return where the square is, (H, W) bool."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    x, y = corner(step)
    mask[y:y + SIDE, x:x + SIDE] = True
    return mask


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return float((one & other).sum() / (one | other).sum())
