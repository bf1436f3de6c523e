# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take in one camera's images, raw or compressed, and count what happens to them.

A raw image is converted in its callback: for the usual encodings that is a view or one pass over
the pixels, less than handing it to another thread and back. A compressed one takes milliseconds
to decode, so the callback only puts it into a short queue and a thread of the camera decodes it
(OpenCV lets go of the interpreter lock meanwhile). Order is kept; when the thread falls behind,
the oldest waiting image gives way and is counted. Neither path touches the pixels of an image
that the sampler would not keep: the engine is asked first, and again before decoding, because
an image decoded in between may have taken its place.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import CompressedImage, Image

from pixelrefer_ros.core.types import PixelReferError
from pixelrefer_ros.node import qos
from pixelrefer_ros.node.images import stamp_to_ns, to_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from rclpy.subscription import Subscription

    from pixelrefer_ros.core.types import Frame

_RATE_WINDOW_S = 5.0
_WAITING_MAX = 4  # compressed images; at 30 Hz more than 0.1 s of patience


@dataclass(frozen=True, slots=True)
class CameraReport:
    """Say how a camera's input is doing.

    Attributes:
        topic: Resolved topic, of the transport in use or waited for.
        publishers: How many publish it.
        received: Messages that came.
        kept: Frames that went into the buffer.
        bad: Messages refused.
        behind: Compressed images given up because decoding fell behind.
        lost: Messages the middleware lost.
        rate_hz: Messages per second of wall time, lately.
        age_s: Wall time since the newest message; None before the first.
        last_bad: Why the last bad message was refused.
        mismatch: Why a publisher's messages do not arrive; '' when they do.
    """

    topic: str
    publishers: int
    received: int
    kept: int
    bad: int
    behind: int
    lost: int
    rate_hz: float
    age_s: float | None
    last_bad: str
    mismatch: str


