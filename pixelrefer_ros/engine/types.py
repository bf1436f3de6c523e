# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold the settings of the engine, its statistics, and the handles of queries."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pixelrefer_ros.core.describer import LanguageStats, VisionStats

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pixelrefer_ros.core.types import Answer, Query

LOOK_AHEAD = ('never', 'regions', 'always')


def _check(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise ValueError, naming the range, unless ``low <= value <= high`` and finite."""
    if not (math.isfinite(value) and low <= value <= high):
        limit = f'at least {low:g}' if high == math.inf else f'from {low:g} to {high:g}'
        raise ValueError(f'{name} is {value!r}; it must be {limit}')


@dataclass(frozen=True)
class EngineConfig:
    """Set up an engine; windows and periods are image time, deadlines the steady clock.

    Attributes:
        cameras: Camera names, at least one; '' is a name too, that of the only camera.
        keep_rate_hz: Frames kept per second of image time and camera; 0 keeps all.
        buffer_window_s: How far back frames are kept.
        buffer_full_rate_s: The newest seconds, which are not thinned.
        buffer_max_mib: Memory for the frames of all cameras together, split evenly.
        window_s: How far back descriptions and queries look when a query does not say.
        ground_window_s: How far back a GROUND query looks when it does not say.
        describe_enabled: Whether regions are described unasked.
        describe_after_s: How long a new region is watched before its first description.
        describe_period_s: Time between descriptions of a region; 0 describes it once.
        region_ttl_s: How long a region is known after it was given or seen last.
        max_regions: Regions known at a time, per camera.
        queue_size: Jobs that may wait, and as many again for a remote grounder. The rest of a
            GROUND query, once its thing is found, is none of them.
        max_batch: How many regions and questions the describer is asked about together; 1 for
            one at a time. Live, what has to see more joins only as far as ``Pace`` has room.
        look_ahead: What is encoded while nothing is asked, live only: 'never' nothing,
            'regions' some of the frames in which a region is seen that will be asked about,
            'always' some of all that are kept.
        deadline_s: How long a query may take when it does not say, and a description may run.
        stamp_tolerance_s: How far the stamp of a region may be from that of a kept frame.
        pending_s: How far ahead of the newest frame a region or query may be, and how long a
            query waits for that frame, and for the tracker.
        record_timings: False leaves all timings of the results 0, so that two replays of one
            bag give the same bytes.

    Raises:
        ValueError: A value is out of range; the message says the range.
    """

    cameras: tuple[str, ...] = ('',)
    keep_rate_hz: float = 10.0
    buffer_window_s: float = 60.0
    buffer_full_rate_s: float = 10.0
    buffer_max_mib: float = 512.0
    window_s: float = 2.0
    ground_window_s: float = 8.0
    describe_enabled: bool = True
    describe_after_s: float = 1.0
    describe_period_s: float = 2.0
    region_ttl_s: float = 30.0
    max_regions: int = 64
    queue_size: int = 64
    max_batch: int = 8
    look_ahead: str = 'regions'
    deadline_s: float = 30.0
    stamp_tolerance_s: float = 0.05
    pending_s: float = 0.5
    record_timings: bool = True

    def __post_init__(self) -> None:
        """Check every value."""
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f'cameras is {self.cameras!r}; give at least one, each name once')
        _check('keep_rate_hz', self.keep_rate_hz, 0.0, 1000.0)
        _check('buffer_window_s', self.buffer_window_s, 0.1, 86400.0)
        _check('buffer_full_rate_s', self.buffer_full_rate_s, 0.0, 86400.0)
        _check('buffer_max_mib', self.buffer_max_mib, 1.0)
        _check('window_s', self.window_s, 0.0, 86400.0)
        _check('ground_window_s', self.ground_window_s, 0.001, 86400.0)
        _check('describe_after_s', self.describe_after_s, 0.0, 86400.0)
        _check('describe_period_s', self.describe_period_s, 0.0, 86400.0)
        _check('region_ttl_s', self.region_ttl_s, 0.001)
        _check('max_regions', self.max_regions, 1, 10_000)
        _check('queue_size', self.queue_size, 1, 100_000)
        _check('max_batch', self.max_batch, 1, 1024)
        if self.look_ahead not in LOOK_AHEAD:
            raise ValueError(
                f'look_ahead is {self.look_ahead!r}; it must be one of {", ".join(LOOK_AHEAD)}'
            )
        _check('deadline_s', self.deadline_s, 0.001)
        _check('stamp_tolerance_s', self.stamp_tolerance_s, 0.0, 3600.0)
        _check('pending_s', self.pending_s, 0.0, 3600.0)


@dataclass(frozen=True, slots=True)
class CameraStats:
    """Count what one camera brought.

    Attributes:
        frames_in: Frames offered to ``add_frame``.
        frames_kept: Those that went into the buffer.
        frames_dropped: Those the door sampler passed over, and repeated stamps.
        clock_jumps: Times its stamps went back.
        newest_stamp_ns: Stamp of the newest frame in the buffer; 0 when it is empty.
        buffer_frames: Frames in the buffer.
        buffer_mib: Their size.
        held_mib: Size of frames beside those, which GROUND queries under way still hold.
        regions: Regions known.
        regions_pending: Observations that wait for their image.
        frames_tracked: Frames in which regions were followed.
        tracking_lag_frames: Kept frames the tracker has not come to yet.
        tracking_ms_p50: Median time the tracker took for one of the last 256 frames, all of its
            regions together.
    """

    frames_in: int = 0
    frames_kept: int = 0
    frames_dropped: int = 0
    clock_jumps: int = 0
    newest_stamp_ns: int = 0
    buffer_frames: int = 0
    buffer_mib: float = 0.0
    held_mib: float = 0.0
    regions: int = 0
    regions_pending: int = 0
    frames_tracked: int = 0
    tracking_lag_frames: int = 0
    tracking_ms_p50: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Count what the engine did since it was made.

    Attributes:
        cameras: Per camera name.
        queue_depth: Jobs that wait.
        oldest_wait_s: How long the first of them to come has waited; 0 when none waits.
        busy: Whether jobs run.
        jobs_done: Descriptions and answers delivered without an error.
        jobs_dropped: Descriptions that gave way to a newer one or to a full queue.
        jobs_failed: Descriptions and queries that ended with an error, refused, timed-out and
            canceled queries included.
        latency_p50_ms: Median time from queue entry to result of the last 256 jobs done.
        latency_p95_ms: 95th percentile of the same.
        mean_batch: How many things the last 256 calls of the describer asked on average.
        vision: What the describer encoded, and what it did not have to.
        language: What it read, and what it did not have to.
    """

    cameras: Mapping[str, CameraStats] = field(default_factory=dict)
    queue_depth: int = 0
    oldest_wait_s: float = 0.0
    busy: bool = False
    jobs_done: int = 0
    jobs_dropped: int = 0
    jobs_failed: int = 0
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    mean_batch: float = 0.0
    vision: VisionStats = field(default_factory=VisionStats)
    language: LanguageStats = field(default_factory=LanguageStats)


class QueryHandle:
    """Follow one submitted query; ``Engine.submit`` makes it."""

    def __init__(
        self,
        query: Query,
        on_answer: Callable[[Answer], None],
        on_progress: Callable[[str, str, int], None] | None,
        cancel: Callable[[QueryHandle], None],
    ) -> None:
        """Keep where the results go; ``cancel`` is called with this handle."""
        self.query = query
        self.on_answer = on_answer
        self.on_progress = on_progress
        self._cancel = cancel
        self._lock = threading.Lock()
        self._claimed = False
        self._done = threading.Event()

    @property
    def query_id(self) -> str:
        """Return the id its answer carries."""
        return self.query.query_id

    @property
    def done(self) -> bool:
        """Return whether the answer has been delivered."""
        return self._done.is_set()

    def cancel(self) -> None:
        """Ask for it to end with CANCELED; does nothing once it is answered."""
        self._cancel(self)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the answer has been delivered; return whether it has.

        Args:
            timeout_s: Longest wait; None waits for ever.
        """
        return self._done.wait(timeout_s)

    @property
    def claimed(self) -> bool:
        """Return whether an answer is delivered or on its way."""
        return self._claimed

    def claim(self) -> bool:
        """Win the right to answer; True for the first caller only."""
        with self._lock:
            won = not self._claimed
            self._claimed = True
        return won

    def mark_done(self) -> None:
        """Note that the answer has been delivered."""
        self._done.set()
