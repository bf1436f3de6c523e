# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the order of jobs, and that none is lost or handed out twice."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pixelrefer_ros.core.scheduler import Scheduler, Ticket
from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def take_all(scheduler: Scheduler[str], now_s: float = 0.0) -> list[str]:
    out = []
    while (ticket := take_one(scheduler, now_s)) is not None:
        out.append(ticket.payload)
        scheduler.end(ticket)
    return out


def take_one(scheduler: Scheduler[Any], now_s: float = 0.0) -> Ticket[Any] | None:
    tickets = scheduler.take(now_s)
    assert len(tickets) <= 1
    return tickets[0] if tickets else None


def up_to(count: int) -> Callable[[Sequence[Ticket[Any]], Ticket[Any]], bool]:
    return lambda before, _: len(before) < count


def test_priority_then_deadline_then_arrival() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    scheduler.put('background', now_s=0)
    scheduler.put('late', now_s=0, priority=1, deadline_s=9)
    scheduler.put('first', now_s=0, priority=1, deadline_s=5)
    scheduler.put('second', now_s=0, priority=1, deadline_s=5)
    scheduler.put('urgent', now_s=0, priority=7)
    assert take_all(scheduler) == ['urgent', 'first', 'second', 'late', 'background']


def test_the_newest_of_a_key_wins_and_keeps_its_place() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    old, _ = scheduler.put('a1', now_s=0, key='a')
    scheduler.put('b1', now_s=0, key='b')
    _, out = scheduler.put('a2', now_s=3, key='a')
    assert out is old
    assert scheduler.counts.replaced == 1
    assert take_all(scheduler, 3) == ['a2', 'b1']


def test_a_running_job_is_not_replaced() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    scheduler.put('a1', now_s=0, key='a')
    scheduler.take(0)
    _, out = scheduler.put('a2', now_s=0, key='a')
    assert out is None


def test_a_full_queue_refuses_unless_a_lesser_job_can_give_way() -> None:
    scheduler: Scheduler[str] = Scheduler(2)
    scheduler.put('k1', now_s=0, key=1)
    scheduler.put('k2', now_s=0, key=2)
    with pytest.raises(PixelReferError, match='try again later') as caught:
        scheduler.put('k3', now_s=0, key=3)
    assert caught.value.code == ErrorCode.QUEUE_FULL
    _, out = scheduler.put('q1', now_s=0, priority=1)
    assert out is not None
    assert out.payload == 'k2'
    scheduler.put('q2', now_s=0, priority=1)
    with pytest.raises(PixelReferError):
        scheduler.put('q3', now_s=0, priority=200)
    assert (scheduler.counts.refused, scheduler.counts.displaced) == (2, 2)
    assert take_all(scheduler) == ['q1', 'q2']


def test_held_jobs_wait_for_their_time_or_release() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    first, _ = scheduler.put('first', now_s=0, held_until_s=5)
    scheduler.put('second', now_s=0, held_until_s=2)
    assert scheduler.take(1) == []
    assert scheduler.next_event_s() == 2
    scheduler.release(first)
    assert take_all(scheduler, 1) == ['first']
    assert take_all(scheduler, 2) == ['second']


def test_held_jobs_are_in_nobodys_way_until_they_are_due() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    held, _ = scheduler.put('held', now_s=0, priority=1, held_until_s=5)
    waits, _ = scheduler.put('waits', now_s=0)
    assert (scheduler.position(waits, 0), scheduler.position(held, 0)) == (0, 0)
    assert scheduler.position(waits, 5) == 1
    scheduler.release(held)
    assert scheduler.position(waits, 0) == 1


