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
    """Offer frames, each once, newest first. Not thread-safe: the engine holds its lock.

    A frame is worth the work when a region was seen in it: that region will be described from
    it, or asked about. Frames of a camera that nobody points at are left alone; 'always'
    offers them too. What is older than the newest frame is offered only while half of the
    feature cache is free, or it would push out what is newer.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        mode: str,
        window_ns: int,
        vision_stats: Callable[[], VisionStats],
    ) -> None:
        """Begin with nothing offered.

        Args:
            cameras: All of the engine.
            mode: 'never', 'regions' or 'always'.
            window_ns: How far back frames are looked at.
            vision_stats: Of the describer.
        """
        self._cameras = list(cameras)
        self._mode = mode
        self._window_ns = window_ns
        self._vision_stats = vision_stats
        self._offered: dict[str, set[int]] = {camera.name: set() for camera in cameras}

    def clear(self, cameras: Sequence[Camera]) -> None:
        """Count the frames of these cameras as not offered: their time begins anew."""
        for camera in cameras:
            self._offered[camera.name].clear()

    def next(self) -> Frame | None:
        """Return the frame to be looked at next; None when there is none."""
        if self._mode == 'never':
            return None
        newest = {camera: camera.buffer.newest() for camera in self._cameras}
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
        """Return whether a frame has not been offered, and is worth the work."""
        stamp_ns, store = frame.stamp_ns, camera.store
        return stamp_ns not in self._offered[camera.name] and (
            self._mode == 'always' or any(store.at(i, stamp_ns) for i in store.ids())
        )

    def _offer(self, camera: Camera, frame: Frame) -> Frame:
        """Note that a frame is offered; the other cameras go first the next time."""
        offered, newest_ns = self._offered[camera.name], camera.newest_ns() or 0
        offered -= {one for one in offered if one < newest_ns - self._window_ns}
        offered.add(frame.stamp_ns)
        self._cameras.remove(camera)
        self._cameras.append(camera)
        return frame
