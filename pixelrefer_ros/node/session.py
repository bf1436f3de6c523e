# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold everything that exists only while the node is active."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rclpy.clock import ClockChange, JumpThreshold
from rclpy.duration import Duration

from pixelrefer_ros.core.types import ErrorCode
from pixelrefer_ros.engine import Engine
from pixelrefer_ros.node.camera import CameraInput
from pixelrefer_ros.node.painter import Painter
from pixelrefer_ros.node.requests import RequestTopics

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.clock import TimeJump
    from rclpy.node import Node

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Description, Frame, Track
    from pixelrefer_ros.engine.grounding import Grounder
    from pixelrefer_ros.node.outputs import Outputs
    from pixelrefer_ros.node.parameters import NodeParameters

_OTHER_CLOCK = (int(ClockChange.ROS_TIME_ACTIVATED), int(ClockChange.ROS_TIME_DEACTIVATED))


class Session:
    """Run the engine between its inputs and outputs, from activation to deactivation."""

    def __init__(
        self,
        node: Node,
        parameters: NodeParameters,
        describer: RegionDescriber,
        make_tracker: Callable[[], RegionTracker] | None,
        grounder: Grounder | None,
        outputs: Outputs,
        next_id: Callable[[], str],
    ) -> None:
        """Start the engine, then listen.

        Args:
            node: The node.
            parameters: Its parameters, read at activation.
            describer: The loaded model.
            make_tracker: Makes what follows the regions of a camera; None for nothing.
            grounder: Answers GROUND queries; None when nothing does.
            outputs: Where results go.
            next_id: Makes ids for queries that have none.
        """
        self._node = node
        self._log = node.get_logger()
        self._outputs = outputs
        self._tracking = make_tracker is not None
        self._lock = threading.Lock()
        self._problems = 0
        self._last_problem = ''
        self.cameras: list[CameraInput] = []
        self.requests: RequestTopics | None = None
        self.engine = Engine(
            describer,
            parameters.engine_config(),
            on_description=self._described,
            on_answer=outputs.answer,
            on_problem=self.problem,
            make_tracker=make_tracker,
            grounder=grounder,
            on_tracks=self._tracked,
        )
        self.painter = Painter(self.engine, outputs, self.problem, tracking=self._tracking)
        clock = node.get_clock()
        self._jumps = clock.create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            ),
            post_callback=self._clock_jumped,
        )
        try:
            self.engine.start()
            self.requests = RequestTopics(
                node,
                self.engine,
                next_id,
                cameras=parameters.cameras,
                on_answer=outputs.answer,
                on_regions=self.painter.regions_changed,
                on_refused=self.problem,
            )
            for camera in parameters.cameras:
                self.cameras.append(
                    CameraInput(
                        node,
                        camera,
                        parameters.image_transport,
                        wants=self.engine.wants,
                        offer=self._offer,
                    )
                )
        except BaseException:
            self.close()
            raise

    def problems(self) -> tuple[int, str]:
        """Return how many regions, jobs and messages were given up, and why the last was."""
        with self._lock:
            return self._problems, self._last_problem

    def tracks(self) -> dict[str, tuple[Track, ...]]:
        """Return the newest tracks of each camera; empty when nothing follows the regions."""
        if not self._tracking:
            return {}
        return {camera.camera: self.engine.tracks(camera.camera) for camera in self.cameras}

    def problem(self, reason: str) -> None:
        """Count and log why something was given up."""
        with self._lock:
            self._problems += 1
            self._last_problem = reason
        self._log.warning(reason, throttle_duration_sec=1.0)

    def close(self) -> None:
        """Stop listening, then the engine; open queries are answered CANCELED."""
        self._jumps.unregister()
        for camera in self.cameras:
            camera.close()
        if self.requests is not None:
            self.requests.close()
        self.engine.stop()
        self.painter.stop()

    def _offer(self, frame: Frame) -> bool:
        kept = self.engine.add_frame(frame)
        if kept:
            self.painter.frame(frame)
        return kept

    def _described(self, description: Description) -> None:
        self.painter.described(description)
        self._outputs.description(description)

    def _tracked(self, frame: Frame, tracks: tuple[Track, ...]) -> None:
        self.painter.tracked(frame, tracks)

    def _clock_jumped(self, jump: TimeJump) -> None:
        """Forget what is in the future of a clock that went back, or of another clock.

        A camera whose images have gone back already, because the first of a new loop overtook
        /clock, is not reset a second time.
        """
        try:
            code, message = ErrorCode.CLOCK_JUMP, 'the clock jumped back; ask again'
            if int(jump.clock_change) in _OTHER_CLOCK:
                self.engine.reset(code=code, message='the clock was changed; ask again')
                return
            now_ns = self._node.get_clock().now().nanoseconds
            for name, camera in self.engine.stats().cameras.items():
                if camera.newest_stamp_ns > now_ns:
                    self._log.info(f'the clock jumped back: camera {name!r} starts anew')
                    self.engine.reset(name, code=code, message=message)
        except Exception as error:  # the time source calls this and must go on
            self.problem(f'clock jump: {error!r}')
