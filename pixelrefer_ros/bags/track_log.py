# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep the tracks of a run small, and look them up by time."""

from __future__ import annotations

import bisect
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pixelrefer_ros.core.types import Box, Mask, Track, TrackState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pixelrefer_ros.bags.reading import Tracks

_HIDDEN = (TrackState.OCCLUDED, TrackState.LOST)


class _Entry(NamedTuple):
    """Hold a track with its run lengths as uint32, a tenth of the memory of a ``Mask``."""

    track: Track
    size: tuple[int, int]
    runs: NDArray[np.uint32] | None


class Span(NamedTuple):
    """Say from when to when a region was in sight.

    Attributes:
        start_ns: First stamp.
        end_ns: Last stamp.
        faint: Whether it was in part only.
    """

    start_ns: int
    end_ns: int
    faint: bool


class TrackLog:
    """Hold all tracks of a run, by camera and stamp."""

    def __init__(self) -> None:
        """Start without any."""
        self._entries: dict[str, dict[int, tuple[_Entry, ...]]] = {}
        self._stamps: dict[str, list[int]] = {}
        self._seen: dict[tuple[str, str], list[tuple[int, bool, Box]]] = {}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._entries)

    def add(self, camera: str, tracks: Tracks) -> None:
        """Take in the tracks of one image."""
        stamps = self._stamps.setdefault(camera, [])
        entries = self._entries.setdefault(camera, {})
        if tracks.stamp_ns not in entries:
            bisect.insort(stamps, tracks.stamp_ns)
        entries[tracks.stamp_ns] = tuple(_packed(track) for track in tracks.tracks)
        for track in tracks.tracks:
            if track.box is not None:
                seen = self._seen.setdefault((camera, track.region_id), [])
                seen.append((tracks.stamp_ns, track.state in _HIDDEN, track.box))

    def at(self, camera: str, stamp_ns: int, max_age_ns: int) -> tuple[Track, ...]:
        """Return the newest tracks by then; none when they are older than ``max_age_ns``."""
        stamps = self._stamps.get(camera, [])
        index = bisect.bisect_right(stamps, stamp_ns)
        if not index or stamp_ns - stamps[index - 1] > max_age_ns:
            return ()
        return tuple(map(_unpacked, self._entries[camera][stamps[index - 1]]))

    def last_box(self, camera: str, region_id: str, stamp_ns: int) -> Box | None:
        """Return where a region was when it was last seen by then."""
        past = [one for one in self._seen.get((camera, region_id), ()) if one[0] <= stamp_ns]
        return max(past, key=lambda one: one[0])[2] if past else None

    def region_ids(self) -> tuple[str, ...]:
        """Return the ids of the regions that were seen."""
        return tuple(dict.fromkeys(region_id for _, region_id in self._seen))

    def sightings(self, region_id: str) -> list[tuple[int, bool]]:
        """Return the stamps at which a region was seen, and whether in part only, in order."""
        return sorted(
            (stamp_ns, faint)
            for (_, name), sightings in self._seen.items()
            if name == region_id
            for stamp_ns, faint, _ in sightings
        )

    def spans(self, region_id: str, gap_ns: int) -> list[Span]:
        """Return when a region was in sight; what is further apart than the gap is two spans."""
        return joined(self.sightings(region_id), gap_ns)


def joined(seen: Iterable[tuple[int, bool]], gap_ns: int) -> list[Span]:
    """Join sightings to spans; what is further apart than the gap is two spans.

    Args:
        seen: Stamp and whether it was faint, in order.
        gap_ns: The longest time between two sightings of one span.
    """
    spans: list[Span] = []
    for stamp_ns, faint in seen:
        last = spans[-1] if spans else None
        if last is not None and stamp_ns - last.end_ns <= gap_ns:
            spans[-1] = last._replace(end_ns=stamp_ns)
            if faint == last.faint:
                continue
        spans.append(Span(stamp_ns, stamp_ns, faint))
    return spans


def _packed(track: Track) -> _Entry:
    mask = track.mask
    if mask is None:
        return _Entry(track, (0, 0), None)
    bare = replace(track, mask=None)
    return _Entry(bare, (mask.height, mask.width), np.asarray(mask.counts, np.uint32))


def _unpacked(entry: _Entry) -> Track:
    track, (height, width), runs = entry
    if runs is None:
        return track
    return replace(track, mask=Mask(height, width, tuple(runs.tolist())))
