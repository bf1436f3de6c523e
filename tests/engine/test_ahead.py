# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what a describer is shown before it is asked, and when it is to forget."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from pixelrefer_ros.core.describer import VisionStats
from pixelrefer_ros.core.types import ErrorCode
from tests.doubles import ScriptedDescriber
from tests.engine.rig import Rig, query, region, seconds, span
from tests.engine.street import Street, at_s
from tests.engine.test_worker import LONG_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixelrefer_ros.core.types import Frame

ROOM = VisionStats(max_bytes=1000)
FULL = VisionStats(held_bytes=500, max_bytes=1000)


def choose(rig: Rig) -> list[float]:
    """Return the stamps of the frames that would be looked at now, in order."""
    stamps: list[float] = []
    while (frame := rig.engine._next_ahead()) is not None:
        stamps.append(frame.stamp_ns / 1e9)
    return stamps


def test_frames_in_which_a_region_is_seen_newest_first_each_once() -> None:
    rig = Rig(window_s=0.5)
    rig.frames(span(10.0, 11.0))
    assert choose(rig) == []
    for stamp_s in (10.2, 10.6, 10.9, 11.0):
        rig.region('cup', stamp_s)
    assert choose(rig) == pytest.approx([11.0, 10.9, 10.6])  # the first is not in the window
    assert choose(rig) == []
    rig.frames([11.1, 11.2])
    assert choose(rig) == []
    rig.region('cup', 11.1)
    rig.region('pen', 11.1)
    assert choose(rig) == pytest.approx([11.1])
    rig.engine.remove_regions()
    rig.frames([11.3])
    assert choose(rig) == []


def test_all_frames_or_none_when_told_so() -> None:
    rig = Rig(window_s=0.3, look_ahead='always')
    rig.frames(span(10.0, 11.0))
    assert choose(rig) == pytest.approx([11.0, 10.9, 10.8, 10.7])
    rig.frames([5.0])  # another time, though with stamps that were there
    assert choose(rig) == [5.0]
    rig.engine.reset()
    rig.frames([5.0])
    assert choose(rig) == [5.0]
    never = Rig(look_ahead='never')
    never.frames([10.0])
    never.region('cup')
    assert choose(never) == []


def test_a_cache_that_is_half_full_is_for_what_is_new() -> None:
    rig = Rig(look_ahead='always')
    rig.describer.seen = FULL
    rig.frames(span(10.0, 11.0))
    assert choose(rig) == [11.0]
    rig.frames([11.1, 11.2])
    assert choose(rig) == [11.2]
    rig.describer.seen = ROOM
    assert choose(rig)[:2] == [11.1, 10.9]


def test_cameras_take_turns() -> None:
    rig = Rig(cameras=('left', 'right'), look_ahead='always')
    for camera in ('left', 'right'):
        rig.frames([10.0, 10.1], camera)
    cameras = []
    while (frame := rig.engine._next_ahead()) is not None:
        cameras.append((frame.camera, frame.stamp_ns / 1e9))
    assert cameras == [('left', 10.1), ('right', 10.1), ('left', 10.0), ('right', 10.0)]


def test_what_a_tracker_finds_is_looked_at() -> None:
    rig = Street(window_s=1.0)
    rig.film(range(3))
    rig.point('red', 2)
    rig.film(range(3, 6))
    assert choose(rig) == pytest.approx([at_s(i) for i in reversed(range(6))])


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig(clock=time.monotonic, keep_rate_hz=0.0)
    one.engine.start()
    yield one
    one.engine.stop()


def ahead(rig: Rig) -> list[float]:
    return seconds(frame.stamp_ns for frame in rig.describer.ahead)


def test_an_idle_worker_looks_ahead(rig: Rig) -> None:
    rig.frames([10.0])
    rig.region('cup')
    until(lambda: ahead(rig) == [10.0])
    rig.frames([10.1])
    rig.region('cup', 10.1)
    until(lambda: ahead(rig) == [10.0, 10.1])
    assert len(rig.describer.threads) == 1
    assert rig.describer.threads != {threading.get_ident()}


def test_a_job_waits_for_one_frame_at_most(rig: Rig) -> None:
    looks, go_on = threading.Event(), threading.Event()
    order: list[Any] = []

    def on_ahead(frame: Frame) -> None:
        order.append(frame.stamp_ns / 1e9)
        looks.set()
        assert go_on.wait(LONG_S)

    rig.describer.on_ahead = on_ahead
    rig.frames([10.0, 10.1])
    rig.engine.add_regions([region('cup', 10.0), region('cup', 10.1)])
    assert looks.wait(LONG_S)
    handle = rig.engine.submit(
        query(), on_progress=lambda stage, *_: order.append(stage)
    )
    go_on.set()
    assert handle.wait(LONG_S)
    until(lambda: len(ahead(rig)) == 2)
    assert order[:3] == [10.1, 'queued', 'preprocess']
    assert order[-1] == 10.0


def test_a_failed_look_ahead_is_reported_and_nothing_is_lost(rig: Rig) -> None:
    def on_ahead(_: Frame) -> None:
        raise RuntimeError('bad shape')

    rig.describer.on_ahead = on_ahead
    rig.frames([10.0])
    rig.region('cup')
    until(lambda: rig.problems)
    assert 'looking ahead failed: RuntimeError: bad shape' in rig.problems[0]
    handle = rig.ask()
    assert handle.wait(LONG_S)
    assert rig.answers[0].error_code == ErrorCode.OK
    assert len(rig.problems) == 1  # it is not tried again


def test_nothing_is_looked_at_ahead_in_lock_step() -> None:
    rig = Rig(look_ahead='always')
    rig.frames([10.0])
    rig.region('cup')
    rig.answer()
    assert rig.describer.ahead == []


def test_frames_are_forgotten_when_time_jumps_back_or_all_is_reset(rig: Rig) -> None:
    def forgotten() -> int:
        return rig.describer.forgotten

    until(lambda: forgotten() == 1)  # what another engine has shown it
    rig.frames([10.0, 10.1])
    rig.frames([5.0])
    until(lambda: forgotten() == 2)
    rig.engine.reset()
    until(lambda: forgotten() == 3)
    rig.engine.remove_regions()
    rig.engine.stop()
    assert forgotten() == 4  # nothing runs that would need it
    assert len(rig.describer.threads) == 1


def test_frames_are_forgotten_before_new_ones_are_asked_about_in_lock_step() -> None:
    rig = Rig()
    rig.frames([10.0])
    rig.region('cup')
    rig.answer()
    assert rig.describer.forgotten == 1
    forgotten: list[int] = []
    rig.describer.on_token = lambda _: forgotten.append(rig.describer.forgotten)
    rig.frames([5.0])
    rig.region('cup')
    assert rig.describer.forgotten == 1  # only whoever runs the model calls it
    rig.answer()
    assert set(forgotten) == {2}


def test_stats_tell_what_was_seen() -> None:
    seen = VisionStats(hits=3, misses=2, encoded_ahead=1, held_bytes=10, max_bytes=20)
    describer = ScriptedDescriber()
    describer.seen = seen
    assert Rig(describer=describer).engine.stats().vision == seen
