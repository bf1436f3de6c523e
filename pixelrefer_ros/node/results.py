# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make ROS messages of what goes out (descriptions, answers, tracks), and read answers back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor_msgs.msg import CompressedImage

from pixelrefer_ros import msg as ros
from pixelrefer_ros.core import types
from pixelrefer_ros.core.types import ErrorCode
from pixelrefer_ros.imaging import encode_jpeg
from pixelrefer_ros.node.conversions import (
    box_from_msg,
    box_to_msg,
    mask_from_msg,
    mask_to_msg,
    ns_to_stamp,
    seconds_from_msg,
    seconds_to_msg,
)
from pixelrefer_ros.node.images import byte_array, compressed_to_rgb, stamp_to_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from builtin_interfaces.msg import Time


def timings_from_msg(timings: ros.Timings) -> types.Timings:
    """Return timings in seconds."""
    return types.Timings(
        queue_s=seconds_from_msg(timings.queue),
        preprocess_s=seconds_from_msg(timings.preprocess),
        vision_s=seconds_from_msg(timings.vision),
        language_s=seconds_from_msg(timings.language),
        tracking_s=seconds_from_msg(timings.tracking),
        total_s=seconds_from_msg(timings.total),
    )


def timings_to_msg(timings: types.Timings) -> ros.Timings:
    """Return a timings message."""
    return ros.Timings(
        queue=seconds_to_msg(timings.queue_s),
        preprocess=seconds_to_msg(timings.preprocess_s),
        vision=seconds_to_msg(timings.vision_s),
        language=seconds_to_msg(timings.language_s),
        tracking=seconds_to_msg(timings.tracking_s),
        total=seconds_to_msg(timings.total_s),
    )


def _stamps_from_msg(stamps: Sequence[Time]) -> tuple[int, ...]:
    return tuple(stamp_to_ns(stamp) for stamp in stamps)


def _stamps_to_msg(stamps_ns: Iterable[int]) -> list[Time]:
    return [ns_to_stamp(stamp_ns) for stamp_ns in stamps_ns]


def description_to_msg(description: types.Description) -> ros.Description:
    """Return a description message; its header is that of the newest image looked at."""
    message = ros.Description(
        camera=description.camera,
        region_id=description.region_id,
        label=description.label,
        text=description.text,
        confidence=description.confidence,
        box=box_to_msg(description.box),
        frame_stamps=_stamps_to_msg(description.frame_stamps_ns),
        timings=timings_to_msg(description.timings),
        tokens_in=description.tokens_in,
        tokens_out=description.tokens_out,
        model=description.model,
    )
    message.header.stamp = ns_to_stamp(description.stamp_ns)
    message.header.frame_id = description.frame_id
    return message


def track_to_msg(track: types.Track) -> ros.Track:
    """Return a track message."""
    return ros.Track(
        region_id=track.region_id,
        label=track.label,
        camera=track.camera,
        state=int(track.state),
        score=track.score,
        box=box_to_msg(track.box),
        mask=mask_to_msg(track.mask),
        last_seen=ns_to_stamp(track.last_seen_ns),
    )


def tracks_to_msg(
    tracks: Iterable[types.Track], camera: str, stamp_ns: int, frame_id: str
) -> ros.TrackArray:
    """Return the message for all regions of one camera at one image."""
    message = ros.TrackArray(camera=camera, tracks=[track_to_msg(track) for track in tracks])
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    return message


def evidence_from_msg(evidence: ros.Evidence) -> types.Evidence:
    """Return evidence."""
    return types.Evidence(
        camera=evidence.camera,
        region_id=evidence.region_id,
        stamp_ns=stamp_to_ns(evidence.header.stamp),
        frame_id=evidence.header.frame_id,
        box=box_from_msg(evidence.box),
        mask=mask_from_msg(evidence.mask),
        score=evidence.score,
        track_stamps_ns=_stamps_from_msg(evidence.track_stamps),
        track_masks=tuple(mask_from_msg(mask) for mask in evidence.track_masks),
        reasoning=evidence.reasoning,
        thumbnail=compressed_to_rgb(evidence.thumbnail) if evidence.thumbnail.data else None,
    )


def evidence_to_msg(evidence: types.Evidence) -> ros.Evidence:
    """Return an evidence message; the thumbnail becomes a JPEG."""
    message = ros.Evidence(
        camera=evidence.camera,
        region_id=evidence.region_id,
        box=box_to_msg(evidence.box),
        mask=mask_to_msg(evidence.mask),
        score=evidence.score,
        track_stamps=_stamps_to_msg(evidence.track_stamps_ns),
        track_masks=[mask_to_msg(mask) for mask in evidence.track_masks],
        reasoning=evidence.reasoning,
    )
    message.header.stamp = ns_to_stamp(evidence.stamp_ns)
    message.header.frame_id = evidence.frame_id
    if evidence.thumbnail is not None:
        message.thumbnail = CompressedImage(
            format='jpeg', data=byte_array(encode_jpeg(evidence.thumbnail))
        )
        message.thumbnail.header = message.header
    return message


def answer_from_msg(answer: ros.Answer) -> types.Answer:
    """Return an answer."""
    return types.Answer(
        query_id=answer.query_id,
        stamp_ns=stamp_to_ns(answer.header.stamp),
        frame_id=answer.header.frame_id,
        camera=answer.camera,
        text=answer.text,
        error_code=ErrorCode(answer.error_code),
        error_msg=answer.error_msg,
        confidence=answer.confidence,
        region_ids=tuple(answer.region_ids),
        evidence=tuple(evidence_from_msg(evidence) for evidence in answer.evidence),
        window_start_ns=stamp_to_ns(answer.window_start),
        window_end_ns=stamp_to_ns(answer.window_end),
        frame_stamps_ns=_stamps_from_msg(answer.frame_stamps),
        timings=timings_from_msg(answer.timings),
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        model=answer.model,
        age_s=seconds_from_msg(answer.age),
    )


def answer_to_msg(answer: types.Answer) -> ros.Answer:
    """Return an answer message."""
    message = ros.Answer(
        query_id=answer.query_id,
        text=answer.text,
        error_code=int(answer.error_code),
        error_msg=answer.error_msg,
        confidence=answer.confidence,
        camera=answer.camera,
        region_ids=list(answer.region_ids),
        evidence=[evidence_to_msg(evidence) for evidence in answer.evidence],
        window_start=ns_to_stamp(answer.window_start_ns),
        window_end=ns_to_stamp(answer.window_end_ns),
        frame_stamps=_stamps_to_msg(answer.frame_stamps_ns),
        timings=timings_to_msg(answer.timings),
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        model=answer.model,
        age=seconds_to_msg(answer.age_s),
    )
    message.header.stamp = ns_to_stamp(answer.stamp_ns)
    message.header.frame_id = answer.frame_id
    return message
