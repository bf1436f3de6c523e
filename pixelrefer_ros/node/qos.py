# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose qualities of service, and explain in plain words when two ends do not fit.

Every profile is a new object: ``qos_overrides`` parameters are written into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.callback_groups import CallbackGroup
    from rclpy.lifecycle import LifecycleNodeMixin, LifecyclePublisher
    from rclpy.node import Node
    from rclpy.subscription import Subscription

_PLAIN = {
    'RELIABILITY': 'the publisher sends best effort and this node asks for reliable',
    'DURABILITY': 'the publisher keeps nothing for late joiners and this node asks for it',
    'DEADLINE': 'the publisher promises a slower rate than this node asks for',
    'LIVELINESS': 'the publisher promises less liveliness than this node asks for',
}
_FIX = {
    'RELIABILITY': "reliability: 'best_effort'",
    'DURABILITY': "durability: 'volatile'",
}


def image_input() -> QoSProfile:
    """Return the sensor-data profile: newest few, best effort, so that any publisher fits."""
    return _keep_last(5, ReliabilityPolicy.BEST_EFFORT)


def request_input() -> QoSProfile:
    """Return the profile of regions and queries: reliable, none may be lost."""
    return _keep_last(50, ReliabilityPolicy.RELIABLE)


def detection_input() -> QoSProfile:
    """Return the profile of a detector's stream: best effort, so that any publisher fits."""
    return _keep_last(10, ReliabilityPolicy.BEST_EFFORT)


def result_output() -> QoSProfile:
    """Return the profile of descriptions, answers and tracks."""
    return _keep_last(10, ReliabilityPolicy.RELIABLE)


def picture_output() -> QoSProfile:
    """Return the profile of drawn images: the newest only."""
    return _keep_last(1, ReliabilityPolicy.RELIABLE)


def _keep_last(depth: int, reliability: ReliabilityPolicy) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=DurabilityPolicy.VOLATILE,
    )


def explain_mismatch(policy_kind: Any, topic: str) -> str:
    """Say why a publisher's messages do not arrive, and how to make them.

    Args:
        policy_kind: ``last_policy_kind`` of an incompatible-QoS event.
        topic: The resolved topic name.
    """
    name = qos_policy_name_from_kind(policy_kind)
    reason = _PLAIN.get(name, f'publisher and subscriber differ in {name.lower()}')
    override = _FIX.get(name)
    fix = (
        f'start the node with the parameter qos_overrides.{topic}.subscription.{override}, or '
        'change the publisher'
        if override
        else 'change the publisher, or this node with a qos_overrides parameter'
    )
    return f'no messages from a publisher of {topic}: {reason}. Fix: {fix}'


def subscribe(
    node: Node,
    message_type: type,
    topic: str,
    callback: Callable[[Any], None],
    profile: QoSProfile,
    group: CallbackGroup,
    *,
    on_mismatch: Callable[[str], None],
    on_lost: Callable[[int], None] | None = None,
) -> Subscription:
    """Create a subscription with qos_overrides parameters and event callbacks.

    Args:
        node: The node.
        message_type: Message class.
        topic: Topic name.
        callback: Called with each message.
        profile: Default profile.
        group: Callback group of the messages and events.
        on_mismatch: Called with the explanation when a publisher does not fit.
        on_lost: Called with the number of messages lost, where the middleware tells.
    """
    resolved = node.resolve_topic_name(topic)

    def incompatible(event: Any) -> None:
        on_mismatch(explain_mismatch(event.last_policy_kind, resolved))

    def lost(event: Any) -> None:
        if on_lost is not None:
            on_lost(event.total_count_change)

    def create(events: SubscriptionEventCallbacks) -> Subscription:
        return node.create_subscription(
            message_type,
            topic,
            callback,
            profile,
            callback_group=group,
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    try:
        return create(
            SubscriptionEventCallbacks(incompatible_qos=incompatible, message_lost=lost)
        )
    except UnsupportedEventTypeError:  # the middleware does not count lost messages
        return create(SubscriptionEventCallbacks(incompatible_qos=incompatible))


def advertise(
    node: LifecycleNodeMixin, message_type: type, topic: str, profile: QoSProfile
) -> LifecyclePublisher:
    """Create a lifecycle publisher with qos_overrides parameters."""
    return node.create_lifecycle_publisher(
        message_type,
        topic,
        profile,
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )
