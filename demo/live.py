# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the node and the player as processes, and take down what the node says."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions

from pixelrefer_ros.bags import from_messages
from pixelrefer_ros.bags.typestore import ANSWER, DESCRIPTION, TRACK_ARRAY
from pixelrefer_ros.bags.writing import (
    ANSWERS_TOPIC,
    DESCRIPTIONS_TOPIC,
    TRACKS_TOPIC,
    BagWriter,
)
from pixelrefer_ros.msg import Answer as AnswerMsg
from pixelrefer_ros.msg import Description as DescriptionMsg
from pixelrefer_ros.msg import TrackArray as TrackArrayMsg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixelrefer_ros.core.types import Answer, Description

NODE_NAME = '/pixelrefer'
_STOP_S = 15.0


class LiveError(RuntimeError):
    """Report that the pipeline failed, and where to look."""


class NodeProcess:
    """Run the node in a process of its own; use it in a ``with`` statement."""

    def __init__(self, parameters: dict[str, str], log: Path) -> None:
        """Say how.

        Args:
            parameters: Values as YAML, by name.
            log: File for what it prints.
        """
        self._parameters = parameters
        self._log = log
        self.status: int | None = None

    def __enter__(self) -> NodeProcess:
        """Start it."""
        command = [sys.executable, '-m', 'pixelrefer_ros.node.node', '--ros-args']
        for name, value in self._parameters.items():
            command += ['-p', f'{name}:={value}']
        with self._log.open('wb') as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it as Ctrl-C would; kill it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self.status = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.status = self._process.wait()

    def check(self) -> None:
        """Raise LiveError when it has ended."""
        status = self._process.poll()
        if status is not None:
            raise LiveError(f'the node ended with status {status}:\n{self.last_words()}')

    def last_words(self) -> str:
        """Return the end of its log."""
        return '\n'.join(self._log.read_text(errors='replace').splitlines()[-12:])


class PlayerProcess:
    """Play a bag from a process of its own; use it in a ``with`` statement."""

    def __init__(self, bag: Path, rate: float, wait_s: float) -> None:
        """Say what to play, how much faster than recorded, and how long to wait for the node."""
        self._command = [
            sys.executable, '-m', 'demo.player', str(bag), '--rate', str(rate),
            '--wait', str(wait_s), '--barrier',
        ]  # fmt: skip
        self.lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def __enter__(self) -> PlayerProcess:
        """Start it; it waits for subscribers, then for ``go``."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        )
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write('go\n')
        self._process.stdin.flush()

    def check(self) -> None:
        """Raise LiveError when it has failed."""
        if self._process.poll():
            raise LiveError('the player failed; what it said is above')

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.put(json.loads(line))


class Listener:
    """Set the node going, and write down what it says, in bag and memory."""

    def __init__(self, writer: BagWriter) -> None:
        """Subscribe.

        Args:
            writer: Gets every description, answer and track as it came.
        """
        self._writer = writer
        writer.add_output_topics(tracks=True)
        self.results: queue.SimpleQueue[Description | Answer] = queue.SimpleQueue()
        self.received: dict[str, int] = {}
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('demo')
        for topic, kind, name, convert in (
            (DESCRIPTIONS_TOPIC, DescriptionMsg, DESCRIPTION, from_messages.description_from),
            (ANSWERS_TOPIC, AnswerMsg, ANSWER, from_messages.answer_from),
            (TRACKS_TOPIC, TrackArrayMsg, TRACK_ARRAY, None),
        ):
            taker = self._taker(topic, kind, name, convert)
            self._node.create_subscription(kind, topic, taker, QoSProfile(depth=200), raw=True)
        self._node.create_subscription(
            DiagnosticArray, '/diagnostics', self._diagnose, QoSProfile(depth=10)
        )
        self._change = self._node.create_client(ChangeState, f'{NODE_NAME}/change_state')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        """Stop listening; nothing is written after this."""
        self._executor.shutdown(timeout_sec=5.0)
        self._thread.join(5.0)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def bring_up(self, node: NodeProcess, timeout_s: float) -> None:
        """Configure and activate the node.

        Raises:
            LiveError: It ends, refuses, or takes too long.
        """
        until_s = time.monotonic() + timeout_s
        while not self._change.wait_for_service(0.2):
            node.check()
            if time.monotonic() > until_s:
                raise LiveError(f'the node did not come up within {timeout_s:g} s')
        for name, number in (
            ('configure', Transition.TRANSITION_CONFIGURE),
            ('activate', Transition.TRANSITION_ACTIVATE),
        ):
            request = ChangeState.Request(transition=Transition(id=number))
            # Sent by the executor's thread: sent by another, it can be answered before rclpy has
            # noted it, which then ignores the response.
            sent = self._executor.create_task(self._change.call_async, request)
            while not (sent.done() and sent.result().done()):
                node.check()
                if time.monotonic() > until_s:
                    raise LiveError(f'the node did not {name} within {timeout_s:g} s')
                time.sleep(0.02)
            if not sent.result().result().success:
                raise LiveError(f'the node refused to {name}:\n{node.last_words()}')
        while any(
            not self._node.count_publishers(topic)
            for topic in (DESCRIPTIONS_TOPIC, ANSWERS_TOPIC, TRACKS_TOPIC)
        ):
            time.sleep(0.02)

    def _taker(self, topic: str, kind: Any, name: str, convert: Any) -> Any:
        def take(data: bytes) -> None:
            self._writer.write_raw(topic, name, bytes(data), time.time_ns())
            if convert is not None:
                self.results.put(convert(deserialize_message(data, kind)))

        return take

    def _diagnose(self, message: DiagnosticArray) -> None:
        """Remember how many images each camera has delivered and how many were usable."""
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if 'received' in values:
                lost = int(values.get('bad', 0)) + int(values.get('decoding fell behind', 0))
                self.received[status.name] = int(values['received']) - lost


def prepare_environment(profile: Path, used: Sequence[int] = range(20, 100)) -> None:
    """Keep the demo to this machine and away from other ROS graphs on it.

    To be called before rclpy starts; what is set already stays.

    Args:
        profile: DDS profile for large images.
        used: Domain ids to choose from.
    """
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(used[os.getpid() % len(used)]))
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        os.environ.setdefault(name, str(profile))
