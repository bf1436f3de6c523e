# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask the node in words, over DDS: evidence, feedback, cancel, and a server that is away."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from std_msgs.msg import String

from pixelrefer_ros import msg as ros
from pixelrefer_ros.action import Ask
from pixelrefer_ros.core.types import ErrorCode
from pixelrefer_ros.grounding.chain import GroundingChain
from pixelrefer_ros.grounding.profiles import load_profile
from tests.chat_doubles import ScriptedChatModel
from tests.doubles import ScriptedDescriber
from tests.models.chat_server import held, replies, serving
from tests.ros.rig import Bench, box_region, ns, wait_for
from tests.ros.test_ask import Goal

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.ros

FRAME = json.dumps([{'frame_idx': 1, 'object description': 'a grey square'}])
TURN1 = f'<think>One looks like any other.</think><answer>{FRAME}</answer>'
PROFILE = replace(load_profile('tabletop'), frames=3)
X, Y = PROFILE.key_size[0] / 64, PROFILE.key_size[1] / 48  # the images are 64x48
TURN2 = json.dumps([{'bbox_2d': [8 * X, 8 * Y, 24 * X, 24 * Y], 'label': 'square'}])


@pytest.fixture
def chat() -> ScriptedChatModel:
    return ScriptedChatModel([TURN1, TURN2])


@pytest.fixture
def one(bench: Callable[..., Bench], chat: ScriptedChatModel) -> Bench:
    one = bench(
        parameters={'describe.enabled': False, 'tracking.backend': 'none'},
        describer=ScriptedDescriber(['a grey square']),
        grounder=lambda parameters: GroundingChain(chat, PROFILE),
    )
    one.send_frames([ns(1), ns(1.1), ns(1.2)])
    return one


def ground(one: Bench, **fields: Any) -> Goal:
    return Goal(one, query_id='q', text='what is it?', task=ros.Query.TASK_GROUND, **fields)


def test_an_answer_with_evidence(one: Bench) -> None:
    told = one.client.listen('pixelrefer/ask/_action/feedback', Ask.Impl.FeedbackMessage)
    status, answer = ground(one).result()
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert (answer.error_code, answer.text) == (ErrorCode.OK, 'a grey square'), answer.error_msg
    (evidence,) = answer.evidence
    assert evidence.header.stamp.nanosec == 100_000_000
    assert evidence.region_id == 'found-q'
    box = evidence.box
    assert (box.x_offset, box.y_offset, box.width, box.height) == (8, 8, 16, 16)
    assert evidence.reasoning == 'One looks like any other.'
    assert evidence.thumbnail.format == 'jpeg'
    assert len(evidence.thumbnail.data) > 100
    assert len(evidence.track_masks) == len(evidence.track_stamps) > 0
    assert len(answer.frame_stamps) == 3
    assert answer.header.stamp.nanosec == 200_000_000  # of the newest image that was shown
    assert (answer.age.sec, answer.age.nanosec) == (0, 0)
    stages = [message.feedback.stage for message in told]
    for stage in ('QUEUED', 'REASON', 'GROUND'):
        assert getattr(Ask.Feedback, f'STAGE_{stage}') in stages


def test_it_comes_on_the_topics_too(one: Bench, chat: ScriptedChatModel) -> None:
    answers = one.client.listen('pixelrefer/answers', ros.Answer)
    one.client.publish(
        'pixelrefer/query',
        ros.Query(query_id='w', text='what is it?', task=ros.Query.TASK_GROUND),
    )
    wait_for(lambda: answers, 'the answer')
    assert (answers[0].query_id, answers[0].error_code) == ('w', ErrorCode.OK)
    chat.script = [TURN1, TURN2]
    one.client.publish('pixelrefer/query_text', String(data='find: what is it?'))
    wait_for(lambda: len(answers) == 2, 'the second answer')
    assert list(answers[1].region_ids) == [f'found-{answers[1].query_id}']


