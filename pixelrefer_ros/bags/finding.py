# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find what words speak of in a video file or bag, and write down where it goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pixelrefer_ros.bags.describing import engine_for
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Query, Task
from pixelrefer_ros.drawing import Overlay, Palette, draw_overlays

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pixelrefer_ros.bags.describing import Look
    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Answer
    from pixelrefer_ros.engine.grounding import Grounder

FORMAT = 'pixelrefer_ros track 1'


def find_in_file(
    describer: RegionDescriber,
    grounder: Grounder,
    look: Look,
    text: str,
    *,
    make_tracker: Callable[[], RegionTracker] | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Answer:
    """Find a thing, follow it through the frames and describe it.

    Args:
        describer: Describes it.
        grounder: Finds it.
        look: What ``look_at`` read; ``at`` means nothing here.
        text: What to find.
        make_tracker: Makes what follows it; None knows it in its key frame alone.
        on_progress: Gets the stage the work is at.

    Returns:
        The answer with its evidence, or with an error code and why.
    """
    answers: list[Answer] = []
    engine = engine_for(look, describer, answers.append, make_tracker, grounder)
    query = Query('file', text, Task.GROUND, stamp_ns=look.frames[-1].stamp_ns)
    engine.submit(query, on_progress=lambda stage, said, ahead: on_progress(stage))
    engine.run_until_idle()
    (answer,) = answers
    return answer


def save_track(path: Path, look: Look, answer: Answer) -> None:
    """Write where a found thing is in every frame looked at, as JSON.

    Its ``frames`` hold seconds in the file and the mask in COCO run lengths (``counts``
    uncompressed, column by column), null where it is not seen.

    Args:
        path: Replaced when it is there.
        look: What was looked at.
        answer: With evidence.
    """
    evidence = answer.evidence[0]
    seen = dict(zip(evidence.track_stamps_ns, evidence.track_masks, strict=True))
    frames = []
    for frame in look.frames:
        mask = seen.get(frame.stamp_ns)
        lengths = mask and {'size': [mask.height, mask.width], 'counts': list(mask.counts)}
        frames.append({'time_s': round(look.seconds(frame.stamp_ns), 6), 'mask': lengths})
    box = evidence.box
    content = {
        'format': FORMAT,
        'text': answer.text,
        'model': answer.model,
        'key_s': round(look.seconds(evidence.stamp_ns), 6),
        'box': box and [box.x, box.y, box.width, box.height],
        'reasoning': evidence.reasoning,
        'frames': frames,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + '\n', encoding='utf-8')


def drawn_key(look: Look, answer: Answer) -> NDArray[np.uint8]:
    """Return the key frame with box and mask drawn, (H, W, 3) uint8 RGB."""
    evidence = answer.evidence[0]
    frame = next(one for one in look.frames if one.stamp_ns == evidence.stamp_ns)
    mask = None if evidence.mask is None else masks.decode(evidence.mask)
    return draw_overlays(
        frame.image, [Overlay(Palette()(evidence.region_id), mask, box=evidence.box)]
    )
