# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Give those who run jobs what these need of the cameras, and take what comes of it."""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

    from pixelrefer_ros.core.scheduler import Scheduler, Ticket
    from pixelrefer_ros.core.types import Frame
    from pixelrefer_ros.engine.ahead import Ahead
    from pixelrefer_ros.engine.cameras import Cameras
    from pixelrefer_ros.engine.clips import Clip
    from pixelrefer_ros.engine.desk import Desk
    from pixelrefer_ros.engine.following import Following
    from pixelrefer_ros.engine.grounding import Found
    from pixelrefer_ros.engine.jobs import Job
    from pixelrefer_ros.engine.outbox import Outbox


class Supply:
    """Stand between the cameras and the thread that runs a job; takes the engine's lock."""

    def __init__(
        self,
        cameras: Cameras,
        desk: Desk,
        ahead: Ahead,
        following: Following,
        scheduler: Scheduler[Job],
        outbox: Outbox,
        lock: threading.Lock,
    ) -> None:
        """Join the parts.

        Args:
            cameras: All of the engine.
            desk: Settles what jobs look at.
            ahead: Chooses what is looked at while there are no jobs.
            following: Follows what was found.
            scheduler: Where the rest of a query goes.
            outbox: Where problems go.
            lock: Guards the first three.
        """
        self._cameras = cameras
        self._desk = desk
        self._ahead = ahead
        self._following = following
        self._scheduler = scheduler
        self._outbox = outbox
        self._lock = lock

    def catch_up(self) -> None:
        """Follow the regions in the caller's thread."""
        self._following.catch_up()

    def clip(self, job: Job) -> Clip | None:
        """Return what a job looks at; None when its region has gone.

        Raises:
            PixelReferError: A query waited for an image in vain.
        """
        with self._lock:
            return self._desk.prepare(job)

    def newest_ns(self, camera: str) -> int:
        """Return the stamp of the newest frame of a camera; 0 before any."""
        return self._cameras.find(camera).newest_ns() or 0

    def follow_up(self, ticket: Ticket[Job], found: Found) -> None:
        """Queue the rest of a GROUND query.

        Raises:
            PixelReferError: It was to stop.
        """
        with self._lock:
            rest, problems = self._desk.follow_up(ticket, found)
        self._following.wake()
        self._outbox.problem(*problems)
        if ticket.stop is not None:  # a cancel came between
            code, message = ticket.stop
            waiting = self._scheduler.cancel(partial(operator.is_, rest), code, message)
            self._outbox.fail(waiting, code, message)

    def next_ahead(self) -> Frame | None:
        """Return a frame to be looked at before it is asked about, each once; None for none."""
        with self._lock:
            return self._ahead.next()

    def forgotten(self) -> None:
        """Note that the describer has forgotten all frames."""
        with self._lock:
            self._ahead.clear()
