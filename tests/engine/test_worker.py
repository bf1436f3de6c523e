# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the engine with its worker thread: nothing hangs, no query goes without an answer."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from pixelrefer_ros.core.types import Box, ErrorCode, PixelReferError, Task
from pixelrefer_ros.grounding.chain import GroundingChain
from tests.chat_doubles import ScriptedChatModel
from tests.doubles import ScriptedDescriber, TrackerScript, make_frame
from tests.engine.finding import PROFILE, box_answer, frame_answer
from tests.engine.rig import Rig, query, region, span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG_S = 20.0


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = live_rig()
    yield rig
    if rig.describer.gate is not None:
        rig.describer.gate.set()
    rig.engine.stop()


def live_rig(**settings: Any) -> Rig:
    rig = Rig(clock=time.monotonic, **settings)
    rig.frames(span(10.0, 11.0))
    rig.region('cup')
    rig.engine.start()
    return rig


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, 'it did not happen'
        time.sleep(0.002)


def hold(rig: Rig) -> threading.Event:
    """Make the next call of the model wait."""
    rig.describer.started.clear()
    rig.describer.gate = threading.Event()
    return rig.describer.gate


def test_the_worker_answers_and_is_the_only_one_to_call_the_model(rig: Rig) -> None:
    handles = [rig.ask(query_id=str(i)) for i in range(20)]
    assert all(handle.wait(LONG_S) for handle in handles)
    assert rig.answered_once(handles)
    assert len(rig.describer.threads) == 1
    assert rig.describer.threads != {threading.get_ident()}


def test_an_idle_worker_notices_deadlines_and_waits_that_are_over(rig: Rig) -> None:
    ahead = rig.ask(stamp_s=11.4, query_id='ahead')
    assert ahead.wait(LONG_S)
    late = rig.ask(stamp_s=11.4, query_id='late', deadline_s=0.05)
    assert late.wait(LONG_S)
    assert [a.error_code for a in rig.answers] == [ErrorCode.OK, ErrorCode.TIMEOUT]


def test_deadlines_of_waiting_queries_are_kept_while_another_runs(rig: Rig) -> None:
    gate = hold(rig)
    runs = rig.ask(query_id='runs')
    rig.describer.started.wait(LONG_S)
    waits = rig.ask(query_id='waits', deadline_s=0.05)
    assert waits.wait(LONG_S)
    assert not runs.done
    gate.set()
    assert runs.wait(LONG_S)


def test_cancel_reaches_the_running_model(rig: Rig) -> None:
    hold(rig)
    handle = rig.ask()
    rig.describer.started.wait(LONG_S)
    handle.cancel()
    assert handle.wait(LONG_S)
    assert rig.answers[0].error_code == ErrorCode.CANCELED


def test_stop_ends_all_and_start_goes_on(rig: Rig) -> None:
    hold(rig)
    handles = [rig.ask(query_id=str(i)) for i in range(3)]
    rig.describer.started.wait(LONG_S)
    rig.engine.stop()
    assert all(handle.done for handle in handles)
    assert {a.error_code for a in rig.answers} == {ErrorCode.CANCELED}
    refused = rig.ask(query_id='stopped')
    assert refused.done
    assert rig.answers[-1].error_code == ErrorCode.NOT_ACTIVE
    rig.engine.stop()
    rig.describer.gate = None
    rig.engine.start()
    again = rig.ask(query_id='again')
    assert again.wait(LONG_S)
    assert rig.answers[-1].error_code == ErrorCode.OK
    assert rig.answered_once([*handles, refused, again])


def test_a_description_cut_off_by_a_stop_comes_after_the_start() -> None:
    rig = live_rig(describe_enabled=True)
    hold(rig)
    rig.frames([12.0])
    rig.describer.started.wait(LONG_S)
    rig.engine.stop()
    assert rig.descriptions == []
    rig.describer.gate = None
    rig.engine.start()
    rig.frames([12.1])
    until(lambda: len(rig.descriptions) == 1)
    rig.engine.stop()


