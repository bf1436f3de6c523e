# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn boxes, points and masks into masks on the frames they speak of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import (
    NS_PER_S,
    Box,
    ErrorCode,
    Frame,
    Mask,
    PixelReferError,
    Region,
    RegionKind,
    TrackState,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.core.tracker import Sighting
    from pixelrefer_ros.core.video_buffer import FrameView

# Radius of the disc a point stands for, as a part of the short side of the image.
POINT_RADIUS = 0.04


def region_mask(region: Region, height: int, width: int) -> Mask:
    """Return the mask of a region on an image of this size; never an empty one.

    A box is filled and clipped to the image. Points are discs of ``POINT_RADIUS``: those with
    label 1 are joined, those with label 0 cut out.

    Raises:
        PixelReferError: BAD_REGION when it is empty, outside the image, of another size than
            the image, or not whole.
    """
    if region.kind == RegionKind.BOX:
        return _box_mask(region, height, width)
    if region.kind == RegionKind.POINTS:
        return _points_mask(region, height, width)
    if region.kind == RegionKind.MASK:
        return _given_mask(region, height, width)
    raise _bad(region, f'kind {region.kind!r} is none of BOX, POINTS, MASK')


def _bad(region: Region, why: str) -> PixelReferError:
    return PixelReferError(ErrorCode.BAD_REGION, f"region '{region.region_id}': {why}")


def _box_mask(region: Region, height: int, width: int) -> Mask:
    box = region.box
    if box is None:
        raise _bad(region, 'kind BOX needs a box')
    if box.width < 1 or box.height < 1:
        raise _bad(region, f'a box of {box.width}x{box.height} pixels is empty')
    left, top = max(box.x, 0), max(box.y, 0)
    right, bottom = min(box.x + box.width, width), min(box.y + box.height, height)
    if left >= right or top >= bottom:
        raise _bad(
            region,
            f'the box at x={box.x} y={box.y} of {box.width}x{box.height} pixels lies outside the '
            f'image of {width}x{height}',
        )
    return masks.encode_box(Box(left, top, right - left, bottom - top), height, width)


def _points_mask(region: Region, height: int, width: int) -> Mask:
    points, labels = region.points, region.point_labels or (1,) * len(region.points)
    if len(labels) != len(points):
        raise _bad(region, f'{len(points)} points need as many labels, or none; not {len(labels)}')
    if not set(labels) <= {0, 1}:
        raise _bad(region, 'point labels are 1 (on the object) or 0 (off it)')
    if not all(math.isfinite(value) for point in points for value in point):
        raise _bad(region, 'a point is not finite')
    if 1 not in labels:
        raise _bad(region, 'kind POINTS needs at least one point with label 1')
    picture = np.zeros((height, width), dtype=np.bool_)
    radius = max(1.0, POINT_RADIUS * min(height, width))
    for wanted in (1, 0):
        for (x, y), label in zip(points, labels, strict=True):
            if label == wanted:
                _draw_disc(picture, x, y, radius, bool(wanted))
    mask = masks.encode(picture)
    if masks.is_empty(mask):
        raise _bad(
            region,
            f'no pixel is left: its points lie outside the image of {width}x{height}, or points '
            'with label 0 cover those with label 1',
        )
    return mask


def _draw_disc(
    picture: NDArray[np.bool_], x: float, y: float, radius: float, value: bool
) -> None:
    """Set the pixels whose centres lie within the radius; looks at the disc's square only."""
    height, width = picture.shape
    top, bottom = (min(max(0, math.floor(v)), height) for v in (y - radius, y + radius + 1))
    left, right = (min(max(0, math.floor(v)), width) for v in (x - radius, x + radius + 1))
    rows = np.arange(top, bottom)[:, None] + 0.5 - y
    columns = np.arange(left, right)[None, :] + 0.5 - x
    picture[top:bottom, left:right][rows**2 + columns**2 <= radius**2] = value


def _given_mask(region: Region, height: int, width: int) -> Mask:
    mask = region.mask
    if mask is None:
        raise _bad(region, 'kind MASK needs a mask')
    if (mask.height, mask.width) != (height, width):
        raise _bad(
            region,
            f'its mask is {mask.width}x{mask.height} pixels, the image {width}x{height}; send '
            'masks in the size of the image',
        )
    try:
        masks.validate(mask)
    except PixelReferError as error:
        raise _bad(region, str(error)) from None
    if masks.is_empty(mask):
        raise _bad(region, 'its mask is empty')
    return mask


