# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Remember what was seen of the regions that came with a query, for that query alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixelrefer_ros.core.regions import Observation

_LIFE = 0


class Book(Protocol):
    """Say what followed regions are entered in: a ``RegionStore``, or ``Guests``."""

    def life(self, region_id: str) -> int | None:
        """Return which region this is now; None when there is none."""
        ...

    def at(self, region_id: str, stamp_ns: int) -> Observation | None:
        """Return what is known of a region in a frame."""
        ...

    def track(self, region_id: str, stamp_ns: int, seen: Observation | None) -> None:
        """Enter what a tracker saw of a region in a frame."""
        ...


class Guests:
    """Hold the observations of the regions of one query. Not thread-safe.

    Attributes:
        roughly: Whether the tracker's outlines count more than those given.
    """

    def __init__(
        self,
        given: Iterable[tuple[str, Observation]],
        is_over: Callable[[], bool],
        *,
        roughly: bool = False,
    ) -> None:
        """Take in what was given.

        Args:
            given: Ids, and where the regions are.
            is_over: Whether the query has its answer, an error or a cancel included.
            roughly: What the tracker makes of what was given counts more than that.
        """
        self._open = True
        self._is_over = is_over
        self.roughly = roughly
        self._seen: dict[str, dict[int, Observation]] = {}
        for region_id, seen in given:
            self._seen.setdefault(region_id, {})[seen.stamp_ns] = seen

    def close(self) -> None:
        """Take in no more: the query has what it looks at."""
        self._open = False

    def life(self, region_id: str) -> int | None:
        """Return a number while the region is to be followed."""
        wanted = self._open and region_id in self._seen and not self._is_over()
        return _LIFE if wanted else None

    def at(self, region_id: str, stamp_ns: int) -> Observation | None:
        """Return what is known of a region in a frame."""
        return self._seen[region_id].get(stamp_ns)

    def track(self, region_id: str, stamp_ns: int, seen: Observation | None) -> None:
        """Enter what a tracker saw of a region in a frame.

        What was given there stands, unless it was given roughly.
        """
        if seen is not None:
            known = self._seen[region_id].setdefault(stamp_ns, seen)
            if self.roughly and not known.tracked:
                self._seen[region_id][stamp_ns] = seen

    def seen(self, region_id: str) -> list[Observation]:
        """Return all that is known of a region, oldest first."""
        known = self._seen.get(region_id, {})
        return [known[stamp_ns] for stamp_ns in sorted(known)]

    def tracked(self, region_id: str) -> list[Observation]:
        """Return what a tracker saw of a region."""
        return [one for one in self._seen.get(region_id, {}).values() if one.tracked]
