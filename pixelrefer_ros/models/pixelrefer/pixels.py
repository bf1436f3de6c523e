# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Size pictures to whole patches within a pixel budget and cut them into patches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.resampling import EXACT

if TYPE_CHECKING:
    from pixelrefer_ros.models.pixelrefer.resampling import Pixels, Resizer

MAX_ASPECT_RATIO = 200.0


def fitted_size(
    height: int, width: int, min_pixels: int, max_pixels: int, factor: int = PATCH_SIZE
) -> tuple[int, int]:
    """Return the size a picture is given: whole patches, within the pixel budget.

    Args:
        height: Of the picture.
        width: Of the picture.
        min_pixels: Smaller pictures are enlarged.
        max_pixels: Larger pictures are shrunk.
        factor: Both sides become multiples of it, rounded half to even.

    Returns:
        (height, width).

    Raises:
        ValueError: The picture is more than 200 times as long as wide.
    """
    if min(height, width) < factor:
        if height < width:
            height, width = factor, round(width * factor / height)
        else:
            height, width = round(height * factor / width), factor
    elif max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise ValueError(
            f'a picture of {width}x{height} pixels is too long for the vision tower: sides may '
            f'differ by a factor of {MAX_ASPECT_RATIO:.0f}'
        )
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        rows = math.floor(height / beta / factor) * factor
        columns = math.floor(width / beta / factor) * factor
    elif rows * columns < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * beta / factor) * factor
        columns = math.ceil(width * beta / factor) * factor
    return max(rows, factor), max(columns, factor)


def to_patches(
    picture: Pixels,
    min_pixels: int,
    max_pixels: int,
    factor: int = PATCH_SIZE,
    resizer: Resizer = EXACT,
) -> tuple[Pixels, tuple[int, int]]:
    """Cut a picture into patches, resized first (Pillow, bicubic) where its size does not fit.

    Args:
        picture: (H, W, 3) uint8 RGB.
        min_pixels: As in ``fitted_size``.
        max_pixels: As in ``fitted_size``.
        factor: As in ``fitted_size``; a multiple of the patch size.
        resizer: Resizes the kind of picture ``picture`` is.

    Returns:
        (rows * columns, 588) uint8, each patch in channel, row, column order, patches in raster
        order, an array or a tensor as the picture is; (rows, columns).
    """
    height, width = picture.shape[:2]
    size = fitted_size(height, width, min_pixels, max_pixels, factor)
    if size != (height, width):
        picture = resizer.bicubic(picture, size[::-1])
    rows, columns = size[0] // PATCH_SIZE, size[1] // PATCH_SIZE
    blocks = picture.reshape(rows, PATCH_SIZE, columns, PATCH_SIZE, 3)
    order = (0, 2, 4, 1, 3)
    ordered = blocks.transpose(order) if isinstance(blocks, np.ndarray) else blocks.permute(order)
    return ordered.reshape(rows * columns, -1), (rows, columns)
