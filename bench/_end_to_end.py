# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure from image stamp to description, and from question to answer, through DDS.

Three processes: a camera with a detector, the real node, and this one, which listens and asks.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions

from bench import _common as common
from bench._processes import Child
from pixelrefer_ros import msg as ros
from pixelrefer_ros.core.types import NS_PER_S
from pixelrefer_ros.node.images import stamp_to_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH, HEIGHT, RATE_HZ, REGION_EVERY = 640, 480, 30.0, 6
_DEADLINE_S = 60.0
_ANSWER_S = _DEADLINE_S + 30.0
_STAGES = ('queue', 'preprocess', 'vision', 'language', 'total')


@dataclass(frozen=True)
class Load:
    """Set up one run: regions given five times a second, described every ``period_s``.

    A period below that of the regions describes each of them as soon as it comes.
    """

    regions: int
    period_s: float


LOADS = (Load(1, 0.1), Load(1, 2.0), Load(8, 2.0))


class Listener:
    """Keep descriptions and answers with the moment they came [wall ns]."""

    def __init__(self) -> None:
        """Subscribe."""
        self.node = rclpy.create_node('bench_listener')
        self.descriptions: list[tuple[int, ros.Description]] = []
        self.answers: dict[str, tuple[int, ros.Answer]] = {}
        self.answered = threading.Event()
        depth = QoSProfile(depth=100)
        self.node.create_subscription(
            ros.Description, 'pixelrefer/descriptions', self._description, depth
        )
        self.node.create_subscription(ros.Answer, 'pixelrefer/answers', self._answer, depth)
        self.queries = self.node.create_publisher(ros.Query, 'pixelrefer/query', depth)

    def ask(self, query_id: str, text: str) -> tuple[int, int, ros.Answer]:
        """Ask and wait; return when it was published and when the answer came [wall ns].

        Raises:
            RuntimeError: No answer came, not even one that says what went wrong.
        """
        self.answered.clear()
        sent_ns = time.time_ns()
        self.queries.publish(ros.Query(query_id=query_id, task=ros.Query.TASK_ASK, text=text))
        if not self.answered.wait(_ANSWER_S):
            raise RuntimeError(f'no answer within {_ANSWER_S:g} s')
        return sent_ns, *self.answers[query_id]

    def _description(self, msg: ros.Description) -> None:
        self.descriptions.append((time.time_ns(), msg))

    def _answer(self, msg: ros.Answer) -> None:
        self.answers[msg.query_id] = (time.time_ns(), msg)
        self.answered.set()


@contextmanager
def listening() -> Iterator[Listener]:
    """Spin a listener in a thread."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    listener = Listener()
    executor = SingleThreadedExecutor()
    executor.add_node(listener.node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield listener
    finally:
        executor.shutdown(timeout_sec=5.0)
        thread.join()
        listener.node.destroy_node()
        rclpy.try_shutdown()


def end_to_end(load: Load, seconds: float, questions: int) -> dict[str, Any]:
    """Measure descriptions for some seconds, then questions one at a time while they go on.

    Args:
        load: What the node has to describe.
        seconds: How long descriptions are counted.
        questions: How many are asked.
    """
    parameters = {
        'describe.after_s': 0.5,
        'describe.period_s': load.period_s,
        'deadline_s': _DEADLINE_S,
    }
    camera_arguments = ('--width', WIDTH, '--height', HEIGHT, '--rate', RATE_HZ)
    region_arguments = ('--regions', load.regions, '--region-every', REGION_EVERY)
    with (
        Child('bench._node', json.dumps(parameters)) as node,
        Child('bench._camera', *camera_arguments, *region_arguments) as camera,
        listening() as listener,
    ):
        node.hear()
        camera.hear()
        while not (
            listener.queries.get_subscription_count()
            and listener.node.count_publishers('pixelrefer/descriptions')
        ):
            time.sleep(0.02)
        time.sleep(1.0)  # each side learns of the match at its own time
        node.tell('start')
        camera.tell('go')
        time.sleep(seconds)
        described = list(listener.descriptions)
        asked = [
            listener.ask(f'q{number}', 'What colour is {r0}?') for number in range(questions)
        ]
        sent = camera.ask('stop')
        told = node.ask('report')
    answered = [one for one in asked if one[2].error_code == ros.Answer.OK]
    return {
        'regions': load.regions,
        'describe_period_s': load.period_s,
        'images_sent': len(sent['stamps_ns']),
        'images_received': told['cameras']['']['received'],
        'descriptions_dropped_for_newer': told['jobs_dropped'],
        'stamp_to_region_sent_ms': _ms(sent_ns - at for at, sent_ns in sent['regions_sent_ns']),
        'stamp_to_description_ms': _ms(
            came_ns - stamp_to_ns(msg.header.stamp) for came_ns, msg in described
        ),
        'description_stages_ms': _stages([msg.timings for _, msg in described]),
        'questions': questions,
        'query_to_answer_ms': _ms(came_ns - sent_ns for sent_ns, came_ns, _ in answered),
        'answer_stages_ms': _stages([msg.timings for _, _, msg in answered]),
    }


def _ms(nanoseconds: Any) -> dict[str, float]:
    return common.summary(one / 1e6 for one in nanoseconds)


def _stages(timings: list[ros.Timings]) -> dict[str, dict[str, float]]:
    return {
        stage: _ms(_duration_ns(getattr(one, stage)) for one in timings) for stage in _STAGES
    }


def _duration_ns(duration: Any) -> int:
    return int(duration.sec) * NS_PER_S + int(duration.nanosec)
