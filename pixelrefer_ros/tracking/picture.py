# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold what all regions of a frame share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Frame

# Regions that overlap by this part of the smaller were given so: a thing, and a part of it.
_SHARED = 0.1
# Searches of the whole frame, per frame: many lost regions wait for their turn.
SEARCHES = 4


@dataclass(slots=True)
class Picture:
    """Hold one frame with what is made of it once for all regions.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        gray: (H, W) uint8.
        stamp_ns: Of the frame.
        owners: (H, W) uint16, the serial number of the region found on each pixel, 0 for none.
        boxes: By serial number, left, top, right and bottom (exclusive) of what was found.
        shared: Pairs of serial numbers of regions that overlap, both ways round.
        searches_left: How many more regions may be searched for in the whole frame.
    """

    image: NDArray[np.uint8]
    gray: NDArray[np.uint8]
    stamp_ns: int
    owners: NDArray[np.uint16]
    boxes: dict[int, tuple[int, int, int, int]]
    shared: set[tuple[int, int]]
    searches_left: int = SEARCHES

    @classmethod
    def of(cls, frame: Frame) -> Picture:
        """Prepare a frame."""
        gray = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        return cls(frame.image, gray, frame.stamp_ns, np.zeros(gray.shape, np.uint16), {}, set())

    def shows(self, frame: Frame) -> bool:
        """Return whether it is made of this frame, or of a copy."""
        return self.image is frame.image or np.array_equal(self.image, frame.image)

    def resized(self, shape: tuple[int, ...]) -> Picture:
        """Return it in another (height, width)."""
        size = (shape[1], shape[0])
        height, width = self.gray.shape
        x, y = size[0] / width, size[1] / height
        return Picture(
            cv2.resize(self.image, size, interpolation=cv2.INTER_AREA),
            cv2.resize(self.gray, size, interpolation=cv2.INTER_AREA),
            self.stamp_ns,
            cv2.resize(self.owners, size, interpolation=cv2.INTER_NEAREST),
            {
                serial: (int(left * x), int(top * y), int(right * x) + 1, int(bottom * y) + 1)
                for serial, (left, top, right, bottom) in self.boxes.items()
            },
            self.shared,
        )

    def claim(self, serial: int, mask: NDArray[np.bool_]) -> None:
        """Note where a region was found; who came first keeps what is claimed twice."""
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        self.boxes[serial] = (left, top, left + width, top + height)
        part = np.s_[top : top + height, left : left + width]
        owners, own = self.owners[part], mask[part]
        under = np.bincount(owners[own])
        for other in set(np.flatnonzero(under).tolist()) - {0, serial}:
            areas = int(under.sum()), int(np.count_nonzero(self.owners == other))
            if under[other] > _SHARED * min(areas):
                self.shared |= {(serial, other), (other, serial)}
        owners[own & (owners == 0)] = serial

    def friends(self, serial: int) -> list[int]:
        """Return the regions that overlap with one, itself, and 0."""
        return [0, serial, *(other for one, other in self.shared if one == serial)]

    def strangers(self, friends: list[int], part: tuple[slice, slice]) -> bool:
        """Return whether others than these were found near some rows and columns."""
        rows, columns = part
        return any(
            max(left, columns.start) < min(right, columns.stop)
            and max(top, rows.start) < min(bottom, rows.stop)
            for serial, (left, top, right, bottom) in self.boxes.items()
            if serial not in friends
        )