@pytest.mark.parametrize('held_until_s', [-math.inf, 5.0])
def test_the_rest_of_a_job_needs_no_room_and_takes_none(held_until_s: float) -> None:
    scheduler: Scheduler[str] = Scheduler(1)
    for rest in ('rest 1', 'rest 2'):
        scheduler.put(rest, now_s=0, held_until_s=held_until_s, admitted=True)
    scheduler.put('new', now_s=0)
    scheduler.put('rest 3', now_s=0, admitted=True)
    with pytest.raises(PixelReferError, match='1 jobs are waiting'):
        scheduler.put('newer', now_s=0)
    assert take_all(scheduler, 5) == ['rest 1', 'rest 2', 'new', 'rest 3']


def test_deadlines_end_waiting_jobs_held_or_not() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    scheduler.put('a', now_s=0, deadline_s=3)
    scheduler.put('b', now_s=0, deadline_s=2, held_until_s=9)
    scheduler.put('c', now_s=0)
    assert scheduler.next_event_s() == 2
    assert [t.payload for t in scheduler.expire(1.9)] == []
    assert take_one(scheduler, 3.0).payload == 'c'
    assert [t.payload for t in scheduler.expire(3.0)] == ['b', 'a']
    assert scheduler.waiting() == []


def test_cancel_returns_waiting_jobs_and_tells_the_running_one() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    scheduler.put('run', now_s=0)
    scheduler.put('wait', now_s=0)
    scheduler.put('other', now_s=0)
    running = take_one(scheduler)
    out = scheduler.cancel(lambda t: t.payload != 'other', ErrorCode.CANCELED, 'why')
    assert [t.payload for t in out] == ['wait']
    assert running.stop == (ErrorCode.CANCELED, 'why')
    scheduler.cancel(lambda _: True, ErrorCode.CLOCK_JUMP, 'later')
    assert running.stop == (ErrorCode.CANCELED, 'why')
    assert scheduler.counts.canceled == 2


def test_positions_count_the_running_job() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    a, _ = scheduler.put('a', now_s=0)
    b, _ = scheduler.put('b', now_s=0, priority=1)
    assert (scheduler.position(b, 0), scheduler.position(a, 0)) == (0, 1)
    assert take_one(scheduler) is b
    assert (scheduler.position(b, 0), scheduler.position(a, 0)) == (0, 1)
    with pytest.raises(RuntimeError, match='end the jobs that run'):
        scheduler.take(0)


def test_jobs_that_run_together_are_taken_in_line_up_to_the_first_that_does_not_join() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    for name, priority in (('a', 2), ('b', 1), ('not me', 1), ('c', 0)):
        scheduler.put(name, now_s=0, priority=priority)
    scheduler.put('held', now_s=0, priority=9, held_until_s=5)
    taken = scheduler.take(0, lambda before, one: len(before) < 9 and one.payload != 'not me')
    assert [t.payload for t in taken] == ['a', 'b']
    assert scheduler.running == taken
    with pytest.raises(RuntimeError, match='end the jobs that run'):
        scheduler.take(0, up_to(9))
    waits = scheduler.waiting()[-1]
    assert scheduler.position(waits, 5) == 4
    scheduler.end(taken[0])
    assert scheduler.position(waits, 5) == 3
    scheduler.cancel(lambda t: t.payload == 'b', ErrorCode.CANCELED, 'why')
    assert [t.stop for t in taken] == [None, (ErrorCode.CANCELED, 'why')]
    scheduler.end(taken[1])
    assert take_all(scheduler) == ['not me', 'c']


def test_lanes_run_side_by_side() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    for name, lane in (('a', ''), ('far 1', 'far'), ('b', ''), ('far 2', 'far')):
        scheduler.put(name, now_s=0, lane=lane)
    near, far = scheduler.take(0, lane=''), scheduler.take(0, lane='far')
    assert [t.payload for t in (*near, *far)] == ['a', 'far 1']
    with pytest.raises(RuntimeError, match='end the jobs that run'):
        scheduler.take(0, lane='far')
    waits = scheduler.waiting('far')[-1]
    assert (waits.payload, scheduler.position(waits, 0)) == ('far 2', 1)
    scheduler.end(near[0])
    assert [t.payload for t in scheduler.take(0, up_to(9), lane='')] == ['b']
    assert [t.payload for t in scheduler.running] == ['far 1', 'b']
    out = scheduler.cancel(lambda _: True, ErrorCode.CANCELED, 'why')
    assert [t.payload for t in out] == ['far 2']
    assert all(t.stop for t in scheduler.running)


