# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Join what belongs to one camera: door, buffer, regions, and when to describe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixelrefer_ros.core.region_store import RegionStore
from pixelrefer_ros.core.sampling import DoorSampler
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, PixelReferError
from pixelrefer_ros.core.video_buffer import RollingBuffer
from pixelrefer_ros.engine.clips import Binder, names_in
from pixelrefer_ros.engine.types import CameraStats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pixelrefer_ros.core.regions import Observation
    from pixelrefer_ros.core.types import Frame, Query
    from pixelrefer_ros.engine.types import EngineConfig

_MIB = 1 << 20
_LATE_NS = NS_PER_S // 2  # older than this against the newest frame is a jump of the clock


@dataclass(slots=True)
class _Plan:
    """Hold when a region is next described, and the newest observation asked about so far."""

    next_ns: int | None
    asked_ns: int | None = None


class DescriptionPlan:
    """Decide which regions are due for a description.

    A region is due ``after`` its first observation and then every ``period``, as long as there
    are observations newer than those of the description before.
    """

    def __init__(self, after_ns: int, period_ns: int) -> None:
        """Set the times; a period of 0 describes each region once."""
        self._after_ns = after_ns
        self._period_ns = period_ns
        self._plans: dict[str, _Plan] = {}

    def due(self, store: RegionStore, now_ns: int) -> list[str]:
        """Return the ids that are due, and count them as asked."""
        ids = store.ids()
        for gone in self._plans.keys() - set(ids):
            del self._plans[gone]
        due = []
        for region_id in ids:
            plan = self._plans.get(region_id)
            if plan is None:
                plan = _Plan(store.first_ns(region_id) + self._after_ns)
                self._plans[region_id] = plan
            newest_ns = store.newest(region_id).given_ns
            if plan.next_ns is None or now_ns < plan.next_ns:
                continue
            if plan.asked_ns is not None and newest_ns <= plan.asked_ns:
                continue
            plan.asked_ns = newest_ns
            plan.next_ns = now_ns + self._period_ns if self._period_ns else None
            due.append(region_id)
        return due

    def looked(self, region_id: str, newest_ns: int) -> None:
        """Note how new the newest observation was when the description began."""
        plan = self._plans.get(region_id)
        if plan is not None and plan.asked_ns is not None:
            plan.asked_ns = max(plan.asked_ns, newest_ns)

    def reopen(self, region_id: str) -> None:
        """Count a region as not asked: its description never ran."""
        if region_id in self._plans:
            self._plans[region_id] = _Plan(next_ns=0)

    def forget(self, region_ids: Iterable[str]) -> None:
        """Forget regions that were removed."""
        for region_id in region_ids:
            self._plans.pop(region_id, None)

    def clear(self) -> None:
        """Forget all regions."""
        self._plans.clear()