class CameraInput:
    """Subscribe to one camera and offer its frames, until closed."""

    def __init__(
        self,
        node: Node,
        camera: str,
        transport: str,
        *,
        wants: Callable[[str, int], bool],
        offer: Callable[[Frame], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Subscribe.

        Args:
            node: The node to subscribe with.
            camera: Camera name, '' for the only one.
            transport: 'raw', 'compressed' or 'auto'.
            wants: Whether an image of (camera, stamp [ns]) would be kept.
            offer: Takes a frame; returns whether it was kept.
            clock: Steady seconds.
        """
        self.camera = camera
        self.started_s = clock()
        self._node = node
        self._transport = transport
        self._wants = wants
        self._offer = offer
        self._clock = clock
        self._log = node.get_logger().get_child(f'camera.{camera.replace("/", ".")}'.rstrip('.'))
        self._group = MutuallyExclusiveCallbackGroup()  # keeps a camera's images in order
        self._lock = threading.Lock()
        self._arrivals: deque[float] = deque(maxlen=1024)
        self._received = self._kept = self._bad = self._behind = self._lost = 0
        self._last_bad = self._mismatch = ''
        self._waiting: deque[CompressedImage] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._decoder: threading.Thread | None = None
        self._subscription: Subscription | None = None
        self._raw_topic, self._compressed_topic = _topics(node, camera)
        self._compressed = transport == 'compressed'
        if transport == 'auto':
            self.choose()
        else:
            self._subscribe()

    @property
    def topic(self) -> str:
        """Return the resolved topic in use, or waited for."""
        return self._compressed_topic if self._compressed else self._raw_topic

    def choose(self) -> None:
        """With transport 'auto', follow what is published; call it now and then."""
        if self._transport != 'auto' or self._closing:
            return
        raw = self._node.count_publishers(self._raw_topic)
        compressed = self._node.count_publishers(self._compressed_topic)
        if not (raw or compressed):
            return
        wanted = not raw
        in_use = compressed if self._compressed else raw
        if self._subscription is not None and (in_use or wanted == self._compressed):
            return
        self._unsubscribe()
        self._compressed = wanted
        self._subscribe()

    def report(self) -> CameraReport:
        """Return how the input is doing."""
        publishers = self._node.count_publishers(self.topic)
        now = self._clock()
        with self._lock:
            recent = [arrival for arrival in self._arrivals if now - arrival <= _RATE_WINDOW_S]
            span = min(_RATE_WINDOW_S, max(now - self.started_s, 1e-9))
            return CameraReport(
                topic=self.topic,
                publishers=publishers,
                received=self._received,
                kept=self._kept,
                bad=self._bad,
                behind=self._behind,
                lost=self._lost,
                rate_hz=len(recent) / span,
                age_s=now - self._arrivals[-1] if self._arrivals else None,
                last_bad=self._last_bad,
                mismatch=self._mismatch,
            )

    def silent_s(self) -> float:
        """Return the wall time since the newest message, or since the start."""
        with self._lock:
            return self._clock() - (self._arrivals[-1] if self._arrivals else self.started_s)

    def close(self) -> None:
        """Stop receiving and decoding; images that wait are dropped."""
        self._closing = True
        self._unsubscribe()
        with self._wake:
            self._wake.notify_all()
        if self._decoder is not None:
            self._decoder.join()

    def _subscribe(self) -> None:
        self._subscription = qos.subscribe(
            self._node,
            CompressedImage if self._compressed else Image,
            self.topic,
            self._on_compressed if self._compressed else self._on_raw,
            qos.image_input(),
            self._group,
            on_mismatch=self._on_mismatch,
            on_lost=self._on_lost,
        )
        if self._compressed and self._decoder is None:
            decoder = threading.Thread(
                target=self._decode, name=f'decode {self.camera or "image"}', daemon=True
            )
            decoder.start()
            self._decoder = decoder  # not before: one that never ran cannot be waited for
        self._log.info(f'listening to {self.topic}')

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_raw(self, msg: Image) -> None:
        if self._admit(msg):
            self._take(msg)

    def _on_compressed(self, msg: CompressedImage) -> None:
        if not self._admit(msg):
            return
        with self._wake:
            self._waiting.append(msg)
            fell_behind = len(self._waiting) > _WAITING_MAX
            if fell_behind:
                self._waiting.popleft()
            self._wake.notify()
        if fell_behind:
            with self._lock:
                self._behind += 1

    def _decode(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                msg = self._waiting.popleft()
            # Frames that came before it may have settled meanwhile that it is not kept.
            self._take(msg, again=True)

    def _admit(self, msg: Image | CompressedImage) -> bool:
        """Count a message; return whether its frame would be kept."""
        stamp_ns = stamp_to_ns(msg.header.stamp)
        with self._lock:
            self._received += 1
            self._arrivals.append(self._clock())
            self._mismatch = ''  # messages do arrive
        if stamp_ns <= 0:
            self._refuse('image without a stamp: fill header.stamp in the camera driver')
            return False
        return not self._closing and self._wanted(stamp_ns)

    def _wanted(self, stamp_ns: int) -> bool:
        """Return whether a frame would be kept; never raise."""
        try:
            return self._wants(self.camera, stamp_ns)
        except Exception as error:  # a callback must not end the node
            self._refuse(f'image cannot be taken in ({type(error).__name__}: {error})')
            return False

    def _take(self, msg: Image | CompressedImage, *, again: bool = False) -> None:
        """Convert a message and offer the frame, asking ``again`` whether it is wanted."""
        if again and not self._wanted(stamp_to_ns(msg.header.stamp)):
            return
        try:
            kept = self._offer(to_frame(msg, self.camera))
        except (ValueError, PixelReferError) as error:
            self._refuse(str(error))
            return
        except Exception as error:  # a callback must not end the node
            self._refuse(f'image cannot be taken in ({type(error).__name__}: {error})')
            return
        if kept:
            with self._lock:
                self._kept += 1

    def _refuse(self, reason: str) -> None:
        with self._lock:
            self._bad += 1
            self._last_bad = reason
        self._log.warning(f'{self.topic}: {reason}', throttle_duration_sec=5.0)

    def _on_mismatch(self, explanation: str) -> None:
        with self._lock:
            self._mismatch = explanation
        self._log.warning(explanation)

    def _on_lost(self, count: int) -> None:
        with self._lock:
            self._lost += count


def _topics(node: Node, camera: str) -> tuple[str, str]:
    """Return the resolved topics of raw and compressed images.

    As with image_transport, the compressed topic follows a remapped raw one, unless it is
    remapped itself.
    """
    base = f'{camera}/image' if camera else 'image'
    compressed = f'{base}/compressed'
    raw = node.resolve_topic_name(base)
    resolved = node.resolve_topic_name(compressed)
    if resolved == node.resolve_topic_name(compressed, only_expand=True):
        resolved = f'{raw}/compressed'
    return raw, resolved
