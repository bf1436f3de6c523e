# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the thread that follows regions: nothing holds it up, and nothing ends it."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pixelrefer_ros.core.types import ErrorCode, TrackState
from tests.engine.street import BLUE_BOX, Street, at_ns, at_s, red_box
from tests.engine.test_worker import LONG_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def rig() -> Iterator[Street]:
    rig = Street(clock=time.monotonic, pending_s=LONG_S)
    rig.film([0], run=False)
    rig.engine.start()
    yield rig
    for gate in (rig.describer.gate, rig.script.gate):
        if gate is not None:
            gate.set()
    rig.engine.stop()


def newest(rig: Street) -> int:
    """Return the stamp of the newest tracks."""
    return max((track.stamp_ns for track in rig.engine.tracks('')), default=0)


def film(rig: Street, frames: range) -> None:
    """Film at the pace of the tracker."""
    for i in frames:
        rig.film([i], run=False)
        until(lambda i=i: newest(rig) == at_ns(i))


def test_a_thread_of_its_own_follows(rig: Street) -> None:
    rig.point('red', 0)
    until(lambda: newest(rig) == at_ns(0))
    film(rig, range(1, 10))
    assert rig.seen('red') == {i: red_box(i) for i in range(10)}
    assert rig.states('red') == {
        0: TrackState.NEW,
        **dict.fromkeys(range(1, 10), TrackState.TRACKED),
    }
    assert rig.script.threads == {'tracking'}
    assert rig.problems == []


def test_a_busy_model_does_not_hold_it_up(rig: Street) -> None:
    rig.point('red', 0)
    until(lambda: newest(rig) == at_ns(0))
    rig.describer.gate = threading.Event()
    handle = rig.ask('{red}?')
    assert rig.describer.started.wait(LONG_S)
    film(rig, range(1, 20))
    assert not handle.done
    rig.describer.gate.set()
    assert handle.wait(LONG_S)


def test_a_busy_tracker_does_not_hold_frames_or_the_model_up(rig: Street) -> None:
    rig.point('red', 0)
    until(lambda: newest(rig) == at_ns(0))
    rig.script.gate = threading.Event()
    rig.film(range(1, 6), run=False)
    asked = rig.ask('{red}?', stamp_s=at_s(0))
    assert asked.wait(LONG_S)
    held = rig.ask('{red}?')
    assert not held.done
    assert rig.engine.stats().cameras[''].tracking_lag_frames >= 5
    rig.script.gate.set()
    assert held.wait(LONG_S)
    assert rig.answers[-1].evidence[0].stamp_ns == at_ns(5)


def test_a_query_waits_no_longer_than_pending_s_for_a_tracker() -> None:
    rig = Street(clock=time.monotonic, pending_s=0.05)
    rig.film([0], run=False)
    rig.engine.start()
    rig.point('red', 0)
    until(lambda: newest(rig) == at_ns(0))
    rig.script.gate = threading.Event()
    rig.film([1], run=False)
    handle = rig.ask('{red}?')
    assert handle.wait(LONG_S)
    assert rig.answers[0].evidence[0].stamp_ns == at_ns(0)
    rig.script.gate.set()
    rig.engine.stop()


def test_frames_are_left_out_when_too_many_wait(rig: Street) -> None:
    rig.point('red', 0)
    until(lambda: newest(rig) == at_ns(0))
    rig.script.gate = threading.Event()
    rig.film(range(1, 41), run=False)
    rig.script.gate.set()
    until(lambda: newest(rig) == at_ns(40))
    stepped = [stamp_ns for _, stamp_ns, _ in rig.script.steps]
    assert stepped == sorted(set(stepped))
    assert len(stepped) < 40
    assert rig.engine.stats().cameras[''].frames_tracked == len(stepped)


def test_a_region_catches_up_with_a_tracker_that_goes_on(rig: Street) -> None:
    rig.point('blue', 0)
    until(lambda: newest(rig) == at_ns(0))
    film(rig, range(1, 30))
    rig.point('red', 12)
    film(rig, range(30, 60))
    until(lambda: {t.region_id for t in rig.engine.tracks('')} == {'blue', 'red'})
    until(lambda: set(rig.seen('red')) == set(range(60)))
    assert rig.seen('blue') == dict.fromkeys(range(60), BLUE_BOX)