def test_a_reset_while_stopped_forgets_what_was_described() -> None:
    rig = live_rig(describe_enabled=True, describe_after_s=0.0)
    rig.frames([12.0])
    until(lambda: len(rig.descriptions) == 1)
    rig.engine.stop()
    rig.engine.reset()
    rig.frames([5.0])
    rig.region('cup')
    rig.engine.start()
    rig.frames([5.1])
    until(lambda: len(rig.descriptions) == 2)
    rig.engine.stop()


def test_a_model_that_does_not_come_back(rig: Rig) -> None:
    gate = hold(rig)
    rig.describer.deaf = True
    handle = rig.ask()
    rig.describer.started.wait(LONG_S)
    rig.engine.stop(timeout_s=0.05)
    assert handle.done
    assert [a.error_code for a in rig.answers] == [ErrorCode.CANCELED]
    assert 'did not stop within 0.05 s' in rig.problems[0]
    with pytest.raises(RuntimeError, match='still runs'):
        rig.engine.start()
    with pytest.raises(RuntimeError, match='stop it before stepping'):
        rig.engine.step()
    gate.set()
    rig.engine.stop()
    assert len(rig.answers) == 1


def test_the_worker_cannot_be_started_twice_or_stepped(rig: Rig) -> None:
    with pytest.raises(RuntimeError, match='still runs'):
        rig.engine.start()
    with pytest.raises(RuntimeError, match='stop it before stepping'):
        rig.engine.run_until_idle()


@pytest.mark.parametrize('name', ['engine', 'engine search', 'tracking'])
def test_a_thread_that_cannot_be_started_leaves_none_of_the_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = ScriptedChatModel(remote=True)
    rig = Rig(
        clock=time.monotonic, tracker=TrackerScript(), grounder=GroundingChain(chat, PROFILE)
    )
    rig.frames(span(10.0, 11.0))
    rig.region('cup')
    waits = rig.ask(query_id='waits')
    before = set(threading.enumerate())
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, 'start', refuse)
        with pytest.raises(RuntimeError, match='start new thread'):
            rig.engine.start()
    assert not rig.engine.alive
    assert set(threading.enumerate()) <= before
    assert waits.done
    rig.engine.start()
    again = rig.ask(query_id='again')
    assert again.wait(LONG_S)
    rig.engine.stop()
    assert rig.answers[-1].error_code == ErrorCode.OK
    assert rig.answered_once([waits, again])


def test_a_step_within_a_step_is_refused() -> None:
    rig = Rig()
    rig.frames([10.0])
    rig.region('cup')
    caught: list[BaseException] = []

    def again(_: str) -> None:
        try:
            rig.engine.step()
        except RuntimeError as error:
            caught.append(error)

    rig.describer.on_token = again
    rig.answer()
    assert 'under way' in str(caught[0])


