# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Answer GROUND queries: find what words speak of, follow it, describe it, show the evidence.

The chain of two turns runs as one job, beside the others when a server does the work. What it
found is given to the tracker as any region is, and the query waits, without holding the model up,
until it has been followed through its window; then a second job describes it (ReVSeg,
arXiv 2512.02835; PixelRefer-Lite).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.regions import observe
from pixelrefer_ros.core.types import (
    Answer,
    ErrorCode,
    Evidence,
    PixelReferError,
    Query,
    Region,
    RegionKind,
    Task,
)
from pixelrefer_ros.engine.clips import Clip, Look
from pixelrefer_ros.engine.results import confidence, failed_answer
from pixelrefer_ros.grounding.results import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pixelrefer_ros.core.regions import Observation
    from pixelrefer_ros.core.types import Frame, Timings, Utterance
    from pixelrefer_ros.grounding.results import Grounding

_THUMBNAIL_PX = 320  # long side

_NOT_FOUND: Final = {
    Status.TURN1_UNPARSABLE: 'the model named no frame that shows it',
    Status.FRAME_OUT_OF_RANGE: 'the model named a frame that it was not shown',
    Status.TURN2_UNPARSABLE: 'the model gave no box for it',
    Status.DEGENERATE_BOX: 'the model gave a box without area',
    Status.NOT_PRESENT: 'it is not in the video of that time',
}