class Camera:
    """Hold the state of one camera. Not thread-safe: the engine holds its lock."""

    def __init__(self, name: str, config: EngineConfig) -> None:
        """Start without frames and regions."""
        self.name = name
        self._config = config
        self.sampler = DoorSampler(config.keep_rate_hz)
        self.buffer = RollingBuffer(
            config.buffer_window_s,
            config.buffer_full_rate_s,
            int(config.buffer_max_mib * _MIB) // len(config.cameras),
        )
        self.store = RegionStore(
            max_regions=config.max_regions,
            ttl_s=config.region_ttl_s,
            tolerance_s=config.stamp_tolerance_s,
            pending_s=config.pending_s,
        )
        self.plan = DescriptionPlan(
            round(config.describe_after_s * NS_PER_S), round(config.describe_period_s * NS_PER_S)
        )
        self.frames_in = 0
        self.frames_kept = 0
        self.jumps = 0

    def newest_ns(self) -> int | None:
        """Return the camera's time, the stamp of its newest kept frame; None before any."""
        newest = self.buffer.newest()
        return None if newest is None else newest.stamp_ns

    def goes_back(self, stamp_ns: int) -> bool:
        """Return whether a frame with this stamp means that time jumped back.

        A frame that is only a little older than the newest is late, as when two publishers
        share a topic or a bag was not recorded in the order of its stamps.
        """
        newest_ns = self.newest_ns()
        return newest_ns is not None and stamp_ns < newest_ns - _LATE_NS

    def wants(self, stamp_ns: int) -> bool:
        """Return whether a frame with this stamp would be kept."""
        newest_ns = self.newest_ns()
        if newest_ns is None or self.goes_back(stamp_ns):
            return True
        return stamp_ns > newest_ns and self.sampler.wants(stamp_ns)

    def keep(self, frame: Frame) -> tuple[bool, list[str]]:
        """Keep a frame that is not older than the newest, unless the sampler passes over it.

        Returns:
            Whether it was kept, and what was dropped for it and why.
        """
        if not self.wants(frame.stamp_ns):
            return False, []
        self.sampler.keep(frame.stamp_ns)
        left_ns = self.buffer.append(frame, keep=self.store.pinned())
        self.frames_kept += 1
        return True, self.store.advance(self.buffer.view(), left_ns)

    def observations_at(self, stamp_ns: int, oldest_ns: int) -> dict[str, Observation]:
        """Return the last observation of each region by then, unless older than the oldest."""
        seen = {}
        for region_id in self.store.ids():
            for one in self.store.observations(region_id):
                if oldest_ns <= one.stamp_ns <= stamp_ns:
                    seen[region_id] = one
        return seen

    def binder(self, frames_per_region: int) -> Binder:
        """Return what finds out what a query means, with the frames and regions of now."""
        return Binder(
            self.name,
            self.buffer.view(),
            self.store,
            frames_per_region,
            round(self._config.window_s * NS_PER_S),
            round(self._config.stamp_tolerance_s * NS_PER_S),
            round(self._config.pending_s * NS_PER_S),
        )

    def clear(self) -> None:
        """Forget frames and regions; the counts stay."""
        self.sampler.reset()
        self.buffer.clear()
        self.store.remove()
        self.plan.clear()

    def stats(self) -> CameraStats:
        """Return the counts and what is kept."""
        return CameraStats(
            frames_in=self.frames_in,
            frames_kept=self.frames_kept,
            frames_dropped=self.frames_in - self.frames_kept,
            clock_jumps=self.jumps,
            newest_stamp_ns=self.newest_ns() or 0,
            buffer_frames=len(self.buffer),
            buffer_mib=self.buffer.nbytes / _MIB,
            regions=len(self.store.ids()),
            regions_pending=len(self.store.pending_ids()),
        )


class Cameras:
    """Find cameras by name; '' is the only or first one unless a camera has that name."""

    def __init__(self, config: EngineConfig) -> None:
        """Make the cameras of the settings."""
        self._cameras = {name: Camera(name, config) for name in config.cameras}

    def find(self, name: str) -> Camera:
        """Return a camera by name.

        Raises:
            PixelReferError: UNKNOWN_CAMERA.
        """
        camera = self._cameras.get(name)
        if camera is None and not name:
            camera = next(iter(self._cameras.values()))
        if camera is None:
            known = ', '.join(f"'{one}'" for one in self._cameras)
            raise PixelReferError(
                ErrorCode.UNKNOWN_CAMERA, f"there is no camera '{name}'; there are: {known}"
            )
        return camera

    def choose(self, name: str | None) -> list[Camera]:
        """Return the camera of this name, or all for None.

        Raises:
            PixelReferError: UNKNOWN_CAMERA.
        """
        return list(self._cameras.values()) if name is None else [self.find(name)]

    def of_query(self, query: Query) -> Camera:
        """Return the camera a query is about; the engine's lock is held.

        Raises:
            PixelReferError: UNKNOWN_CAMERA; BAD_REQUEST when it names several.
        """
        named = [query.camera, *(region.camera for region in query.regions)]
        given = {self.find(name).name for name in named if name}
        if len(given) > 1:
            names = ', '.join(sorted(given))
            raise PixelReferError(
                ErrorCode.BAD_REQUEST, f'one question is about one camera; this one names {names}'
            )
        if given:
            return self.find(given.pop())
        wanted = set(query.region_ids or names_in(query.text))
        for camera in self._cameras.values():
            if wanted & {*camera.store.ids(), *camera.store.pending_ids()}:
                return camera
        return self.find('')