@pytest.mark.parametrize('error', [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_the_worker_outlives_what_ends_threads(rig: Rig, error: BaseException) -> None:
    rig.describer.script = [error]
    assert rig.ask(query_id='first').wait(LONG_S)
    assert rig.ask(query_id='second').wait(LONG_S)
    assert [a.error_code for a in rig.answers] == [ErrorCode.CANCELED, ErrorCode.OK]


def test_a_callback_may_call_the_engine(rig: Rig) -> None:
    second: list[Any] = []

    def on_answer(_: object) -> None:
        rig.engine.reset()
        rig.frames([10.0])
        rig.region('cup')
        second.append(rig.ask(query_id='second'))

    first = rig.engine.submit(query(), on_answer=on_answer)
    assert first.wait(LONG_S)
    assert second[0].wait(LONG_S)
    assert rig.answers[0].error_code == ErrorCode.OK
    stopping = rig.engine.submit(query(), on_answer=lambda _: rig.engine.stop())
    assert stopping.wait(LONG_S)
    rig.engine.stop()
    rig.engine.start()


def test_a_jump_of_the_clock_ends_the_running_query(rig: Rig) -> None:
    hold(rig)
    handle = rig.ask()
    rig.describer.started.wait(LONG_S)
    rig.frames([1.0])
    assert handle.wait(LONG_S)
    assert [a.error_code for a in rig.answers] == [ErrorCode.CLOCK_JUMP]


@pytest.mark.parametrize('remote', [False, True])
def test_every_query_is_answered_once_whatever_happens(remote: bool) -> None:
    """Throw everything at the engine from several threads."""
    chance = random.Random(7)
    found = [frame_answer(0), box_answer(Box(4, 6, 8, 10))]
    chat = ScriptedChatModel(
        [lambda call: found[len(call.turns) > 2] for _ in range(999)], remote=remote
    )
    rig = live_rig(
        describe_enabled=True,
        describe_after_s=0.0,
        queue_size=8,
        describe_period_s=0.1,
        grounder=GroundingChain(chat, PROFILE),
    )
    handles: list[Any] = []
    lock = threading.Lock()
    faults: list[BaseException] = []

    def every_now_and_then(_: str) -> None:
        if chance.random() < 0.02:
            raise ValueError('bad luck')

    rig.describer.on_token = every_now_and_then

    def guarded(work: Callable[[random.Random], None], seed: int) -> Callable[[], None]:
        def run() -> None:
            own = random.Random(seed)
            try:
                for _ in range(150):
                    work(own)
            except BaseException as error:
                faults.append(error)

        return run

    def ask(own: random.Random) -> None:
        with lock:
            number = len(handles)
            task = own.choice([Task.ASK, Task.DESCRIBE, Task.GROUND])
            regions = own.choice([(), ('cup',), ('cat',)])
            handle = rig.ask(
                query_id=str(number),
                priority=own.randrange(3),
                deadline_s=own.choice([0.0, 0.001, 0.01]),
                stamp_s=own.choice([0.0, 0.0, 11.2]),
                region_ids=() if task == Task.GROUND else regions,
                task=task,
            )
            handles.append(handle)
        if own.random() < 0.3:
            handle.cancel()

    def see(own: random.Random) -> None:
        newest = rig.engine.snapshot('')
        now = newest.stamp_ns / 1e9 if newest else 10.0
        rig.engine.add_frame(make_frame(now - 5 if own.random() < 0.03 else now + 0.05))
        rig.engine.add_regions([region('cup'), region('pen', now + 0.1)])

    def disturb(own: random.Random) -> None:
        what = own.randrange(12)
        if what == 0:
            rig.engine.reset()
        elif what == 1:
            rig.engine.stop()
            rig.engine.start()
        elif what == 2:
            rig.engine.remove_regions(['cup'])
        rig.engine.stats()
        time.sleep(0.001)

    works = [ask, ask, see, disturb]
    threads = [threading.Thread(target=guarded(work, i)) for i, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    until(lambda: rig.engine.stats().queue_depth == 0)
    rig.describer.on_token = None
    rig.engine.reset()
    rig.frames([100.0])
    rig.region('cup')
    found_last = rig.ask(query_id='found last', task=Task.GROUND)
    assert found_last.wait(LONG_S)
    assert chat.calls
    last = rig.ask(query_id='last')
    assert last.wait(LONG_S)
    rig.engine.stop()
    assert rig.answers[-1].error_code == ErrorCode.OK
    handles += [found_last, last]
    assert faults == []
    assert all(handle.done for handle in handles)
    assert len(handles) == 302
    assert rig.answered_once(handles)
    assert not any('raised' in problem for problem in rig.problems)


def test_the_double_keeps_its_callers_promises() -> None:
    describer = ScriptedDescriber()
    with pytest.raises(AssertionError, match='no frames'):
        describer.answer('what?', [], [])
    with pytest.raises(PixelReferError, match='no region'):
        describer.answer('what?', [make_frame(1.0)], [])
