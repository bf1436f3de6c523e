# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bring the boxes a model says back to pixels of the image it was shown.

Qwen2.5-VL and ReVSeg count in pixels of the resized picture, Qwen3-VL and Qwen2-VL in
thousandths of each side.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from pixelrefer_ros.core.types import Box
from pixelrefer_ros.grounding.replies import Note

if TYPE_CHECKING:
    from pixelrefer_ros.grounding.parsing import Corners

# Sides shorter than this are no object but a slip.
MIN_SIDE: Final = 2.0
_THOUSAND: Final = 1000.0
# Pixels may miss the edge of the picture by this part of its side and still be pixels.
_SLOP: Final = 0.08


class Coordinates(StrEnum):
    """Say what a model counts in."""

    ABSOLUTE = 'absolute'
    RELATIVE_1000 = 'relative_1000'


def place_box(
    corners: Corners,
    coordinates: Coordinates,
    shown: tuple[int, int],
    size: tuple[int, int],
) -> tuple[Box | None, tuple[Note, ...]]:
    """Return a box in pixels of the original image, and what had to be put right.

    Each axis is scaled on its own: the picture may have been squeezed. Corners promised in
    pixels that lie beyond the picture, but all within a thousand, are taken for thousandths.

    Args:
        corners: x1, y1, x2, y2 as the model said them.
        coordinates: What the model is known to count in.
        shown: Width and height of the picture it was shown.
        size: Width and height of the original image.

    Returns:
        The box, clipped to the image, and notes; None for the box when less than
        ``MIN_SIDE`` pixels of a side are left.
    """
    notes = []
    x1, y1, x2, y2 = corners
    left, right = sorted((x1, x2))
    top, bottom = sorted((y1, y2))
    if (left, top) != (x1, y1):
        notes.append(Note.SWAPPED)
    unit: tuple[float, float] = shown
    if coordinates == Coordinates.RELATIVE_1000:
        unit = (_THOUSAND, _THOUSAND)
    elif _is_relative(right, bottom, shown):
        notes.append(Note.RELATIVE)
        unit = (_THOUSAND, _THOUSAND)
    if left < 0 or top < 0 or right > unit[0] or bottom > unit[1]:
        notes.append(Note.CLIPPED)
    x_span = _span(left, right, unit[0], size[0])
    y_span = _span(top, bottom, unit[1], size[1])
    if x_span is None or y_span is None:
        return None, tuple(notes)
    return Box(x_span[0], y_span[0], x_span[1], y_span[1]), tuple(notes)


def _is_relative(right: float, bottom: float, shown: tuple[int, int]) -> bool:
    beyond = any(
        end > side * (1 + _SLOP) for end, side in zip((right, bottom), shown, strict=True)
    )
    return beyond and max(right, bottom) <= _THOUSAND


def _span(first: float, last: float, unit: float, side: int) -> tuple[int, int] | None:
    """Return where a side begins and how long it is, in whole pixels."""
    first, last = (min(max(value / unit, 0.0), 1.0) * side for value in (first, last))
    if last - first < MIN_SIDE:
        return None
    start, end = math.floor(first + 0.5), math.floor(last + 0.5)
    return start, end - start
