# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow points from frame to frame and fit how what they lie on has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.tracking.geometry import Affine

    Points = NDArray[np.float32]

_FLOW: dict[str, Any] = {
    'winSize': (15, 15),
    'maxLevel': 2,
    'criteria': (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 0.03),
    'flags': cv2.OPTFLOW_USE_INITIAL_FLOW,
    'minEigThreshold': 1e-4,
}
# Flow looks this far around points: a window on the top of the pyramid.
_AROUND_PX = 32
_MAX_BACK_PX = 0.8
_INLIER_PX = 1.5
_MIN_CROP_PX = 64


def follow_points(
    before: NDArray[np.uint8], now: NDArray[np.uint8], points: Points, guess: Points
) -> tuple[Points, NDArray[np.bool_]]:
    """Follow points with pyramidal Lucas-Kanade, forward and back again.

    One call for the points of all regions, so that they share the pyramids.

    Args:
        before: (H, W) uint8.
        now: (H, W) uint8.
        points: (N, 2) float32 in ``before``.
        guess: (N, 2) float32 in ``now``.

    Returns:
        (N, 2) places in ``now``, and (N,) whether the way back ends where it began.
    """
    if not len(points):
        return points, np.zeros(0, np.bool_)
    # Pyramids of the part of the frame that holds them: the rest would be made for nothing.
    both = np.concatenate((points, guess))
    low = np.maximum(both.min(0).astype(int) - _AROUND_PX, 0)
    high = np.maximum(both.max(0).astype(int) + _AROUND_PX, low + _AROUND_PX)
    part = np.s_[low[1] : high[1], low[0] : high[0]]
    before, now = (np.ascontiguousarray(picture[part]) for picture in (before, now))
    if not before.size:
        return points, np.zeros(len(points), np.bool_)
    corner = low.astype(np.float32)
    start = points - corner
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, now, start, guess - corner, **_FLOW)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(now, before, moved, start.copy(), **_FLOW)
    good = (found.reshape(-1) > 0) & (found_back.reshape(-1) > 0)
    good &= np.abs(back - start).max(-1) < _MAX_BACK_PX
    return moved + corner, good


def sample_flow(
    before: NDArray[np.uint8], now: NDArray[np.uint8], mask: NDArray[np.bool_], reach_px: int
) -> tuple[Points, Points]:
    """Sample the dense inverse search flow on a grid over a region.

    Args:
        before: (H, W) uint8.
        now: (H, W) uint8.
        mask: (H, W) bool, the region in ``before``.
        reach_px: How far it may have moved.

    Returns:
        (N, 2) float32 places in ``before`` and in ``now``; none where the region is tiny.
    """
    height, width = mask.shape
    left, top, w, h = cv2.boundingRect(mask.view(np.uint8))
    grow_x, grow_y = (max(reach_px, (_MIN_CROP_PX - side) // 2 + 1) for side in (w, h))
    right, bottom = min(left + w + grow_x, width), min(top + h + grow_y, height)
    left, top = max(left - grow_x, 0), max(top - grow_y, 0)
    none = np.zeros((0, 2), np.float32)
    if right - left < _MIN_CROP_PX // 2 or bottom - top < _MIN_CROP_PX // 2:
        return none, none
    crop = np.s_[top:bottom, left:right]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(
        np.ascontiguousarray(before[crop]), np.ascontiguousarray(now[crop]), None
    )
    step = max(2, round((w * h) ** 0.5 / 8))
    ys, xs = np.nonzero(mask[crop][::step, ::step])
    ys, xs = ys * step, xs * step
    places = np.stack((xs, ys), -1).astype(np.float32)
    corner = np.array([left, top], np.float32)
    return places + corner, places + corner + flow[ys, xs]


def corners_in(
    gray: NDArray[np.uint8], mask: NDArray[np.bool_], count: int, taken: Points
) -> Points:
    """Return up to ``count`` corners inside a mask, away from those there are, (N, 2) float32."""
    left, top, w, h = cv2.boundingRect(mask.view(np.uint8))
    none = np.zeros((0, 2), np.float32)
    if count < 1 or not w:
        return none
    gap = max(2.0, (w * h) ** 0.5 / 14)
    free = mask[top : top + h, left : left + w].astype(np.uint8)
    for x, y in taken:
        cv2.circle(free, (round(float(x)) - left, round(float(y)) - top), int(gap), 0, -1)
    found = cv2.goodFeaturesToTrack(
        np.ascontiguousarray(gray[top : top + h, left : left + w]), count, 0.02, gap, mask=free,
        blockSize=5,
    )  # fmt: skip
    if found is None:
        return none
    corners: Points = found.reshape(-1, 2) + np.array([left, top], np.float32)
    return corners


def fit_similarity(
    told: Points, seen: Points, unit_px: float
) -> tuple[Affine, NDArray[np.bool_]] | None:
    """Fit shift, turn and scale with RANSAC; None when the points do not give one.

    Args:
        told: (N, 2) places in the reference.
        seen: (N, 2) places in the frame.
        unit_px: Frame pixels per reference pixel, at least 1: the tolerance grows with it.
    """
    if len(told) < 3:
        return None
    affine, inliers = cv2.estimateAffinePartial2D(
        told, seen, method=cv2.RANSAC, ransacReprojThreshold=_INLIER_PX * max(unit_px, 1.0),
        maxIters=200, confidence=0.99, refineIters=5,
    )  # fmt: skip
    if affine is None:
        return None
    return affine, inliers.reshape(-1) > 0
