# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask a running node one question through its ``~/ask`` action."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from pixelrefer_ros.action import Ask
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.node.conversions import query_to_msg
from pixelrefer_ros.node.results import answer_from_msg

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.task import Future

    from pixelrefer_ros.core.types import Answer, Query

_DISCOVERY_S = 5.0
_CANCEL_S = 2.0
_SLICE_S = 0.1


def ask_node(
    node_name: str,
    query: Query,
    timeout_s: float,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Ask, and wait for the answer.

    Args:
        node_name: Such as '/pixelrefer'.
        query: An empty query_id is filled in by the node.
        timeout_s: How long to wait for the answer.
        on_progress: Called with the state of the work, then with the text so far.

    Raises:
        PixelReferError: NOT_ACTIVE when no such node answers or it refuses the question,
            TIMEOUT when it takes too long.
        KeyboardInterrupt: The user wants no answer any more; the question is canceled.
    """
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('pixelrefer_ask', context=context, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    name = '/' + node_name.strip('/')
    client = ActionClient(node, Ask, f'{name}/ask')
    try:
        if not _until(executor, client.server_is_ready, _DISCOVERY_S):
            raise PixelReferError(
                ErrorCode.NOT_ACTIVE,
                f'no node {name} offers {name}/ask; is it running, and are ROS_DOMAIN_ID and '
                '--node the same as there?',
            )
        goal = Ask.Goal(query=query_to_msg(query))
        sending = client.send_goal_async(goal, feedback_callback=_teller(on_progress))
        handle = _result(executor, sending, timeout_s)
        if not handle.accepted:
            raise PixelReferError(
                ErrorCode.NOT_ACTIVE, f'{name} takes no questions now; is it activated?'
            )
        try:
            reply = _result(executor, handle.get_result_async(), timeout_s)
        except (KeyboardInterrupt, PixelReferError):
            _until(executor, handle.cancel_goal_async().done, _CANCEL_S)
            raise
        return answer_from_msg(reply.result.answer)
    finally:
        client.destroy()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


def _teller(on_progress: Callable[[str], None]) -> Callable[[Any], None]:
    stages = {
        Ask.Feedback.STAGE_QUEUED: 'queued',
        Ask.Feedback.STAGE_PREPROCESS: 'preparing',
        Ask.Feedback.STAGE_VISION: 'looking',
        Ask.Feedback.STAGE_LANGUAGE: 'speaking',
    }

    def tell(message: Any) -> None:
        feedback = message.feedback
        ahead = f', {feedback.queue_position} ahead' if feedback.queue_position else ''
        on_progress(feedback.text or stages.get(feedback.stage, '') + ahead)

    return tell


def _result(executor: SingleThreadedExecutor, future: Future, timeout_s: float) -> Any:
    if not _until(executor, future.done, timeout_s):
        raise PixelReferError(ErrorCode.TIMEOUT, f'no answer within {timeout_s:g} s')
    return future.result()


def _until(
    executor: SingleThreadedExecutor, condition: Callable[[], bool], timeout_s: float
) -> bool:
    """Spin until a condition holds; return whether it does."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        try:
            executor.spin_once(timeout_sec=_SLICE_S)
        except ExternalShutdownException:  # Ctrl-C, seen by rclpy first
            raise KeyboardInterrupt from None
    return True
