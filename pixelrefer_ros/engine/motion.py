# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Notice when a followed region begins or stops to move."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from pixelrefer_ros.core.types import NS_PER_S

if TYPE_CHECKING:
    from pixelrefer_ros.core.types import Box

_SPAN_NS = NS_PER_S // 2  # motion is measured over this long,
_LEAST_NS = 3 * NS_PER_S // 10  # and not before there is this much of it
_GAP_NS = NS_PER_S  # out of sight for longer: nothing is known of its motion
# Speeds in sizes of the region (square root of its box's area) per second. Between the two
# nothing changes, so that a box that trembles does not count as starting over and over.
_BEGINS = 0.3
_STOPS = 0.1


class _Place(NamedTuple):
    stamp_ns: int
    x: float
    y: float
    size: float


class MotionWatch:
    """Follow the box of one region, in the image: what the camera does counts as motion too."""

    def __init__(self) -> None:
        """Start without knowing whether it moves."""
        self._places: deque[_Place] = deque()
        self._moves: bool | None = None

    def update(self, stamp_ns: int, box: Box) -> bool:
        """Take in the box of the next frame; return whether it just began or stopped to move.

        Args:
            stamp_ns: Stamp of the frame, newer than the one before.
            box: Around the region in it.
        """
        places = self._places
        if places and stamp_ns - places[-1].stamp_ns > _GAP_NS:
            places.clear()
            self._moves = None
        x, y = box.x + box.width / 2, box.y + box.height / 2
        places.append(_Place(stamp_ns, x, y, math.sqrt(box.width * box.height)))
        while len(places) > 2 and places[1].stamp_ns <= stamp_ns - _SPAN_NS:
            places.popleft()
        first, last = places[0], places[-1]
        if last.stamp_ns - first.stamp_ns < _LEAST_NS:
            return False
        size = math.sqrt(first.size * last.size)
        shift = math.hypot(last.x - first.x, last.y - first.y) / size
        growth = abs(math.log(last.size / first.size))
        speed = max(shift, growth) * NS_PER_S / (last.stamp_ns - first.stamp_ns)
        did = self._moves
        self._moves = speed > (_STOPS if did else _BEGINS)
        return did is not None and self._moves != did