class Grounder(Protocol):
    """Find what a question speaks of in a clip; ``grounding.GroundingChain`` does."""

    @property
    def name(self) -> str:
        """Return the name of the model, as it appears in the results."""
        ...

    @property
    def remote(self) -> bool:
        """Return whether the model runs elsewhere, so that others may run here meanwhile."""
        ...

    def ground(
        self,
        frames: Sequence[Frame],
        question: str,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> Grounding:
        """Return what was found; see ``GroundingChain.ground``.

        Raises:
            PixelReferError: What the model raises.
        """
        ...


class NotGroundedError(PixelReferError):
    """Report that nothing was found, with what the model made of the question."""

    def __init__(self, grounding: Grounding, question: str, by: str) -> None:
        """Say why in words.

        Args:
            grounding: How the chain ended.
            question: What was to be found.
            by: Name of the model.
        """
        why = f"'{question}' was not found: {_NOT_FOUND[grounding.status]}"
        if grounding.reasoning:
            why += f'. It reasoned: {grounding.reasoning}'
        super().__init__(ErrorCode.NOT_GROUNDED, why)
        self.grounding = grounding
        self.by = by

    @property
    def misread(self) -> str:
        """Return what the model said where it could not be used; '' when it could."""
        if self.grounding.status == Status.NOT_PRESENT:
            return ''
        return f'{self.grounding.status}; the model said: {list(self.grounding.raw_texts)}'

    def answer(self, query: Query, video: Clip) -> Answer:
        """Return the answer that says so.

        Args:
            query: The query.
            video: The frames the chain had.
        """
        grounding = self.grounding
        return replace(
            failed_answer(query, video.camera, self.code, str(self)),
            stamp_ns=grounding.shown_stamps_ns[-1],
            frame_id=video.frames[-1].frame_id,
            window_start_ns=video.window_start_ns,
            window_end_ns=video.window_end_ns,
            frame_stamps_ns=grounding.shown_stamps_ns,
            tokens_in=grounding.tokens_in,
            tokens_out=grounding.tokens_out,
            model=self.by,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Hold what the chain found, and what is needed to go on from there.

    Attributes:
        grounding: With a key frame and a box.
        frame: The key frame.
        region: The box, as a region of that frame.
        video: The frames the chain had, without regions.
        entered_s: When the query came, on the steady clock.
        started_s: When the chain began.
        by: Name of the model.
    """

    grounding: Grounding
    frame: Frame
    region: Region
    video: Clip
    entered_s: float
    started_s: float
    by: str

    def query(self, asked: Query) -> Query:
        """Return the query that describes what was found, over the window that was asked for."""
        video = self.video
        return replace(
            asked,
            text='',
            task=Task.DESCRIBE,
            camera=video.camera,
            regions=(self.region,),
            stamp_ns=video.window_end_ns,
            window_s=(video.window_end_ns - video.window_start_ns) / 1e9,
        )

    def key_clip(self) -> Clip:
        """Return what is left to look at when the key frame has gone from the buffer: itself."""
        look = Look(self.region.region_id, self.region.label, (observe(self.region, self.frame),))
        video = self.video
        return Clip(
            video.camera, (self.frame,), (look,), video.window_start_ns, video.window_end_ns
        )


def find(
    grounder: Grounder,
    query: Query,
    video: Clip,
    entered_s: float,
    started_s: float,
    should_stop: Callable[[], bool],
    on_progress: Callable[[str, str], None],
) -> Found | None:
    """Run the chain; return None when it was stopped.

    Raises:
        NotGroundedError: Nothing was found.
        PixelReferError: What the model raises.
    """
    grounding = grounder.ground(
        video.frames, query.text, should_stop=should_stop, on_progress=on_progress
    )
    if grounding.status == Status.STOPPED:
        return None
    if grounding.status != Status.OK or grounding.key_index is None or grounding.box is None:
        raise NotGroundedError(grounding, query.text, grounder.name)
    frame = video.frames[grounding.key_index]
    region = Region(
        f'found-{query.query_id}',
        RegionKind.BOX,
        video.camera,
        frame.stamp_ns,
        grounding.description,
        grounding.box,
    )
    return Found(grounding, frame, region, video, entered_s, started_s, grounder.name)


def grounded_answer(
    query: Query,
    found: Found,
    clip: Clip,
    track: Sequence[Observation],
    said: Utterance,
    timings: Timings,
    model: str,
) -> Answer:
    """Return the answer to a GROUND query with its evidence.

    Args:
        query: As it was asked.
        found: What the chain found.
        clip: What the describer looked at.
        track: Everything that was seen of it in the window, oldest first.
        said: The words of the describer.
        timings: Of all stages.
        model: Name of the describer.
    """
    grounding, region, frame = found.grounding, found.region, found.frame
    at_key = next((one for one in track if one.stamp_ns == frame.stamp_ns), None)
    sure = 0.0 if math.isnan(grounding.log_prob) else math.exp(min(0.0, grounding.log_prob))
    evidence = Evidence(
        camera=clip.camera,
        region_id=region.region_id,
        stamp_ns=frame.stamp_ns,
        frame_id=frame.frame_id,
        box=grounding.box,
        mask=None if at_key is None else at_key.mask,
        score=sure,
        track_stamps_ns=tuple(one.stamp_ns for one in track),
        track_masks=tuple(one.mask for one in track),
        reasoning=grounding.reasoning,
        thumbnail=_thumbnail(found, at_key),
    )
    return Answer(
        query_id=query.query_id,
        stamp_ns=max(track[-1].stamp_ns, grounding.shown_stamps_ns[-1]),
        frame_id=frame.frame_id,
        camera=clip.camera,
        text=said.text,
        confidence=confidence(said),
        region_ids=(region.region_id,),
        evidence=(evidence,),
        window_start_ns=clip.window_start_ns,
        window_end_ns=clip.window_end_ns,
        frame_stamps_ns=grounding.shown_stamps_ns,
        timings=timings,
        tokens_in=grounding.tokens_in + said.tokens_in,
        tokens_out=grounding.tokens_out + said.tokens_out,
        model=f'{found.by} + {model}',
    )


def _thumbnail(found: Found, seen: Observation | None) -> NDArray[np.uint8]:
    """Return the key frame, small, with the region drawn."""
    # imported here: who grounds nothing needs no OpenCV
    import cv2

    from pixelrefer_ros.drawing import Overlay, Palette, draw_overlays

    image = found.frame.image
    overlay = Overlay(
        Palette()(found.region.region_id),
        mask=None if seen is None else masks.decode(seen.mask),
        box=found.grounding.box,
    )
    height, width = image.shape[:2]
    scale = min(1.0, _THUMBNAIL_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small: NDArray[np.uint8] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return draw_overlays(small, [overlay.scaled(scale, size)])
