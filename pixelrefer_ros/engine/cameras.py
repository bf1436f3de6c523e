# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Join what belongs to one camera: door, buffer, regions, and when to describe them."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.region_store import RegionStore
from pixelrefer_ros.core.sampling import DoorSampler
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, PixelReferError
from pixelrefer_ros.core.video_buffer import FrameView, RollingBuffer
from pixelrefer_ros.engine.binder import Binder, wanted
from pixelrefer_ros.engine.plan import DescriptionPlan
from pixelrefer_ros.engine.texts import names_in
from pixelrefer_ros.engine.types import CameraStats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.regions import Observation
    from pixelrefer_ros.core.types import Frame, Query, Region
    from pixelrefer_ros.engine.clips import Clip
    from pixelrefer_ros.engine.guests import Guests
    from pixelrefer_ros.engine.ledger import Ledger
    from pixelrefer_ros.engine.types import EngineConfig

_MIB = 1 << 20
_LATE_NS = NS_PER_S // 2  # older than this against the newest frame is a jump of the clock


class Camera:
    """Hold the state of one camera. Not thread-safe: the engine holds its lock.

    Attributes:
        ledger: Of following its regions; None when nothing does.
        ahead_ns: Stamps of the frames that were looked at before anything was asked; ``Ahead``
            keeps them.
    """

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
            on_given=self._given,
        )
        self.ledger: Ledger | None = None
        self.ahead_ns: set[int] = set()
        self.plan = DescriptionPlan(
            round(config.describe_after_s * NS_PER_S), round(config.describe_period_s * NS_PER_S)
        )
        self.frames_in = 0
        self.frames_kept = 0
        self.jumps = 0
        self._spared: list[weakref.ref[Clip]] = []
        self._spared_ns: frozenset[int] = frozenset()

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
        if any(one() is None for one in self._spared):
            self._count_spared()
        left_ns = self.buffer.append(frame, keep=self.store.pinned() | self._spared_ns)
        self.frames_kept += 1
        return True, self.store.advance(self.buffer.view(), left_ns)

    def spare(self, clip: Clip) -> None:
        """Let thinning spare the frames of a clip for as long as somebody has the clip."""
        self._spared.append(weakref.ref(clip))
        self._count_spared()

    def _count_spared(self) -> None:
        clips = [clip for one in self._spared if (clip := one()) is not None]
        self._spared = [weakref.ref(clip) for clip in clips]
        self._spared_ns = frozenset().union(*(clip.stamps_ns for clip in clips))

    def _held_bytes(self) -> int:
        """Return the size of the frames of spared clips that are not in the buffer any more."""
        view = self.buffer.view()
        clips = [clip for one in self._spared if (clip := one()) is not None]
        frames = {frame.stamp_ns: frame for clip in clips for frame in clip.frames}
        return sum(
            frame.image.nbytes
            for stamp_ns, frame in frames.items()
            if view.at(stamp_ns) is not frame
        )

    def observations_at(self, stamp_ns: int, oldest_ns: int) -> dict[str, Observation]:
        """Return the last observation of each region by then, unless older than the oldest."""
        seen = {}
        for region_id in self.store.ids():
            for one in self.store.observations(region_id):
                if oldest_ns <= one.stamp_ns <= stamp_ns:
                    seen[region_id] = one
        return seen

    def invite(
        self, query: Query, binder: Binder, is_over: Callable[[], bool], *, roughly: bool
    ) -> Guests | None:
        """Let the regions that come with a query be followed; None when nothing follows.

        Args:
            query: The query.
            binder: Of this camera.
            is_over: As of ``Guests``.
            roughly: As of ``Guests``.

        Raises:
            PixelReferError: As ``Binder.given``.
        """
        if self.ledger is None or not query.regions:
            return None
        start_ns, end_ns = binder.window(query)
        given = [(region, binder.given(region, end_ns)) for region in query.regions]
        window = FrameView(binder.view.between(start_ns, end_ns))
        return self.ledger.invite(given, window, is_over, roughly=roughly)

    def owes(
        self, query: Query, as_of_ns: int, guests: Guests | None, *, alone: bool = False
    ) -> bool:
        """Return whether what a query looks at is still to be tracked.

        Args:
            query: The query.
            as_of_ns: The time it is about.
            guests: The regions that come with it.
            alone: It is about those alone, though the store knows them too.
        """
        if self.ledger is None:
            return False
        return self.ledger.owes(wanted(query), as_of_ns, guests, alone=alone)

    def binder(self, frames_per_region: int, *, needs_regions: bool) -> Binder:
        """Return what finds out what a query means, with the frames and regions of now."""
        return Binder(
            self.name,
            self.buffer.view(),
            self.store,
            frames_per_region,
            needs_regions,
            round(self._config.window_s * NS_PER_S),
            round(self._config.stamp_tolerance_s * NS_PER_S),
            round(self._config.pending_s * NS_PER_S),
            self.ahead_ns,
        )

    def clear(self) -> None:
        """Forget frames and regions; the counts stay."""
        self.sampler.reset()
        self.buffer.clear()
        self.store.remove()
        self.plan.clear()
        self.ahead_ns.clear()
        if self.ledger is not None:
            self.ledger.clear()

    def stats(self) -> CameraStats:
        """Return the counts and what is kept."""
        stats = CameraStats(
            frames_in=self.frames_in,
            frames_kept=self.frames_kept,
            frames_dropped=self.frames_in - self.frames_kept,
            clock_jumps=self.jumps,
            newest_stamp_ns=self.newest_ns() or 0,
            buffer_frames=len(self.buffer),
            buffer_mib=self.buffer.nbytes / _MIB,
            held_mib=self._held_bytes() / _MIB,
            regions=len(self.store.ids()),
            regions_pending=len(self.store.pending_ids()),
        )
        return stats if self.ledger is None else self.ledger.with_stats(stats)

    def _given(self, region: Region, seen: Observation, life: int) -> None:
        if self.ledger is not None:
            self.ledger.given(region, seen, life)


