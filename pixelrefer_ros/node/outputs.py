# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Publish what the engine says, from whatever thread says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from sensor_msgs.msg import Image

from pixelrefer_ros import msg as ros
from pixelrefer_ros.node import detections, qos, results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rclpy.lifecycle import LifecycleNodeMixin, LifecyclePublisher
    from rclpy.qos import QoSProfile

    from pixelrefer_ros.core.types import Answer, Description, Frame, Track

DESCRIPTIONS = '~/descriptions'
ANSWERS = '~/answers'
TRACKS = '~/tracks'
IMAGE_ANNOTATED = '~/image_annotated'
LABEL_IMAGE = '~/label_image'
DETECTIONS_TRACKED = '~/detections_tracked'


class Outputs:
    """Own the node's publishers; they are silent unless the node is active."""

    def __init__(self, node: LifecycleNodeMixin) -> None:
        """Create the publishers."""
        self._node = node
        kinds: dict[str, tuple[type, QoSProfile]] = {
            DESCRIPTIONS: (ros.Description, qos.result_output()),
            ANSWERS: (ros.Answer, qos.result_output()),
            TRACKS: (ros.TrackArray, qos.result_output()),
            IMAGE_ANNOTATED: (Image, qos.picture_output()),
            LABEL_IMAGE: (Image, qos.picture_output()),
        }
        array = detections.array_type()
        if array is not None:
            kinds[DETECTIONS_TRACKED] = (array, qos.result_output())
        self._publishers: dict[str, LifecyclePublisher] = {
            topic: qos.advertise(node, kind, topic, profile)
            for topic, (kind, profile) in kinds.items()
        }

    def watched(self, topic: str) -> bool:
        """Return whether anybody subscribes, so that nothing is made for nobody."""
        publisher = self._publishers.get(topic)
        if publisher is None:  # of a message package that is not installed
            return False
        try:
            return bool(publisher.get_subscription_count() > 0)
        except _rclpy.InvalidHandle:
            return False

    def publish(self, topic: str, message: Any) -> None:
        """Publish from any thread; does nothing while the node is inactive or closing."""
        try:
            self._publishers[topic].publish(message)
        except (_rclpy.InvalidHandle, _rclpy.RCLError):
            # The context or publisher went away under a worker that was about to speak.
            self._node.get_logger().debug(f'{topic} is closed; a message was dropped')

    def description(self, description: Description) -> None:
        """Publish a description."""
        self.publish(DESCRIPTIONS, results.description_to_msg(description))

    def answer(self, answer: Answer) -> None:
        """Publish an answer."""
        self.publish(ANSWERS, results.answer_to_msg(answer))

    def tracks(self, frame: Frame, tracks: Sequence[Track]) -> None:
        """Publish where the regions of a camera are in a frame, to those who subscribe."""
        if self.watched(TRACKS):
            self.publish(
                TRACKS,
                results.tracks_to_msg(tracks, frame.camera, frame.stamp_ns, frame.frame_id),
            )
        if self.watched(DETECTIONS_TRACKED):
            self.publish(
                DETECTIONS_TRACKED,
                detections.tracks_to_detections(tracks, frame.stamp_ns, frame.frame_id),
            )

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
