# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn queries and due regions into jobs, and take jobs back out of the queue."""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, PixelReferError, Task
from pixelrefer_ros.engine.cameras import Camera
from pixelrefer_ros.engine.jobs import SEARCH, SPEAK, DescribeJob, Job, QueryJob

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.scheduler import Scheduler, Ticket
    from pixelrefer_ros.core.types import Query
    from pixelrefer_ros.engine.binder import Binder
    from pixelrefer_ros.engine.cameras import Cameras
    from pixelrefer_ros.engine.clips import Clip
    from pixelrefer_ros.engine.grounding import Found
    from pixelrefer_ros.engine.types import EngineConfig, QueryHandle


# How long what was found may take to be followed through its window, in seconds and as a part of
# the time that is left; what there is then counts.
_FOLLOWED_WITHIN_S, _FOLLOWED_WITHIN = 10.0, 0.8
FOUND_MAX = 8
"""Regions that GROUND queries found are followed on, of each camera so many, the newest ones."""


class Desk:
    """Stand between the cameras and the queue.

    Not thread-safe: the engine holds its lock, but for ``cancel``.
    """

    def __init__(
        self,
        config: EngineConfig,
        cameras: Cameras,
        scheduler: Scheduler[Job],
        describer: RegionDescriber,
        clock: Callable[[], float],
        on_dropped: Callable[[], None],
        *,
        searches_apart: bool,
    ) -> None:
        """Open.

        Args:
            config: The settings.
            cameras: Where frames and regions come from.
            scheduler: Where the jobs go.
            describer: Says what it wants to see.
            clock: Steady seconds.
            on_dropped: Called for every description that gives way.
            searches_apart: Whether GROUND queries are looked for in a lane of their own.
        """
        self._config = config
        self._cameras = cameras
        self._scheduler = scheduler
        self._binder = partial(
            Camera.binder,
            frames_per_region=describer.frames_per_region,
            needs_regions=describer.needs_regions,
        )
        self._clock = clock
        self._on_dropped = on_dropped
        self._search_lane = SEARCH if searches_apart else SPEAK
        self._open = True
        self._found: dict[str, list[str]] = {}  # ids by camera, in the order they were found

    def open(self) -> None:
        """Take in jobs."""
        self._open = True

    def close(self, message: str) -> tuple[list[Ticket[Job]], list[Ticket[Job]]]:
        """Refuse jobs from now on, and cancel those there are.

        Returns:
            The tickets that waited, and those that run and have been asked to stop.
        """
        self._open = False
        waiting = self._scheduler.cancel(lambda _: True, ErrorCode.CANCELED, message)
        # Nothing is left to take, so the jobs that run now have been asked to stop.
        running = self._scheduler.running
        for ticket in (*waiting, *running):
            self._reopen(ticket)
        return waiting, running

    def enter(self, handle: QueryHandle, camera: Camera) -> Ticket[Job]:
        """Queue a query, held back while an image it needs is still to come or to be tracked.

        Raises:
            PixelReferError: NOT_ACTIVE, QUEUE_FULL, and those of ``Binder``.
        """
        if not self._open:
            raise PixelReferError(
                ErrorCode.NOT_ACTIVE, 'the engine is stopped; start it, then ask again'
            )
        query, now_s = handle.query, self._clock()
        deadline_s = query.deadline_s if query.deadline_s > 0 else self._config.deadline_s
        job = QueryJob(camera.name, handle, None)
        self._settle(job, camera, new=True)
        ticket, displaced = self._scheduler.put(
            job,
            now_s=now_s,
            priority=query.priority,
            deadline_s=now_s + deadline_s,
            held_until_s=-math.inf if job.clip else now_s + self._config.pending_s,
            lane=self._search_lane if job.searches else SPEAK,
        )
        if displaced is not None:
            self._on_dropped()
            self._reopen(displaced)
        return ticket

    def follow_up(
        self, ticket: Ticket[Job], found: Found
    ) -> tuple[Ticket[Job], list[str]]:
        """Have what a GROUND query found followed, and then described.

        It is known from now on like any region that was given, until ``FOUND_MAX`` newer ones
        have been found.

        Args:
            ticket: Of the query, while it runs.
            found: What it found.

        Returns:
            The ticket of the rest of the query, and what went wrong or was forgotten for the
            region.

        Raises:
            PixelReferError: The query was to stop.
        """
        if ticket.stop is not None:
            raise PixelReferError(*ticket.stop)
        assert isinstance(ticket.payload, QueryJob)
        camera = self._cameras.find(ticket.payload.camera)
        now_s = self._clock()
        left_s = ticket.deadline_s - now_s
        lost = ''
        job = QueryJob(camera.name, ticket.payload.handle, None, found=found)
        try:
            self._settle(job, camera, new=True)
        except PixelReferError as error:  # the key frame has left the buffer meanwhile
            lost = f"'{found.region.region_id}' is not followed: {error}"
            job = QueryJob(camera.name, job.handle, found.key_clip(), found=found)
        rest, _ = self._scheduler.put(
            job,
            now_s=now_s,
            priority=ticket.priority,
            deadline_s=ticket.deadline_s,
            # some of the time is for the words
            held_until_s=-math.inf
            if job.clip
            else now_s + min(_FOLLOWED_WITHIN_S, _FOLLOWED_WITHIN * left_s),
            admitted=True,
        )
        if lost:
            return rest, [lost]
        problems = self._keep_found(camera, found)
        self.queue_due(camera)
        return rest, problems

    def _keep_found(self, camera: Camera, found: Found) -> list[str]:
        """Let what was found be a region from now on; return what went wrong or was forgotten."""
        region = found.region
        self._forget_found(camera, region.region_id)
        # its life begins now, however long ago its image was
        newest_ns = camera.newest_ns() or region.stamp_ns
        late_s = (newest_ns - region.stamp_ns) / NS_PER_S
        region = replace(region, ttl_s=self._config.region_ttl_s + late_s)
        (outcome,), problems, _ = self._cameras.add_regions([region])
        if outcome is not None:
            return [f"'{region.region_id}' is not followed on: {outcome}"]
        ids = self._found.setdefault(camera.name, [])
        ids.append(region.region_id)
        if len(ids) > FOUND_MAX:
            self._forget_found(camera, ids[0])
        return problems

    def _forget_found(self, camera: Camera, region_id: str) -> None:
        """Forget what an earlier query found."""
        ids = self._found.get(camera.name, [])
        if region_id in ids:
            ids.remove(region_id)
            self.forget(camera, camera.store.remove([region_id]))

    def cancel(self, handle: QueryHandle, message: str) -> list[Ticket[Job]]:
        """Cancel one query; return its ticket when it waited. Needs no lock."""
        return self._scheduler.cancel(
            lambda t: isinstance(t.payload, QueryJob) and t.payload.handle is handle,
            ErrorCode.CANCELED,
            message,
        )

    def bind_held(self, camera: Camera) -> list[tuple[Ticket[Job], PixelReferError]]:
        """Settle the queries whose images have come and whose regions have been followed there.

        Returns:
            Those that came to nothing.
        """
        failed: list[tuple[Ticket[Job], PixelReferError]] = []
        for ticket in self._scheduler.waiting():
            job = ticket.payload
            if not isinstance(job, QueryJob) or job.clip or job.camera != camera.name:
                continue
            try:
                self._settle(job, camera, new=False)
                if job.clip is not None:
                    self._scheduler.release(ticket)
            except PixelReferError as error:
                if job.found is not None:  # its images have gone; it was found all the same
                    job.clip = job.found.key_clip()
                    self._scheduler.release(ticket)
                    continue
                is_it = partial(operator.is_, ticket)
                removed = self._scheduler.cancel(is_it, error.code, str(error))
                failed += [(one, error) for one in removed]
        return failed

    def followed(self, camera: Camera) -> list[tuple[QueryHandle, str]]:
        """Return the GROUND queries whose finds are being followed, and how far that is."""
        told = []
        for ticket in self._scheduler.waiting():
            job = ticket.payload
            if not isinstance(job, QueryJob) or job.camera != camera.name:
                continue
            if job.found is not None and job.guests is not None and job.clip is None:
                count = len(job.guests.seen(job.found.region.region_id))
                what = job.found.grounding.description
                told.append((job.handle, f'{what}, seen in {count} images so far'))
        return told

    def _settle(self, job: QueryJob, camera: Camera, *, new: bool) -> None:
        """Settle what a query looks at, unless that is still to come or to be tracked.

        Args:
            job: Of the query.
            camera: It is about.
            new: Find out now whether it can be answered, even if it has to wait.

        Raises:
            PixelReferError: It cannot be answered.
        """
        binder = self._binder(camera)
        if binder.waits(job.settled()):
            return
        job.as_of_ns = job.as_of_ns or camera.newest_ns() or 0
        query = job.settled()
        if query.task == Task.GROUND:
            job.clip = self._video(binder, camera, query)
            return
        was_found = job.found is not None
        if job.guests is None:
            job.guests = camera.invite(
                query, binder, lambda: job.handle.claimed, roughly=was_found
            )
        owed = camera.owes(query, query.stamp_ns, job.guests, alone=was_found)
        if owed and not new:
            return
        try:
            clip = binder.clip(query, job.guests)
        except PixelReferError as error:
            # The tracker may still find the region where the question is about.
            if not owed or error.code != ErrorCode.BAD_STAMP:
                job.leave_guests()
                raise
        else:
            job.clip = None if owed else clip

    def will_ask(self, camera: Camera) -> bool:
        """Return whether the describer is going to be asked about a camera."""
        return self._config.describe_enabled or any(
            ticket.payload.camera == camera.name for ticket in self._scheduler.waiting()
        )

    def queue_due(self, camera: Camera) -> None:
        """Queue the descriptions that are due."""
        newest_ns = camera.newest_ns()
        if newest_ns is None or not (self._config.describe_enabled and self._open):
            return
        for region_id in camera.plan.due(camera.store, newest_ns):
            job = DescribeJob(camera.name, region_id)
            try:
                # What gives way, if anything, is an older job of the same region: descriptions
                # rank by arrival, so this one comes after all others.
                _, replaced = self._scheduler.put(job, now_s=self._clock(), key=job)
            except PixelReferError:
                camera.plan.reopen(region_id)
                self._on_dropped()
                continue
            if replaced is not None:
                self._on_dropped()

    def forget(self, camera: Camera, region_ids: Collection[str]) -> None:
        """End the descriptions of regions that were removed."""
        camera.plan.forget(region_ids)
        jobs = {DescribeJob(camera.name, region_id) for region_id in region_ids}
        self._scheduler.cancel(lambda t: t.key in jobs, ErrorCode.CANCELED, 'region removed')

    def clear(
        self, cameras: Sequence[Camera], code: ErrorCode, message: str
    ) -> list[Ticket[Job]]:
        """Forget what cameras have seen; return the waiting jobs that end with it."""
        for camera in cameras:
            camera.clear()
            self._found.pop(camera.name, None)
        names = {camera.name for camera in cameras}
        return self._scheduler.cancel(lambda t: t.payload.camera in names, code, message)

    def prepare(self, job: Job) -> Clip | None:
        """Return what a job looks at; None when its region has gone.

        Raises:
            PixelReferError: A query waited for an image in vain.
        """
        camera = self._cameras.find(job.camera)
        binder = self._binder(camera)
        if isinstance(job, QueryJob):
            if job.clip is None:
                job.clip = self._last_clip(job, camera, binder)
                job.leave_guests()
            if job.found is not None and job.guests is not None:
                job.track = tuple(job.guests.seen(job.found.region.region_id))
            return job.clip
        clip = binder.region_clip(job.region_id)
        if clip is not None:
            camera.plan.looked(job.region_id, camera.store.newest(job.region_id).given_ns)
        return clip

    def _video(self, binder: Binder, camera: Camera, query: Query) -> Clip:
        """Return the frames of a GROUND query's window, and keep them.

        The model takes seconds, and the tracker wants them after that.
        """
        video = binder.video(query)
        camera.spare(video)
        return video

    def _last_clip(self, job: QueryJob, camera: Camera, binder: Binder) -> Clip:
        """Return what a query looks at that has waited long enough."""
        query = job.settled()
        if query.task == Task.GROUND:
            return self._video(binder, camera, query)
        try:
            return binder.clip(query, job.guests)
        except PixelReferError:
            if job.found is None:
                raise
            return job.found.key_clip()

    def _reopen(self, ticket: Ticket[Job]) -> None:
        """Let a description that never ran be due again."""
        job = ticket.payload
        if isinstance(job, DescribeJob):
            self._cameras.find(job.camera).plan.reopen(job.region_id)
