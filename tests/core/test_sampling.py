# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the choice of frames at the door and in a window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.core.sampling import DoorSampler, spread

MS = 1_000_000
stamp_sets = st.sets(st.integers(0, 10_000), min_size=1, max_size=40).map(sorted)


@pytest.mark.parametrize('camera_hz', [10, 12, 15, 25, 30, 60])
@pytest.mark.parametrize('jitter_ms', [0, 2])
def test_the_door_keeps_the_rate_on_average(camera_hz: int, jitter_ms: int) -> None:
    door = DoorSampler(10.0)
    stamps = [
        round(i * 1000 * MS / camera_hz) + (i * 7919 % 3 - 1) * jitter_ms * MS
        for i in range(camera_hz * 20)
    ]
    kept = [stamp for stamp in stamps if door.keep(stamp)]
    assert 198 <= len(kept) <= 202


def test_a_slower_camera_loses_nothing() -> None:
    door = DoorSampler(10.0)
    assert all(door.keep(i * 130 * MS) for i in range(100))


def test_after_a_pause_the_door_does_not_catch_up() -> None:
    door = DoorSampler(10.0)
    assert door.keep(0)
    assert door.keep(60_000 * MS)
    assert not door.keep(60_030 * MS)


def test_no_rate_keeps_all_and_reset_keeps_the_next() -> None:
    assert all(DoorSampler(0.0).keep(stamp) for stamp in (0, 1, 2))
    door = DoorSampler(1.0)
    assert door.keep(5_000 * MS)
    assert not door.keep(5_100 * MS)
    door.reset()
    assert door.keep(0)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50).map(sorted), st.floats(0.5, 60))
def test_wants_tells_what_keep_will_do(stamps: list[int], rate_hz: float) -> None:
    door = DoorSampler(rate_hz)
    for stamp in stamps:
        wanted = door.wants(stamp)
        assert door.keep(stamp) == wanted


@given(stamp_sets, st.integers(1, 20), st.sets(st.integers(0, 10_000)))
def test_spread_chooses_as_many_as_there_are_the_newest_among_them(
    stamps: list[int], count: int, prefer: set[int]
) -> None:
    chosen = spread(stamps, count, prefer=prefer)
    assert len(chosen) == min(count, len(stamps))
    assert set(chosen) <= set(stamps)
    assert list(chosen) == sorted(set(chosen))
    assert chosen[-1] == stamps[-1]


@given(stamp_sets, st.integers(2, 20))
def test_spread_reaches_back_to_the_oldest(stamps: list[int], count: int) -> None:
    assert spread(stamps, count)[0] == stamps[0]


def test_spread_is_even_in_time_not_in_number() -> None:
    dense_then_sparse = [*range(100), 500, 1000]
    assert spread(dense_then_sparse, 3) == (0, 500, 1000)
    assert spread(range(0, 101), 5) == (0, 25, 50, 75, 100)
    assert spread([0, 991, 992, 993, 1000], 4) == (0, 991, 992, 1000)


def test_spread_prefers_shared_stamps_only_where_they_are_near() -> None:
    stamps = list(range(0, 101))
    assert spread(stamps, 3, prefer={47}) == (0, 47, 100)
    assert spread(stamps, 3, prefer={20}) == (20, 50, 100)
    assert spread(stamps, 2, prefer={60}) == (0, 100)