def test_without_a_lane_all_are_taken_as_if_there_was_one() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    for name, lane in (('a', ''), ('b', 'far'), ('c', '')):
        scheduler.put(name, now_s=0, lane=lane)
    assert [t.payload for t in scheduler.waiting()] == ['a', 'b', 'c']
    assert take_all(scheduler) == ['a', 'b', 'c']
    scheduler.put('d', now_s=0, lane='far')
    (taken,) = scheduler.take(0, lane='far')
    with pytest.raises(RuntimeError, match='end the jobs that run'):
        scheduler.take(0)
    scheduler.end(taken)


def test_a_full_lane_is_no_matter_to_another() -> None:
    scheduler: Scheduler[str] = Scheduler(1)
    scheduler.put('far', now_s=0, lane='far')
    scheduler.put('description', now_s=0, key='cup')
    with pytest.raises(PixelReferError, match='try again later'):
        scheduler.put('far too', now_s=0, priority=9, lane='far')
    _, out = scheduler.put('question', now_s=0, priority=1)
    assert out is not None
    assert out.payload == 'description'


def test_a_lane_does_not_wake_for_what_another_waits_for() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    scheduler.put('far', now_s=0, deadline_s=9, held_until_s=2, lane='far')
    assert scheduler.next_event_s('') == math.inf
    assert scheduler.next_event_s('far') == scheduler.next_event_s() == 2


def test_a_wait_ends_with_a_new_job_and_misses_none_that_came_before() -> None:
    scheduler: Scheduler[str] = Scheduler(10)
    version = scheduler.version
    scheduler.put('before the wait', now_s=0)
    scheduler.wait(version)
    version = scheduler.version
    threading.Timer(0.02, lambda: scheduler.put('during it', now_s=0)).start()
    scheduler.wait(version, 10)
    assert scheduler.version != version


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=30))
def test_jobs_leave_by_rank(jobs: list[tuple[int, int]]) -> None:
    scheduler: Scheduler[tuple[int, int, int]] = Scheduler(100)
    entries = [(-priority, deadline, i) for i, (priority, deadline) in enumerate(jobs)]
    for entry in entries:
        scheduler.put(entry, now_s=0, priority=-entry[0], deadline_s=entry[1])
    out = []
    while (ticket := take_one(scheduler)) is not None:
        out.append(ticket.payload)
        scheduler.end(ticket)
    assert out == sorted(entries)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200))
def test_a_job_replaced_for_ever_is_still_run(keys: list[int]) -> None:
    """However the keys are renewed, each waiting key runs within one round."""
    scheduler: Scheduler[int] = Scheduler(10)
    waits = dict.fromkeys(range(6), 0)
    for i, key in enumerate(keys):
        for renewed in {key, *(k for k in waits if waits[k])}:
            scheduler.put(renewed, now_s=i, key=renewed)
            waits[renewed] = waits[renewed] or 1
        ticket = take_one(scheduler, i)
        assert ticket is not None
        scheduler.end(ticket)
        waits[ticket.payload] = 0
        for other, wait in waits.items():
            if wait:
                waits[other] = wait + 1
                assert wait <= 6


class Books(RuleBasedStateMachine):
    """Every job that enters leaves by exactly one way."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler: Scheduler[int] = Scheduler(4)
        self.now_s = 0.0
        self.inside: dict[int, Ticket[int]] = {}
        self.running: list[Ticket[int]] = []
        self.left: list[int] = []
        self.entered = 0
        self.serial = 0

    def leave(self, ticket: Ticket[int]) -> None:
        assert self.inside.pop(ticket.payload) is ticket
        self.left.append(ticket.payload)

    @rule(
        priority=st.integers(0, 2),
        life=st.sampled_from([1.0, 3.0, float('inf')]),
        key=st.sampled_from([None, None, 'x', 'y']),
        hold=st.sampled_from([0.0, 2.0]),
        rest=st.booleans(),
    )
    def put(self, priority: int, life: float, key: str | None, hold: float, rest: bool) -> None:
        self.serial += 1
        try:
            ticket, out = self.scheduler.put(
                self.serial,
                now_s=self.now_s,
                priority=priority,
                deadline_s=self.now_s + life,
                key=key,
                held_until_s=self.now_s + hold,
                admitted=rest and key is None,
            )
        except PixelReferError:
            assert not rest or key is not None
            assert sum(not t.admitted for t in self.inside.values()) == 4
            return
        self.entered += 1
        if out is not None:
            assert out.key is not None
            self.leave(out)
        self.inside[self.serial] = ticket

    @precondition(lambda self: not self.running)
    @rule(most=st.integers(1, 3))
    def take(self, most: int) -> None:
        due = [
            t for t in self.inside.values() if t.held_until_s <= self.now_s < t.deadline_s
        ]
        self.running = self.scheduler.take(self.now_s, up_to(most))
        assert self.running == sorted(due, key=Ticket.rank)[:most]
        for ticket in self.running:
            self.leave(ticket)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 2))
    def end(self, which: int) -> None:
        self.scheduler.end(self.running.pop(which % len(self.running)))

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        for ticket in self.scheduler.expire(self.now_s):
            assert ticket.deadline_s <= self.now_s
            self.leave(ticket)
        assert all(t.deadline_s > self.now_s for t in self.inside.values())

    @rule(divisor=st.integers(2, 4))
    def cancel(self, divisor: int) -> None:
        out = self.scheduler.cancel(
            lambda t: t.payload % divisor == 0, ErrorCode.CANCELED, 'because'
        )
        for ticket in out:
            self.leave(ticket)
        assert all(number % divisor for number in self.inside)
        for ticket in self.running:
            assert ticket.stop is not None or ticket.payload % divisor

    @invariant()
    def nothing_is_lost(self) -> None:
        assert {t.payload for t in self.scheduler.waiting()} == set(self.inside)
        assert self.scheduler.running == self.running
        assert len(self.left) == len(set(self.left))
        assert len(self.left) + len(self.inside) == self.entered
        assert sum(not t.admitted for t in self.inside.values()) <= 4
        keys = [t.key for t in self.inside.values() if t.key]
        assert len(keys) == len(set(keys))
        c = self.scheduler.counts
        gone = c.replaced + c.displaced + c.expired + c.canceled + c.taken
        assert gone == len(self.left)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_threads_share_the_jobs_without_losing_one() -> None:
    scheduler: Scheduler[int] = Scheduler(10_000)
    out: list[int] = []
    canceled: list[int] = []

    def put(start: int) -> None:
        for number in range(start, start + 300):
            scheduler.put(number, now_s=0)
            if number % 10 == 0:
                gone = scheduler.cancel(
                    lambda t, n=number: t.payload == n, ErrorCode.CANCELED, ''
                )
                canceled.extend(t.payload for t in gone)

    writers = [threading.Thread(target=put, args=(i * 1000,)) for i in range(3)]
    for writer in writers:
        writer.start()
    end = time.monotonic() + 30
    while len(out) + len(canceled) < 900 and time.monotonic() < end:
        for ticket in scheduler.take(0, up_to(3)):
            out.append(ticket.payload)
            scheduler.end(ticket)
    for writer in writers:
        writer.join()
    assert len(out) + len(canceled) == 900
    assert len({*out, *canceled}) == 900
