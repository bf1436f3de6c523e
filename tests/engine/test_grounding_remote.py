# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that nothing waits for a grounding model behind a server but what is asked of it."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pixelrefer_ros.core.types import ErrorCode, Task
from pixelrefer_ros.grounding.chain import GroundingChain
from pixelrefer_ros.models.chat.remote import RemoteChat
from pixelrefer_ros.models.chat.settings import ChatSettings
from tests.chat_doubles import ScriptedChatModel
from tests.engine.finding import FRAMES, KEY, PROFILE, box_of_red, frame_answer
from tests.engine.rig import query
from tests.engine.street import Street, at_ns, at_s
from tests.engine.test_worker import LONG_S, until
from tests.models.chat_server import held, nothing_left, replies, says, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixelrefer_ros.core.types import Answer
    from pixelrefer_ros.engine import QueryHandle
    from tests.models.chat_server import FaultyServer


@pytest.fixture(autouse=True)
def nothing_leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See that no thread and no socket is left of a test."""
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with nothing_left():
        yield


class Far(Street):
    """A street whose engine asks a server for things in words."""

    def __init__(self, server: FaultyServer, **settings: Any) -> None:
        chat = RemoteChat(ChatSettings(url=server.url, model='tiny', retries=0))
        super().__init__(
            grounder=GroundingChain(chat, PROFILE), **{'window_s': 1.0, **settings}
        )

    def ground(self, query_id: str = 'far', **fields: Any) -> QueryHandle:
        return self.ask('what moves?', task=Task.GROUND, query_id=query_id, **fields)

    def answer_to(self, query_id: str) -> Answer:
        (answer,) = (answer for answer in self.answers if answer.query_id == query_id)
        return answer


@contextlib.contextmanager
def live(server: FaultyServer, **settings: Any) -> Iterator[Far]:
    """Run an engine with all of the film in its buffer."""
    one = Far(server, **settings)
    one.film(range(FRAMES), run=False)
    one.engine.start()
    try:
        yield one
    finally:
        one.engine.stop()


@pytest.fixture
def gate() -> threading.Event:
    """Return what the server waits for before it says anything."""
    return threading.Event()


@pytest.fixture
def server(gate: threading.Event) -> Iterator[FaultyServer]:
    """Run a server that finds the red thing once the gate is open."""
    turns = replies(frame_answer(2)), replies(box_of_red(KEY))
    with serving(*(held(gate, turn) for turn in turns)) as one:
        yield one


def test_words_and_tracks_come_while_the_server_thinks(
    server: FaultyServer, gate: threading.Event
) -> None:
    with live(server, describe_enabled=True, describe_after_s=0.0) as one:
        found = one.ground()
        until(lambda: bool(server.asked))
        one.point('red', FRAMES - 1)
        assert one.ask('what is {red}?', query_id='near').wait(LONG_S)
        for i in range(FRAMES, FRAMES + 30):
            one.film([i], run=False)
            until(lambda i=i: max(one.seen('red')) == i)
        until(lambda: len(one.descriptions) >= 2)
        assert one.answer_to('near').error_code == ErrorCode.OK
        assert not found.done
        assert one.engine.stats().busy
        gate.set()
        assert found.wait(LONG_S)
    answer = one.answer_to('far')
    assert (answer.error_code, answer.error_msg) == (ErrorCode.OK, '')
    assert answer.text.startswith('describe found-far')
    assert answer.evidence[0].track_stamps_ns == tuple(at_ns(i) for i in range(FRAMES))
    assert answer.model == 'tiny + scripted'
    assert len(one.describer.threads) == 1
    assert one.problems == []


@pytest.mark.parametrize('turn', [1, 2])
def test_a_cancel_ends_either_turn(turn: int, gate: threading.Event) -> None:
    slow = held(gate, replies(''))
    with (
        serving(*[replies(frame_answer(2))] * (turn - 1), slow) as server,
        live(server) as one,
    ):
        handle = one.ground()
        until(lambda: len(server.asked) == turn)
        handle.cancel()
        assert handle.wait(LONG_S)
        assert server.gone.wait(LONG_S)
        assert one.answer_to('far').error_code == ErrorCode.CANCELED
        assert one.engine.list_regions() == []
        until(lambda: not one.engine.stats().busy)


def test_the_deadline_is_kept(server: FaultyServer) -> None:
    with live(server) as one:
        handle = one.ground(deadline_s=5.0)
        until(lambda: bool(server.asked))
        one.clock.advance(5.0)
        assert handle.wait(LONG_S)
        assert server.gone.wait(LONG_S)
    assert one.answer_to('far').error_code == ErrorCode.TIMEOUT


def test_a_jump_of_the_clock_ends_it(server: FaultyServer) -> None:
    with live(server) as one:
        handle = one.ground()
        until(lambda: bool(server.asked))
        one.engine.add_frame(replace(one.picture(0), stamp_ns=1))
        assert handle.wait(LONG_S)
    assert one.answer_to('far').error_code == ErrorCode.CLOCK_JUMP
    assert one.engine.list_regions() == []


def test_a_stop_ends_it_and_a_start_goes_on(
    server: FaultyServer, gate: threading.Event
) -> None:
    with live(server) as one:
        handles = [one.ground(query_id) for query_id in ('runs', 'waits')]
        until(lambda: bool(server.asked))
        one.engine.stop()
        assert not one.engine.alive
        assert all(handle.done for handle in handles)
        assert {answer.error_code for answer in one.answers} == {ErrorCode.CANCELED}
        gate.set()
        server.answers = [replies(frame_answer(2)), replies(box_of_red(KEY))]
        one.engine.start()
        assert one.ground('again').wait(LONG_S)
    assert one.answer_to('again').error_code == ErrorCode.OK
    assert one.problems == []


def test_those_who_wait_for_the_server_leave_room_for_others(
    server: FaultyServer, gate: threading.Event
) -> None:
    places: list[int] = []
    with live(server, queue_size=2) as one:
        one.point('red', FRAMES - 1)
        runs = one.ground('runs')
        until(lambda: bool(server.asked))
        waits = [one.ground(f'waits {number}') for number in range(2)]
        refused = one.ground('refused')
        assert one.answer_to('refused').error_code == ErrorCode.QUEUE_FULL
        asked = one.engine.submit(
            query('what is {red}?', query_id='near'),
            on_progress=lambda _, __, place: places.append(place),
        )
        assert asked.wait(LONG_S)
        assert one.answer_to('near').error_code == ErrorCode.OK
        assert set(places) == {0}
        assert one.engine.stats().queue_depth == 2
        assert not any(handle.done for handle in (runs, *waits))
        assert refused.done


def test_a_query_that_waits_for_the_server_times_out(server: FaultyServer) -> None:
    with live(server) as one:
        runs = one.ground('runs')
        until(lambda: bool(server.asked))
        waits = one.ground('waits', deadline_s=5.0)
        one.clock.advance(5.0)
        assert waits.wait(LONG_S)
        assert one.answer_to('waits').error_code == ErrorCode.TIMEOUT
        assert not runs.done


def test_a_server_that_fails_costs_its_query_alone(gate: threading.Event) -> None:
    with serving(held(gate, says(500, 'no memory'))) as server, live(server) as one:
        one.point('red', FRAMES - 1)
        handle = one.ground()
        until(lambda: bool(server.asked))
        assert one.ask('what is {red}?', query_id='near').wait(LONG_S)
        gate.set()
        assert handle.wait(LONG_S)
    assert one.answer_to('near').error_code == ErrorCode.OK
    answer = one.answer_to('far')
    assert answer.error_code == ErrorCode.MODEL_ERROR
    assert 'no memory' in answer.error_msg


def test_a_key_frame_that_leaves_the_buffer_meanwhile(
    server: FaultyServer, gate: threading.Event
) -> None:
    with live(server, buffer_window_s=2.0, buffer_full_rate_s=2.0) as one:
        handle = one.ground()
        until(lambda: bool(server.asked))
        one.film(range(FRAMES, FRAMES + 60), run=False)
        gate.set()
        assert handle.wait(LONG_S)
    answer = one.answer_to('far')
    assert answer.error_code == ErrorCode.OK
    assert answer.evidence[0].track_stamps_ns == (at_ns(KEY),)
    assert any('is not followed' in problem for problem in one.problems)


def test_in_steps_all_runs_in_the_callers_thread(
    server: FaultyServer, gate: threading.Event
) -> None:
    """What is answered, and in which order, is the same with a model on this machine."""
    gate.set()
    near = ScriptedChatModel([frame_answer(2), box_of_red(KEY)], name='tiny')
    runs = []
    for chain in (None, GroundingChain(near, PROFILE)):
        one = Far(server, record_timings=False)
        if chain is not None:
            one = Street(grounder=chain, window_s=1.0, record_timings=False)
        one.film(range(FRAMES))
        one.point('red', FRAMES - 1)
        one.ask('what is {red}?', query_id='before')
        one.ask('what moves?', task=Task.GROUND, query_id='found')
        one.ask('and {red}?', query_id='after', stamp_s=at_s(FRAMES - 1))
        threads = threading.active_count()
        one.engine.run_until_idle()
        assert threading.active_count() <= threads
        assert one.describer.threads == {threading.get_ident()}
        runs.append(one.answers)
    assert [answer.query_id for answer in runs[0]] == ['before', 'after', 'found']
    assert [as_told(answer) for answer in runs[0]] == [as_told(answer) for answer in runs[1]]


def as_told(answer: Answer) -> Answer:
    """Return an answer without what a server counts otherwise, and without pictures."""
    evidence = tuple(replace(one, thumbnail=None, score=0.0) for one in answer.evidence)
    return replace(answer, evidence=evidence, tokens_in=0, tokens_out=0)


def test_a_model_that_does_not_come_back_is_given_up() -> None:
    back = threading.Event()

    def deaf(_: object) -> str:
        back.wait(LONG_S)
        return frame_answer(2)

    chat = ScriptedChatModel([deaf], remote=True)
    one = Street(grounder=GroundingChain(chat, PROFILE), window_s=1.0)
    one.film(range(FRAMES))
    one.engine.start()
    handle = one.ask('what moves?', task=Task.GROUND)
    assert chat.started.wait(LONG_S)
    one.engine.stop(timeout_s=0.05)
    assert handle.done
    assert [answer.error_code for answer in one.answers] == [ErrorCode.CANCELED]
    assert one.engine.alive
    with pytest.raises(RuntimeError, match='still runs'):
        one.engine.start()
    with pytest.raises(RuntimeError, match='stop it before stepping'):
        one.engine.step()
    back.set()
    one.engine.stop()
    assert not one.engine.alive
    assert len(one.answers) == 1


@pytest.mark.parametrize('error', [SystemExit(1), KeyboardInterrupt()])
def test_its_thread_outlives_what_ends_threads(error: BaseException) -> None:
    chat = ScriptedChatModel([error, frame_answer(2), box_of_red(KEY)], remote=True)
    one = Street(grounder=GroundingChain(chat, PROFILE), window_s=1.0)
    one.film(range(FRAMES))
    one.engine.start()
    try:
        for query_id in ('first', 'second'):
            assert one.ask('what?', task=Task.GROUND, query_id=query_id).wait(LONG_S)
    finally:
        one.engine.stop()
    assert [answer.error_code for answer in one.answers] == [ErrorCode.CANCELED, ErrorCode.OK]
