# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose the frames that a describer looks at before anything is asked about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.describer import VisionStats
    from pixelrefer_ros.core.types import Frame
    from pixelrefer_ros.engine.cameras import Camera


class Ahead:
    """Offer frames, newest first. Not thread-safe: the engine holds its lock.

    A frame is worth the work when a region was seen in it that will be described, or that a
    query which waits may be about. Frames of a camera about which nothing will be asked are left
    alone; 'always' offers them too, for questions that are yet to come. A description takes a few
    frames of the window, spread over it, so no frame is offered that is nearer to another than
    those few are: ``Binder`` takes the ones that were offered. What is older than the newest
    frame is offered only while half of the feature cache is free, or it would push out what is
    newer.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        mode: str,
        window_ns: int,
        frames_per_region: int,
        vision_stats: Callable[[], VisionStats],
        will_ask: Callable[[Camera], bool],
    ) -> None:
        """Begin with nothing offered.

        Args:
            cameras: All of the engine.
            mode: 'never', 'regions' or 'always'.
            window_ns: How far back frames are looked at.
            frames_per_region: How many of them the describer wants of a region.
            vision_stats: Of the describer.
            will_ask: Returns whether something will be asked about a camera.
        """
        self._cameras = list(cameras)
        self._mode = mode
        self._window_ns = window_ns
        self._spacing_ns = max(1, window_ns // frames_per_region)
        self._vision_stats = vision_stats
        self._will_ask = will_ask

    def clear(self) -> None:
        """Count all frames as not offered: the describer has forgotten them."""
        for camera in self._cameras:
            camera.ahead_ns.clear()

    def next(self) -> Frame | None:
        """Return the frame to be looked at next; None when there is none."""
        if self._mode == 'never':
            return None
        always = self._mode == 'always'
        cameras = [one for one in self._cameras if always or self._will_ask(one)]
        newest = {camera: camera.buffer.newest() for camera in cameras}
        for camera, frame in newest.items():
            if frame is not None and self._wants(camera, frame):
                return self._offer(camera, frame)
        stats = self._vision_stats()
        if 2 * stats.held_bytes >= stats.max_bytes:
            return None
        for camera, last in newest.items():
            if last is None:
                continue
            start_ns = last.stamp_ns - self._window_ns
            for frame in reversed(camera.buffer.view().between(start_ns, last.stamp_ns)):
                if self._wants(camera, frame):
                    return self._offer(camera, frame)
        return None

    def _wants(self, camera: Camera, frame: Frame) -> bool:
        """Return whether none near a frame has been offered, and it is worth the work."""
        stamp_ns, store = frame.stamp_ns, camera.store
        if any(abs(stamp_ns - one) < self._spacing_ns for one in camera.ahead_ns):
            return False
        return self._mode == 'always' or any(store.at(i, stamp_ns) for i in store.ids())

    def _offer(self, camera: Camera, frame: Frame) -> Frame:
        """Note that a frame is offered; the other cameras go first the next time."""
        # Those a little before the window still have neighbours in it.
        oldest_ns = (camera.newest_ns() or 0) - self._window_ns - self._spacing_ns
        camera.ahead_ns -= {one for one in camera.ahead_ns if one < oldest_ns}
        camera.ahead_ns.add(frame.stamp_ns)
        self._cameras.remove(camera)
        self._cameras.append(camera)
        return frame
