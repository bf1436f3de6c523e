# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the action: feedback, result, cancel at every stage, and goals that cannot be served."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from lifecycle_msgs.msg import Transition
from rclpy.action import ActionClient
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor

from pixelrefer_ros import msg as ros
from pixelrefer_ros.action import Ask
from pixelrefer_ros.core.types import ErrorCode, Task
from tests.doubles import ScriptedDescriber
from tests.ros.rig import WAIT_S, box_region, ns, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ros.rig import Bench

pytestmark = pytest.mark.ros


class Goal:
    """Send one goal and collect what comes back."""

    def __init__(self, one: Bench, **query: Any) -> None:
        query.setdefault('text', 'what is it?')
        query.setdefault('task', int(Task.ASK))
        self.feedback: list[Any] = []
        client = ActionClient(one.client.node, Ask, 'pixelrefer/ask')
        assert client.wait_for_server(WAIT_S)
        self._run = one.client.run
        future = self._run(
            lambda: client.send_goal_async(
                Ask.Goal(query=ros.Query(**query)),
                feedback_callback=lambda message: self.feedback.append(message.feedback),
            )
        )
        wait_for(future.done, 'the goal response')
        self.handle = future.result()
        assert self.handle.accepted
        self._result = self._run(self.handle.get_result_async)

    @property
    def done(self) -> bool:
        return bool(self._result.done())

    def result(self) -> tuple[int, ros.Answer]:
        """Wait for the result; return status and answer."""
        wait_for(self._result.done, 'the result')
        response = self._result.result()
        return response.status, response.result.answer

    def cancel(self) -> bool:
        """Return whether the cancel was accepted."""
        future = self._run(self.handle.cancel_goal_async)
        wait_for(future.done, 'the cancel response')
        return bool(future.result().goals_canceling)


@pytest.fixture
def one(bench: Callable[..., Bench]) -> Bench:
    one = bench(parameters={'describe.enabled': False}, describer=ScriptedDescriber())
    one.send_frames([ns(1), ns(1.1)])
    return one


def test_an_answer_with_feedback_on_the_way(one: Bench) -> None:
    one.describer.script.append('a red cube on the left')
    gate = one.describer.gate = threading.Event()
    answers = one.client.listen('pixelrefer/answers', ros.Answer)
    # rclpy's client passes feedback over that comes after the result; its topic has it all
    told = one.client.listen('pixelrefer/ask/_action/feedback', Ask.Impl.FeedbackMessage)
    goal = Goal(one, query_id='q', regions=[box_region('a')])
    wait_for(lambda: goal.feedback, 'feedback')
    gate.set()
    status, answer = goal.result()
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert (answer.error_code, answer.text) == (0, 'a red cube on the left')
    assert answer.query_id == 'q'
    assert answer.header.stamp.sec == 1
    wait_for(
        lambda: told and told[-1].feedback.stage == Ask.Feedback.STAGE_LANGUAGE,
        'feedback of the words',
    )
    stages = [message.feedback.stage for message in told]
    assert stages == sorted(stages)
    assert stages[0] == Ask.Feedback.STAGE_QUEUED
    assert all('a red cube on the left'.startswith(f.text) for f in goal.feedback)
    # every answer is on the topic too, for recordings
    wait_for(lambda: answers, 'the answer on the topic')
    assert answers[0].query_id == 'q'


def test_goals_wait_in_line_and_keep_no_thread_busy(one: Bench) -> None:
    gate = one.describer.gate = threading.Event()
    goals = [Goal(one, regions=[box_region('a')]) for _ in range(6)]  # more than threads
    wait_for(lambda: goals[5].feedback, 'feedback of the last')
    assert max(feedback.queue_position for feedback in goals[5].feedback) >= 4
    one.assert_alive()
    one.send_frames([ns(1.2)])
    gate.set()
    assert [goal.result()[0] for goal in goals] == [GoalStatus.STATUS_SUCCEEDED] * 6


def test_cancel_while_the_model_works(one: Bench) -> None:
    one.describer.gate = threading.Event()
    goal = Goal(one, regions=[box_region('a')])
    wait_for(one.describer.started.is_set, 'the model')
    assert goal.cancel()
    status, answer = goal.result()
    assert status == GoalStatus.STATUS_CANCELED
    assert answer.error_code == ErrorCode.CANCELED
    # the model is free again
    one.describer.gate.set()
    assert Goal(one, regions=[box_region('a')]).result()[0] == GoalStatus.STATUS_SUCCEEDED


