# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Convert bag messages to core types.

The rules are those of the node: a region without a stamp takes that of its array or query, the
region of ``~/roi`` is called 'roi', regions that come with a query without an id are numbered.
One differs: an image without a stamp takes its log time, where the node refuses it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import (
    NS_PER_S,
    Answer,
    Box,
    Description,
    ErrorCode,
    Evidence,
    Frame,
    Mask,
    PixelReferError,
    Query,
    Region,
    RegionKind,
    Task,
    Timings,
    Track,
    TrackState,
)
from pixelrefer_ros.imaging import decode_compressed, decode_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROI_ID = 'roi'
_TIMINGS = ('queue', 'preprocess', 'vision', 'language', 'tracking', 'total')


def stamp_ns(stamp: Any) -> int:
    """Return a Time in nanoseconds."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def _seconds(duration: Any) -> float:
    return (int(duration.sec) * NS_PER_S + int(duration.nanosec)) / NS_PER_S


def frame_from(msg: Any, camera: str, log_time_ns: int, *, decode: bool = True) -> Frame:
    """Decode an Image or CompressedImage.

    Args:
        msg: The message.
        camera: Name of its camera.
        log_time_ns: Taken as the stamp of an image that has none; the node, which has no such
            time, refuses those images.
        decode: False gives an image without pixels.

    Raises:
        ValueError: It cannot be decoded; the text says why.
    """
    image: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
    if not decode:
        pass
    elif hasattr(msg, 'encoding'):
        image = decode_image(
            msg.encoding, msg.height, msg.width, msg.step, msg.is_bigendian, msg.data
        )
    else:
        image = decode_compressed(msg.data, msg.format)
        if 'compressed rgb' in msg.format.lower():
            # image_transport handed red first to an encoder that takes blue first
            image = np.ascontiguousarray(image[..., ::-1])
    return Frame(camera, stamp_ns(msg.header.stamp) or log_time_ns, image, msg.header.frame_id)


def _box_from(box: Any) -> Box | None:
    if not (box.width and box.height):
        return None
    return Box(int(box.x_offset), int(box.y_offset), int(box.width), int(box.height))


def _mask_from(mask: Any) -> Mask | None:
    if not mask.height and not mask.width and not len(mask.counts):
        return None
    return Mask(int(mask.height), int(mask.width), tuple(np.asarray(mask.counts).tolist()))


def region_from(msg: Any, default_stamp_ns: int = 0) -> Region:
    """Return a region; ``default_stamp_ns`` stands in for a stamp of 0.

    Raises:
        PixelReferError: BAD_REGION, it is not whole.
    """
    try:
        kind = RegionKind(msg.kind)
    except ValueError:
        raise PixelReferError(
            ErrorCode.BAD_REGION, f'region {msg.region_id!r} is of unknown kind {msg.kind}'
        ) from None
    mask = _mask_from(msg.mask) if kind is RegionKind.MASK else None
    if mask is not None:
        masks.validate(mask)
    return Region(
        region_id=msg.region_id,
        kind=kind,
        camera=msg.camera,
        stamp_ns=stamp_ns(msg.header.stamp) or default_stamp_ns,
        label=msg.label,
        box=_box_from(msg.box) if kind is RegionKind.BOX else None,
        points=tuple((float(p.x), float(p.y)) for p in msg.points),
        point_labels=tuple(int(label) for label in msg.point_labels),
        mask=mask,
        ttl_s=max(0.0, _seconds(msg.ttl)),
    )


def regions_from(msg: Any) -> tuple[list[Region], list[PixelReferError]]:
    """Return the regions of a RegionArray, and what is wrong with the others."""
    regions, problems = [], []
    for part in msg.regions:
        try:
            regions.append(region_from(part, stamp_ns(msg.header.stamp)))
        except PixelReferError as error:
            problems.append(error)
    return regions, problems


def roi_from(msg: Any) -> Region:
    """Return the region a RegionOfInterest speaks of, on the newest image."""
    return Region(ROI_ID, RegionKind.BOX, box=_box_from(msg))


def query_from(msg: Any, query_id: str) -> Query:
    """Return a query; ``query_id`` stands in for an empty id.

    Raises:
        PixelReferError: BAD_REQUEST or BAD_REGION, it is not whole.
    """
    query_id = msg.query_id or query_id
    try:
        task = Task(msg.task)
    except ValueError:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'query {query_id!r} has the unknown task {msg.task}'
        ) from None
    as_of_ns = stamp_ns(msg.header.stamp)
    regions = [region_from(part, as_of_ns) for part in msg.regions]
    return Query(
        query_id=query_id,
        text=msg.text,
        task=task,
        stamp_ns=as_of_ns,
        camera=msg.camera,
        region_ids=tuple(msg.region_ids),
        regions=tuple(
            part if part.region_id else replace(part, region_id=f'{query_id}:{index}')
            for index, part in enumerate(regions)
        ),
        window_s=max(0.0, _seconds(msg.window)),
        priority=int(msg.priority),
        deadline_s=max(0.0, _seconds(msg.deadline)),
    )


def _timings_from(msg: Any) -> Timings:
    return Timings(*(_seconds(getattr(msg, name)) for name in _TIMINGS))


def description_from(msg: Any) -> Description:
    """Return a description."""
    return Description(
        camera=msg.camera,
        region_id=msg.region_id,
        label=msg.label,
        stamp_ns=stamp_ns(msg.header.stamp),
        frame_id=msg.header.frame_id,
        text=msg.text,
        confidence=float(msg.confidence),
        box=_box_from(msg.box),
        frame_stamps_ns=tuple(map(stamp_ns, msg.frame_stamps)),
        timings=_timings_from(msg.timings),
        tokens_in=int(msg.tokens_in),
        tokens_out=int(msg.tokens_out),
        model=msg.model,
    )


def tracks_from(msg: Any) -> tuple[Track, ...]:
    """Return the tracks of a TrackArray.

    Raises:
        ValueError: One is in a state that is not known.
    """
    return tuple(
        Track(
            region_id=track.region_id,
            camera=msg.camera,
            stamp_ns=stamp_ns(msg.header.stamp),
            state=TrackState(track.state),
            score=float(track.score),
            box=_box_from(track.box),
            mask=_mask_from(track.mask),
            last_seen_ns=stamp_ns(track.last_seen),
            label=track.label,
        )
        for track in msg.tracks
    )


def _evidence_from(msg: Any) -> Evidence:
    thumbnail = decode_compressed(msg.thumbnail.data) if len(msg.thumbnail.data) else None
    return Evidence(
        camera=msg.camera,
        region_id=msg.region_id,
        stamp_ns=stamp_ns(msg.header.stamp),
        frame_id=msg.header.frame_id,
        box=_box_from(msg.box),
        mask=_mask_from(msg.mask),
        score=float(msg.score),
        track_stamps_ns=tuple(map(stamp_ns, msg.track_stamps)),
        track_masks=tuple(map(_mask_from, msg.track_masks)),
        reasoning=msg.reasoning,
        thumbnail=thumbnail,
    )


def answer_from(msg: Any) -> Answer:
    """Return an answer."""
    return Answer(
        query_id=msg.query_id,
        stamp_ns=stamp_ns(msg.header.stamp),
        frame_id=msg.header.frame_id,
        camera=msg.camera,
        text=msg.text,
        error_code=ErrorCode(msg.error_code),
        error_msg=msg.error_msg,
        confidence=float(msg.confidence),
        region_ids=tuple(msg.region_ids),
        evidence=tuple(map(_evidence_from, msg.evidence)),
        window_start_ns=stamp_ns(msg.window_start),
        window_end_ns=stamp_ns(msg.window_end),
        frame_stamps_ns=tuple(map(stamp_ns, msg.frame_stamps)),
        timings=_timings_from(msg.timings),
        tokens_in=int(msg.tokens_in),
        tokens_out=int(msg.tokens_out),
        model=msg.model,
        age_s=_seconds(msg.age),
    )
