# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Answer questions about clips as the node does: find, then follow both ways through the clip."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.regions import region_mask
from pixelrefer_ros.core.types import ErrorCode, Frame, PixelReferError, Region, RegionKind
from pixelrefer_ros.engine.sightings import Followed, judge
from pixelrefer_ros.grounding.results import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Box
    from pixelrefer_ros.engine.grounding import Grounder
    from pixelrefer_ros.engine.sightings import Find

GROUNDED = 'grounded'
NOT_PRESENT = 'not present'

_ID = 'found'


@dataclass(frozen=True, slots=True)
class Grounding:
    """Hold what was answered to one question.

    Attributes:
        status: ``GROUNDED``, ``NOT_PRESENT``, or how it failed, in words.
        key: Index of the key frame among the frames that were given.
        box: x0, y0, x1, y1 in pixels of that frame, x1 and y1 exclusive.
        masks: (H, W) bool per frame, None where the target is not seen; None when nothing was
            tracked.
    """

    status: str
    key: int | None = None
    box: tuple[float, float, float, float] | None = None
    masks: Sequence[NDArray[np.bool_] | None] | None = None


@dataclass(slots=True)
class Tokens:
    """Count tokens over many answers.

    Attributes:
        prompted: Of all prompts.
        reused: Those of them that needed no reading again.
        said: Of all replies.
    """

    prompted: int = 0
    reused: int = 0
    said: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {'prompted': self.prompted, 'reused': self.reused, 'said': self.said}


@dataclass(slots=True)
class ChainAnswers:
    """Answer with a chain and a tracker, as ``reasoning.evaluate`` asks.

    Attributes:
        chain: Finds the box in the key frame.
        make_tracker: Makes what follows it; None leaves J and F out.
        tokens: What the answers so far took.
    """

    chain: Grounder
    make_tracker: Callable[[], RegionTracker] | None = None
    tokens: Tokens = field(default_factory=Tokens)

    def __call__(self, frames: Sequence[Frame], question: str) -> Grounding:
        """Answer a question about frames, oldest first."""
        found = self.chain.ground(frames, question)
        self.tokens.prompted += found.tokens_in
        self.tokens.reused += found.tokens_reused
        self.tokens.said += found.tokens_out
        if found.status != Status.OK or found.key_index is None or found.box is None:
            absent = found.status == Status.NOT_PRESENT
            return Grounding(NOT_PRESENT if absent else found.status.value, found.key_index)
        box = found.box
        corners = (box.x, box.y, box.x + box.width, box.y + box.height)
        track = None
        if self.make_tracker is not None:
            track = follow(self.make_tracker(), frames, found.key_index, box)
        return Grounding(GROUNDED, found.key_index, corners, track)


def follow(
    tracker: RegionTracker, frames: Sequence[Frame], key: int, box: Box
) -> list[NDArray[np.bool_] | None]:
    """Return where a thing is in every frame, as the evidence of an answer has it.

    It is followed from its box forward, and back with the mask that was made of the box. Where
    too little of it is visible it counts as not seen. A box in which there is nothing to follow
    stands for itself, in its own frame.

    Args:
        tracker: Without regions.
        frames: All of one size, oldest first.
        key: Index of the frame the box is in.
        box: In pixels.

    Returns:
        (H, W) bool per frame; None where it is not seen.
    """
    frame = frames[key]
    region = Region(_ID, RegionKind.BOX, frame.camera, frame.stamp_ns, box=box)
    found: list[NDArray[np.bool_] | None] = [None] * len(frames)
    back = tracker.fork()
    try:
        first = tracker.start(frame, region)
    except PixelReferError as error:
        if error.code != ErrorCode.BAD_REGION:
            raise
        found[key] = masks.decode(region_mask(region, *frame.image.shape[:2]))
        return found
    known = {_ID: Followed(0, frame.stamp_ns)}
    found[key] = _seen(judge([first], frame, known))
    _walk(tracker, frames, range(key + 1, len(frames)), known, found)
    if first.mask is not None and first.mask.any():
        mask = masks.encode(first.mask)
        again = back.start(frame, replace(region, kind=RegionKind.MASK, mask=mask, box=None))
        known = {_ID: Followed(0, frame.stamp_ns)}
        judge([again], frame, known)
        _walk(back, frames, range(key - 1, -1, -1), known, found)
    return found


def _walk(
    tracker: RegionTracker,
    frames: Sequence[Frame],
    numbers: Iterable[int],
    known: dict[str, Followed],
    found: list[NDArray[np.bool_] | None],
) -> None:
    for i in numbers:
        frame = frames[i]
        found[i] = _seen(judge(tracker.step(frame), frame, known))


def _seen(finds: Sequence[Find]) -> NDArray[np.bool_] | None:
    (find,) = finds
    return None if find.seen is None else masks.decode(find.seen.mask)
