# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Convert core types to bag messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pixelrefer_ros.bags.typestore import COMPRESSED_IMAGE, message
from pixelrefer_ros.core.types import NS_PER_S, Box, Mask
from pixelrefer_ros.imaging import encode_jpeg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import (
        Answer,
        Description,
        Evidence,
        Frame,
        Query,
        Region,
        Timings,
        Track,
    )

_TIMINGS = ('queue', 'preprocess', 'vision', 'language', 'tracking', 'total')


def _time(stamp: int) -> Any:
    seconds, nanoseconds = divmod(stamp, NS_PER_S)
    return message('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds)


def _times(stamps: Iterable[int]) -> list[Any]:
    return [_time(stamp) for stamp in stamps]


def _duration(seconds: float) -> Any:
    whole, nanoseconds = divmod(round(seconds * NS_PER_S), NS_PER_S)
    return message('builtin_interfaces/msg/Duration', sec=whole, nanosec=nanoseconds)


def _header(stamp: int, frame_id: str = '') -> Any:
    return message('std_msgs/msg/Header', stamp=_time(stamp), frame_id=frame_id)


def _box(box: Box | None) -> Any:
    box = box or Box(0, 0, 0, 0)
    return message(
        'sensor_msgs/msg/RegionOfInterest',
        x_offset=box.x,
        y_offset=box.y,
        height=box.height,
        width=box.width,
        do_rectify=False,
    )


def _mask(mask: Mask | None) -> Any:
    mask = mask or Mask(0, 0, ())
    return message(
        'pixelrefer_ros/msg/Mask',
        height=mask.height,
        width=mask.width,
        counts=np.asarray(mask.counts, np.uint32),
    )


def image_to(frame: Frame) -> Any:
    """Return a frame as an Image in rgb8."""
    height, width = frame.image.shape[:2]
    return message(
        'sensor_msgs/msg/Image',
        header=_header(frame.stamp_ns, frame.frame_id),
        height=height,
        width=width,
        encoding='rgb8',
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(frame.image).reshape(-1),
    )


def compressed_to(frame: Frame, quality: int = 90) -> Any:
    """Return a frame as a CompressedImage holding a JPEG."""
    return _jpeg(frame.image, frame.stamp_ns, frame.frame_id, quality)


def _jpeg(image: NDArray[np.uint8] | None, stamp: int, frame_id: str, quality: int) -> Any:
    data = b'' if image is None else encode_jpeg(image, quality)
    return message(
        COMPRESSED_IMAGE,
        header=_header(stamp, frame_id),
        format='' if image is None else 'jpeg',
        data=np.frombuffer(data, np.uint8),
    )


def region_to(region: Region) -> Any:
    """Return a region as a Region message."""
    return message(
        'pixelrefer_ros/msg/Region',
        header=_header(region.stamp_ns),
        camera=region.camera,
        region_id=region.region_id,
        label=region.label,
        kind=int(region.kind),
        box=_box(region.box),
        points=[
            message('geometry_msgs/msg/Point32', x=x, y=y, z=0.0) for x, y in region.points
        ],
        point_labels=np.asarray(region.point_labels, np.int8),
        mask=_mask(region.mask),
        ttl=_duration(region.ttl_s),
    )


def regions_to(regions: Iterable[Region], stamp: int, frame_id: str = '') -> Any:
    """Return regions as a RegionArray."""
    return message(
        'pixelrefer_ros/msg/RegionArray',
        header=_header(stamp, frame_id),
        regions=[region_to(region) for region in regions],
    )


def query_to(query: Query) -> Any:
    """Return a query as a Query message."""
    return message(
        'pixelrefer_ros/msg/Query',
        header=_header(query.stamp_ns),
        query_id=query.query_id,
        text=query.text,
        task=int(query.task),
        camera=query.camera,
        region_ids=list(query.region_ids),
        regions=[region_to(region) for region in query.regions],
        window=_duration(query.window_s),
        priority=query.priority,
        deadline=_duration(query.deadline_s),
    )


def _timings(timings: Timings) -> Any:
    return message(
        'pixelrefer_ros/msg/Timings',
        **{name: _duration(getattr(timings, f'{name}_s')) for name in _TIMINGS},
    )


def description_to(description: Description) -> Any:
    """Return a description as a Description message."""
    return message(
        'pixelrefer_ros/msg/Description',
        header=_header(description.stamp_ns, description.frame_id),
        camera=description.camera,
        region_id=description.region_id,
        label=description.label,
        text=description.text,
        confidence=description.confidence,
        box=_box(description.box),
        frame_stamps=_times(description.frame_stamps_ns),
        timings=_timings(description.timings),
        tokens_in=description.tokens_in,
        tokens_out=description.tokens_out,
        model=description.model,
    )


def tracks_to(frame: Frame, tracks: Iterable[Track]) -> Any:
    """Return the tracks of a camera in a frame as a TrackArray."""
    return message(
        'pixelrefer_ros/msg/TrackArray',
        header=_header(frame.stamp_ns, frame.frame_id),
        camera=frame.camera,
        tracks=[
            message(
                'pixelrefer_ros/msg/Track',
                region_id=track.region_id,
                label=track.label,
                camera=track.camera,
                state=int(track.state),
                score=track.score,
                box=_box(track.box),
                mask=_mask(track.mask),
                last_seen=_time(track.last_seen_ns),
            )
            for track in tracks
        ],
    )


def _evidence(evidence: Evidence) -> Any:
    return message(
        'pixelrefer_ros/msg/Evidence',
        header=_header(evidence.stamp_ns, evidence.frame_id),
        camera=evidence.camera,
        region_id=evidence.region_id,
        box=_box(evidence.box),
        mask=_mask(evidence.mask),
        score=evidence.score,
        track_stamps=_times(evidence.track_stamps_ns),
        track_masks=[_mask(mask) for mask in evidence.track_masks],
        reasoning=evidence.reasoning,
        thumbnail=_jpeg(evidence.thumbnail, evidence.stamp_ns, evidence.frame_id, 90),
    )


def answer_to(answer: Answer) -> Any:
    """Return an answer as an Answer message."""
    return message(
        'pixelrefer_ros/msg/Answer',
        header=_header(answer.stamp_ns, answer.frame_id),
        query_id=answer.query_id,
        text=answer.text,
        error_code=int(answer.error_code),
        error_msg=answer.error_msg,
        confidence=answer.confidence,
        camera=answer.camera,
        region_ids=list(answer.region_ids),
        evidence=[_evidence(evidence) for evidence in answer.evidence],
        window_start=_time(answer.window_start_ns),
        window_end=_time(answer.window_end_ns),
        frame_stamps=_times(answer.frame_stamps_ns),
        timings=_timings(answer.timings),
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        model=answer.model,
        age=_duration(answer.age_s),
    )