def test_cancel(one: Bench, chat: ScriptedChatModel) -> None:
    chat.gate = threading.Event()
    goal = ground(one)
    wait_for(chat.started.is_set, 'the first turn')
    assert goal.cancel()
    status, answer = goal.result()
    assert status == GoalStatus.STATUS_CANCELED
    assert answer.error_code == ErrorCode.CANCELED
    one.assert_alive()


def test_what_is_not_there_is_said(one: Bench, chat: ScriptedChatModel) -> None:
    chat.script = ['<answer>[]</answer>']
    status, answer = ground(one).result()
    assert status == GoalStatus.STATUS_ABORTED
    assert answer.error_code == ErrorCode.NOT_GROUNDED
    assert 'what is it?' in answer.error_msg


def test_diagnostics_say_that_the_model_is_away(one: Bench, chat: ScriptedChatModel) -> None:
    seen: list[DiagnosticArray] = one.client.listen('/diagnostics', DiagnosticArray)

    def newest() -> DiagnosticStatus | None:
        parts = [part for array in seen[-1:] for part in array.status]
        return next((part for part in parts if part.name.endswith(': grounding')), None)

    wait_for(lambda: (part := newest()) and part.level == DiagnosticStatus.OK, 'a good state')
    chat.why_away = 'connection refused'
    wait_for(lambda: (part := newest()) and part.message == 'connection refused', 'the reason')
    assert newest().level == DiagnosticStatus.WARN  # type: ignore[union-attr]


def test_a_server_that_is_away_ends_the_query_with_what_to_do(bench: Callable[..., Bench]) -> None:
    one = bench(
        parameters={
            'describe.enabled': False,
            'grounding.url': 'http://127.0.0.1:9',
            'grounding.profile': 'qwen2.5-vl',
            'grounding.retries': 0,
        },
        describer=ScriptedDescriber(),
    )
    one.send_frames([ns(1), ns(1.1)])
    _, answer = ground(one).result()
    assert answer.error_code == ErrorCode.MODEL_ERROR
    assert '127.0.0.1:9' in answer.error_msg
    one.assert_alive()


@pytest.mark.parametrize(
    'transitions',
    [
        [Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP],
        [Transition.TRANSITION_ACTIVE_SHUTDOWN],
    ],
)
def test_a_silent_server_keeps_neither_questions_nor_transitions_waiting(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, transitions: list[int]
) -> None:
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with serving(held(threading.Event(), replies(''))) as server:
        one = bench(
            parameters={
                'describe.enabled': False,
                'grounding.url': server.url,
                'grounding.profile': 'tabletop',
            },
            describer=ScriptedDescriber(['a grey square']),
        )
        one.send_frames([ns(1), ns(1.1)])
        goal = ground(one)
        wait_for(lambda: server.asked, 'the request')
        near = Goal(one, query_id='near', regions=[box_region('a')])
        assert near.result()[1].text == 'a grey square'
        assert not goal.done
        for transition in transitions:
            assert one.change(transition)
        assert goal.result()[1].error_code == ErrorCode.CANCELED
        wait_for(server.gone.is_set, 'the end of the connection')
        assert 'engine search' not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ('parameters', 'words'),
    [
        ({'grounding.model': '/no/such/folder'}, '/no/such/folder'),
        ({'grounding.model': 'org/never-fetched'}, 'pixelrefer fetch org/never-fetched'),
        ({'grounding.url': 'http://localhost:1', 'grounding.profile': '/no.yaml'}, '/no.yaml'),
    ],
)
def test_a_model_that_is_missing_fails_configure(
    bench: Callable[..., Bench], parameters: dict[str, Any], words: str
) -> None:
    one = bench(parameters=parameters, activate=False)
    assert not one.change(Transition.TRANSITION_CONFIGURE)
    assert words in one.node._model['error']


def test_a_server_needs_a_profile(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'grounding.url': 'http://localhost:1'}, activate=False)
    assert not one.change(Transition.TRANSITION_CONFIGURE)
    assert 'grounding.profile' in one.node._model['error']
