# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cut the part of a frame that matters for one region, in the forms it is compared in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.tracking import colours, geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.tracking.geometry import Affine

# A window larger than this is shrunk.
_MAX_WINDOW_PX = 160


@dataclass(frozen=True, slots=True)
class Window:
    """Hold a part of a frame, shrunk when the region is large.

    Attributes:
        part: Rows and columns of the frame.
        to_frame: From its pixels to the frame's.
        rgb: (h, w, 3) uint8.
        bins: (h, w) colour bins.
        light: (h, w) float32 lightness.
    """

    part: tuple[slice, slice]
    to_frame: Affine
    rgb: NDArray[np.uint8]
    bins: NDArray[np.int32]
    light: NDArray[np.float32]

    @classmethod
    def cut(
        cls, image: NDArray[np.uint8], box: tuple[int, int, int, int], max_px: int = _MAX_WINDOW_PX
    ) -> Window | None:
        """Cut left, top, right, bottom out of an RGB frame; None when none of it is inside.

        Args:
            image: (H, W, 3) uint8 RGB.
            box: Ends are exclusive; clipped to the frame.
            max_px: Long side above which it is shrunk.
        """
        height, width = image.shape[:2]
        left, top = max(box[0], 0), max(box[1], 0)
        right, bottom = min(box[2], width), min(box[3], height)
        if right - left < 4 or bottom - top < 4:
            return None
        where = np.s_[top:bottom, left:right]
        part = image[where]
        to_frame = geometry.shift(left, top)
        shrink = max(right - left, bottom - top) / max_px
        if shrink > 1:
            size = (max(4, round((right - left) / shrink)), max(4, round((bottom - top) / shrink)))
            method = cv2.INTER_LINEAR if shrink < 1.6 else cv2.INTER_AREA
            small = cv2.resize(part, size, interpolation=method)
            zoom = geometry.zoom(part.shape[1] / size[0], part.shape[0] / size[1])
            to_frame = geometry.compose(to_frame, zoom)
            part = small
        lab = colours.to_lab(np.ascontiguousarray(part))
        return cls(where, to_frame, part, colours.bins_of(lab), lab[..., 0].astype(np.float32))

    def shrink(self, whole: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Cut the window out of a picture of numbers of the whole frame."""
        part = whole[self.part]
        if part.shape == self.light.shape:
            return part
        small: NDArray[np.uint16] = cv2.resize(
            part, self.light.shape[::-1], interpolation=cv2.INTER_NEAREST
        )
        return small

    def whole(self, mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return a mask of the window, (h, w), on the whole frame of (height, width)."""
        rows, columns = self.part
        size = (columns.stop - columns.start, rows.stop - rows.start)
        if mask.shape != size[::-1]:
            soft = mask.view(np.uint8) * np.uint8(255)
            mask = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR) > 127
        frame = np.zeros(shape, np.bool_)
        frame[self.part] = mask
        return frame
