# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Work on the jobs of one lane in a thread of its own, and sleep while there are none."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.core.scheduler import Scheduler
    from pixelrefer_ros.engine.jobs import Job

# The longest sleep with something ahead: the clock it is given need not run with the real one.
_NAP_S = 0.2


class Worker:
    """Do one thing after another between ``start`` and ``stop``."""

    def __init__(
        self,
        name: str,
        lane: str,
        work: Callable[[], bool],
        scheduler: Scheduler[Job],
        clock: Callable[[], float],
        on_problem: Callable[[str], None],
        at_end: Callable[[], None] | None = None,
    ) -> None:
        """Set what to do; nothing runs yet.

        Args:
            name: Of the thread.
            lane: Of the jobs.
            work: Does what is next; returns False when there was nothing to do.
            scheduler: Says when there may be more.
            clock: Steady seconds.
            on_problem: Told what ``work`` raised.
            at_end: Called last in the thread.
        """
        self._name = name
        self._lane = lane
        self._work = work
        self._scheduler = scheduler
        self._clock = clock
        self._on_problem = on_problem
        self._at_end = at_end
        self._quit = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, which does not run.

        Raises:
            RuntimeError: It cannot be started.
        """
        self._quit.clear()
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        self._thread = thread  # not before: one that never ran cannot be waited for

    def ask_to_end(self) -> None:
        """Have the thread end after what it is at."""
        self._quit.set()
        self._scheduler.wake()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; return whether it has, or is the one that waits."""
        if self._thread is None or self._thread is threading.current_thread():
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._quit.is_set():
            version = self._scheduler.version
            worked = False
            try:
                worked = self._work()
            except BaseException as error:
                # SystemExit and its like would end the thread, and with it all answers.
                self._on_problem(f'a job raised {error!r}')
            if not worked:
                ahead_s = self._scheduler.next_event_s(self._lane) - self._clock()
                nap_s = None if ahead_s == math.inf else min(max(ahead_s, 0.001), _NAP_S)
                self._scheduler.wait(version, nap_s)
        if self._at_end is not None:
            self._at_end()
