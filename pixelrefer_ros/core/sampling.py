# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose frames: which ones the door lets in, and which ones of a window a model sees."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# Camera stamps jitter. A frame that comes this part of a period early still counts as due, or
# a 10 Hz camera at a rate of 10 Hz would lose every frame that comes a microsecond early.
_EARLY = 0.25


class DoorSampler:
    """Keep a steady number of frames per second of image time.

    The rate holds on average: the next due time moves on by whole periods and does not slip
    with the frames that happen to be kept.
    """

    def __init__(self, rate_hz: float) -> None:
        """Set the rate in frames per second; 0 keeps every frame."""
        self._period_ns = round(NS_PER_S / rate_hz) if rate_hz > 0 else 0
        self._due_ns: int | None = None

    def wants(self, stamp_ns: int) -> bool:
        """Return whether a frame with this stamp would be kept."""
        if self._due_ns is None:
            return True
        return stamp_ns >= self._due_ns - round(self._period_ns * _EARLY)

    def keep(self, stamp_ns: int) -> bool:
        """Return whether to keep the frame with this stamp, and move on when it is kept.

        Args:
            stamp_ns: Image time, never less than that of the call before; ``reset`` first when
                time jumps back.
        """
        if not self.wants(stamp_ns):
            return False
        due_ns = stamp_ns if self._due_ns is None else self._due_ns
        if stamp_ns - due_ns >= self._period_ns:
            due_ns = stamp_ns
        self._due_ns = due_ns + self._period_ns
        return True

    def reset(self) -> None:
        """Forget the past: the next frame is kept."""
        self._due_ns = None


def spread(
    stamps_ns: Sequence[int], count: int, *, prefer: Collection[int] = frozenset()
) -> tuple[int, ...]:
    """Choose stamps spread evenly over time, the newest always among them.

    Args:
        stamps_ns: What there is to choose from, strictly ascending.
        count: How many to choose at most, at least 1.
        prefer: Stamps to choose where they are near enough to an even spread, so that several
            regions share frames.

    Returns:
        ``min(count, len(stamps_ns))`` stamps, ascending.
    """
    total = len(stamps_ns)
    if total <= count:
        return tuple(stamps_ns)
    first, last = stamps_ns[0], stamps_ns[-1]
    gaps = max(1, count - 1)
    chosen = [total - 1]
    for i in range(count - 2, -1, -1):
        target = first + (last - first) * i // gaps
        # Leave i older ones for the targets still to come.
        low, high = i, chosen[-1]
        index = _nearest(stamps_ns, target, low, high)
        if stamps_ns[index] not in prefer:
            near = (last - first) // (2 * gaps)
            shared = [
                j
                for j in range(low, high)
                if stamps_ns[j] in prefer and abs(stamps_ns[j] - target) <= near
            ]
            if shared:
                index = min(shared, key=lambda j: abs(stamps_ns[j] - target))
        chosen.append(index)
    return tuple(stamps_ns[i] for i in reversed(chosen))


def _nearest(stamps_ns: Sequence[int], target: int, low: int, high: int) -> int:
    """Return the index in [low, high) of the stamp nearest to the target, the older on a tie."""
    index = bisect_left(stamps_ns, target, low, high)
    if index == high:
        return high - 1
    if index > low and target - stamps_ns[index - 1] <= stamps_ns[index] - target:
        return index - 1
    return index
