# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Serve ``~/ask``: a query with progress, cancel and a result.

No executor thread waits for the model. A goal stays in the accepted state while the engine has
it, the engine's worker publishes its feedback, and only when the answer is there is the goal
handed to the executor, which has nothing left to do but send it. Awaiting a future in the
execute callback instead would keep a Jazzy executor busy all the time, and blocking there would
take one of its threads for every waiting goal.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy

from pixelrefer_ros.action import Ask
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.node.conversions import query_from_msg, refusal, seconds_to_msg
from pixelrefer_ros.node.results import answer_to_msg

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.action.server import ServerGoalHandle
    from rclpy.node import Node

    from pixelrefer_ros.core.types import Answer, Query
    from pixelrefer_ros.engine import QueryHandle

    Submit = Callable[
        [Query, Callable[[Answer], None], Callable[[str, str, int], None]], QueryHandle
    ]

_STAGES = {
    'queued': Ask.Feedback.STAGE_QUEUED,
    'preprocess': Ask.Feedback.STAGE_PREPROCESS,
    'vision': Ask.Feedback.STAGE_VISION,
    'language': Ask.Feedback.STAGE_LANGUAGE,
    'reason': Ask.Feedback.STAGE_REASON,
    'ground': Ask.Feedback.STAGE_GROUND,
    'track': Ask.Feedback.STAGE_TRACK,
}
_FEEDBACK_PERIOD_S = 0.05  # between two pieces of text of one goal
_CANCEL_WAIT_S = 1.0


@dataclass
class _Goal:
    handle: ServerGoalHandle
    accepted_s: float
    query: QueryHandle | None = None
    answer: Answer | None = None
    cancel_asked: bool = False
    told_stage: int = -1
    told_position: int = -1
    told_s: float = 0.0


class AskServer:
    """Own the action server; it lives as long as the node and says so when it is inactive."""

    def __init__(
        self,
        node: Node,
        submit: Submit,
        next_id: Callable[[], str],
        on_answer: Callable[[Answer], None],
    ) -> None:
        """Start serving.

        Args:
            node: The node.
            submit: Hands a query to the engine with callbacks for its answer and its progress;
                raises PixelReferError NOT_ACTIVE when there is no engine.
            next_id: Makes ids for queries that have none.
            on_answer: Called with every answer as well.
        """
        self._node = node
        self._submit = submit
        self._next_id = next_id
        self._on_answer = on_answer
        self._lock = threading.Lock()
        self._goals: dict[bytes, _Goal] = {}
        self._server = ActionServer(
            node,
            Ask,
            '~/ask',
            execute_callback=self._conclude,
            handle_accepted_callback=self._accept,
            cancel_callback=self._cancel,
            callback_group=ReentrantCallbackGroup(),
        )

    def destroy(self) -> None:
        """Stop serving."""
        self._server.destroy()

    def _accept(self, handle: ServerGoalHandle) -> None:
        goal = _Goal(handle, time.monotonic())
        message = handle.request.query
        query_id = message.query_id or self._next_id()
        with self._lock:
            self._goals[_key(handle)] = goal
        try:
            goal.query = self._submit(
                query_from_msg(message, query_id),
                lambda answer: self._answered(goal, answer),
                lambda stage, text, position: self._progress(goal, stage, text, position),
            )
        except PixelReferError as error:
            self._answered(goal, refusal(message, query_id, error.code, str(error)))
            return
        except Exception as error:  # a callback must not end the node
            self._node.get_logger().error(f'~/ask {query_id!r}: {type(error).__name__}: {error}')
            self._answered(goal, refusal(message, query_id, ErrorCode.MODEL_ERROR, str(error)))
            return
        if goal.cancel_asked:  # the request overtook the query's way into the engine
            goal.query.cancel()

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        with self._lock:
            goal = self._goals.get(_key(handle))
        if goal is None or goal.answer is not None:
            return CancelResponse.REJECT
        goal.cancel_asked = True
        if goal.query is not None:
            goal.query.cancel()
        return CancelResponse.ACCEPT

    def _progress(self, goal: _Goal, stage: str, text: str, position: int) -> None:
        """Publish feedback: each change of stage or place at once, text now and then."""
        number = _STAGES.get(stage)
        now = time.monotonic()
        if number is None or goal.answer is not None:
            return
        same = number == goal.told_stage and position == goal.told_position
        if same and now - goal.told_s < _FEEDBACK_PERIOD_S:
            return
        goal.told_stage, goal.told_position, goal.told_s = number, position, now
        feedback = Ask.Feedback(
            stage=number,
            queue_position=max(0, position),
            text=text,
            elapsed=seconds_to_msg(now - goal.accepted_s),
        )
        try:
            goal.handle.publish_feedback(feedback)
        except (_rclpy.InvalidHandle, _rclpy.RCLError):
            self._node.get_logger().debug('~/ask is closed; feedback was dropped')

    def _answered(self, goal: _Goal, answer: Answer) -> None:
        """Hand an answered goal to the executor."""
        goal.answer = answer
        self._on_answer(answer)
        for _ in range(2):
            try:
                goal.handle.execute()
                return
            except _rclpy.RCLError:
                # A cancel request changed the state in between; the second try sees it.
                continue
            except (AttributeError, _rclpy.InvalidHandle):
                break  # no executor any more: nobody can be told
        self._node.get_logger().debug('~/ask is closed; a result was dropped')

    def _conclude(self, handle: ServerGoalHandle) -> Ask.Result:
        """Set the final state of an answered goal and return its result."""
        with self._lock:
            goal = self._goals.pop(_key(handle))
        answer = goal.answer
        assert answer is not None, 'a goal is executed when it is answered'
        if answer.error_code is ErrorCode.OK:
            handle.succeed()
        elif goal.cancel_asked and answer.error_code is ErrorCode.CANCELED:
            # The answer may be here before the server has noted its own cancel response.
            until = time.monotonic() + _CANCEL_WAIT_S
            while not handle.is_cancel_requested and time.monotonic() < until:
                time.sleep(0.001)
            if handle.is_cancel_requested:
                handle.canceled()
            else:
                handle.abort()
        else:
            handle.abort()
        return Ask.Result(answer=answer_to_msg(answer))


def _key(handle: ServerGoalHandle) -> bytes:
    return bytes(handle.goal_id.uuid)
