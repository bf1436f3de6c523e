# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Show what an engine knows of its cameras, to those who list or draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import NS_PER_S

if TYPE_CHECKING:
    import threading

    from pixelrefer_ros.core.types import Frame, Mask, Region, Track
    from pixelrefer_ros.engine.cameras import Cameras


class Views:
    """Show frames, regions and tracks as they are now; a part of ``Engine``."""

    def __init__(self, cameras: Cameras, lock: threading.Lock) -> None:
        """Look at cameras.

        Args:
            cameras: All of the engine.
            lock: Guards them.
        """
        self._cameras = cameras
        self._lock = lock

    def list_regions(self, camera: str | None = None) -> list[Region]:
        """Return the known regions as they were given last, with the stamps of their frames.

        Args:
            camera: Of which camera; None means all, '' the only or first.

        Raises:
            PixelReferError: UNKNOWN_CAMERA.
        """
        cameras = self._cameras.choose(camera)
        with self._lock:
            return [state.store.region(i) for state in cameras for i in state.store.ids()]

    def tracks(self, camera: str) -> tuple[Track, ...]:
        """Return where the regions of a camera are in the frame the tracker has come to.

        None of a region that is not followed, or still being caught up with.

        Raises:
            PixelReferError: UNKNOWN_CAMERA.
        """
        state = self._cameras.find(camera)
        with self._lock:
            return () if state.ledger is None else state.ledger.tracks()

    def snapshot(self, camera: str) -> Frame | None:
        """Return the newest kept frame of a camera; None before any.

        Raises:
            PixelReferError: UNKNOWN_CAMERA.
        """
        return self._cameras.find(camera).buffer.newest()

    def regions_at(
        self, camera: str, stamp_ns: int, *, max_age_s: float = 0.5
    ) -> dict[str, Mask]:
        """Return the masks of the regions at a time, by id, to draw them.

        Args:
            camera: Name of the camera.
            stamp_ns: Image time.
            max_age_s: How much older than that the last observation may be. Detectors lag
                behind the image, so this is not 0.

        Raises:
            PixelReferError: UNKNOWN_CAMERA.
        """
        state = self._cameras.find(camera)
        with self._lock:
            seen = state.observations_at(stamp_ns, stamp_ns - round(max_age_s * NS_PER_S))
        return {region_id: one.mask for region_id, one in seen.items()}
