# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow the regions of all cameras, in a thread of its own or when told to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pixelrefer_ros.engine.follower import Follower
from pixelrefer_ros.engine.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Frame, Track
    from pixelrefer_ros.engine.cameras import Camera
    from pixelrefer_ros.engine.outbox import Outbox


class Following:
    """Run the followers of the cameras; without a tracker there are none, and nothing happens.

    Live, a thread does the work, so that a model that is busy for seconds does not hold the
    regions up. In lock-step ``catch_up`` does it in the thread of the caller.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        make_tracker: Callable[[], RegionTracker] | None,
        lock: threading.Lock,
        outbox: Outbox,
        window_ns: int,
        on_tracks: Callable[[Frame, tuple[Track, ...]], None] | None,
        on_tracked: Callable[[Camera], None],
    ) -> None:
        """Give each camera a follower; nothing runs yet.

        Args:
            cameras: All of the engine.
            make_tracker: Makes the tracker of one camera; None to follow nothing.
            lock: The engine's.
            outbox: Where problems go.
            window_ns: How far back regions are followed from where they were given.
            on_tracks: Gets the tracks of every frame.
            on_tracked: Called without a lock after some of a camera's regions were followed.
        """
        self._outbox = outbox
        self._on_tracks = on_tracks
        self._on_tracked = on_tracked
        self._quit = threading.Event()
        self._more = threading.Event()
        self._thread: threading.Thread | None = None
        self._followers: dict[Camera, Follower] = {}
        if make_tracker is not None:
            for camera in cameras:
                camera.ledger = Ledger(camera, window_ns)
                self._followers[camera] = Follower(
                    camera,
                    camera.ledger,
                    make_tracker,
                    lock,
                    outbox.problem,
                    self._emit,
                )

    @property
    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, which must not run, if there is anything for it to do.

        Raises:
            RuntimeError: It cannot be started.
        """
        if not self._followers:
            return
        self._quit.clear()
        self._more.set()
        thread = threading.Thread(target=self._run, name='tracking', daemon=True)
        thread.start()
        self._thread = thread  # not before: one that never ran cannot be waited for

    def stop(self, timeout_s: float) -> bool:
        """Ask the thread to end after its frame, and wait; return whether it has ended."""
        self._quit.set()
        self._more.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def wake(self) -> None:
        """Say that there are new frames or regions."""
        self._more.set()

    def catch_up(self) -> None:
        """Do all there is to do, in the caller's thread.

        Raises:
            RuntimeError: The thread runs.
        """
        if self.alive:
            raise RuntimeError('a thread follows the regions; stop it before stepping')
        while self._work(live=False):
            pass

    def _run(self) -> None:
        while not self._quit.is_set():
            self._more.clear()
            try:
                worked = self._work(live=True)
            except BaseException as error:
                # SystemExit and its like would end the thread, and with it all tracking.
                self._outbox.problem(f'following regions raised {error!r}')
                worked = False
            if not worked:
                self._more.wait()

    def _work(self, *, live: bool) -> bool:
        """Let every camera do a little; return whether any did."""
        worked = False
        for camera, follower in self._followers.items():
            if follower.work(live=live):
                worked = True
                self._on_tracked(camera)
        return worked

    def _emit(self, frame: Frame, tracks: tuple[Track, ...]) -> None:
        if self._on_tracks is None:
            return
        try:
            self._on_tracks(frame, tracks)
        except Exception as error:
            self._outbox.problem(f'on_tracks raised {error!r}')
