# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Convert what comes in (regions, queries) between ROS messages and core types, both ways.

Messages are checked on the way in, so that the engine never sees a shape it does not expect;
what depends on an image (its size, known ids) is the engine's to check. What goes out is in
``results``.
"""

from __future__ import annotations

import array
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point32
from sensor_msgs.msg import RegionOfInterest

from pixelrefer_ros import msg as ros
from pixelrefer_ros.core import types
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, PixelReferError, RegionKind, Task
from pixelrefer_ros.node.images import stamp_to_ns

if TYPE_CHECKING:
    from collections.abc import Iterable

ROI_ID = 'roi'
"""The id of the region given on ``~/roi``."""


# Time ---------------------------------------------------------------------------------------


def ns_to_stamp(stamp_ns: int) -> Time:
    """Return nanoseconds as builtin_interfaces/Time."""
    seconds, nanoseconds = divmod(int(stamp_ns), NS_PER_S)
    return Time(sec=seconds, nanosec=nanoseconds)


def seconds_from_msg(duration: Duration) -> float:
    """Return a builtin_interfaces/Duration in seconds."""
    return (duration.sec * NS_PER_S + duration.nanosec) / NS_PER_S


def seconds_to_msg(seconds: float) -> Duration:
    """Return seconds as builtin_interfaces/Duration."""
    whole, nanoseconds = divmod(round(seconds * NS_PER_S), NS_PER_S)
    return Duration(sec=whole, nanosec=nanoseconds)


def _not_negative(duration: Duration, name: str) -> float:
    seconds = seconds_from_msg(duration)
    if seconds < 0:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'{name} is negative ({seconds:g} s): give 0 for the default'
        )
    return seconds


# Boxes and masks ----------------------------------------------------------------------------


def box_from_msg(box: RegionOfInterest) -> types.Box | None:
    """Return a sensor_msgs/RegionOfInterest as a box; None when it has no pixels."""
    if not (box.width and box.height):
        return None
    return types.Box(box.x_offset, box.y_offset, box.width, box.height)


def box_to_msg(box: types.Box | None) -> RegionOfInterest:
    """Return a box as sensor_msgs/RegionOfInterest, all 0 for None."""
    if box is None:
        return RegionOfInterest()
    return RegionOfInterest(x_offset=box.x, y_offset=box.y, width=box.width, height=box.height)


def mask_from_msg(mask: ros.Mask) -> types.Mask | None:
    """Return a mask; None for the mask without a size.

    Raises:
        PixelReferError: BAD_REGION, the runs do not add up to the size.
    """
    if mask.height == 0 and mask.width == 0 and not len(mask.counts):
        return None
    total = sum(mask.counts)
    if total != mask.height * mask.width:
        raise PixelReferError(
            ErrorCode.BAD_REGION,
            f'mask of {mask.width}x{mask.height} pixels has runs that add up to {total} instead '
            f'of {mask.height * mask.width}: send COCO uncompressed run lengths, column-major, '
            f'background first',
        )
    return types.Mask(mask.height, mask.width, tuple(mask.counts))


def mask_to_msg(mask: types.Mask | None) -> ros.Mask:
    """Return a mask message, without a size for None."""
    if mask is None:
        return ros.Mask()
    return ros.Mask(
        height=mask.height, width=mask.width, counts=array.array('I', mask.counts)
    )


# Regions ------------------------------------------------------------------------------------


def region_from_msg(region: ros.Region, default_stamp_ns: int = 0) -> types.Region:
    """Return a region.

    Args:
        region: The message.
        default_stamp_ns: Used when the region's own stamp is 0.

    Raises:
        PixelReferError: BAD_REGION or BAD_REQUEST with what to correct.
    """
    try:
        kind = RegionKind(region.kind)
    except ValueError:
        raise PixelReferError(
            ErrorCode.BAD_REGION,
            f'region {region.region_id!r} is of kind {region.kind}: give 0 (box), 1 (points) '
            f'or 2 (mask)',
        ) from None
    common = {
        'region_id': region.region_id,
        'kind': kind,
        'camera': region.camera,
        'stamp_ns': stamp_to_ns(region.header.stamp) or default_stamp_ns,
        'label': region.label,
        'ttl_s': _not_negative(region.ttl, f'the ttl of region {region.region_id!r}'),
    }
    if kind is RegionKind.BOX:
        box = box_from_msg(region.box)
        if box is None:
            raise _bad_region(region, 'its box has no pixels: give width and height above 0')
        return types.Region(**common, box=box)
    if kind is RegionKind.MASK:
        mask = mask_from_msg(region.mask)
        if mask is None:
            raise _bad_region(region, 'it has no mask: fill mask, or set kind to what is filled')
        return types.Region(**common, mask=mask)
    points = tuple((float(point.x), float(point.y)) for point in region.points)
    labels = tuple(int(label) for label in region.point_labels)
    if not points:
        raise _bad_region(region, 'it has no points: give one at least')
    if not all(math.isfinite(value) for point in points for value in point):
        raise _bad_region(region, 'a point is not finite: give pixels')
    if labels and len(labels) != len(points):
        raise _bad_region(
            region, f'{len(labels)} point_labels for {len(points)} points: give one each, or none'
        )
    if any(label not in (0, 1) for label in labels):
        raise _bad_region(region, 'a point label is neither 1 (on the object) nor 0 (off it)')
    return types.Region(**common, points=points, point_labels=labels)


def _bad_region(region: ros.Region, reason: str) -> PixelReferError:
    return PixelReferError(ErrorCode.BAD_REGION, f'region {region.region_id!r}: {reason}')


def region_to_msg(region: types.Region) -> ros.Region:
    """Return a region message."""
    message = ros.Region(
        camera=region.camera,
        region_id=region.region_id,
        label=region.label,
        kind=int(region.kind),
        box=box_to_msg(region.box),
        points=[Point32(x=x, y=y) for x, y in region.points],
        point_labels=array.array('b', region.point_labels),
        mask=mask_to_msg(region.mask),
        ttl=seconds_to_msg(region.ttl_s),
    )
    message.header.stamp = ns_to_stamp(region.stamp_ns)
    return message


def regions_from_msg(
    regions: Iterable[ros.Region], default_stamp_ns: int = 0
) -> list[types.Region | PixelReferError]:
    """Return one region or the reason against it per message, in order; never raise."""
    results: list[types.Region | PixelReferError] = []
    for region in regions:
        try:
            results.append(region_from_msg(region, default_stamp_ns))
        except PixelReferError as error:
            results.append(error)
    return results


def roi_to_region(roi: RegionOfInterest, camera: str = '') -> types.Region:
    """Return what ``~/roi`` gives: the region 'roi' of the newest image.

    Raises:
        PixelReferError: BAD_REGION, the box has no pixels.
    """
    return region_from_msg(ros.Region(region_id=ROI_ID, camera=camera, box=roi))


# Queries ------------------------------------------------------------------------------------


def query_from_msg(query: ros.Query, query_id: str) -> types.Query:
    """Return a query.

    Args:
        query: The message. Its regions may come without an id; they get '<query_id>:<index>'.
        query_id: The id to use when the message has none.

    Raises:
        PixelReferError: BAD_REQUEST or BAD_REGION with what to correct.
    """
    query_id = query.query_id or query_id
    try:
        task = Task(query.task)
    except ValueError:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST,
            f'task {query.task} is not known: give 0 (describe), 1 (ask) or 2 (ground)',
        ) from None
    stamp_ns = stamp_to_ns(query.header.stamp)
    regions = [region_from_msg(region, stamp_ns) for region in query.regions]
    return types.Query(
        query_id=query_id,
        text=query.text,
        task=task,
        stamp_ns=stamp_ns,
        camera=query.camera,
        region_ids=tuple(query.region_ids),
        regions=tuple(
            region if region.region_id else replace(region, region_id=f'{query_id}:{index}')
            for index, region in enumerate(regions)
        ),
        window_s=_not_negative(query.window, 'window'),
        priority=query.priority,
        deadline_s=_not_negative(query.deadline, 'deadline'),
    )


def query_to_msg(query: types.Query) -> ros.Query:
    """Return a query message."""
    message = ros.Query(
        query_id=query.query_id,
        text=query.text,
        task=int(query.task),
        camera=query.camera,
        region_ids=list(query.region_ids),
        regions=[region_to_msg(region) for region in query.regions],
        window=seconds_to_msg(query.window_s),
        priority=query.priority,
        deadline=seconds_to_msg(query.deadline_s),
    )
    message.header.stamp = ns_to_stamp(query.stamp_ns)
    return message


def refusal(query: ros.Query, query_id: str, code: ErrorCode, message: str) -> types.Answer:
    """Return the answer to a query that never became one."""
    return types.Answer(
        query_id=query_id,
        stamp_ns=stamp_to_ns(query.header.stamp),
        frame_id=query.header.frame_id,
        camera=query.camera,
        error_code=code,
        error_msg=message,
    )
