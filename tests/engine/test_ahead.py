# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what a describer is shown before it is asked, and when it is to forget."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from pixelrefer_ros.core.describer import LanguageStats, VisionStats
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


def every(frames: int = 20) -> ScriptedDescriber:
    """Return a describer that wants so many frames of a window."""
    return ScriptedDescriber(frames_per_region=frames)


def offered(rig: Rig) -> Frame | None:
    """Return what the describer would be asked to look at now."""
    return rig.engine._runner._supply.next_ahead()


def choose(rig: Rig) -> list[float]:
    """Return the stamps of the frames that would be looked at now, in order."""
    stamps: list[float] = []
    while (frame := offered(rig)) is not None:
        stamps.append(frame.stamp_ns / 1e9)
    return stamps


def test_frames_in_which_a_region_is_seen_newest_first_each_once() -> None:
    rig = Rig(window_s=0.5, describe_enabled=True, describer=every(5))
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
    rig = Rig(window_s=0.3, look_ahead='always', describer=every(3))
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
    rig = Rig(look_ahead='always', describer=every())
    rig.describer.seen = FULL
    rig.frames(span(10.0, 11.0))
    assert choose(rig) == [11.0]
    rig.frames([11.1, 11.2])
    assert choose(rig) == [11.2]
    rig.describer.seen = ROOM
    assert choose(rig)[:2] == [11.1, 10.9]


def test_cameras_take_turns() -> None:
    rig = Rig(cameras=('left', 'right'), look_ahead='always', describer=every())
    for camera in ('left', 'right'):
        rig.frames([10.0, 10.1], camera)
    cameras = []
    while (frame := offered(rig)) is not None:
        cameras.append((frame.camera, frame.stamp_ns / 1e9))
    assert cameras == [('left', 10.1), ('right', 10.1), ('left', 10.0), ('right', 10.0)]


def test_what_a_tracker_finds_is_looked_at() -> None:
    rig = Street(window_s=1.0, describe_enabled=True, describer=every(10))
    rig.film(range(3))
    rig.point('red', 2)
    rig.film(range(3, 6))
    assert choose(rig) == pytest.approx([at_s(i) for i in reversed(range(6))])


def test_no_more_frames_than_a_description_takes_and_those_it_takes() -> None:
    rig = Street(window_s=2.0, describe_enabled=True)
    rig.film([0])
    rig.point('blue', 0)
    looked_at: list[float] = []
    for i in range(1, 101):
        rig.film([i])
        looked_at += choose(rig)
    assert len(looked_at) == 20  # four in two seconds
    assert len(rig.engine._cameras.find('').ahead_ns) <= 6  # those of the past are let go of
    calls = rig.describer.calls[1:]
    assert len(calls) == 4
    for call in calls:
        *older, newest = seconds(call.stamps_ns)
        assert set(older) <= set(looked_at)
        gaps = [after - before for before, after in pairwise([*older, newest])]
        assert max(gaps) <= 1.0  # spread over the window all the same


def test_a_question_about_the_whole_image_takes_frames_looked_at_already() -> None:
    rig = Rig(look_ahead='always', describer=ScriptedDescriber(needs_regions=False))
    rig.frames(span(10.0, 11.5))
    looked_at = choose(rig)
    rig.frames([11.6, 11.7, 11.8, 11.9, 12.0])
    *older, newest = seconds(rig.answer().frame_stamps_ns)
    assert newest == 12.0
    assert set(older) <= set(looked_at)


def test_nothing_is_looked_at_when_nothing_will_be_asked() -> None:
    rig = Rig(cameras=('left', 'right'))
    for camera in ('left', 'right'):
        rig.frames([10.0], camera)
        rig.region('cup', camera=camera)
    assert choose(rig) == []
    handle = rig.ask(camera='right', stamp_s=10.4)
    frame = offered(rig)
    assert frame is not None
    assert frame.camera == 'right'
    assert choose(rig) == []
    handle.cancel()
    rig.frames([11.0], 'right')
    rig.region('cup', camera='right')
    assert choose(rig) == []


def test_what_was_forgotten_with_another_cameras_past_is_looked_at_again() -> None:
    rig = Rig(cameras=('left', 'right'), look_ahead='always')
    rig.engine.step()
    for camera in ('left', 'right'):
        rig.frames([10.0], camera)
    assert choose(rig) == [10.0, 10.0]
    rig.engine.reset('left')
    assert rig.engine.step() == 0
    frame = offered(rig)
    assert frame is not None
    assert frame.camera == 'right'
    assert choose(rig) == []


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig(
        clock=time.monotonic, describe_enabled=True, describe_after_s=3600.0, describer=every()
    )
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


def test_after_a_restart_frames_are_looked_at_again(rig: Rig) -> None:
    rig.frames([10.0])
    rig.region('cup')
    until(lambda: ahead(rig) == [10.0])
    rig.engine.stop()
    rig.engine.start()
    until(lambda: ahead(rig) == [10.0, 10.0])


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
    describer.read = LanguageStats(hits=5, misses=4, held_bytes=30, max_bytes=40)
    stats = Rig(describer=describer).engine.stats()
    assert (stats.vision, stats.language) == (seen, describer.read)
