# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that the executor outlives what a transition destroys behind its back."""

from __future__ import annotations

import time
from typing import Any

import pytest
import rclpy
from rclpy.event_handler import EventHandler, SubscriptionEventCallbacks
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Empty

from pixelrefer_ros.node.executor import TransportExecutor
from tests.ros.rig import WAIT_S

pytestmark = pytest.mark.ros


class Late(TransportExecutor):
    """Destroy a subscription between an event of it and the handler of that event."""

    def __init__(self, node: Node, **options: Any) -> None:
        super().__init__(**options)
        self.add_node(node)
        self.node = node
        self.subscription: Any = None
        self.events: list[EventHandler] = []

    def wait_for_ready_callbacks(self, *args: Any, **options: Any) -> Any:
        """Return what is ready."""
        handler, entity, node = super().wait_for_ready_callbacks(*args, **options)
        if isinstance(entity, EventHandler):
            self.events.append(entity)
            self.node.destroy_subscription(self.subscription)
        return handler, entity, node


@pytest.fixture
def executor(ros_domain_id: int) -> Any:
    """Return an executor with a node."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain_id)
    node = Node('late', context=context)
    one = Late(node, context=context)
    yield one
    one.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def spin_until(executor: Late, what: list[Any]) -> None:
    """Run callbacks until there is something in a list."""
    until = time.monotonic() + WAIT_S
    while not what and time.monotonic() < until:
        executor.spin_once(0.1)
    assert what


def test_an_event_of_a_subscription_that_is_gone_does_not_end_it(executor: Late) -> None:
    node = executor.node
    told: list[Any] = []
    ticks: list[int] = []
    executor.subscription = node.create_subscription(
        Empty,
        'topic',
        print,
        QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=told.append),
    )
    node.create_publisher(
        Empty, 'topic', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    spin_until(executor, executor.events)
    assert told == []
    # nor does it hold up the others of its callback group
    node.create_timer(0.01, lambda: ticks.append(1))
    spin_until(executor, ticks)


def test_a_callback_that_uses_what_is_gone_is_an_error(executor: Late) -> None:
    node = executor.node
    gone = node.create_publisher(Empty, 'topic', 1)
    node.destroy_publisher(gone)
    node.create_timer(0.01, lambda: gone.publish(Empty()))
    with pytest.raises(InvalidHandle):
        spin_until(executor, [])
