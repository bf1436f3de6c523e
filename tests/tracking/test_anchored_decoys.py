# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that a plain thing that is gone is not found in another of its colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from pixelrefer_ros.core.types import Box, Frame, Region, RegionKind, TrackState
from pixelrefer_ros.tracking.anchored import AnchoredTracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pixelrefer_ros.core.tracker import Sighting

    Draw = Callable[[NDArray[np.uint8]], object]

RED = (200, 0, 0)
FOUND = (TrackState.TRACKED, TrackState.REACQUIRED)
TRIANGLE = np.array([[400, 300], [470, 300], [435, 370]])

DECOYS: dict[str, Draw] = {
    'a small disc': lambda image: cv2.circle(image, (500, 350), 20, RED, -1),
    'a large disc': lambda image: cv2.circle(image, (500, 350), 45, RED, -1),
    'a triangle': lambda image: cv2.fillPoly(image, [TRIANGLE], RED),
    'a bar': lambda image: cv2.rectangle(image, (300, 300), (500, 315), RED, -1),
}


def square(left: int, top: int) -> Draw:
    return lambda image: cv2.rectangle(image, (left, top), (left + 60, top + 60), RED, -1)


def follow(hidden: int, later: Draw) -> Sighting:
    """Follow a plain square that vanishes; return the last sighting of a second of something."""
    grey = np.random.default_rng(0).integers(114, 127, (480, 640, 3)).astype(np.uint8)
    tracker = AnchoredTracker()
    shown: list[Draw] = [square(100, 100)] * 10 + [lambda _: None] * hidden + [later] * 10
    sighting = None
    for number, draw in enumerate(shown):
        image = grey.copy()
        draw(image)
        frame = Frame('', 1 + number * 100_000_000, image)
        if number == 0:
            tracker.start(frame, Region('a', RegionKind.BOX, box=Box(100, 100, 61, 61)))
        else:
            (sighting,) = tracker.step(frame)
    assert sighting is not None
    return sighting


@pytest.mark.parametrize('hidden', [0, 10])
@pytest.mark.parametrize('decoy', list(DECOYS))
def test_another_of_its_colour_is_not_taken_for_it(decoy: str, hidden: int) -> None:
    assert follow(hidden, DECOYS[decoy]).state == TrackState.LOST


@pytest.mark.parametrize('hidden', [1, 10])
def test_the_same_elsewhere_is(hidden: int) -> None:
    sighting = follow(hidden, square(420, 300))
    assert sighting.state in FOUND
    assert sighting.mask is not None
    assert sighting.mask[310:350, 430:470].all()
    assert abs(np.count_nonzero(sighting.mask) - 61 * 61) < 400
