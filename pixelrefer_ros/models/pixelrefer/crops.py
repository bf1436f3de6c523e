# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cut the three pictures of a mask: object crop, context crop, whole frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.resampling import EXACT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.models.pixelrefer.configuration import (
        PixelReferConfig,
        RegionModelConfig,
    )
    from pixelrefer_ros.models.pixelrefer.resampling import Pixels, Resizer

PATCH_AREA = PATCH_SIZE * PATCH_SIZE


@dataclass(frozen=True)
class ObjectCrop:
    """Hold one mask's crop.

    Attributes:
        picture: (H, W, 3) uint8 RGB, both sides multiples of the patch size; where the frame is.
        grid_mask: (H / 14, W / 14) float32; cells above 0 belong to the mask.
        box: (top, left, bottom, right) of the crop in frame pixels, inclusive; zeros for an
            empty mask.
        frame_size: (height, width) of the frame.
    """

    picture: Pixels
    grid_mask: NDArray[np.float32]
    box: tuple[int, int, int, int]
    frame_size: tuple[int, int]


def tight_box(mask: NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """Return (top, left, bottom, right) of a mask's pixels, inclusive; None when it is empty."""
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return None
    return top, left, top + height - 1, left + width - 1


def padded_box(
    box: tuple[int, int, int, int], margin: int, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return an inclusive box grown by a margin and clipped to a frame of (height, width)."""
    top, left, bottom, right = box
    return (
        max(0, top - margin),
        max(0, left - margin),
        min(size[0] - 1, bottom + margin),
        min(size[1] - 1, right + margin),
    )


def object_crop(
    image: Pixels,
    mask: NDArray[np.uint8],
    config: RegionModelConfig,
    resizer: Resizer = EXACT,
) -> ObjectCrop:
    """Cut a mask's surroundings out, scaled so that the mask covers a useful number of patches.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 of 0 and 1.
        config: Margins and sizes.
        resizer: Resizes the kind of picture ``image`` is.

    Returns:
        The crop; a black patch with an empty mask for an empty mask.
    """
    frame_size = (image.shape[0], image.shape[1])
    tight = tight_box(mask)
    if tight is None:
        return empty_crop(frame_size, resizer)
    box = padded_box(tight, config.object_margin, frame_size)
    picture, inside = _cut(image, box), _cut(mask, box)
    height, width = picture.shape[:2]
    rows, columns = object_grid(height, width, cv2.countNonZero(mask), config)
    target = (columns * PATCH_SIZE, rows * PATCH_SIZE)
    shrinks = target[0] < width and target[1] < height
    resized = (resizer.area if shrinks else resizer.linear)(picture, target)
    grid_mask = cv2.resize(
        inside.astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR
    )
    return ObjectCrop(resized, grid_mask, box, frame_size)


def object_grid(height: int, width: int, area: int, config: RegionModelConfig) -> tuple[int, int]:
    """Return (rows, columns) of patches that the crop of a mask is scaled to.

    Small masks are enlarged by a whole factor until they cover ``mask_num`` patches, large ones
    shrunk to ``large_object_patches``.

    Args:
        height: Of the crop in pixels.
        width: Of the crop.
        area: Pixels of the mask, at least 1.
        config: Sizes.
    """
    scale: float = math.ceil(math.sqrt(PATCH_AREA * config.mask_num / area))
    if scale == 1 and area / PATCH_AREA > config.large_object_patches:
        scale = 1.0 / math.sqrt(area / PATCH_AREA / config.large_object_patches)
    return math.ceil(height * scale / PATCH_SIZE), math.ceil(width * scale / PATCH_SIZE)


def empty_crop(frame_size: tuple[int, int], resizer: Resizer = EXACT) -> ObjectCrop:
    """Return what stands for an empty mask: a black patch that does not belong to it."""
    black = resizer.black((PATCH_SIZE, PATCH_SIZE))
    return ObjectCrop(black, np.zeros((1, 1), np.float32), (0, 0, 0, 0), frame_size)


def context_crop(
    image: Pixels,
    mask: NDArray[np.uint8],
    config: PixelReferConfig,
    resizer: Resizer = EXACT,
) -> Pixels:
    """Cut a mask's surroundings out as a square of ``local_size``, aspect ratio ignored.

    An empty mask gets the whole frame.
    """
    size = (image.shape[0], image.shape[1])
    tight = tight_box(mask)
    if tight is not None:
        image = _cut(image, padded_box(tight, config.context_margin, size))
    return square(image, config.local_size, resizer)


def square(image: Pixels, side: int, resizer: Resizer = EXACT) -> Pixels:
    """Scale a picture to a square, aspect ratio ignored."""
    return resizer.area(image, (side, side))


def working_frame(image: Pixels, long_side: int, resizer: Resizer = EXACT) -> Pixels:
    """Scale a frame down so that its long side is at most this many pixels; 0 leaves it."""
    size = working_size((image.shape[0], image.shape[1]), long_side)
    return image if size is None else resizer.area(image, size)


def working_mask(mask: NDArray[np.generic], long_side: int) -> NDArray[np.uint8]:
    """Scale a mask as ``working_frame`` scales its frame, and make it uint8 of 0 and 1.

    Pixels at least half covered belong to it; a mask too thin for that keeps the pixels that
    are covered most, so that no mask vanishes.
    """
    binary = (mask != 0).astype(np.uint8)
    size = working_size((mask.shape[0], mask.shape[1]), long_side)
    if size is None:
        return binary
    cover = cv2.resize(binary * 255, size, interpolation=cv2.INTER_AREA)
    return (cover >= min(128, max(int(cover.max()), 1))).astype(np.uint8)


def working_size(size: tuple[int, int], long_side: int) -> tuple[int, int] | None:
    """Return OpenCV's (width, height) to scale (height, width) to, None to leave it."""
    longest = max(size)
    if not 0 < long_side < longest:
        return None
    scale = long_side / longest
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))


def _cut(picture: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    top, left, bottom, right = box
    return picture[top : bottom + 1, left : right + 1]