def test_cancel_while_it_waits(one: Bench) -> None:
    gate = one.describer.gate = threading.Event()
    first = Goal(one, regions=[box_region('a')])
    second = Goal(one, regions=[box_region('a')])
    wait_for(one.describer.started.is_set, 'the model')
    assert second.cancel()
    status, answer = second.result()
    assert (status, answer.error_code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED)
    assert not first.done
    gate.set()
    assert first.result()[0] == GoalStatus.STATUS_SUCCEEDED
    assert len(one.describer.calls) == 1


def test_cancel_after_the_end_is_refused(one: Bench) -> None:
    goal = Goal(one, regions=[box_region('a')])
    assert goal.result()[0] == GoalStatus.STATUS_SUCCEEDED
    assert not goal.cancel()


@pytest.mark.parametrize('attempt', range(5))
def test_cancel_at_once(one: Bench, attempt: int) -> None:
    one.describer.gate = threading.Event()
    goal = Goal(one, regions=[box_region('a')])
    assert goal.cancel()
    assert goal.result()[0] == GoalStatus.STATUS_CANCELED
    one.assert_alive()


@pytest.mark.parametrize('executor', [SingleThreadedExecutor, MultiThreadedExecutor])
def test_cancel_with_other_executors(bench: Callable[..., Bench], executor: Any) -> None:
    one = bench(executor=executor, parameters={'describe.enabled': False})
    one.send_frames([ns(1)])
    gate = one.describer.gate = threading.Event()
    first, second = (Goal(one, regions=[box_region('a')]) for _ in range(2))
    wait_for(one.describer.started.is_set, 'the model')
    assert second.cancel()
    assert second.result()[0] == GoalStatus.STATUS_CANCELED
    gate.set()
    assert first.result()[0] == GoalStatus.STATUS_SUCCEEDED


def test_a_deadline_ends_it_while_the_model_works(one: Bench) -> None:
    one.describer.gate = threading.Event()
    goal = Goal(one, regions=[box_region('a')], deadline=Duration(nanosec=200_000_000))
    status, answer = goal.result()
    assert (status, answer.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.TIMEOUT)


@pytest.mark.parametrize(
    ('query', 'code'),
    [
        ({'task': 9}, ErrorCode.BAD_REQUEST),
        ({'task': int(Task.GROUND)}, ErrorCode.UNSUPPORTED),
        ({'region_ids': ['nobody']}, ErrorCode.UNKNOWN_REGION),
        ({'camera': 'attic', 'regions': [box_region('a')]}, ErrorCode.UNKNOWN_CAMERA),
        ({'regions': [box_region('a', box=(500, 0, 4, 4))]}, ErrorCode.BAD_REGION),
        ({'regions': [box_region('a', ns(100))]}, ErrorCode.BAD_STAMP),
        ({}, ErrorCode.BAD_REQUEST),  # no region at all
    ],
)
def test_goals_that_cannot_be_served(one: Bench, query: dict[str, Any], code: ErrorCode) -> None:
    status, answer = Goal(one, query_id='q', **query).result()
    assert status == GoalStatus.STATUS_ABORTED
    assert (answer.query_id, answer.error_code) == ('q', code)
    assert answer.error_msg
    assert not one.describer.calls
    one.assert_alive()


@pytest.mark.parametrize('activate', [False, True])
def test_an_inactive_node_says_so(bench: Callable[..., Bench], activate: bool) -> None:
    one = bench(activate=activate)
    if activate:
        assert one.change(Transition.TRANSITION_DEACTIVATE)
    status, answer = Goal(one, query_id='q', regions=[box_region('a')]).result()
    assert status == GoalStatus.STATUS_ABORTED
    assert (answer.query_id, answer.error_code) == ('q', ErrorCode.NOT_ACTIVE)
    assert 'activate' in answer.error_msg


def test_deactivating_ends_open_goals(one: Bench) -> None:
    one.describer.gate = threading.Event()
    goals = [Goal(one, regions=[box_region('a')]) for _ in range(2)]
    wait_for(one.describer.started.is_set, 'the model')
    assert one.change(Transition.TRANSITION_DEACTIVATE)
    for goal in goals:
        status, answer = goal.result()
        assert (status, answer.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.CANCELED)


def test_a_model_error_is_an_answer(one: Bench) -> None:
    one.describer.script.append(RuntimeError('the model broke'))
    status, answer = Goal(one, regions=[box_region('a')]).result()
    assert (status, answer.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.MODEL_ERROR)
    assert Goal(one, regions=[box_region('a')]).result()[0] == GoalStatus.STATUS_SUCCEEDED
