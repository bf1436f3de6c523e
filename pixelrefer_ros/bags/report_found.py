# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Show on the page how words led to a thing: frames shown, frame chosen, box, mask over time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.bags.pictures import BIG_PX, TINY_PX
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, Task

if TYPE_CHECKING:
    from pixelrefer_ros.bags.pictures import Key, Pictures
    from pixelrefer_ros.bags.story import Asked, Story
    from pixelrefer_ros.core.types import Answer


@dataclass(frozen=True)
class Shown:
    """Hold one of the frames the model was shown; pictures are data URIs, '' until filled.

    Attributes:
        time_s: Seconds since the first image.
        chosen: Whether it is the key frame.
        seen: Whether the thing was seen there.
        frame_key: Picture as it was shown.
        mask_key: Picture with the mask.
        frame: The same, as a data URI.
        mask: The same, as a data URI.
    """

    time_s: float
    chosen: bool
    seen: bool
    frame_key: Key
    mask_key: Key
    frame: str = ''
    mask: str = ''


@dataclass(frozen=True)
class Found:
    """Hold what the page shows of a grounded answer.

    Attributes:
        time_s: Of the key frame, since the first image.
        place: Of the key frame among those shown, from 0; -1 when it is none of them.
        sure: Mean probability of the words of the model that found it.
        seen_in: Frames of the window it was seen in.
        age_s: How much older the newest frame looked at was than the newest there was.
        reasoning: Of the model.
        shown: The frames it was shown.
        key: Of the picture of the key frame.
        picture: The same, as a data URI.
    """

    time_s: float
    place: int
    sure: float
    seen_in: int
    age_s: float
    reasoning: str
    shown: tuple[Shown, ...]
    key: Key
    picture: str = ''

    def filled(self, pictures: Pictures) -> Found:
        """Return it with the pictures, which are there by now; frames without one are left out."""
        shown = tuple(
            replace(one, frame=uri, mask=pictures.get(one.mask_key) if one.seen else '')
            for one in self.shown
            if (uri := pictures.get(one.frame_key))
        )
        return replace(self, shown=shown, picture=pictures.get(self.key))


def is_found(asked: Asked) -> bool:
    """Return whether words were asked for a thing, and it was found.

    Where the question is not in the bag the thumbnail tells: other answers have none.
    """
    answer = asked.answer
    if answer is None or answer.error_code != ErrorCode.OK or not answer.evidence:
        return False
    if asked.query is None:
        return answer.evidence[0].thumbnail is not None
    return asked.query.task == Task.GROUND


def found_part(answer: Answer, story: Story, pictures: Pictures) -> Found:
    """Return how a thing was found, and ask for the pictures of it.

    Args:
        answer: With evidence.
        story: What was seen.
        pictures: Gets the wishes.
    """
    evidence = answer.evidence[0]
    camera = story.camera(evidence.camera)
    ids = (evidence.region_id,)
    seen = {
        stamp_ns
        for stamp_ns, mask in zip(evidence.track_stamps_ns, evidence.track_masks, strict=False)
        if mask is not None
    }
    stamps = answer.frame_stamps_ns
    shown = tuple(
        Shown(
            (stamp_ns - story.start_ns) / NS_PER_S,
            stamp_ns == evidence.stamp_ns,
            stamp_ns in seen,
            pictures.want(camera, stamp_ns, (), TINY_PX),
            pictures.want(camera, stamp_ns, ids, TINY_PX),
        )
        for stamp_ns in stamps
    )
    return Found(
        time_s=(evidence.stamp_ns - story.start_ns) / NS_PER_S,
        place=stamps.index(evidence.stamp_ns) if evidence.stamp_ns in stamps else -1,
        sure=evidence.score,
        seen_in=len(seen),
        age_s=answer.age_s,
        reasoning=evidence.reasoning,
        shown=shown,
        key=pictures.want(camera, evidence.stamp_ns, ids, BIG_PX, evidence.box),
    )
