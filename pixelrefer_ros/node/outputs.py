# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Publish what the engine says, from whatever thread says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from sensor_msgs.msg import Image

from pixelrefer_ros import msg as ros
from pixelrefer_ros.node import qos, results

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNodeMixin, LifecyclePublisher

    from pixelrefer_ros.core.types import Answer, Description

DESCRIPTIONS = '~/descriptions'
ANSWERS = '~/answers'
TRACKS = '~/tracks'
IMAGE_ANNOTATED = '~/image_annotated'
LABEL_IMAGE = '~/label_image'


class Outputs:
    """Own the node's publishers; they are silent unless the node is active."""

    def __init__(self, node: LifecycleNodeMixin) -> None:
        """Create the publishers."""
        self._node = node
        kinds = {
            DESCRIPTIONS: (ros.Description, qos.result_output()),
            ANSWERS: (ros.Answer, qos.result_output()),
            TRACKS: (ros.TrackArray, qos.result_output()),
            IMAGE_ANNOTATED: (Image, qos.picture_output()),
            LABEL_IMAGE: (Image, qos.picture_output()),
        }
        self._publishers: dict[str, LifecyclePublisher] = {
            topic: qos.advertise(node, kind, topic, profile)
            for topic, (kind, profile) in kinds.items()
        }

    def watched(self, topic: str) -> bool:
        """Return whether anybody subscribes, so that nothing is drawn for nobody."""
        try:
            return bool(self._publishers[topic].get_subscription_count() > 0)
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

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
