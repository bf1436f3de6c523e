# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Score a conversation against the truth with the rewards of ReVSeg (arXiv 2512.02835, eq. 7, 8).

The paper trains with them; evaluation reports them too. What the paper leaves open is said where
it is decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pixelrefer_ros.grounding.boxes import place_box
from pixelrefer_ros.grounding.parsing import (
    Failure,
    KeyFrame,
    NotPresent,
    SaidBox,
    parse_box,
    parse_key_frame,
)
from pixelrefer_ros.grounding.replies import Note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixelrefer_ros.core.types import Box
    from pixelrefer_ros.grounding.boxes import Coordinates

# A box counts as found above this overlap.
IOU_THRESHOLD: Final = 0.5


@dataclass(frozen=True, slots=True)
class Rewards:
    """Hold the three rewards of one conversation, each in [0, 1]."""

    format: float
    temporal: float
    spatial: float

    @property
    def total(self) -> float:
        """Return their sum, in [0, 3] (eq. 8 has no weights)."""
        return self.format + self.temporal + self.spatial


def format_reward(turn1: str, turn2: str | None = None, absent: str = '') -> float:
    """Return how far a conversation keeps to the form asked for, in [0, 1].

    The paper names the parts and not their weights; here each is a third: the tags of the first
    turn (thoughts and answer, half each), its content (frame index and description, half each),
    and the box of the second turn. Saying that the target is absent is in form, and no second
    turn is due then.

    Args:
        turn1: What the model said first.
        turn2: What it said next; None when it was not asked.
        absent: What it was told to say for an absent target.
    """
    first = parse_key_frame(turn1, absent)
    tags = 1.0 - 0.5 * len({Note.NO_THINK_TAGS, Note.NO_ANSWER_TAGS} & set(first.notes))
    if isinstance(first, NotPresent):
        return (tags + 2.0) / 3.0
    content = 1.0
    if not isinstance(first, KeyFrame):
        half = first.failure in (Failure.NO_FRAME, Failure.NO_DESCRIPTION)
        content = 0.5 if half else 0.0
    boxed = turn2 is not None and isinstance(parse_box(turn2, absent), SaidBox | NotPresent)
    return (tags + content + float(boxed)) / 3.0


def temporal_reward(truth: Sequence[Box | None], chosen: int) -> float:
    """Return how large the target is in the chosen frame, between its least and its greatest.

    Equation 7: areas are those of the true bounding boxes, over the frames the model was shown
    (the paper does not say which, and an index can mean no others). Where all are equal the
    paper has 0/0; here any frame is then as good as the best.

    Args:
        truth: True box in each frame shown; None where the target is not to be seen.
        chosen: Index of the chosen frame; outside earns 0.

    Returns:
        In [0, 1]; 0 when the target is not to be seen in the chosen frame.
    """
    areas = np.array([0 if box is None else box.width * box.height for box in truth], np.int64)
    if not 0 <= chosen < len(areas) or not areas[chosen]:
        return 0.0
    least, greatest = int(areas.min()), int(areas.max())
    if least == greatest:
        return 1.0
    return float((areas[chosen] - least) / (greatest - least))


def spatial_reward(box: Box | None, truth: Box | None) -> float:
    """Return 1 when a box overlaps the true one by more than ``IOU_THRESHOLD``, else 0.

    Without a box, or without a target to box in that frame, it is 0.
    """
    if box is None or truth is None:
        return 0.0
    return float(box_iou(box, truth) > IOU_THRESHOLD)


def box_iou(a: Box, b: Box) -> float:
    """Return the intersection over the union of two boxes; 0 when both are empty."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(0, width) * max(0, height)
    union = a.width * a.height + b.width * b.height - shared
    return shared / union if union else 0.0


def score(
    turn1: str,
    turn2: str | None,
    truth: Sequence[Box | None],
    *,
    coordinates: Coordinates,
    key_size: tuple[int, int],
    image_size: tuple[int, int],
    absent: str = '',
) -> Rewards:
    """Return the rewards of one conversation.

    The paper has no absent targets. Here, when no frame shows the target, the two rewards
    beside the form are for saying so: both in the first turn, the spatial one in the second.

    Args:
        turn1: What the model said first.
        turn2: What it said next; None when it was not asked.
        truth: True box in each frame shown, in pixels of the original image; None where the
            target is not to be seen.
        coordinates: What the model counts in.
        key_size: Width and height of the key frame as shown.
        image_size: Width and height of the original image.
        absent: What the model was told to say for an absent target.
    """
    form = format_reward(turn1, turn2, absent)
    first = parse_key_frame(turn1, absent)
    second = None if turn2 is None else parse_box(turn2, absent)
    if all(box is None for box in truth):
        refused = isinstance(first, NotPresent)
        return Rewards(form, float(refused), float(refused or isinstance(second, NotPresent)))
    if not isinstance(first, KeyFrame) or not 0 <= first.index < len(truth):
        return Rewards(form, 0.0, 0.0)
    box = None
    if isinstance(second, SaidBox):
        box, _ = place_box(second.corners, coordinates, key_size, image_size)
    return Rewards(
        form, temporal_reward(truth, first.index), spatial_reward(box, truth[first.index])
    )
