# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Play a bag through DDS from a process of its own, as a robot's drivers would.

Messages go out as the bytes they were recorded as, at the times they were recorded at. Nothing
goes out before every topic has a subscriber. Progress is printed as JSON lines.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.topics import INPUTS
from pixelrefer_ros.core.types import NS_PER_S, PixelReferError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rclpy.node import Node
    from rclpy.publisher import Publisher

# Every message is kept until it is acknowledged: what is lost is not lost here.
QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)
_ACKNOWLEDGE_S = 5.0


def message_class(name: str) -> Any:
    """Return the Python class of a message type such as 'sensor_msgs/msg/Image'."""
    package, kind, title = name.split('/')
    return getattr(importlib.import_module(f'{package}.{kind}'), title)


def tell(**fields: Any) -> None:
    """Print a line of progress."""
    print(json.dumps(fields), flush=True)


class Player:
    """Publish the input topics of a bag."""

    def __init__(self, node: Node, bag: Bag, clock: bool = False) -> None:
        """Create the publishers.

        Args:
            node: The node to publish with.
            bag: An open bag.
            clock: Also publish the recorded time on /clock.
        """
        self._node = node
        self._bag = bag
        self._publishers: dict[str, Publisher] = {
            topic.name: node.create_publisher(message_class(topic.msgtype), topic.name, QOS)
            for topic in bag.topics
            if topic.role in INPUTS and topic.count
        }
        self._clock = node.create_publisher(Clock, '/clock', QOS) if clock else None
        self.total = bag.count(*INPUTS)

    def unheard(self) -> list[str]:
        """Return the topics without a subscriber."""
        return [
            name for name, publisher in self._publishers.items()
            if not publisher.get_subscription_count()
        ]

    def wait_until_heard(self, timeout_s: float) -> None:
        """Wait for a subscriber of every topic.

        Raises:
            TimeoutError: Some have none.
        """
        until_s = time.monotonic() + timeout_s
        while missing := self.unheard():
            if time.monotonic() > until_s:
                raise TimeoutError(f'nobody subscribes to {", ".join(missing)}')
            time.sleep(0.02)

    def play(self, rate: float = 1.0) -> int:
        """Publish everything in time, and wait until it is acknowledged.

        Args:
            rate: How much faster than it was recorded.

        Returns:
            How many messages went out.
        """
        begun_s = time.monotonic()
        played = 0
        told_s = -1.0
        for topic, _, log_time_ns, data in self._bag.raw(INPUTS):
            elapsed_s = (log_time_ns - self._bag.start_ns) / NS_PER_S
            ahead_s = begun_s + elapsed_s / rate - time.monotonic()
            if ahead_s > 0:
                time.sleep(ahead_s)
            if self._clock is not None:
                stamp = Clock()
                stamp.clock.sec, stamp.clock.nanosec = divmod(log_time_ns, NS_PER_S)
                self._clock.publish(stamp)
            self._publishers[topic.name].publish(data)
            played += 1
            if elapsed_s - told_s >= 0.1:
                told_s = elapsed_s
                tell(played=played, total=self.total, time_s=round(elapsed_s, 3))
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_S))
        return played


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a bag; the exit status is 1 when nobody listens or the bag is broken."""
    parser = argparse.ArgumentParser(description='Play a bag through DDS.')
    parser.add_argument('bag', type=Path)
    parser.add_argument('--rate', type=float, default=1.0, help='speed, 1 being as recorded')
    parser.add_argument('--clock', action='store_true', help='publish /clock')
    parser.add_argument('--wait', type=float, default=60.0, help='seconds to wait for listeners')
    parser.add_argument('--barrier', action='store_true', help='wait for a line on stdin to start')
    options = parser.parse_args(arguments)
    if options.rate <= 0:
        parser.error('--rate must be above 0')
    # no handlers: being ended is not an error to report
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('player')
    try:
        with Bag(options.bag) as bag:
            player = Player(node, bag, options.clock)
            player.wait_until_heard(options.wait)
            tell(ready=True, total=player.total)
            if options.barrier and not sys.stdin.readline():
                return 1
            tell(done=True, played=player.play(options.rate), total=player.total)
    except (PixelReferError, TimeoutError) as error:
        print(f'player: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
