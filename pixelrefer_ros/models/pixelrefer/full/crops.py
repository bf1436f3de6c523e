# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cut the crop of a mask as the full PixelRefer knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch.nn import functional

from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.crops import (
    ObjectCrop,
    empty_crop,
    object_grid,
    padded_box,
    tight_box,
)
from pixelrefer_ros.models.pixelrefer.resampling import EXACT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.models.pixelrefer.full.configuration import FullPixelReferConfig
    from pixelrefer_ros.models.pixelrefer.resampling import Pixels, Resizer


def object_crop(
    image: Pixels,
    mask: NDArray[np.uint8],
    config: FullPixelReferConfig,
    resizer: Resizer = EXACT,
) -> ObjectCrop:
    """Cut a mask's surroundings out, scaled so that the mask covers a useful number of patches.

    The last row and the last column of the padded box are left out, as trained weights know it:
    a mask at the lower or right border of the frame loses a row or column of its pixels.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 of 0 and 1.
        config: Margins and sizes.
        resizer: Resizes the kind of picture ``image`` is.

    Returns:
        The crop, its grid mask of 0 and 1. For an empty mask, a black patch with an empty grid
        mask. A mask so thin that it vanishes on the grid keeps the cells it covers most, unless
        ``config.compat_thin_masks`` is set.
    """
    frame_size = (image.shape[0], image.shape[1])
    tight = tight_box(mask)
    if tight is None:
        return empty_crop(frame_size, resizer)
    box = padded_box(tight, config.object_margin, frame_size)
    top, left, bottom, right = box
    # a frame may be a single row or column
    window = np.s_[top : max(bottom, top + 1), left : max(right, left + 1)]
    picture = image[window]
    height, width = picture.shape[:2]
    rows, columns = object_grid(height, width, cv2.countNonZero(mask), config)
    resized = resizer.linear(picture, (columns * PATCH_SIZE, rows * PATCH_SIZE))
    grid_mask = _on_grid(mask[window], rows, columns)
    if not grid_mask.any() and not config.compat_thin_masks:
        inside = mask[top : bottom + 1, left : right + 1].astype(np.float32)
        cover = cv2.resize(inside, (columns, rows), interpolation=cv2.INTER_AREA)
        grid_mask = (cover > 0.5 * cover.max()).astype(np.float32)
    return ObjectCrop(resized, grid_mask, box, frame_size)


def _on_grid(mask: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float32]:
    """Scale a mask of 0 and 1 to (rows, columns), still of 0 and 1.

    torch's operator for whole numbers rounds after each of its two passes, which no scaling in
    floats followed by rounding repeats.
    """
    picture = torch.from_numpy(np.ascontiguousarray(mask))[None, None]
    scaled = functional.interpolate(
        picture, size=(rows, columns), mode='bilinear', align_corners=False
    )
    return scaled[0, 0].numpy().astype(np.float32)
