# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn boxes and points into the outlines of what they mean, by colour (GrabCut)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.core import masks, regions
from pixelrefer_ros.core.types import RegionKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Region

_ROUNDS = 4
# GrabCut sees at most this many pixels on the long side: its time grows with the area.
_MAX_CROP_PX = 200
# A box prompt whose outline fills less of the box than this, or reaches less far across it, was
# not understood.
_MIN_FILL, _MIN_REACH = 0.15, 0.6
# How far around a point its object may reach, as a part of the short side of the image.
_POINT_REACH = 0.25


def prompt_mask(region: Region, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the outline of what a region means on the image it was given on.

    A mask is taken as it is. A box is cut out by GrabCut on a crop of twice its size, what is
    outside being background; the filled box where that gives nonsense. Points seed GrabCut;
    discs around them where that gives nonsense.

    Args:
        region: Box, points or mask.
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) bool, never empty.

    Raises:
        PixelReferError: BAD_REGION when nothing of it lies in the image.
    """
    plain = masks.decode(regions.region_mask(region, *image.shape[:2]))
    if region.kind == RegionKind.BOX:
        return _cut_box(plain, image)
    if region.kind == RegionKind.POINTS:
        return _cut_points(region, plain, image)
    return plain


def _cut_box(plain: NDArray[np.bool_], image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    left, top, width, height = cv2.boundingRect(plain.view(np.uint8))
    if min(width, height) < 6:
        return plain
    reach_x, reach_y = width // 2 + 1, height // 2 + 1
    crop = _crop(plain.shape, left - reach_x, top - reach_y, left + width + reach_x,
                 top + height + reach_y)
    seeds = np.where(plain[crop], cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    if not (seeds == cv2.GC_BGD).any():
        return plain
    cut = _largest(_grab_cut(image[crop], seeds) & plain[crop])
    _, _, cut_width, cut_height = cv2.boundingRect(cut.view(np.uint8))
    if (
        np.count_nonzero(cut) < _MIN_FILL * width * height
        or cut_width < _MIN_REACH * width
        or cut_height < _MIN_REACH * height
    ):
        return plain
    return _uncrop(cut, crop, plain.shape)


def _cut_points(
    region: Region, plain: NDArray[np.bool_], image: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    height, width = plain.shape
    reach = int(_POINT_REACH * min(height, width))
    left, top, w, h = cv2.boundingRect(plain.view(np.uint8))
    crop = _crop(plain.shape, left - reach, top - reach, left + w + reach, top + h + reach)
    seeds = np.full(plain.shape, cv2.GC_PR_BGD, np.uint8)
    seeds[plain] = cv2.GC_PR_FGD
    labels = region.point_labels or (1,) * len(region.points)
    radius = max(1, min(height, width) // 160)
    for (x, y), label in zip(region.points, labels, strict=True):
        value = cv2.GC_FGD if label else cv2.GC_BGD
        cv2.circle(seeds, (int(x), int(y)), radius, value, cv2.FILLED)
    inner = seeds[crop].copy()
    # What touches the border of the crop is too far from the points.
    inner[[0, -1], :] = cv2.GC_BGD
    inner[:, [0, -1]] = cv2.GC_BGD
    if not (inner == cv2.GC_FGD).any():
        return plain
    cut = _grab_cut(image[crop], inner)
    cut = _touching(cut, inner == cv2.GC_FGD)
    if np.count_nonzero(cut) < 0.3 * np.count_nonzero(plain) or cut.mean() > 0.6:
        return plain
    return _uncrop(cut, crop, plain.shape)


def _crop(
    shape: tuple[int, ...], left: int, top: int, right: int, bottom: int
) -> tuple[slice, slice]:
    return (
        slice(max(top, 0), min(bottom, shape[0])),
        slice(max(left, 0), min(right, shape[1])),
    )


def _uncrop(
    cut: NDArray[np.bool_], crop: tuple[slice, slice], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    whole = np.zeros(shape, np.bool_)
    whole[crop] = cut
    return whole


def _grab_cut(image: NDArray[np.uint8], seeds: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return what GrabCut takes for the object; nothing where it fails."""
    shrink = max(1.0, max(seeds.shape) / _MAX_CROP_PX)
    size = (max(8, round(seeds.shape[1] / shrink)), max(8, round(seeds.shape[0] / shrink)))
    small = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
    marks = cv2.resize(seeds, size, interpolation=cv2.INTER_NEAREST)
    cv2.setRNGSeed(0)  # the colour clusters start at random: the same prompt, the same mask
    try:
        cv2.grabCut(small, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), _ROUNDS,
                    cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return np.zeros(seeds.shape, np.bool_)
    wanted = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    soft = cv2.resize(wanted.astype(np.float32), seeds.shape[::-1],
                      interpolation=cv2.INTER_LINEAR)
    cut: NDArray[np.bool_] = soft > 0.5
    return cut


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected part."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if len(stats) < 2:
        return mask
    part: NDArray[np.bool_] = numbers == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return part


def _touching(mask: NDArray[np.bool_], marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the connected parts that hold a mark."""
    _, numbers = cv2.connectedComponents(mask.astype(np.uint8))
    wanted = np.unique(numbers[marks & mask])
    part: NDArray[np.bool_] = np.isin(numbers, wanted[wanted > 0])
    return part
