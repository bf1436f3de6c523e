# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Spin the node: messages in one thread, lifecycle transitions in others.

Every callback of the node is quick, so one thread moves all messages; a MultiThreadedExecutor
takes twice the processor time for the same images and loses some of them under load. Only a
transition may take long, as when it loads a model, and the state has to be told meanwhile.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    ConditionReachedException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)

if TYPE_CHECKING:
    from rclpy.context import Context

_log = logging.getLogger(__name__)

_THREADS = 3  # a transition, a second one to be refused, and a question about the state


class SlowCallbackGroup(ReentrantCallbackGroup):
    """Mark callbacks that may take long; TransportExecutor runs them in threads of their own."""


class TransportExecutor(SingleThreadedExecutor):
    """Run callbacks in the spinning thread, those of a SlowCallbackGroup in other threads."""

    def __init__(self, *, context: Context | None = None) -> None:
        """Make an executor for a context, None for the default one."""
        super().__init__(context=context)
        self._slow = ThreadPoolExecutor(_THREADS, thread_name_prefix='transition')
        self._stopping = threading.Event()

    def spin(self) -> None:
        """Run callbacks until ``stop``, ``shutdown`` or the shutdown of the context."""
        while self.context.ok() and not self._stopping.is_set():
            self.spin_once()

    def stop(self) -> None:
        """End ``spin`` once the callback that runs is done; join its thread, then shut down.

        Shutting down an executor that is still in a callback pulls away what the callback needs
        to end, and rclpy raises from ``spin``.
        """
        self._stopping.set()
        self.wake()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback and run it, or hand it to another thread.

        Args:
            timeout_sec: Longest wait [s]; None or less than 0 waits for ever.

        Raises:
            Exception: What a callback of this thread raised; that of another is logged.
        """
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(
                timeout_sec, None, self._stopping.is_set
            )
        except (ConditionReachedException, ShutdownException, TimeoutException):
            return
        except InvalidHandle:  # a transition has destroyed what was about to be waited for
            return
        if isinstance(getattr(entity, 'callback_group', None), SlowCallbackGroup):
            self._slow.submit(self._run_slow, handler)
        else:
            self._run(handler)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop spinning and wait for transitions that run.

        Args:
            timeout_sec: Longest wait for other callbacks [s]; None waits for ever.

        Returns:
            Whether all ended in time.
        """
        self.stop()
        self._slow.shutdown(wait=True, cancel_futures=True)
        return bool(super().shutdown(timeout_sec))

    def _take_waitable(self, waitable: Any) -> Any:
        """Take what a waitable has; None when a transition has destroyed it meanwhile.

        rclpy does so for all but waitables: the event of a subscription that is gone would end
        the node.
        """
        try:
            return super()._take_waitable(waitable)
        except InvalidHandle:
            return None

    @staticmethod
    def _run(handler: Any) -> None:
        handler()
        if handler.done() and handler.exception() is not None:
            raise handler.exception()

    def _run_slow(self, handler: Any) -> None:
        try:
            self._run(handler)
        except Exception:
            _log.exception('a callback failed')
