# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the image callback and the buffer, in this process."""

from __future__ import annotations

import ctypes
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import rclpy
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from bench import _common as common
from pixelrefer_ros.core.types import NS_PER_S, Frame, Region, RegionKind
from pixelrefer_ros.core.video_buffer import RollingBuffer
from pixelrefer_ros.engine import Engine, EngineConfig
from pixelrefer_ros.imaging import encode_jpeg
from pixelrefer_ros.node.conversions import ns_to_stamp
from pixelrefer_ros.node.images import byte_array, fill_image, to_frame
from pixelrefer_ros.node.node import PixelReferNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.node.session import Session

WIDTH, HEIGHT = 1280, 720
KEEP_RATE_HZ = 10.0
_START_NS = 1000 * NS_PER_S
_RING = 16  # messages in turn, so that their pixels do not stay in the processor's cache
_REGION_EVERY = 6


@contextmanager
def active_node(describer: RegionDescriber, transport: str) -> Iterator[Session]:
    """Give the session of an active node that nobody spins."""
    rclpy.init(
        args=['--ros-args', '--log-level', 'warn'],
        signal_handler_options=SignalHandlerOptions.NO,
    )
    node = PixelReferNode(
        describer_factory=lambda parameters: describer,
        parameter_overrides=[
            Parameter('image_transport', value=transport),
            Parameter('keep_rate_hz', value=KEEP_RATE_HZ),
            Parameter('describe.enabled', value=False),
        ],
    )
    try:
        node.trigger_configure()
        node.trigger_activate()
        assert node._session is not None
        yield node._session
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def messages(kind: str) -> list[Image | CompressedImage]:
    """Return a few messages of one kind with the same picture."""
    picture, _ = common.scene(WIDTH, HEIGHT)
    if kind == 'jpeg':
        coded = encode_jpeg(picture)
        return [CompressedImage(format='jpeg', data=byte_array(coded)) for _ in range(_RING)]
    made = [fill_image(Image(), picture) for _ in range(_RING)]
    for msg in made:
        msg.encoding = kind
    return made