@dataclass(frozen=True, slots=True)
class Observation:
    """Hold where a region is in one kept frame.

    Attributes:
        stamp_ns: Stamp of the frame.
        given_ns: Stamp the region was given with; that of the frame when it had none.
        height: Of the frame.
        width: Of the frame.
        runs: Run lengths of the mask, uint32: a tenth of the memory of a ``Mask``.
        box: Smallest box around the mask.
        tracked: Whether a tracker found it there; False when it was given.
        state: What the tracker made of it; NEW when it was given.
        score: How sure it is, in [0, 1]; 1 when it was given.
        tracking_s: Its share of the time the tracker took for the frame.
    """

    stamp_ns: int
    given_ns: int
    height: int
    width: int
    runs: NDArray[np.uint32]
    box: Box
    tracked: bool = False
    state: TrackState = TrackState.NEW
    score: float = 1.0
    tracking_s: float = 0.0

    @property
    def area(self) -> int:
        """Return how many pixels belong to the region."""
        return int(self.runs[1::2].sum())

    @property
    def mask(self) -> Mask:
        """Return the mask."""
        return Mask(self.height, self.width, tuple(self.runs.tolist()))

    @property
    def offset_ns(self) -> int:
        """Return how far the frame is from the stamp the region was given with."""
        return abs(self.stamp_ns - self.given_ns)


def observe(region: Region, frame: Frame) -> Observation:
    """Return what a region says about a frame.

    Raises:
        PixelReferError: BAD_REGION, as ``region_mask``.
    """
    height, width = frame.image.shape[:2]
    mask = region_mask(region, height, width)
    box = masks.bounding_box(mask)
    if box is None:
        raise _bad(region, 'it is empty')
    runs = np.asarray(mask.counts, dtype=np.uint32)
    return Observation(
        frame.stamp_ns, region.stamp_ns or frame.stamp_ns, height, width, runs, box
    )


def observe_sighting(
    sighting: Sighting, frame: Frame, tracking_s: float = 0.0
) -> Observation | None:
    """Return what a tracker saw of a region in a frame; None when it saw nothing of it.

    Args:
        sighting: What the tracker says.
        frame: The frame it says it about.
        tracking_s: Share of the region in the time it took.

    Raises:
        PixelReferError: MODEL_ERROR when the mask has not the size of the frame.
    """
    mask = sighting.mask
    if mask is None or sighting.state == TrackState.LOST:
        return None
    height, width = frame.image.shape[:2]
    if mask.shape != (height, width):
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"the tracker gave region '{sighting.region_id}' a mask of shape {mask.shape} in an "
            f'image of {width}x{height}',
        )
    runs, box = masks.runs(mask)
    if box is None:
        return None
    score = min(1.0, max(0.0, float(sighting.score)))
    return Observation(
        stamp_ns=frame.stamp_ns,
        given_ns=frame.stamp_ns,
        height=height,
        width=width,
        runs=runs,
        box=box,
        tracked=True,
        state=sighting.state,
        score=score,
        tracking_s=tracking_s,
    )


def check_not_ahead(region_id: str, stamp_ns: int, newest_ns: int, pending_ns: int) -> None:
    """Check that the image of a region can be waited for.

    Raises:
        PixelReferError: BAD_STAMP when it is too far ahead of the newest frame.
    """
    ahead_ns = stamp_ns - newest_ns
    if ahead_ns > pending_ns:
        raise PixelReferError(
            ErrorCode.BAD_STAMP,
            f"region '{region_id}' is {ahead_ns / NS_PER_S:.3f} s ahead of the newest image; do "
            'its stamps come from the same clock? Stamp 0 means the newest image',
        )


def match_frame(region: Region, view: FrameView, tolerance_ns: int) -> Frame | None:
    """Return the kept frame a region speaks of; None when there are no frames at all.

    Raises:
        PixelReferError: BAD_STAMP when no kept frame is near enough.
    """
    newest = view.newest()
    if newest is None or not region.stamp_ns:
        return newest
    frame = view.nearest(region.stamp_ns, tolerance_ns)
    if frame is None:
        oldest_ns = view.stamps_ns[0]
        if region.stamp_ns < oldest_ns:
            why = f'is {(oldest_ns - region.stamp_ns) / NS_PER_S:.3f} s older than the buffer'
        else:
            nearest = view.nearest(region.stamp_ns)
            gap_ns = 0 if nearest is None else abs(nearest.stamp_ns - region.stamp_ns)
            why = f'is {gap_ns / NS_PER_S:.3f} s from the nearest kept image'
        raise PixelReferError(
            ErrorCode.BAD_STAMP,
            f"region '{region.region_id}' {why}; give regions the stamp of the image they were "
            'seen in',
        )
    return frame
