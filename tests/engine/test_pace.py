# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check how many things run together before the first of them waits too long."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import pytest

from pixelrefer_ros.core.describer import VisionStats
from pixelrefer_ros.core.regions import observe
from pixelrefer_ros.core.scheduler import Scheduler
from pixelrefer_ros.core.types import ErrorCode, Task, Utterance
from pixelrefer_ros.engine.clips import Clip, Look
from pixelrefer_ros.engine.jobs import DescribeJob, Job, QueryJob, joins
from pixelrefer_ros.engine.pace import Pace
from pixelrefer_ros.engine.types import QueryHandle
from tests.doubles import make_frame
from tests.engine.rig import Rig, query, region, span
from tests.engine.test_worker import LONG_S, hold, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pixelrefer_ros.core.describer import Request


def said(see_s: float, speak_s: float) -> Utterance:
    return Utterance('words', 1, 1, 0.0, see_s / 3, see_s * 2 / 3, speak_s)


def asks(
    priority: int,
    about: str = 'cup',
    task: Task = Task.ASK,
    camera: str = '',
    stamps_s: tuple[float, ...] = (10.0, 11.0),
) -> tuple[Job, int]:
    """Return a query about regions, by their names, and its priority."""
    frames = tuple(make_frame(stamp_s, camera) for stamp_s in stamps_s)
    looks = tuple(
        Look(name, '', tuple(observe(region(name, f.stamp_ns / 1e9), f) for f in frames))
        for name in about.split()
    )
    handle = QueryHandle(query(task=task), lambda _: None, None, lambda _: None)
    return QueryJob(camera, handle, Clip(camera, frames, looks, 0, 0)), priority


DESCRIBES: tuple[Job, int] = (DescribeJob('', 'cup'), 0)
SEARCHES = asks(1, 'cup', Task.GROUND)


def test_what_is_seen_together_takes_as_long_as_one_thing_alone() -> None:
    pace = Pace()
    assert pace.room() == 1  # nothing is known
    pace.note(1, 0, 9, said(0.09, 0.03))
    assert pace.room() == 1
    fast = Pace()
    for count in (1, 4, 8):
        fast.note(count, 0, 9 * count, said(0.01 * count, 0.1))
        assert fast.room() == 11


def test_it_follows_what_changes_slowly() -> None:
    pace = Pace()
    pace.note(2, 0, 18, said(0.2, 0.1))
    assert pace.room() == 2
    for _ in range(20):
        pace.note(2, 0, 18, said(0.02, 0.1))
    assert pace.room() == pytest.approx(10, abs=1)


def test_what_need_not_be_looked_at_again_tells_nothing() -> None:
    pace = Pace()
    pace.note(1, 0, 9, said(0.09, 0.03))
    for _ in range(20):
        pace.note(1, 9, 0, said(0.001, 0.03))
    assert pace.room() == 1
    # of eight things one had to be seen
    one = Pace()
    one.note(8, 63, 9, said(0.09, 0.1))
    assert one.room() == 2
    # of one thing one picture
    one.note(1, 8, 1, said(0.09, 0.1))
    assert one.room() == 2


@pytest.mark.parametrize(
    ('jobs', 'room', 'together'),
    [
        ([asks(1), asks(1), asks(0)], 1, 3),  # what is seen anyway
        ([asks(1)] * 9, 1, 8),  # but not more than may
        ([asks(1), asks(1, 'pen')], 1, 1),  # else none may keep the first waiting,
        ([asks(1), asks(1, 'pen'), asks(1, 'box')], 2, 2),  # where it does
        ([asks(1), asks(1, 'pen'), asks(1), asks(1, 'pen')], 2, 4),
        ([asks(1), asks(1, 'cup', camera='left')], 1, 1),
        ([asks(1), asks(1, stamps_s=(10.0, 12.0))], 1, 1),
        ([asks(1, 'a b c'), asks(1, 'b'), asks(1, 'c a')], 1, 3),  # regions count, not jobs
        ([asks(1, 'b'), asks(1, 'a b c')], 2, 1),
        ([asks(1, 'b'), asks(1, 'a b c')], 3, 2),
        ([asks(1, ''), asks(1, '')], 1, 2),  # the whole image
        ([asks(1, ''), asks(1, '', stamps_s=(12.0,))], 1, 1),
        ([asks(1, 'a b c d e f g h i'), asks(1, 'j')], math.inf, 2),  # in lock-step
        ([asks(0), DESCRIBES], 1, 1),
        ([asks(1), DESCRIBES, DESCRIBES], 2, 2),
        ([DESCRIBES] * 9, 1, 1),
        ([DESCRIBES] * 9, 3, 3),
        ([DESCRIBES] * 9, 99, 8),
        ([asks(1), asks(1), DESCRIBES, DESCRIBES], 2, 3),
        ([asks(1, 'a b c', Task.DESCRIBE), DESCRIBES], 3, 1),
        ([asks(1, 'a b c', Task.DESCRIBE), DESCRIBES], 4, 2),
        ([asks(1, 'a b c d e f g h i', Task.DESCRIBE), asks(1)], 99, 1),
        ([asks(1), SEARCHES, asks(1)], 99, 1),  # nor does the last one overtake
        ([SEARCHES, asks(1)], 99, 1),
    ],
)
def test_who_joins(jobs: list[tuple[Job, int]], room: float, together: int) -> None:
    scheduler: Scheduler[Job] = Scheduler(99)
    for job, priority in jobs:
        scheduler.put(job, now_s=0, priority=priority)
    taken = scheduler.take(0, lambda before, one: joins(before, one, 8, room))
    assert len(taken) == together


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig(clock=time.monotonic, describe_after_s=0.0, describe_enabled=True)
    one.frames(span(10.0, 11.0))
    one.engine.start()
    yield one
    one.engine.stop()


def test_a_worker_takes_along_what_there_is_room_for(rig: Rig) -> None:
    """A call of the double takes 3 ms to see and 3 ms to speak, so there is room for two."""
    gate = hold(rig)
    rig.region('cup')
    assert rig.describer.started.wait(LONG_S)
    for region_id in ('pen', 'box', 'cap'):
        rig.region(region_id)
    handles = [rig.ask(query_id=name, region_ids=('cup',)) for name in 'abc']
    gate.set()
    assert all(handle.wait(LONG_S) for handle in handles)
    until(lambda: len(rig.descriptions) == 4)
    assert rig.describer.batches == [1, 4, 2]


def live(rig: Rig) -> None:
    """Run a call as the worker does."""
    runner = rig.engine._runner
    assert runner._step(runner._batches.room())


def asked(*names: str, **settings: Any) -> Rig:
    """Return a rig with regions, whose model has described one of them, with room for two."""
    rig = Rig(**settings)
    rig.frames(span(10.0, 11.0))
    for name in ('cup', *names):
        rig.region(name)
    rig.ask(query_id='first', region_ids=('cup',))
    live(rig)
    assert rig.engine._runner._batches.room() == 2
    return rig


def test_questions_about_what_is_known_make_no_room_for_what_is_not() -> None:
    rig = asked(*'abcd')
    rig.describer.seconds = (0.0, 0.0001, 0.003)
    for _ in range(20):
        rig.ask(region_ids=('cup',))
        live(rig)
    assert rig.engine._runner._batches.room() == 2
    for name in 'abcd':
        rig.ask(query_id=name, region_ids=(name,))
    live(rig)
    assert rig.describer.batches[-1] == 2


def test_questions_about_one_thing_are_one_thing_to_see() -> None:
    rig = asked('a')
    for _ in range(5):
        rig.ask(region_ids=('a',))
    for _ in range(20):
        live(rig)
        rig.engine.reset()
        rig.frames(span(10.0, 11.0))
        rig.region('a')
        for _ in range(5):
            rig.ask(region_ids=('a',))
    assert rig.describer.batches[1:] == [5] * 20
    assert rig.engine._runner._batches.room() == 2


def test_a_question_about_several_regions_is_several_things_to_see() -> None:
    rig = Rig()
    rig.frames(span(10.0, 11.0))
    for name in 'abcdefgh':
        rig.region(name)
    rig.describer.seconds = (0.0, 0.024, 0.003)
    for _ in range(2):
        rig.ask(region_ids=tuple('abcdefgh'))
    live(rig)
    assert rig.describer.batches == [2]
    assert rig.engine._runner._batches.room() == 2


def test_a_call_that_was_cut_short_tells_nothing() -> None:
    rig = asked(*'abcde')
    rig.describer.seconds = (0.0, 0.0001, 0.003)
    for name in 'abcde':
        handle = rig.ask(region_ids=(name,))
        rig.describer.on_token = lambda _, handle=handle: handle.cancel()  # type: ignore[misc]
        live(rig)
        assert rig.answers[-1].error_code == ErrorCode.CANCELED
    assert rig.engine._runner._batches.room() == 2


def test_no_question_runs_out_of_time_for_the_sake_of_others() -> None:
    """A model that takes 0.5 s for each thing to be seen, and 0.1 s to speak of them all."""
    rig = Rig()
    rig.frames(span(10.0, 11.0))
    names = [str(i) for i in range(8)]
    for name in names:
        rig.region(name)
    looked: list[str] = []

    def say(requests: Sequence[Request], on_said: Callable[..., None]) -> None:
        new = {one.regions[0].region_id for one in requests}.difference(looked)
        looked.extend(new)
        rig.describer.seen = VisionStats(misses=len(looked))
        rig.clock.advance(0.5 * len(new))
        stops = [one.should_stop is not None and one.should_stop() for one in requests]
        rig.clock.advance(0.1)
        for place, stop in enumerate(stops):
            on_said(place, Utterance('', 1, 1, 0.0, 0.0, 0.5 * len(new), 0.1, stop))

    rig.describer.say = say  # type: ignore[method-assign]
    for name in names:
        deadline_s = 1.0 if name == '0' else 30.0
        rig.ask(query_id=name, region_ids=(name,), deadline_s=deadline_s)
    for _ in names:
        live(rig)
    assert [answer.query_id for answer in rig.answers] == names
    assert {answer.error_code for answer in rig.answers} == {ErrorCode.OK}
