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
    return Mask(height, width, tuple(runs(mask)[0].tolist()))


def runs(mask: NDArray[Any]) -> tuple[NDArray[np.uint32], Box | None]:
    """Return the run lengths of a picture of a mask as an array, and the box around it.

    Only the columns the region touches are read, which is what makes it cheap for every frame.

    Args:
        mask: (H, W) as for ``encode``.

    Returns:
        The run lengths, uint32, and the smallest box; None when no pixel belongs to the region.
    """
    height, width = mask.shape
    pixels = mask if mask.dtype == np.bool_ else mask != 0
    columns = np.flatnonzero(pixels.any(axis=0))
    if not columns.size:
        return np.asarray([mask.size] if mask.size else [], dtype=np.uint32), None
    left, right = int(columns[0]), int(columns[-1])
    touched = pixels[:, left : right + 1]
    rows = np.flatnonzero(touched.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1])
    # Background before and after, so that every run of the region has a start and an end.
    line = np.zeros(touched.size + 2, dtype=np.bool_)
    line[1:-1].reshape(right - left + 1, height)[:] = touched.T
    edges = np.flatnonzero(line[1:] != line[:-1]) + left * height
    ends = [] if edges[-1] == mask.size else [mask.size]
    lengths = np.diff(np.concatenate(([0], edges, ends)))
    return lengths.astype(np.uint32), Box(left, top, right - left + 1, bottom - top + 1)


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
