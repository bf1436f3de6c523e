# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn masks into run lengths and back, and measure them.

Run lengths are those of COCO, uncompressed: pixels are read down the columns, runs alternate
between background and region, and the first run is background (0 long when the top-left pixel
belongs to the region).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pixelrefer_ros.core.types import Box, ErrorCode, Mask, PixelReferError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def encode(mask: NDArray[Any]) -> Mask:
    """Return the run lengths of a picture of a mask.

    Args:
        mask: (H, W) bool, or numbers where anything but 0 belongs to the region.

    Raises:
        PixelReferError: BAD_REGION when it is not two-dimensional.
    """
    if mask.ndim != 2:
        raise PixelReferError(
            ErrorCode.BAD_REGION, f'a mask has two dimensions (H, W); this one has {mask.shape}'
        )
    height, width = mask.shape
    if mask.size == 0:
        return Mask(height, width, ())
    pixels = mask if mask.dtype == np.bool_ else mask != 0
    columns = np.ascontiguousarray(pixels.T).reshape(-1)
    starts = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    edges = np.concatenate(([0] if not columns[0] else [0, 0], starts, [columns.size]))
    return Mask(height, width, tuple(np.diff(edges).tolist()))


def encode_box(box: Box, height: int, width: int) -> Mask:
    """Return the run lengths of a filled box, without drawing it.

    Args:
        box: A box of at least one pixel that lies inside the image.
        height: Height of the image.
        width: Width of the image.
    """
    start = box.x * height + box.y
    end = (box.x + box.width - 1) * height + box.y + box.height
    if box.height == height:
        body = [box.width * height]
    else:
        body = [box.height, height - box.height] * (box.width - 1) + [box.height]
    tail = [height * width - end] if end < height * width else []
    return Mask(height, width, (start, *body, *tail))


def decode(mask: Mask) -> NDArray[np.bool_]:
    """Return the picture of a mask, (H, W) bool, C-contiguous.

    Raises:
        PixelReferError: BAD_REGION when the run lengths do not fit the size.
    """
    validate(mask)
    values = np.arange(len(mask.counts)) % 2 == 1
    columns = np.repeat(values, np.asarray(mask.counts, dtype=np.int64))
    return np.ascontiguousarray(columns.reshape(mask.width, mask.height).T)


def validate(mask: Mask) -> None:
    """Check that the run lengths fit the size.

    Raises:
        PixelReferError: BAD_REGION, saying what does not fit.
    """
    if mask.height < 0 or mask.width < 0:
        raise PixelReferError(
            ErrorCode.BAD_REGION, f'a mask cannot be {mask.width}x{mask.height} pixels'
        )
    if mask.counts and min(mask.counts) < 0:
        raise PixelReferError(ErrorCode.BAD_REGION, 'a mask has a negative run length')
    total = sum(mask.counts)
    if total != mask.height * mask.width:
        raise PixelReferError(
            ErrorCode.BAD_REGION,
            f'the run lengths of a mask of {mask.width}x{mask.height} pixels must add up to '
            f'{mask.height * mask.width}; these add up to {total}',
        )


def area(mask: Mask) -> int:
    """Return how many pixels belong to the region."""
    return sum(mask.counts[1::2])


def is_empty(mask: Mask) -> bool:
    """Return whether no pixel belongs to the region."""
    return not any(mask.counts[1::2])


def bounding_box(mask: Mask) -> Box | None:
    """Return the smallest box around the region, without drawing it; None when it is empty."""
    edges = np.concatenate(([0], np.cumsum(np.asarray(mask.counts, dtype=np.int64))))
    starts, ends = edges[1:-1:2], edges[2::2]
    filled = ends > starts
    starts, lasts = starts[filled], ends[filled] - 1
    if not starts.size:
        return None
    left, right = int(starts[0]) // mask.height, int(lasts[-1]) // mask.height
    if np.any(starts // mask.height != lasts // mask.height):
        # A run that goes on into the next column touches the bottom of one and the top of the
        # other.
        top, bottom = 0, mask.height - 1
    else:
        top, bottom = int((starts % mask.height).min()), int((lasts % mask.height).max())
    return Box(left, top, right - left + 1, bottom - top + 1)