class Cameras:
    """Find cameras by name; '' is the only or first one unless a camera has that name."""

    def __init__(self, config: EngineConfig) -> None:
        """Make the cameras of the settings."""
        self._cameras = {name: Camera(name, config) for name in config.cameras}
        self._max_regions = config.max_regions

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

    def admit(self, frame: Frame) -> tuple[Camera, Frame]:
        """Return the camera of a frame, and the frame under the name of that camera.

        Raises:
            PixelReferError: UNKNOWN_CAMERA; BAD_REQUEST when it is no (H, W, 3) uint8 picture.
        """
        camera = self.find(frame.camera)
        shape = frame.image.shape
        if len(shape) != 3 or shape[2] != 3 or not frame.image.size or frame.image.dtype != 'u1':
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f'a frame is a (H, W, 3) uint8 picture, not {shape} {frame.image.dtype}',
            )
        if frame.camera != camera.name:
            frame = replace(frame, camera=camera.name)
        return camera, frame

    def add_regions(
        self, regions: Sequence[Region]
    ) -> tuple[list[PixelReferError | None], list[str], list[Camera]]:
        """Take in observations of regions; the engine's lock is held.

        Returns:
            One outcome per region as of ``Engine.add_regions``, what was forgotten for them, and
            the cameras they are of.
        """
        outcomes: list[PixelReferError | None] = []
        problems: list[str] = []
        views: dict[Camera, FrameView] = {}
        for region in regions:
            try:
                camera = self.find(region.camera)
                if camera not in views:
                    views[camera] = camera.buffer.view()
                evicted = camera.store.add(replace(region, camera=camera.name), views[camera])
            except PixelReferError as error:
                outcomes.append(error)
                continue
            outcomes.append(None)
            if evicted is not None:
                problems.append(
                    f"region '{evicted}' was forgotten to make room for '{region.region_id}':"
                    f' {self._max_regions} are known'
                )
        return outcomes, problems, list(views)

    def of_query(self, query: Query) -> Camera:
        """Return the camera a query is about; the engine's lock is held.

        Without a name it is the one that knows the regions it speaks of, else the first that has
        images. Regions that come with it without a name are of the only or first one, as all.

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
        first = self.find('')
        if query.regions:
            return first
        live = (one for one in self._cameras.values() if one.newest_ns() is not None)
        return first if first.newest_ns() is not None else next(live, first)
