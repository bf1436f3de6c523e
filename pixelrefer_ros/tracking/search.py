# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find places of a frame that look like a region."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.tracking import geometry
from pixelrefer_ros.tracking.window import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.tracking.geometry import Affine
    from pixelrefer_ros.tracking.looks import Looks

# The region is searched for at about this size, in pixels.
_SOUGHT_PX = 18
_SCALES = (0.62, 0.8, 1.0, 1.25)
# Much smaller, one texture is much like another.
_TEXTURE_SCALES = (0.8, 1.0, 1.25)
_TURNS_RAD = (-0.3, 0.0, 0.3)
_PLACES = 3
_MIN_CONTRAST, _MIN_CORRELATION = 0.3, 0.55
# Regions whose colours tell them apart less than this are searched for by texture.
COLOUR_TELLS = 0.4
# Regions with less texture than this must have their shape to be found again.
_PLAIN = 0.5
_PLAIN_GROWTH, _PLAIN_IOU = 1.25, 0.85


def shrunk(image: NDArray[np.uint8], size_px: float) -> Window:
    """Return a frame shrunk so that a region of this size can be searched for fast."""
    long = max(image.shape[:2])
    steps = max(1, int(size_px / _SOUGHT_PX))
    window = Window.cut(image, (0, 0, image.shape[1], image.shape[0]), max(32, long // steps))
    assert window is not None
    return window


def places(
    looks: Looks, window: Window, chance: NDArray[np.float32], pose: Affine
) -> list[Affine]:
    """Return poses at which a frame looks most like a region, the best first.

    Args:
        looks: Of the region.
        window: The frame, or a part of it.
        chance: Of the window.
        pose: Where it was last: gives scale and angle.
    """
    by_colour = looks.separable >= COLOUR_TELLS
    unit = geometry.scale_of(pose) / geometry.scale_of(window.to_frame)
    angle = math.atan2(pose[1, 0], pose[0, 0])
    found: list[tuple[float, Affine]] = []
    for scale in _SCALES if by_colour else _TEXTURE_SCALES:
        for turned in (0.0,) if by_colour else _TURNS_RAD:
            if by_colour:
                response = _contrast(chance, looks.kernel(unit * scale, angle))
            else:
                response = _correlation(window.light, *looks.patch(unit * scale, angle + turned))
            least = _MIN_CONTRAST if by_colour else _MIN_CORRELATION
            for value, place in _peaks(response, least, unit * scale * min(looks.mask.shape) / 2):
                in_frame = geometry.apply(window.to_frame, place)
                grown = geometry.turn(turned, scale, looks.centre(pose))
                moved = geometry.compose(grown, pose)
                moved[:, 2] += in_frame - looks.centre(pose)
                found.append((value, moved))
    found.sort(key=lambda one: -one[0])
    return _apart(found, looks)


def shift_to_best(
    looks: Looks, window: Window, chance: NDArray[np.float32], pose: Affine
) -> Affine | None:
    """Return the pose moved to where the outline contrast in a window is largest.

    Nearer places are preferred a little. None where no place is good.
    """
    unit = geometry.scale_of(pose) / geometry.scale_of(window.to_frame)
    kernel = looks.kernel(unit, math.atan2(pose[1, 0], pose[0, 0]))
    response = _contrast(chance, kernel)
    here = geometry.apply(geometry.invert(window.to_frame), looks.centre(pose))
    height, width = response.shape
    rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(here[1])
    columns = np.arange(width, dtype=np.float32)[None, :] - np.float32(here[0])
    size = max(4.0, unit * max(looks.mask.shape))
    response = response - 0.1 * np.sqrt(rows * rows + columns * columns) / size
    _, best, _, (x, y) = cv2.minMaxLoc(response)
    if best < _MIN_CONTRAST:
        return None
    moved = pose.copy()
    moved[:, 2] += geometry.apply(window.to_frame, np.array([x, y], float)) - looks.centre(pose)
    return moved


def _contrast(
    chance: NDArray[np.float32], kernel: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Filter probabilities with an outline; each side of it counts 1 in full."""
    gain = float(np.abs(kernel).sum()) / 2
    response: NDArray[np.float32] = cv2.filter2D(
        chance, cv2.CV_32F, kernel / max(gain, 1e-6), borderType=cv2.BORDER_REPLICATE
    )
    return response


def _correlation(
    light: NDArray[np.float32], patch: NDArray[np.float32], mask: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Correlate a patch with every place where it lies in the picture whole; 0 elsewhere."""
    response = np.zeros_like(light)
    rows, columns = patch.shape
    if rows > light.shape[0] or columns > light.shape[1] or mask.max() < 0.5:
        return response
    values = cv2.matchTemplate(
        light, patch, cv2.TM_CCOEFF_NORMED, mask=(mask > 0.5).astype(np.float32)
    )
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top, left = rows // 2, columns // 2
    response[top : top + values.shape[0], left : left + values.shape[1]] = values
    return response


def _peaks(
    response: NDArray[np.float32], least: float, gap_px: float
) -> list[tuple[float, NDArray[np.float64]]]:
    response = response.copy()
    found = []
    for _ in range(_PLACES):
        _, value, _, (x, y) = cv2.minMaxLoc(response)
        if value < least:
            break
        found.append((float(value), np.array([x, y], float)))
        cv2.circle(response, (x, y), max(2, int(gap_px)), -1.0, cv2.FILLED)
    return found


def _apart(found: list[tuple[float, Affine]], looks: Looks) -> list[Affine]:
    kept: list[Affine] = []
    for _, pose in found:
        gap = 0.5 * looks.size_px(pose)
        middle = looks.centre(pose)
        if all(np.linalg.norm(looks.centre(other) - middle) > gap for other in kept):
            kept.append(pose)
    return kept[:_PLACES]


def is_its_shape(
    looks: Looks,
    window: Window,
    pose: Affine,
    last_pose: Affine,
    blocked: NDArray[np.bool_] | None,
) -> bool:
    """Tell whether what has a region's colours at a place has its size and shape too.

    Asked for where colours tell much and texture little: as large as it was last, and what is of
    its colours covers the outline and not much else.

    Args:
        looks: Of the region.
        window: Part of the frame around the place.
        pose: The place.
        last_pose: Where the region surely was last.
        blocked: (h, w) bool of the window, what is known to be another region's.
    """
    if looks.textured > _PLAIN or looks.separable < COLOUR_TELLS:
        return True
    grown = geometry.scale_of(pose) / geometry.scale_of(last_pose)
    if max(grown, 1 / grown) > _PLAIN_GROWTH:
        return False
    odds = looks.odds(window, pose, blocked)
    alike = (cv2.GaussianBlur(odds, (3, 3), 0) > 0).astype(np.uint8)
    outline = looks.mask_in(window, pose)
    _, parts = cv2.connectedComponents(alike, connectivity=4)
    its = np.isin(parts, np.setdiff1d(parts[outline], [0]))
    both = np.count_nonzero(its & outline)
    return bool(both >= _PLAIN_IOU * np.count_nonzero(its | outline))