@pytest.mark.parametrize('error', [RuntimeError('bad'), SystemExit(1), KeyboardInterrupt()])
def test_it_outlives_what_a_tracker_raises(rig: Street, error: BaseException) -> None:
    rig.point('red', 0)
    until(lambda: newest(rig) == at_ns(0))

    def fail(_: int) -> None:
        rig.script.on_step = None
        raise error

    rig.script.on_step = fail
    rig.film([1], run=False)
    until(lambda: rig.problems != [])
    film(rig, range(2, 6))
    assert {*range(6)} - {1} <= set(rig.seen('red'))


def test_stop_ends_it_and_start_goes_on(rig: Street) -> None:
    rig.point('red', 0)
    until(lambda: newest(rig) == at_ns(0))
    rig.engine.stop()
    rig.film(range(1, 4), run=False)
    assert newest(rig) == at_ns(0)
    rig.engine.start()
    until(lambda: newest(rig) == at_ns(3))
    with pytest.raises(RuntimeError, match='runs'):
        rig.engine.start()
    with pytest.raises(RuntimeError, match='runs'):
        rig.engine.step()
    rig.engine.stop()
    rig.film([4])
    assert newest(rig) == at_ns(4)


def test_a_tracker_that_does_not_come_back(rig: Street) -> None:
    rig.point('red', 0)
    until(lambda: newest(rig) == at_ns(0))
    rig.script.gate = threading.Event()
    rig.film([1], run=False)
    until(lambda: rig.script.steps != [])
    rig.engine.stop(timeout_s=0.05)
    assert rig.problems == ['the tracker did not stop within 0.05 s']
    with pytest.raises(RuntimeError, match='the tracker still runs'):
        rig.engine.start()
    rig.engine.reset()
    rig.script.gate.set()
    until(lambda: not rig.engine._following.alive)
    rig.engine.start()
    assert rig.engine.tracks('') == ()


def test_nothing_of_a_past_life_leaks_and_nothing_hangs_whatever_happens() -> None:
    """Throw everything at the engine from several threads."""
    rig = Street(
        clock=time.monotonic,
        describe_enabled=True,
        describe_after_s=0.0,
        describe_period_s=0.1,
        buffer_window_s=2.0,
    )
    rig.film([0], run=False)
    rig.engine.start()
    faults: list[BaseException] = []
    handles = []
    frame = [0]

    def guarded(work: object, seed: int) -> threading.Thread:
        def run() -> None:
            own = random.Random(seed)
            try:
                for _ in range(120):
                    work(own)  # type: ignore[operator]
                    time.sleep(0.001)
            except BaseException as error:
                faults.append(error)

        return threading.Thread(target=run)

    def see(own: random.Random) -> None:
        frame[0] = 0 if own.random() < 0.03 else frame[0] + 1
        rig.film([frame[0]], run=False)

    def point(own: random.Random) -> None:
        i = max(0, frame[0] - own.randrange(8))
        for name, box in (('red', red_box(i)), ('blue', BLUE_BOX)):
            region = rig.region_of(name, i, box)
            rig.engine.add_regions([region])

    def disturb(own: random.Random) -> None:
        what = own.randrange(10)
        if what == 0:
            rig.engine.reset()
        elif what == 1:
            rig.engine.stop()
            rig.engine.start()
        elif what == 2:
            rig.engine.remove_regions(['red'])
        elif what == 3:
            rig.script.fails_at = {at_ns(frame[0] + 1)}
        handles.append(rig.ask('{red}?', query_id=str(len(handles))))
        rig.engine.stats()
        rig.engine.tracks('')

    threads = [guarded(work, seed) for seed, work in enumerate((see, point, disturb))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert faults == []
    rig.script.fails_at = set()
    rig.engine.reset()
    rig.film([0], run=False)
    rig.point('red', 0)
    until(lambda: newest(rig) == at_ns(0))
    last = rig.ask('{red}?', query_id='last')
    assert last.wait(LONG_S)
    until(lambda: all(handle.done for handle in handles))
    rig.engine.stop()
    assert rig.answers[-1].error_code == ErrorCode.OK
    assert rig.answered_once([*handles, last])
    assert not any('raised' in text or 'AssertionError' in text for text in rig.problems)
    for _, tracks in rig.tracks:
        for track in tracks:
            if track.region_id == 'red' and track.box is not None:
                assert track.box == red_box(round((track.stamp_ns / 1e9 - 10) * 10))