def door(describer: RegionDescriber, count: int) -> dict[str, Any]:
    """Measure the callback for a 30 Hz stream of which the sampler keeps 10 Hz.

    Eight regions are observed five times a second, because a kept frame moves them on.

    Args:
        describer: For the node; it is not called.
        count: Images of each kind.

    Returns:
        Per kind of message, in milliseconds: the callback for kept and for other images, the
        copy from DDS to Python, and for JPEG the decoding.
    """
    results = {}
    for kind in ('rgb8', 'bgr8', 'jpeg'):
        ring = messages(kind)
        wire = serialize_message(ring[0])
        copy_s = common.repeat(partial(deserialize_message, wire, type(ring[0])), count)
        with active_node(describer, 'compressed' if kind == 'jpeg' else 'raw') as session:
            kept_s, passed_s = _callbacks(session, ring, count)
        results[kind] = {
            'kept_ms': common.scaled(kept_s, 1e3),
            'not_kept_ms': common.scaled(passed_s, 1e3),
            'dds_copy_ms': common.scaled(copy_s, 1e3),
            'message_bytes': len(wire),
        }
        if kind == 'jpeg':
            decode_s = common.repeat(partial(to_frame, ring[0], ''), max(3, count // 3))
            results[kind]['decode_in_its_thread_ms'] = common.scaled(decode_s, 1e3)
    return results


def _callbacks(
    session: Session, ring: list[Image | CompressedImage], count: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of the callback for kept images and for others."""
    camera, engine = session.cameras[0], session.engine
    compressed = isinstance(ring[0], CompressedImage)
    callback = camera._on_compressed if compressed else camera._on_raw
    _, boxes = common.scene(WIDTH, HEIGHT)
    kept_s: list[float] = []
    passed_s: list[float] = []
    for number in range(count):
        msg = ring[number % _RING]
        stamp_ns = _START_NS + number * NS_PER_S // 30
        msg.header.stamp = ns_to_stamp(stamp_ns)
        kept = engine.wants('', stamp_ns)
        began = time.perf_counter()
        callback(msg)
        (kept_s if kept else passed_s).append(time.perf_counter() - began)
        while kept and ((newest := engine.snapshot('')) is None or newest.stamp_ns < stamp_ns):
            time.sleep(0.001)  # the thread that decodes
        if number % _REGION_EVERY == 0:
            engine.add_regions(
                [
                    Region(f'r{index}', RegionKind.BOX, stamp_ns=stamp_ns, box=box)
                    for index, box in enumerate(boxes)
                ]
            )
    return kept_s, passed_s


def buffer(describer: RegionDescriber, seconds: int) -> dict[str, Any]:
    """Soak three cameras' buffers with image time, faster than it passes.

    The first half fills them; the second is what is timed.

    Args:
        describer: For the engine; it is not called.
        seconds: Of image time.
    """
    config = EngineConfig(
        cameras=('left', 'right', 'wrist'), keep_rate_hz=KEEP_RATE_HZ, describe_enabled=False
    )
    max_bytes = int(config.buffer_max_mib * 2**20) // len(config.cameras)
    buffers = {
        name: RollingBuffer(config.buffer_window_s, config.buffer_full_rate_s, max_bytes)
        for name in config.cameras
    }
    alone = _soak(
        config,
        seconds,
        lambda frame: buffers[frame.camera].append(frame),
        lambda: sum(one.nbytes for one in buffers.values()) / 2**20,
    )
    stamps = [one.view().stamps_ns for one in buffers.values()]
    period_ns = NS_PER_S / KEEP_RATE_HZ
    for one in buffers.values():
        one.clear()
    engine = Engine(
        describer, config, on_description=lambda one: None, on_answer=lambda one: None
    )
    whole = _soak(
        config,
        seconds,
        engine.add_frame,
        lambda: sum(one.buffer_mib for one in engine.stats().cameras.values()),
    )
    return {
        'cameras': len(config.cameras),
        'image_seconds': seconds,
        'max_mib': config.buffer_max_mib,
        'window_s': config.buffer_window_s,
        'frames_per_camera': min(len(one) for one in stamps),
        'reaches_back_s': min((one[-1] - one[0]) / NS_PER_S for one in stamps),
        'at_full_rate_s': min(_full_rate_s(one, period_ns) for one in stamps),
        'buffer_append': alone,
        'engine_add_frame': whole,
    }


def _full_rate_s(stamps_ns: tuple[int, ...], period_ns: float) -> float:
    """Return how far back the newest part reaches that has no gaps."""
    oldest = stamps_ns[-1]
    for stamp_ns in reversed(stamps_ns):
        if oldest - stamp_ns > 1.5 * period_ns:
            break
        oldest = stamp_ns
    return (stamps_ns[-1] - oldest) / NS_PER_S


def _soak(
    config: EngineConfig,
    seconds: int,
    add: Callable[[Frame], object],
    held_mib: Callable[[], float],
) -> dict[str, Any]:
    """Add 1280x720 frames of all cameras; return times and memory."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work freed would hide growth
    before_mib = common.rss_mib()
    taken: list[float] = []
    held: list[float] = []
    resident: list[float] = []
    count = round(seconds * KEEP_RATE_HZ)
    for number in range(count):
        stamp_ns = _START_NS + round(number * NS_PER_S / KEEP_RATE_HZ)
        for name in config.cameras:
            pixels = np.full((HEIGHT, WIDTH, 3), number % 256, np.uint8)
            frame = Frame(name, stamp_ns, pixels)
            del pixels
            began = time.perf_counter()
            add(frame)
            if number >= count // 2:
                taken.append(time.perf_counter() - began)
        held.append(held_mib())
        resident.append(common.rss_mib() - before_mib)
    return {
        'us': common.scaled(taken, 1e6),
        'held_peak_mib': max(held),
        'resident_growth_peak_mib': max(resident),
        'resident_growth_half_way_mib': resident[count // 2],
        'resident_growth_end_mib': resident[-1],
    }
