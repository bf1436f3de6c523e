# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make what the tests of SAM 2 share: a tiny model with random weights, frames, regions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench._tiny_sam2 import believe, tiny_model
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Box, Frame, Region, RegionKind
from pixelrefer_ros.tracking.sam2 import Sam2Tracker
from pixelrefer_ros.tracking.sam2_model import Segmenter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pixelrefer_ros.core.tracker import Sighting

PERIOD_NS = 100_000_000
HEIGHT, WIDTH = 48, 64


@functools.cache
def segmenter() -> Segmenter:
    """Return the one tiny model of a test run, seeing all regions."""
    # its kernels are too short to be shared among threads
    torch.set_num_threads(1)
    return Segmenter(tiny_model(), 'tiny')


def tracker() -> Sam2Tracker:
    believe(segmenter().model, True)
    return Sam2Tracker(segmenter())


def frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> Frame:
    """Return a frame of noise, always the same for a number, ten to the second."""
    image = np.random.default_rng(1000 + number).integers(0, 256, (height, width, 3))
    image = image.astype(np.uint8)
    image.flags.writeable = False
    return Frame('camera', (100 + number) * PERIOD_NS, image)


def box(
    region_id: str = 'a', x: int = 10, y: int = 8, width: int = 20, height: int = 16
) -> Region:
    return Region(region_id, RegionKind.BOX, box=Box(x, y, width, height))


def points(
    region_id: str, at: Iterable[tuple[float, float]], labels: tuple[int, ...] = ()
) -> Region:
    return Region(region_id, RegionKind.POINTS, points=tuple(at), point_labels=labels)


def masked(region_id: str, picture: NDArray[np.bool_]) -> Region:
    return Region(region_id, RegionKind.MASK, mask=masks.encode(picture))


def rectangle(
    x: int, y: int, width: int, height: int, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> NDArray[np.bool_]:
    picture = np.zeros(size, dtype=np.bool_)
    picture[y : y + height, x : x + width] = True
    return picture


def same(first: Sighting, second: Sighting) -> bool:
    """Return whether two sightings are equal to the last bit."""
    for name in ('region_id', 'state', 'score'):
        if getattr(first, name) != getattr(second, name):
            return False
    if first.mask is None or second.mask is None:
        return first.mask is second.mask
    return np.array_equal(first.mask, second.mask)


def of(sightings: Iterable[Sighting], region_id: str) -> Sighting:
    return next(one for one in sightings if one.region_id == region_id)
