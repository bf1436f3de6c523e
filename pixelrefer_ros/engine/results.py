# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn what was said and looked at into descriptions and answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import Answer, Description, ErrorCode, Evidence, Query, Timings

if TYPE_CHECKING:
    from pixelrefer_ros.core.types import Utterance
    from pixelrefer_ros.engine.clips import Clip, Look


def confidence(utterance: Utterance) -> float:
    """Return the mean token probability of an utterance, in [0, 1]; 0 when it has none."""
    if math.isnan(utterance.mean_logprob):
        return 0.0
    return math.exp(min(0.0, utterance.mean_logprob))


def make_description(
    clip: Clip, utterance: Utterance, timings: Timings, model: str
) -> Description:
    """Return the description of the one region of a clip."""
    (look,) = clip.looks
    newest = clip.frames[-1]
    return Description(
        camera=clip.camera,
        region_id=look.region_id,
        label=look.label,
        stamp_ns=newest.stamp_ns,
        frame_id=newest.frame_id,
        text=utterance.text,
        confidence=confidence(utterance),
        box=look.observations[-1].box,
        frame_stamps_ns=clip.stamps_ns,
        timings=timings,
        tokens_in=utterance.tokens_in,
        tokens_out=utterance.tokens_out,
        model=model,
    )


def make_answer(
    query: Query, clip: Clip, utterance: Utterance, timings: Timings, model: str
) -> Answer:
    """Return the answer to a query, with what was looked at as its evidence."""
    newest = clip.frames[-1]
    return Answer(
        query_id=query.query_id,
        stamp_ns=newest.stamp_ns,
        frame_id=newest.frame_id,
        camera=clip.camera,
        text=utterance.text,
        confidence=confidence(utterance),
        region_ids=tuple(look.region_id for look in clip.looks),
        evidence=tuple(_evidence(clip, look) for look in clip.looks),
        window_start_ns=clip.window_start_ns,
        window_end_ns=clip.window_end_ns,
        frame_stamps_ns=clip.stamps_ns,
        timings=timings,
        tokens_in=utterance.tokens_in,
        tokens_out=utterance.tokens_out,
        model=model,
    )


def _evidence(clip: Clip, look: Look) -> Evidence:
    """Return where a region was seen; the score is 1 where it was given."""
    newest = look.observations[-1]
    frame_id = next(f.frame_id for f in clip.frames if f.stamp_ns == newest.stamp_ns)
    track = tuple(seen.mask for seen in look.observations)
    return Evidence(
        camera=clip.camera,
        region_id=look.region_id,
        stamp_ns=newest.stamp_ns,
        frame_id=frame_id,
        box=newest.box,
        mask=track[-1],
        score=newest.score,
        track_stamps_ns=tuple(seen.stamp_ns for seen in look.observations),
        track_masks=track,
    )


def make_timings(
    entered_s: float, started_s: float, ended_s: float, said: Utterance, clip: Clip
) -> Timings:
    """Return where the time went; tracking is that of the regions in the frames used."""
    seen = [one for look in clip.looks for one in look.observations]
    return Timings(
        queue_s=max(0.0, started_s - entered_s),
        preprocess_s=said.preprocess_s,
        vision_s=said.vision_s,
        language_s=said.language_s,
        tracking_s=sum(one.tracking_s for one in seen),
        total_s=max(0.0, ended_s - entered_s),
    )


def failed_answer(query: Query, camera: str, code: ErrorCode, message: str) -> Answer:
    """Return the answer that says why there is none."""
    return Answer(
        query_id=query.query_id,
        stamp_ns=query.stamp_ns,
        camera=camera,
        error_code=code,
        error_msg=message,
    )
