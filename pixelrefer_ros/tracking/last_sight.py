# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Remember the last frame a region was seen in, to tell it from what looks like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.tracking import colours, geometry
from pixelrefer_ros.tracking.window import Window

if TYPE_CHECKING:
    from pixelrefer_ros.tracking.geometry import Affine
    from pixelrefer_ros.tracking.looks import Looks
    from pixelrefer_ros.tracking.picture import Picture

# Long side of the frame as it is kept, pixels.
_KEPT_PX = 320
# A place this part of the region's size away from where it was is another place.
_ELSEWHERE = 0.7
# What was there fits this much as well as what is there now: it is the same thing.
_AS_GOOD = 0.75


class LastSight:
    """Hold a frame, shrunk, with the place of a region in it."""

    def __init__(self, picture: Picture, pose: Affine) -> None:
        """Keep a frame in which the region was seen at a pose."""
        height, width = picture.gray.shape
        shrink = min(1.0, _KEPT_PX / max(height, width))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        self._image = cv2.resize(picture.image, size, interpolation=cv2.INTER_AREA)
        self._from_frame: Affine = geometry.zoom(size[0] / width, size[1] / height)
        self._pose = geometry.compose(self._from_frame, pose)

    def resize(self, change: Affine) -> None:
        """Go on with frames of another size: ``change`` maps from the old to the new."""
        self._from_frame = geometry.compose(self._from_frame, geometry.invert(change))

    def shows(self, looks: Looks, pose: Affine, quality: float) -> bool:
        """Tell whether the same was to be seen at a pose when the region was elsewhere.

        Args:
            looks: Of the region.
            pose: In a frame of today, of something that looks like the region.
            quality: How well that fits.
        """
        there = geometry.compose(self._from_frame, pose)
        gap = np.linalg.norm(looks.centre(self._pose) - looks.centre(there))
        if gap < _ELSEWHERE * looks.size_px(self._pose):
            return False
        window = Window.cut(self._image, looks.window_box(there, 4))
        if window is None:
            return False
        chance = colours.probability(looks.odds(window, there))
        return looks.match(window, chance, there).quality > _AS_GOOD * quality
