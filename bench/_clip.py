# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draw the clip that speed is measured on, eight things of very different sizes, and ask."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import NS_PER_S, Frame, RegionClip, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 480
QUESTIONS = ('', 'What is {it} made of, and what colour is it?', 'Does {it} move, and where to?')
"""Asked about every region, one after the other; '' is a description."""

_SECONDS = 2.0


@dataclass(frozen=True)
class Thing:
    """Say what to draw.

    Attributes:
        name: What it stands for.
        width: In pixels.
        height: In pixels.
        centre: (x, y) in pixels in the first frame.
        colour: RGB.
        round: An ellipse instead of a rectangle.
    """

    name: str
    width: int
    height: int
    centre: tuple[int, int]
    colour: tuple[int, int, int]
    round: bool = False

    @property
    def area(self) -> int:
        """Pixels of its mask."""
        return int(mask_of(self, 0.0).sum())


THINGS = (
    Thing('screw', 24, 16, (60, 440), (200, 40, 40)),
    Thing('ball', 48, 48, (150, 420), (40, 160, 60), round=True),
    Thing('pen', 20, 110, (230, 380), (50, 80, 210)),
    Thing('mug', 72, 80, (310, 410), (230, 200, 40)),
    Thing('bottle', 52, 150, (400, 350), (150, 60, 170)),
    Thing('book', 140, 100, (510, 410), (240, 130, 30)),
    Thing('parcel', 170, 150, (500, 230), (40, 180, 190)),
    Thing('person', 150, 330, (130, 190), (235, 235, 235), round=True),
)
"""As a robot's camera sees a room: in COCO's words one small, four medium and three large."""

CLASSES = {
    'small': (Thing('small', 24, 24, (320, 240), (200, 40, 40)),),
    'medium': (Thing('medium', 64, 64, (320, 240), (200, 40, 40)),),
    'large': (Thing('large', 160, 160, (320, 240), (200, 40, 40)),),
    'mix': THINGS,
}
"""Things to count the work for: one in the middle of each of COCO's sizes, and the mix."""


def mask_of(thing: Thing, moment: float) -> NDArray[np.uint8]:
    """Return (HEIGHT, WIDTH) uint8 of 0 and 1, at a moment 0..1; things drift to the right."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y = thing.centre[0] + round(24 * moment), thing.centre[1]
    if thing.round:
        cv2.ellipse(mask, (x, y), (thing.width // 2, thing.height // 2), 0, 0, 360, 1, cv2.FILLED)
    else:
        left, top = max(0, x - thing.width // 2), max(0, y - thing.height // 2)
        mask[top : top + thing.height, left : left + thing.width] = 1
    return mask


def draw(regions: int, frames: int) -> tuple[list[Frame], list[RegionClip]]:
    """Draw frames over two seconds, and the masks of things in each of them.

    Args:
        regions: How many; beyond eight the things are taken again.
        frames: How many.
    """
    things = list(islice(cycle(THINGS), regions))
    moments = [number / frames for number in range(frames)]
    masks = {thing: [mask_of(thing, moment) for moment in moments] for thing in THINGS}
    pictures = [
        Frame('', NS_PER_S + round(moment * _SECONDS * NS_PER_S), _picture(masks, number))
        for number, moment in enumerate(moments)
    ]
    every = tuple(range(frames))
    return pictures, [
        RegionClip(f'{thing.name}{place}', every, tuple(masks[thing]))
        for place, thing in enumerate(things)
    ]


def rounds(
    regions: int, frames: int, questions: tuple[str, ...] = QUESTIONS
) -> list[list[Request]]:
    """Return, question by question, the requests about every region of a clip."""
    pictures, clips = draw(regions, frames)
    return [
        [
            Request(
                Task.ASK if text else Task.DESCRIBE,
                tuple(pictures),
                (one,),
                text.replace('{it}', f'{{{one.region_id}}}'),
            )
            for one in clips
        ]
        for text in questions
    ]


def _picture(masks: dict[Thing, Sequence[NDArray[np.uint8]]], number: int) -> NDArray[np.uint8]:
    """Paint the things over a table, with grain that differs from frame to frame."""
    grain = np.random.default_rng(number).integers(-12, 13, (HEIGHT, WIDTH, 3))
    picture = np.full((HEIGHT, WIDTH, 3), (150, 120, 95), np.int64)
    for thing, seen in reversed(masks.items()):
        picture[seen[number] > 0] = thing.colour
    return np.clip(picture + grain, 0, 255).astype(np.uint8)
