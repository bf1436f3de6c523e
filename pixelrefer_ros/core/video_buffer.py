# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep the last seconds of one camera, within a number of bytes."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import deque
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Collection

    from pixelrefer_ros.core.types import Frame

# Frames that have left the full-rate part are kept this far apart, or farther when the bytes
# do not allow it.
THINNED_PERIOD_S = 1.0


class FrameView:
    """Show the frames of a buffer as they were at one moment; it never changes."""

    __slots__ = ('frames', 'stamps_ns')

    def __init__(self, frames: tuple[Frame, ...]) -> None:
        """Show these frames, stamps strictly ascending."""
        self.frames = frames
        self.stamps_ns = tuple(frame.stamp_ns for frame in frames)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def __contains__(self, stamp_ns: object) -> bool:
        """Return whether there is a frame with exactly this stamp."""
        return isinstance(stamp_ns, int) and self.at(stamp_ns) is not None

    def newest(self) -> Frame | None:
        """Return the newest frame; None when there is none."""
        return self.frames[-1] if self.frames else None

    def at(self, stamp_ns: int) -> Frame | None:
        """Return the frame with exactly this stamp; None when there is none."""
        index = bisect_left(self.stamps_ns, stamp_ns)
        if index < len(self.frames) and self.stamps_ns[index] == stamp_ns:
            return self.frames[index]
        return None

    def nearest(self, stamp_ns: int, tolerance_ns: int | None = None) -> Frame | None:
        """Return the frame nearest in time, the older one on a tie.

        Args:
            stamp_ns: Image time.
            tolerance_ns: Return None when the nearest is farther away than this.
        """
        index = bisect_left(self.stamps_ns, stamp_ns)
        around = self.frames[max(0, index - 1) : index + 1]
        if not around:
            return None
        frame = min(around, key=lambda f: abs(f.stamp_ns - stamp_ns))
        if tolerance_ns is not None and abs(frame.stamp_ns - stamp_ns) > tolerance_ns:
            return None
        return frame

    def at_or_before(self, stamp_ns: int) -> Frame | None:
        """Return the newest frame that is not after this time; None when there is none."""
        index = bisect_right(self.stamps_ns, stamp_ns)
        return self.frames[index - 1] if index else None

    def between(self, start_ns: int, end_ns: int) -> tuple[Frame, ...]:
        """Return the frames from start to end, both included, oldest first."""
        return self.frames[
            bisect_left(self.stamps_ns, start_ns) : bisect_right(self.stamps_ns, end_ns)
        ]


class RollingBuffer:
    """Keep the frames of one camera for some seconds and within some bytes.

    The newest seconds are kept whole. Frames that grow older than that are thinned to one per
    ``THINNED_PERIOD_S``, or fewer when the bytes need it, so that what is left reaches back to
    the start of the window instead of ending in a hole there. For the same reason the last
    frame before the start of the window stays until the next one has passed the start too,
    unless it is more than two windows old.

    Appending moves a bounded number of references on average; pictures are neither copied nor
    looked at under the lock. All methods may be called from any thread.
    """

    def __init__(self, window_s: float, full_rate_s: float, max_bytes: int) -> None:
        """Set the limits.

        Args:
            window_s: How far back frames are kept.
            full_rate_s: The newest seconds, kept whole. They may fill half of the bytes; what
                is more counts as older.
            max_bytes: Size of all pictures together. The newest frame stays even if it alone
                is larger.
        """
        self._window_ns = round(window_s * NS_PER_S)
        self._full_ns = min(round(full_rate_s * NS_PER_S), self._window_ns)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._recent: deque[Frame] = deque()
        self._older: deque[Frame] = deque()
        self._recent_bytes = 0
        self._older_bytes = 0

    def append(self, frame: Frame, *, keep: Collection[int] = frozenset()) -> list[int]:
        """Add the newest frame, and thin and drop older ones.

        The picture is marked read-only.

        Args:
            frame: A frame newer than all in the buffer.
            keep: Stamps that thinning spares. They still go when the window or the bytes say
                so.

        Returns:
            The stamps of the frames that left.

        Raises:
            ValueError: The frame is not newer than the newest.
        """
        frame.image.flags.writeable = False
        left: list[int] = []
        with self._lock:
            newest = self._newest()
            if newest is not None and frame.stamp_ns <= newest.stamp_ns:
                raise ValueError(
                    f'frame {frame.stamp_ns} is not newer than {newest.stamp_ns}; clear first'
                )
            self._recent.append(frame)
            self._recent_bytes += frame.image.nbytes
            self._thin(frame.stamp_ns, keep, left)
            self._drop(frame.stamp_ns, left)
        return left

    def view(self) -> FrameView:
        """Return the frames that are in the buffer now, oldest first."""
        with self._lock:
            frames = (*self._older, *self._recent)
        return FrameView(frames)

    def newest(self) -> Frame | None:
        """Return the newest frame; None when the buffer is empty."""
        with self._lock:
            return self._newest()

    def clear(self) -> None:
        """Forget all frames."""
        with self._lock:
            self._recent.clear()
            self._older.clear()
            self._recent_bytes = self._older_bytes = 0

    @property
    def nbytes(self) -> int:
        """Return the size of all pictures together, in bytes."""
        with self._lock:
            return self._recent_bytes + self._older_bytes

    def __len__(self) -> int:
        """Return the number of frames."""
        with self._lock:
            return len(self._recent) + len(self._older)

    def _newest(self) -> Frame | None:
        return self._recent[-1] if self._recent else None

    def _thin(self, newest_ns: int, keep: Collection[int], left: list[int]) -> None:
        """Move what is no longer recent to the older part, or drop it when it is too close."""
        while len(self._recent) > 1 and (
            newest_ns - self._recent[0].stamp_ns > self._full_ns
            or self._recent_bytes > self._max_bytes // 2
        ):
            frame = self._recent.popleft()
            nbytes = frame.image.nbytes
            self._recent_bytes -= nbytes
            # As many frames of this size as fit into the bytes that the recent ones leave, spread
            # over the rest of the window. One more is for the frame before the window's start.
            span_ns = self._window_ns - (newest_ns - self._recent[0].stamp_ns)
            room = max(1, (self._max_bytes - self._recent_bytes) // nbytes - 1)
            period_ns = max(round(THINNED_PERIOD_S * NS_PER_S), span_ns // room)
            if (
                not self._older
                or frame.stamp_ns - self._older[-1].stamp_ns >= period_ns
                or frame.stamp_ns in keep
            ):
                self._older.append(frame)
                self._older_bytes += nbytes
            else:
                left.append(frame.stamp_ns)

    def _drop(self, newest_ns: int, left: list[int]) -> None:
        """Drop what is before the window, and the oldest frames while the bytes are too many."""
        start_ns = newest_ns - self._window_ns
        while self._older:
            second = self._older[1] if len(self._older) > 1 else self._recent[0]
            covered = second.stamp_ns <= start_ns
            ancient = self._older[0].stamp_ns < start_ns - self._window_ns
            if not (
                covered or ancient or self._recent_bytes + self._older_bytes > self._max_bytes
            ):
                break
            frame = self._older.popleft()
            self._older_bytes -= frame.image.nbytes
            left.append(frame.stamp_ns)
