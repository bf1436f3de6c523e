# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say what a job of regions, frames and questions makes each schedule compute."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from itertools import cycle, islice, takewhile
from typing import TYPE_CHECKING

from bench import _clip as clip
from bench import _sizes as sizes
from pixelrefer_ros.models.pixelrefer import asking, crops
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.pixels import fitted_size
from pixelrefer_ros.models.pixelrefer.voice import MIN_SHARED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench._counting import Counter, Grid
    from pixelrefer_ros.core.describer import Request
    from pixelrefer_ros.models.pixelrefer import PixelReferProcessor

ANSWER_TOKENS = 32
"""Generated for each question."""


@dataclass(frozen=True)
class Bill:
    """Hold the FLOPs of some work by part."""

    tower: int = 0
    region_encoder: int = 0
    prefill: int = 0
    decode: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, one.name) for one in fields(self))

    def __add__(self, other: Bill) -> Bill:
        """Add part by part."""
        return Bill(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def __mul__(self, times: int) -> Bill:
        """Do the same several times."""
        return Bill(*(getattr(self, one.name) * times for one in fields(self)))

    def as_dict(self) -> dict[str, int]:
        """Return the parts and the total by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {'total': self.total}


@dataclass(frozen=True)
class Question:
    """Say how long a question about one region is.

    Attributes:
        tokens: Its prompt.
        new: Those at its end that no earlier prompt about the region had.
        answer: Generated tokens.
    """

    tokens: int
    new: int
    answer: int = ANSWER_TOKENS


@dataclass(frozen=True)
class Job:
    """Ask questions about regions that are seen in all frames of a clip.

    Attributes:
        crops: Per region, (rows, columns) of its object crop in each frame.
        cells: Per region, how many of them are the region's.
        frames: How many frames.
        questions: About each region, one after the other.
        common: Tokens that the prompts of all regions begin with.
    """

    crops: tuple[Grid, ...]
    cells: tuple[int, ...]
    frames: int
    questions: tuple[Question, ...]
    common: int


def job(
    counter: Counter,
    things: Sequence[clip.Thing],
    regions: int,
    frames: int,
    questions: tuple[Question, ...] = (),
) -> Job:
    """Return the job of asking about things of ``_clip``, taken again when there are more regions.

    Args:
        counter: Of the model.
        things: What the regions show.
        regions: How many.
        frames: How many.
        questions: About each; those of ``_clip`` when there are none.
    """
    config = counter.config
    budget = config.mm_max_length * PATCH_SIZE * PATCH_SIZE
    (frame,), _ = clip.draw(0, 1)
    grids, cells = [], []
    for thing in things:
        crop = crops.object_crop(frame.image, clip.mask_of(thing, 0.0), config)
        height, width = crop.picture.shape[:2]
        rows, columns = fitted_size(height, width, config.min_pixels, budget)
        grids.append((rows // PATCH_SIZE, columns // PATCH_SIZE))
        cells.append(int((crop.grid_mask > 0).sum()))
    known, common = questions_of_clip(frames)
    return Job(
        tuple(islice(cycle(grids), regions)),
        tuple(islice(cycle(cells), regions)),
        frames,
        questions or known,
        common,
    )


@cache
def questions_of_clip(frames: int) -> tuple[tuple[Question, ...], int]:
    """Return the lengths of the questions of ``_clip``, and of what all prompts begin with."""
    tokens = sizes.processor(sizes.config('mid'), clip.QUESTIONS)
    return lengths(tokens, [request for (request,) in clip.rounds(1, frames)])


def lengths(
    tokens: PixelReferProcessor, requests: Sequence[Request], answer: int = ANSWER_TOKENS
) -> tuple[tuple[Question, ...], int]:
    """Return the lengths of questions about one region, and what of them any region has.

    Args:
        tokens: The processor.
        requests: One after the other.
        answer: Generated for each.
    """
    earlier: list[list[int]] = []
    found = []
    for request in requests:
        shown = asking.shown(request)
        text = asking.question(request, tokens.config)
        ids = tokens.encode(tokens.prompt(text, shown.counts, shown.times_s))[0].tolist()
        known = max((common(ids, one) for one in earlier), default=0)
        found.append(Question(len(ids), len(ids) - known, answer))
        earlier.append(ids)
    return tuple(found), earlier[0].index(tokens.config.region_token_index)


def common(first: list[int], second: list[int]) -> int:
    """Return how many tokens are equal from the start."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def reference(counter: Counter, work: Job) -> list[Bill]:
    """Return the bill of each round of questions as the reference works.

    Per mask the object crop, the whole frame and the context crop are encoded; everything again
    for every question.
    """
    local, whole = _squares(counter)
    frames = work.frames
    vision = Bill()
    for grid, cells in zip(work.crops, work.cells, strict=True):
        vision += Bill(
            tower=frames * counter.pictures([grid, whole, local]),
            region_encoder=counter.regions((grid,) * frames, (cells,) * frames, frames, frames),
        )
    return [
        vision
        + Bill(prefill=counter.read(one.tokens), decode=counter.decode(one.tokens, one.answer))
        * len(work.crops)
        for one in work.questions
    ]


def ours(counter: Counter, work: Job, frames_are_known: bool = False) -> list[Bill]:
    """Return the bill of each round of questions as this package works.

    A frame is encoded once for all regions, a region's crops once for all questions; of a
    prompt, only what no earlier one began with is read. All pictures are one pass; with more of
    them the infusion projects a frame once in each, less than one percent of all.

    Args:
        counter: Of the model.
        work: What is asked.
        frames_are_known: Whole frames were encoded when they came; clips that overlap share them.
    """
    local, whole = _squares(counter)
    frames, regions = work.frames, len(work.crops)
    grids = tuple(grid for grid in work.crops for _ in range(frames))
    cells = tuple(count for count in work.cells for _ in range(frames))
    pictures = counter.pictures(grids) + regions * frames * counter.picture(local)
    if not frames_are_known:
        pictures += frames * counter.picture(whole)
    vision = Bill(
        tower=pictures, region_encoder=counter.regions(grids, cells, regions * frames, frames)
    )
    bills = []
    for number, one in enumerate(work.questions):
        known, ahead = one.tokens - one.new, 0
        if not number and (regions - 1) * work.common >= MIN_SHARED:
            known, ahead = work.common, counter.read(work.common, heads=0)
        bill = Bill(
            prefill=ahead + regions * counter.read(one.tokens - known, known),
            decode=regions * counter.decode(one.tokens, one.answer),
        )
        bills.append(bill if number else vision + bill)
    return bills


def live(counter: Counter, work: Job, new_frames: int = 1) -> Bill:
    """Return the bill of describing all regions again once the clip moved on by some frames.

    Only the new frames and their crops are encoded; the prompts are read anew, as their times
    are counted from another frame.
    """
    local, whole = _squares(counter)
    regions, (first, *_) = len(work.crops), work.questions
    newest = Bill(
        tower=new_frames * (
            counter.pictures([*work.crops, whole]) + regions * counter.picture(local)
        ),
        region_encoder=counter.regions(work.crops, work.cells, regions, 1) * new_frames,
    )
    read, decode = counter.read(first.tokens), counter.decode(first.tokens, first.answer)
    return newest + Bill(prefill=read, decode=decode) * regions


def total(bills: Sequence[Bill]) -> Bill:
    """Return the bill of all rounds."""
    return sum(bills, Bill())


def _squares(counter: Counter) -> tuple[Grid, Grid]:
    """Return the grids of a context crop and of a whole frame."""
    config = counter.config
    local, whole = config.local_size // PATCH_SIZE, config.global_size // PATCH_SIZE
    return (local, local), (whole, whole)
