# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draw small scenes in which things move, with their exact masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import NS_PER_S, Box, Frame, Region, RegionKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEIGHT, WIDTH = 150, 200
RED, BLUE, GREEN = (200, 40, 40), (40, 60, 200), (40, 170, 60)


def ground(seed: int = 0) -> NDArray[np.uint8]:
    """Return a textured table."""
    noise = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH, 1)).astype(np.float32)
    rough = cv2.GaussianBlur(noise, (0, 0), 2.0)[..., None]
    picture = np.array((150, 130, 105)) + 12 * rough / rough.std()
    return np.clip(picture, 0, 255).astype(np.uint8)


def disc_mask(x: float, y: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def with_disc(
    picture: NDArray[np.uint8], x: float, y: float, radius: float, colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    drawn = picture.copy()
    drawn[disc_mask(x, y, radius)] = colour
    return drawn


def frame(image: NDArray[np.uint8], number: int, rate_hz: float = 10.0) -> Frame:
    return Frame('', NS_PER_S + round(number * NS_PER_S / rate_hz), image)


def mask_region(mask: NDArray[np.bool_], region_id: str = 'thing') -> Region:
    return Region(region_id, RegionKind.MASK, mask=masks.encode(mask))


def box_region(box: Box, region_id: str = 'thing') -> Region:
    return Region(region_id, RegionKind.BOX, box=box)


def iou(a: NDArray[np.bool_] | None, b: NDArray[np.bool_]) -> float:
    if a is None:
        return float(not b.any())
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
