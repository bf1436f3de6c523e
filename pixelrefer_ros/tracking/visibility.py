# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tell which pixels of a placed region are seen, and which are hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.tracking import geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.tracking.geometry import Affine
    from pixelrefer_ros.tracking.looks import Looks
    from pixelrefer_ros.tracking.window import Window

# Pixels by which colours alone may move the outline: a part of the region's size, and at least.
_SLACK, _MIN_SLACK_PX = 0.035, 0.7
# Deep inside, this much evidence against a pixel hides it.
_MAX_PRIOR = 1.0
# Lightness this far from the reference's (in its standard deviations) tells nothing either way.
_UNLIKE = 0.9
# Holes smaller than this part of what is seen are filled.
_MAX_HOLE = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """Say what is seen of a region.

    Attributes:
        mask: (h, w) bool of the window.
        share: Seen part of the whole outline, what lies outside the frame counts as hidden.
        overlap: How much the colours of the seen part are like the region's, in [0, 1].
        texture: Correlation of lightness of the seen part, in [-1, 1].
    """

    mask: NDArray[np.bool_]
    share: float
    overlap: float
    texture: float


def seen_part(looks: Looks, window: Window, odds: NDArray[np.float32], pose: Affine) -> Seen:
    """Weigh the outline at a pose against colours and texture.

    Args:
        looks: Of the region.
        window: Part of the frame around the pose.
        odds: Log odds of the window's colours.
        pose: From the reference to the frame.
    """
    to_window = geometry.compose(geometry.invert(window.to_frame), pose)
    shape = window.light.shape
    outline = (looks.full_mask(shape, to_window) > 127).astype(np.uint8)
    grown = geometry.scale_of(to_window) / geometry.scale_of(looks.first_pose)
    whole = looks.area_px * grown**2
    slack_px = max(_MIN_SLACK_PX, _SLACK * looks.size_px(to_window))
    inside = cv2.distanceTransform(outline, cv2.DIST_L2, 3)
    outside = cv2.distanceTransform(1 - outline, cv2.DIST_L2, 3)
    with np.errstate(over='ignore'):  # in a window without any edge, all is as far as can be
        prior = np.where(outline > 0, inside - 0.5, 0.5 - outside) / slack_px
    evidence = looks.separable * cv2.GaussianBlur(odds, (3, 3), 0)
    blind = 1 - looks.separable
    if blind > 0.1:
        evidence = evidence + blind * cv2.GaussianBlur(looks.foreign(window), (3, 3), 0)
    if blind * looks.textured > 0.1:
        like = np.clip(4 * (_UNLIKE - looks.unlike(window, pose)), -3, 1)
        spread = cv2.warpAffine(like, to_window, shape[::-1], flags=cv2.INTER_LINEAR)
        evidence = evidence + blind * looks.textured * np.where(outline > 0, spread, 0)
    mask = evidence + np.minimum(prior, _MAX_PRIOR) > 0
    mask |= _small_holes(mask) & (outline > 0)
    pixels = window.bins[mask]
    return Seen(
        mask,
        min(1.0, len(pixels) / max(whole, 1.0)),
        looks.similarity_to(pixels) if len(pixels) else 0.0,
        looks.texture(window, pose, mask),
    )


def _small_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return small holes: reflections and marks of another colour, not what hides a region."""
    edges, tree = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    holes = np.zeros(mask.shape, np.uint8)
    most = _MAX_HOLE * np.count_nonzero(mask)
    for number, edge in enumerate(edges):
        if tree[0][number][3] >= 0 and cv2.contourArea(edge) < most:
            cv2.drawContours(holes, edges, number, 1, cv2.FILLED)
    return holes > 0
