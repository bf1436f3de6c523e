# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that the buffer stays within its bounds and keeps the window without holes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.core.types import NS_PER_S, Frame
from pixelrefer_ros.core.video_buffer import FrameView, RollingBuffer

SIZE = 300  # bytes of the frames below


def frame(stamp_ns: int, side: int = 10) -> Frame:
    return Frame('', stamp_ns, np.zeros((side, side, 3), dtype=np.uint8))


def fill(buffer: RollingBuffer, seconds: float, rate_hz: int) -> list[int]:
    stamps = [round(i * NS_PER_S / rate_hz) for i in range(round(seconds * rate_hz))]
    for stamp in stamps:
        buffer.append(frame(stamp))
    return stamps


@given(
    gaps_ms=st.lists(st.integers(1, 3000), min_size=1, max_size=80),
    sides=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    window_s=st.floats(0.5, 30),
    full_s=st.floats(0, 10),
    max_bytes=st.integers(100, 5000),
    pinned=st.sets(st.integers(0, 60_000)),
)
def test_bounds_hold_and_the_books_balance(
    gaps_ms: list[int],
    sides: list[int],
    window_s: float,
    full_s: float,
    max_bytes: int,
    pinned: set[int],
) -> None:
    buffer = RollingBuffer(window_s, full_s, max_bytes)
    keep = {ms * 1_000_000 for ms in pinned}
    stamp, inside = 0, set()
    for i, gap in enumerate(gaps_ms):
        stamp += gap * 1_000_000
        left = buffer.append(frame(stamp, sides[i % len(sides)]), keep=keep)
        inside = (inside | {stamp}) - set(left)
        view = buffer.view()
        assert set(view.stamps_ns) == inside
        assert list(view.stamps_ns) == sorted(inside)
        assert len(buffer) == len(view)
        assert buffer.nbytes == sum(f.image.nbytes for f in view.frames)
        assert buffer.nbytes <= max_bytes or len(view) == 1
        assert view.stamps_ns[-1] == stamp
        assert stamp - view.stamps_ns[0] <= 2 * round(window_s * NS_PER_S)


@given(
    rate_hz=st.integers(2, 30),
    window_s=st.integers(2, 40),
    full_s=st.integers(1, 10),
    frames=st.integers(12, 200),
)
def test_the_window_has_no_hole_at_its_start(
    rate_hz: int, window_s: int, full_s: int, frames: int
) -> None:
    buffer = RollingBuffer(window_s, full_s, frames * SIZE)
    stamps = fill(buffer, window_s * 3, rate_hz)
    kept = buffer.view().stamps_ns
    start = stamps[-1] - window_s * NS_PER_S
    assert kept[0] <= start
    # However few bytes there are, no gap is wider than the even spread that they allow.
    widest = max(b - a for a, b in zip(kept, kept[1:], strict=False))
    allowed = max(NS_PER_S, window_s * NS_PER_S // (frames // 2 - 1)) + 2 * NS_PER_S // rate_hz
    assert widest <= allowed


def test_the_newest_seconds_are_whole_and_older_ones_thinned() -> None:
    buffer = RollingBuffer(20, 5, 10_000 * SIZE)
    stamps = fill(buffer, 60, 10)
    view = buffer.view()
    newest = stamps[-1]
    assert [f.stamp_ns for f in view.between(newest - 5 * NS_PER_S, newest)] == stamps[-51:]
    older = [s for s in view.stamps_ns if s < newest - 5 * NS_PER_S]
    gaps = {b - a for a, b in zip(older, older[1:], strict=False)}
    assert gaps == {NS_PER_S}
    assert 15 <= len(older) <= 17


def test_thinning_spares_what_it_is_told_to() -> None:
    spared = round(0.3 * NS_PER_S)
    with_it, without = RollingBuffer(20, 1, 10**6), RollingBuffer(20, 1, 10**6)
    for i in range(50):
        with_it.append(frame(i * NS_PER_S // 10), keep={spared})
        without.append(frame(i * NS_PER_S // 10))
    assert spared in with_it.view()
    assert spared not in without.view()


def test_a_frame_larger_than_the_limit_stays_alone() -> None:
    buffer = RollingBuffer(10, 5, 100)
    buffer.append(frame(1))
    assert buffer.append(frame(2)) == [1]
    assert buffer.view().stamps_ns == (2,)


def test_a_frame_from_before_a_long_pause_goes() -> None:
    buffer = RollingBuffer(10, 5, 10**6)
    buffer.append(frame(0))
    assert buffer.append(frame(3600 * NS_PER_S)) == [0]


def test_time_only_goes_on_until_it_is_cleared() -> None:
    buffer = RollingBuffer(10, 5, 10**6)
    buffer.append(frame(5))
    for stamp in (5, 4):
        with pytest.raises(ValueError, match='not newer'):
            buffer.append(frame(stamp))
    buffer.clear()
    assert buffer.newest() is None
    assert (len(buffer), buffer.nbytes) == (0, 0)
    buffer.append(frame(1))
    assert buffer.view().stamps_ns == (1,)


def test_a_view_stays_as_it_was_and_pictures_cannot_be_written_to() -> None:
    buffer = RollingBuffer(1, 1, 10**6)
    buffer.append(frame(1))
    view = buffer.view()
    buffer.append(frame(5 * NS_PER_S))
    assert view.stamps_ns == (1,)
    with pytest.raises(ValueError, match='read-only'):
        view.frames[0].image[0, 0, 0] = 1


def test_looking_for_frames() -> None:
    view = FrameView(tuple(frame(s) for s in (10, 20, 40)))
    assert view.newest() is view.frames[2]
    assert view.at(20) is view.frames[1]
    assert view.at(21) is None
    assert 40 in view
    assert 41 not in view
    assert view.at_or_before(39) is view.frames[1]
    assert view.at_or_before(9) is None
    assert [f.stamp_ns for f in view.between(10, 20)] == [10, 20]
    assert view.between(21, 39) == ()
    empty = FrameView(())
    assert (empty.newest(), empty.nearest(3), len(empty)) == (None, None, 0)


@given(
    st.sets(st.integers(0, 1000), min_size=1).map(sorted), st.integers(0, 1000), st.integers(0, 50)
)
def test_nearest_is_the_nearest(stamps: list[int], wanted: int, tolerance: int) -> None:
    view = FrameView(tuple(frame(s, 1) for s in stamps))
    best = min(stamps, key=lambda s: abs(s - wanted))
    found = view.nearest(wanted)
    assert found is not None
    assert found.stamp_ns == best
    within = view.nearest(wanted, tolerance)
    assert (within is not None) == (abs(best - wanted) <= tolerance)


def test_readers_see_whole_views_while_frames_come() -> None:
    buffer = RollingBuffer(2, 1, 20 * SIZE)
    faults: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            stamps = buffer.view().stamps_ns
            if list(stamps) != sorted(set(stamps)) or buffer.nbytes > 20 * SIZE:
                faults.append(str(stamps))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(3000):
        buffer.append(frame(i * NS_PER_S // 30))
    stop.set()
    for reader in readers:
        reader.join()
    assert not faults
