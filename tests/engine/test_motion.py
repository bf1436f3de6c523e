# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check when a box counts as beginning or stopping to move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.core.types import Box
from pixelrefer_ros.engine.motion import MotionWatch
from tests.engine.rig import ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# A box of 40x40: its size is 40, so 4 pixels a frame at 10 Hz are one size per second.
REST = Box(100, 100, 40, 40)


def changes(boxes: Iterable[Box], rate_hz: float = 10.0) -> list[int]:
    """Return the frames at which motion changed."""
    watch = MotionWatch()
    return [i for i, box in enumerate(boxes) if watch.update(ns(10 + i / rate_hz), box)]


def path(step: Callable[[int], float], frames: int = 40) -> list[Box]:
    x, boxes = 100.0, []
    for i in range(frames):
        x += step(i)
        boxes.append(Box(round(x), 100, 40, 40))
    return boxes


def test_what_rests_or_moves_all_the_time_does_not_change() -> None:
    assert changes(path(lambda _: 0)) == []
    assert changes(path(lambda _: 4)) == []


def test_it_begins_and_stops_once_each() -> None:
    begins, stops = changes(path(lambda i: 4 if 10 <= i < 25 else 0))
    assert 10 <= begins <= 13
    assert 25 <= stops <= 31


def test_growing_is_motion_too() -> None:
    boxes = [Box(100, 100, 40 + 4 * max(0, i - 10), 40 + 4 * max(0, i - 10)) for i in range(20)]
    (begins,) = changes(boxes)
    assert 10 < begins <= 14


def test_a_speed_between_the_two_thresholds_changes_nothing() -> None:
    slow = 0.8  # pixels a frame: 0.2 sizes a second
    assert changes(path(lambda _: slow)) == []
    assert len(changes(path(lambda i: 0 if i < 10 else 4 if i < 20 else slow))) == 1


@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1)), min_size=30, max_size=60))
def test_a_box_that_trembles_by_a_pixel_rests(jitter: list[tuple[int, int]]) -> None:
    assert changes(Box(100 + x, 100 + y, 40, 40) for x, y in jitter) == []


def test_it_works_at_a_frame_a_second() -> None:
    assert len(changes(path(lambda i: 40 if i >= 5 else 0, 12), rate_hz=1.0)) == 1


def test_out_of_sight_for_long_nothing_is_known() -> None:
    watch = MotionWatch()
    for i in range(10):
        assert not watch.update(ns(10 + i / 10), REST)
    # It is elsewhere when it comes back, but nobody saw it move.
    for i in range(10):
        assert not watch.update(ns(20 + i / 10), Box(300, 100, 40, 40))
