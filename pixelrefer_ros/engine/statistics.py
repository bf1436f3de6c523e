# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put the counts of the parts of an engine together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pixelrefer_ros.engine.types import EngineStats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.scheduler import Scheduler
    from pixelrefer_ros.engine.jobs import Job
    from pixelrefer_ros.engine.outbox import Outbox
    from pixelrefer_ros.engine.types import CameraStats


def collect(
    cameras: Mapping[str, CameraStats],
    scheduler: Scheduler[Job],
    outbox: Outbox,
    now_s: float,
    describer: RegionDescriber,
) -> EngineStats:
    """Return the counts of an engine, and the state of its queue.

    Args:
        cameras: Counts per camera name.
        scheduler: The queue.
        outbox: Where the results went.
        now_s: Time on the steady clock.
        describer: Says what it saw and read, and how much of that it knew.
    """
    waiting = scheduler.waiting()
    oldest_s = min((ticket.entered_s for ticket in waiting), default=math.inf)
    done, dropped, failed = outbox.counts()
    p50_ms, p95_ms = outbox.latency_ms(0.50, 0.95)
    return EngineStats(
        cameras=cameras,
        queue_depth=len(waiting),
        oldest_wait_s=max(0.0, now_s - oldest_s),
        busy=bool(scheduler.running),
        jobs_done=done,
        jobs_dropped=dropped,
        jobs_failed=failed,
        latency_p50_ms=p50_ms,
        latency_p95_ms=p95_ms,
        mean_batch=outbox.mean_batch(),
        vision=describer.vision_stats(),
        language=describer.language_stats(),
    )
