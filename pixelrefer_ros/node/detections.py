# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take in what a detector that tracks says, and give out tracks, as vision_msgs/Detection2DArray.

vision_msgs comes with a ROS installation and is not on PyPI. Where it is missing the node works
without these two topics.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pixelrefer_ros.core.types import Box, ErrorCode, PixelReferError, Region, RegionKind
from pixelrefer_ros.node.conversions import ns_to_stamp
from pixelrefer_ros.node.images import stamp_to_ns

try:
    from vision_msgs import msg as vision
except ImportError:
    vision = None

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pixelrefer_ros.core.types import Track


def array_type() -> type | None:
    """Return vision_msgs/Detection2DArray; None when vision_msgs is not installed."""
    return None if vision is None else vision.Detection2DArray


def detections_to_regions(message: Any, camera: str) -> list[Region | PixelReferError]:
    """Return one box region or the reason against it per detection, in order; never raise.

    Args:
        message: vision_msgs/Detection2DArray.
        camera: Whose images the detector saw.
    """
    stamp_ns = stamp_to_ns(message.header.stamp)
    results: list[Region | PixelReferError] = []
    for detection in message.detections:
        try:
            results.append(_region(detection, camera, stamp_ns))
        except PixelReferError as error:
            results.append(error)
    return results


def _region(detection: Any, camera: str, stamp_ns: int) -> Region:
    if not detection.id:
        raise PixelReferError(
            ErrorCode.BAD_REGION,
            'a detection has no id: let the detector track, so that one thing has the same id '
            'in every image',
        )
    best = max(
        (result.hypothesis for result in detection.results),
        key=lambda hypothesis: hypothesis.score,
        default=None,
    )
    return Region(
        detection.id,
        RegionKind.BOX,
        camera=camera,
        stamp_ns=stamp_ns or stamp_to_ns(detection.header.stamp),
        label='' if best is None else best.class_id,
        box=_box(detection),
    )


def _box(detection: Any) -> Box:
    """Return the upright box around the box of a detection, which may be turned."""
    center, theta = detection.bbox.center.position, detection.bbox.center.theta
    width, height = detection.bbox.size_x, detection.bbox.size_y
    if not all(map(math.isfinite, (center.x, center.y, theta, width, height))) or not (
        width > 0 and height > 0
    ):
        raise PixelReferError(
            ErrorCode.BAD_REGION,
            f'detection {detection.id!r} has a box of {width:g}x{height:g} pixels at '
            f'({center.x:g}, {center.y:g}): give finite numbers, and a size above 0',
        )
    cos, sin = abs(math.cos(theta)), abs(math.sin(theta))
    width, height = width * cos + height * sin, width * sin + height * cos
    left, top = round(center.x - width / 2), round(center.y - height / 2)
    right, bottom = round(center.x + width / 2), round(center.y + height / 2)
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def tracks_to_detections(tracks: Iterable[Track], stamp_ns: int, frame_id: str) -> Any:
    """Return the tracks that are in sight as vision_msgs/Detection2DArray.

    The label is the class of the only hypothesis, with the score of the track.
    """
    message = vision.Detection2DArray()
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    for track in tracks:
        if track.box is not None:
            message.detections.append(_detection(track, track.box, message.header))
    return message


def _detection(track: Track, box: Box, header: Any) -> Any:
    detection = vision.Detection2D(header=header, id=track.region_id)
    detection.bbox.center.position.x = box.x + box.width / 2
    detection.bbox.center.position.y = box.y + box.height / 2
    detection.bbox.size_x, detection.bbox.size_y = float(box.width), float(box.height)
    result = vision.ObjectHypothesisWithPose()
    result.hypothesis.class_id = track.label
    result.hypothesis.score = float(track.score)
    detection.results.append(result)
    return detection
