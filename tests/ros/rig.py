# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the node and a client against each other, in one process, through DDS."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from pixelrefer_ros import msg as ros
from pixelrefer_ros.core.types import NS_PER_S
from pixelrefer_ros.node.conversions import ns_to_stamp
from pixelrefer_ros.node.executor import TransportExecutor
from pixelrefer_ros.node.images import fill_image
from pixelrefer_ros.node.node import PixelReferNode, load_grounder
from pixelrefer_ros.srv import ListRegions
from tests.doubles import ScriptedDescriber

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 120.0
"""How long anything may take before a test fails; on an idle machine nothing comes near."""


def wait_for(
    condition: Callable[[], Any], what: str = 'condition', wait_s: float = WAIT_S
) -> Any:
    """Return what the condition returns once it is true; fail the test when it never is."""
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f'waited {wait_s:g} s in vain for: {what}')


def picture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Return an (H, W, 3) picture with another value in every pixel."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def image_msg(stamp_ns: int, rgb: np.ndarray | None = None, frame_id: str = 'optical') -> Image:
    message = Image()
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    return fill_image(message, picture() if rgb is None else rgb)


def box_region(
    region_id: str,
    stamp_ns: int = 0,
    box: tuple[int, int, int, int] = (8, 8, 16, 16),
    **fields: Any,
) -> ros.Region:
    """Return a box region message; ``box`` is x, y, width, height."""
    region = ros.Region(region_id=region_id, kind=ros.Region.KIND_BOX, **fields)
    region.header.stamp = ns_to_stamp(stamp_ns)
    region.box.x_offset, region.box.y_offset, region.box.width, region.box.height = box
    return region


class Spinner:
    """Spin an executor in a thread."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            if isinstance(self.executor, TransportExecutor):
                self.executor.spin()
            while not self._stop.is_set():  # the others cannot be stopped from outside in peace
                self.executor.spin_once(timeout_sec=0.05)
        except rclpy.executors.ExternalShutdownException:
            pass
        except BaseException as error:
            self.error = error
            raise

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        if isinstance(self.executor, TransportExecutor):
            self.executor.stop()
        self._thread.join(WAIT_S)
        self.executor.shutdown()


class Client:
    """Talk to the node as a robot would: publish, subscribe, call, send goals."""

    def __init__(self, context: Any, namespace: str = '') -> None:
        self.node = Node('client', context=context, namespace=namespace)
        executor = TransportExecutor(context=context)
        executor.add_node(self.node)
        self.spinner = Spinner(executor)
        self._publishers: dict[str, Any] = {}
        self.received: dict[str, list[Any]] = {}

    def publish(self, topic: str, message: Any, depth: int = 50) -> None:
        """Publish reliably once a subscriber is matched."""
        publisher = self._publishers.get(topic)
        if publisher is None:
            publisher = self.node.create_publisher(type(message), topic, QoSProfile(depth=depth))
            self._publishers[topic] = publisher
        wait_for(lambda: publisher.get_subscription_count() > 0, f'a subscriber of {topic}')
        publisher.publish(message)

    def listen(self, topic: str, kind: type, qos: Any = 50) -> list[Any]:
        """Subscribe, wait for the publisher and return the list messages go into."""
        messages = self.received.setdefault(topic, [])
        self.node.create_subscription(kind, topic, messages.append, qos)
        wait_for(lambda: self.node.count_publishers(topic) > 0, f'a publisher of {topic}')
        time.sleep(0.1)  # the other side learns of the match a moment later
        return messages

    def run(self, function: Callable[[], Any]) -> Any:
        """Return what the function returns when the executor's thread calls it.

        A request sent from another thread can be answered before rclpy has noted that it was
        sent, and then the response is ignored.
        """
        task = self.spinner.executor.create_task(function)
        wait_for(task.done, 'the executor')
        return task.result()

    def call(self, kind: type, name: str, request: Any, wait_s: float = WAIT_S) -> Any:
        client = self.node.create_client(kind, name)
        try:
            assert client.wait_for_service(WAIT_S), f'no service {name}'
            future = self.run(lambda: client.call_async(request))
            wait_for(future.done, f'the response of {name}', wait_s)
            return future.result()
        finally:
            self.node.destroy_client(client)

    def close(self) -> None:
        self.spinner.stop()
        self.node.destroy_node()


class Bench:
    """Hold a node that spins, its scripted model and a client."""

    def __init__(
        self,
        domain_id: int,
        *,
        parameters: dict[str, Any] | None = None,
        describer: Any = None,
        factory: Any = None,
        grounder: Any = None,
        namespace: str = '',
        activate: bool = True,
        cli_args: list[str] | None = None,
        executor: Callable[..., Any] = TransportExecutor,
    ) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.describer = describer or ScriptedDescriber()
        self.node = PixelReferNode(
            describer_factory=factory or (lambda parameters: self.describer),
            grounder_factory=grounder or load_grounder,
            context=self.context,
            namespace=namespace,
            cli_args=cli_args,
            parameter_overrides=[
                Parameter(name, value=value) for name, value in (parameters or {}).items()
            ],
        )
        self.executor = executor(context=self.context)
        self.executor.add_node(self.node)
        self.spinner = Spinner(self.executor)
        self.client = Client(self.context, namespace)
        if activate:
            assert self.change(Transition.TRANSITION_CONFIGURE)
            assert self.change(Transition.TRANSITION_ACTIVATE)

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        response = self.client.call(ChangeState, 'pixelrefer/change_state', request)
        return bool(response.success)

    def send_image(self, message: Any, topic: str = 'image') -> None:
        """Publish an image and wait until it is received: a burst would overflow the queue."""
        name = topic.removesuffix('/compressed').removesuffix('image').rstrip('/')
        camera = next(one for one in self.node._session.cameras if one.camera == name)
        before = camera.report().received
        self.client.publish(topic, message)
        wait_for(lambda: camera.report().received > before, f'an image on {topic}')

    def send_frames(self, stamps_ns: list[int], topic: str = 'image') -> None:
        """Publish an image per stamp, and wait until the engine has the last."""
        for stamp_ns in stamps_ns:
            self.send_image(image_msg(stamp_ns), topic)
        self.wait_for_frame(stamps_ns[-1], topic.removesuffix('image').rstrip('/'))

    def wait_for_frame(self, stamp_ns: int, camera: str = '') -> None:
        engine = self.node._session.engine
        wait_for(
            lambda: (frame := engine.snapshot(camera)) and frame.stamp_ns == stamp_ns,
            f'the frame of {stamp_ns}',
        )

    def assert_alive(self) -> None:
        """Check that the node still serves."""
        assert self.spinner.error is None
        assert self.spinner.alive
        assert self.client.call(ListRegions, 'pixelrefer/list_regions', ListRegions.Request())

    def close(self) -> None:
        self.client.close()
        self.spinner.stop()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)
