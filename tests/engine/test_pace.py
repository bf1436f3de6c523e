# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check how many things run together before the first of them waits too long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pixelrefer_ros.core.scheduler import Scheduler
from pixelrefer_ros.core.types import Task, Utterance
from pixelrefer_ros.engine.clips import Clip, Look
from pixelrefer_ros.engine.jobs import DescribeJob, Job, QueryJob, joins
from pixelrefer_ros.engine.pace import Pace
from pixelrefer_ros.engine.types import QueryHandle
from tests.engine.rig import Rig, query, span
from tests.engine.test_worker import LONG_S, hold, until

if TYPE_CHECKING:
    from collections.abc import Iterator


def said(see_s: float, speak_s: float) -> Utterance:
    return Utterance('words', 1, 1, 0.0, see_s / 3, see_s * 2 / 3, speak_s)


def asks(priority: int, task: Task = Task.ASK, regions: int = 1) -> tuple[Job, int]:
    looks = tuple(Look(str(i), '', ()) for i in range(regions))
    handle = QueryHandle(query(task=task), lambda _: None, None, lambda _: None)
    return QueryJob('', handle, Clip('', (), looks, 0, 0)), priority


DESCRIBES: tuple[Job, int] = (DescribeJob('', 'cup'), 0)
SEARCHES = asks(1, Task.GROUND)


def test_what_is_seen_together_takes_as_long_as_one_thing_alone() -> None:
    pace = Pace()
    assert pace.room() == 1  # nothing is known
    pace.note(1, said(0.09, 0.03))
    assert pace.room() == 1
    fast = Pace()
    for count in (1, 4, 8):
        fast.note(count, said(0.01 * count, 0.1))
        assert fast.room() == 11


def test_it_follows_what_changes_slowly() -> None:
    pace = Pace()
    pace.note(2, said(0.2, 0.1))
    assert pace.room() == 2
    for _ in range(20):
        pace.note(2, said(0.02, 0.1))
    assert pace.room() == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    ('jobs', 'room', 'together'),
    [
        ([asks(1), asks(1), asks(1)], 1, 3),  # questions of one priority
        ([asks(1)] * 9, 1, 8),  # but not more than may
        ([asks(2), asks(1)], 1, 1),  # the less urgent may not keep the first waiting,
        ([asks(2), asks(1)], 2, 2),  # where it does
        ([asks(0), DESCRIBES], 1, 1),
        ([asks(1), DESCRIBES, DESCRIBES], 2, 2),
        ([DESCRIBES] * 9, 1, 1),
        ([DESCRIBES] * 9, 3, 3),
        ([DESCRIBES] * 9, 99, 8),
        ([asks(1), asks(1), DESCRIBES], 2, 2),
        ([asks(1, Task.DESCRIBE, 3), DESCRIBES], 3, 1),  # its regions count
        ([asks(1, Task.DESCRIBE, 3), DESCRIBES], 4, 2),
        ([asks(1, Task.DESCRIBE, 9), asks(1)], 99, 1),
        ([asks(1), SEARCHES, asks(1)], 99, 1),  # nor does the last one overtake
        ([SEARCHES, asks(1)], 99, 1),
    ],
)
def test_who_joins(jobs: list[tuple[Job, int]], room: int, together: int) -> None:
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
    """Each call of the double takes 3 ms to see and 3 ms to speak, so there is room for two."""
    gate = hold(rig)
    rig.region('cup')
    assert rig.describer.started.wait(LONG_S)
    for region_id in ('pen', 'box', 'cap'):
        rig.region(region_id)
    handles = [rig.ask(query_id=name, region_ids=('cup',)) for name in 'abc']
    gate.set()
    assert all(handle.wait(LONG_S) for handle in handles)
    until(lambda: len(rig.descriptions) == 4)
    assert rig.describer.batches == [1, 3, 2, 1]
