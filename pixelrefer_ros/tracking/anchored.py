# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow regions without learned weights, with OpenCV alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.tracking import motion
from pixelrefer_ros.tracking.anchor import Anchor
from pixelrefer_ros.tracking.picture import Picture
from pixelrefer_ros.tracking.prompts import prompt_mask

if TYPE_CHECKING:
    from pixelrefer_ros.core.tracker import RegionTracker, Sighting
    from pixelrefer_ros.core.types import Frame, Region


class AnchoredTracker:
    """Follow regions by points, colours and outline, anchored to how they were given."""

    name = 'anchored'

    def __init__(self) -> None:
        """Begin without regions."""
        self._anchors: dict[str, Anchor] = {}
        self._before: Picture | None = None
        self._serials = 0

    @property
    def region_ids(self) -> tuple[str, ...]:
        """Return the regions that are followed, in the order they first came."""
        return tuple(self._anchors)

    def start(self, frame: Frame, region: Region) -> Sighting:
        """Follow a region from this frame on, as ``RegionTracker`` says."""
        picture = self._picture(frame)
        anchor = self._anchors.get(region.region_id)
        if anchor is None:
            mask = prompt_mask(region, frame.image)
            anchor = Anchor(region.region_id, self._next_serial(), picture, mask)
            self._anchors[region.region_id] = anchor
            return anchor.sighting()
        return anchor.correct(picture, region)

    def step(self, frame: Frame) -> list[Sighting]:
        """Follow all regions into the next frame, as ``RegionTracker`` says."""
        before, picture = self._before, Picture.of(frame)
        if before is not None and before.gray.shape != picture.gray.shape:
            before = self._resize(before, picture.gray.shape)
        self._before = picture
        if before is None or not self._anchors:
            return []
        # The surest first: what they cover is not taken for another. Of the lost ones, that
        # which has waited longest.
        anchors = sorted(
            self._anchors.values(), key=lambda one: (-one.score, -one.unsearched_frames)
        )
        guesses = [anchor.expect(picture) for anchor in anchors]
        places = [anchor.places for anchor in anchors]
        moved, good = motion.follow_points(
            before.gray, picture.gray, np.concatenate(places), np.concatenate(guesses)
        )
        first = 0
        for anchor, own in zip(anchors, places, strict=True):
            part = slice(first, first + len(own))
            first += len(own)
            anchor.resolve(before, picture, moved[part], good[part])
        return [anchor.sighting() for anchor in self._anchors.values()]

    def remove(self, region_id: str) -> None:
        """Stop following a region; does nothing when it is not known."""
        self._anchors.pop(region_id, None)

    def fork(self) -> AnchoredTracker:
        """Return a tracker without regions, to follow other frames."""
        return AnchoredTracker()

    def adopt(self, other: RegionTracker, region_id: str, frame: Frame) -> None:
        """Take a region over from a fork, as ``RegionTracker`` says.

        Raises:
            ValueError: It is not of this class, or does not follow the region.
        """
        if not isinstance(other, AnchoredTracker) or region_id not in other._anchors:
            raise ValueError(f"no fork of this tracker that follows region '{region_id}'")
        picture = self._picture(frame)
        anchor = other._anchors[region_id]
        anchor.join(picture, self._next_serial())
        self._anchors[region_id] = anchor

    def _next_serial(self) -> int:
        # as a picture's owners hold it; 0 is nobody
        self._serials = self._serials % np.iinfo(np.uint16).max + 1
        return self._serials

    def _picture(self, frame: Frame) -> Picture:
        """Return the last frame, prepared; another one where the caller begins anew."""
        before = self._before
        if before is not None and before.shows(frame):
            return before
        picture = Picture.of(frame)
        if before is not None and before.gray.shape != picture.gray.shape:
            self._resize(before, picture.gray.shape)
        for anchor in self._anchors.values():
            anchor.join(picture, anchor.serial)
        self._before = picture
        return picture

    def _resize(self, before: Picture, shape: tuple[int, ...]) -> Picture:
        """Scale all regions, and the last frame, to another size of frame."""
        height, width = before.gray.shape
        for anchor in self._anchors.values():
            anchor.resize(shape[1] / width, shape[0] / height, shape)
        return before.resized(shape)
