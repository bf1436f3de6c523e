# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the real node as a process of its own and tell what it took in.

    python -m bench._node '{"keep_rate_hz": 10.0}'

Says {"ready": ...} once active. 'start' starts the count of processor time, 'report' tells it
and what every camera brought; the end of stdin ends the process.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from bench._common import rss_mib
from bench._processes import answer
from pixelrefer_ros.node.executor import TransportExecutor
from pixelrefer_ros.node.node import PixelReferNode

if TYPE_CHECKING:
    from pixelrefer_ros.core.types import Frame
    from pixelrefer_ros.node.session import Session


class Record:
    """Note the stamp and the moment of every frame that goes into the engine's buffer."""

    def __init__(self, session: Session) -> None:
        """Listen between the cameras and the engine."""
        self._session = session
        self._kept: dict[str, list[tuple[int, int]]] = {
            camera.camera: [] for camera in session.cameras
        }
        self._add = session.engine.add_frame
        session.engine.add_frame = self._add_frame  # type: ignore[method-assign]

    def _add_frame(self, frame: Frame) -> bool:
        kept = self._add(frame)
        if kept:
            self._kept[frame.camera].append((frame.stamp_ns, time.time_ns()))
        return kept

    def cameras(self) -> dict[str, dict[str, Any]]:
        """Return per camera the counts, stamps kept, and when they were kept [wall ns]."""
        told = {}
        for camera in self._session.cameras:
            report, kept = camera.report(), self._kept[camera.camera]
            told[camera.camera] = {
                'received': report.received,
                'lost': report.lost,
                'bad': report.bad,
                'stamps_ns': [stamp_ns for stamp_ns, _ in kept],
                'kept_at_ns': [at_ns for _, at_ns in kept],
            }
        return told


def main() -> int:
    """Run until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes stdin
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    parameters = json.loads(sys.argv[1])
    node = PixelReferNode(
        parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()]
    )
    executor = TransportExecutor()
    executor.add_node(node)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    spinner = threading.Thread(target=spin, name='executor')
    node.trigger_configure()
    node.trigger_activate()
    session = node._session
    if session is None:
        print('the node is not active; see the lines above', file=sys.stderr)
        return 1
    record = Record(session)
    spinner.start()
    answer({'ready': node.state()})
    began_s, cpu_s = time.monotonic(), 0.0
    for line in sys.stdin:
        if line.strip() == 'start':
            began_s, cpu_s = time.monotonic(), time.process_time()
        elif line.strip() == 'report':
            stats = session.engine.stats()
            answer(
                {
                    'cpu_s': time.process_time() - cpu_s,
                    'wall_s': time.monotonic() - began_s,
                    'rss_mib': rss_mib(),
                    'jobs_done': stats.jobs_done,
                    'jobs_dropped': stats.jobs_dropped,
                    'cameras': record.cameras(),
                }
            )
    executor.shutdown(timeout_sec=5.0)
    spinner.join()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
