# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Count the work of the full PixelRefer, whose language model reads whole frames too.

A region is one mask on one frame. Frames come first in a prompt, so all questions about a clip
begin alike, whatever region they are about. No token of a frame is left out for being as in the
frame before: frames of a camera have grain.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from bench import _clip as clip
from bench import _plan as plan
from bench import _sizes as sizes
from bench._counting import Counter, count
from bench._plan import Bill, Question
from pixelrefer_ros.models.pixelrefer import asking
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.full import (
    FullPixelReferForConditionalGeneration,
    FullPixelReferProcessor,
)
from pixelrefer_ros.models.pixelrefer.full.crops import object_crop
from pixelrefer_ros.models.pixelrefer.object_tokenizer import CellLayout, object_tokens
from pixelrefer_ros.models.pixelrefer.pixels import fitted_size

if TYPE_CHECKING:
    from bench._counting import Grid

# 20 frames of 640x360, tokens, 10^12 FLOPs of the tower, of the language model with the next token
# predicted everywhere, of all: the published 2B, measured before this package was written
MEASURED = {'frames': 20, 'width': 640, 'height': 360, 'tokens': 6182,
            'tower_t': 23.8, 'language_t': 25.7, 'total_t': 49.5}  # fmt: skip


class FullCounter(Counter):
    """Count what the parts of a full PixelRefer cost."""

    model: Any

    @classmethod
    def of(cls, size: str) -> FullCounter:
        """Count for one of the sizes of ``_sizes``."""
        with torch.device('meta'):
            return cls(FullPixelReferForConditionalGeneration(sizes.full_config(size)).eval())

    def frame(self, grid: Grid, video: bool) -> int:
        """Return the FLOPs of a whole frame: tower and projector."""
        features = torch.empty(grid[0] * grid[1], self.config.mm_hidden_size, device='meta')
        merge = self.config.merge_size(video)
        projected = count(lambda: self.model.project_frames([features], [grid], [merge]))
        return self.picture(grid) + projected

    def _regions(
        self, crops: tuple[Grid, ...], cells: tuple[int, ...], contexts: int = 0, frames: int = 0
    ) -> int:
        """Return the region encoder's FLOPs; there are neither contexts nor frames in it."""
        total = sum(cells)
        layout = CellLayout(
            crops,
            crops,
            cells,
            torch.empty(total, dtype=torch.int64, device='meta'),
            torch.empty(total, 2, device='meta'),
        )
        features = [
            torch.empty(rows * columns, self.config.mm_hidden_size, device='meta')
            for rows, columns in crops
        ]

        kept = sum(min(self.config.mask_num, one) for one in cells)

        def work() -> None:
            encoder = self.model.region_encoder
            found = encoder.locate(features, layout)
            tokens = object_tokens(found, cells, encoder.count, encoder.iterations)
            encoder.feat_linear(tokens.flatten(0, 1)[:kept])

        return count(work)


def frame_grid(counter: FullCounter, frames: int, width: int, height: int) -> Grid:
    """Return (rows, columns) of patches that a frame of a clip is encoded at."""
    config = counter.config
    video = frames > 1
    rows, columns = fitted_size(
        height,
        width,
        config.min_pixels,
        config.frame_budget(frames, video),
        config.frame_size_factor(video),
    )
    return rows // PATCH_SIZE, columns // PATCH_SIZE


@cache
def lengths(frames: int, tokens_per_frame: int) -> tuple[tuple[Question, ...], int]:
    """Return the lengths of the questions of ``_clip``, and of what all prompts begin with."""
    config = sizes.full_config('mid')
    tokens = FullPixelReferProcessor(config, sizes.tokenizer(config, clip.QUESTIONS))
    earlier: list[list[int]] = []
    found = []
    for (request,) in clip.rounds(1, frames):
        times_s = [number / 2 for number in range(frames)] if frames > 1 else None
        text = asking.question(request, config)
        prompt = tokens.prompt(text, [config.mask_num], frames, times_s)
        ids = tokens.encode(prompt, [tokens_per_frame] * frames)[0].tolist()
        known = max((plan.common(ids, one) for one in earlier), default=0)
        found.append(Question(len(ids), len(ids) - known))
        earlier.append(ids)
    return tuple(found), earlier[0].index(config.region_token_index)


def compare(size: str, counter: FullCounter, regions: int, frames: int) -> dict[str, Any]:
    """Count three questions about each region, as the reference works and as this package does."""
    grid = frame_grid(counter, frames, clip.WIDTH, clip.HEIGHT)
    video = frames > 1
    per_frame = grid[0] * grid[1] // counter.config.merge_size(video) ** 2
    questions, common = lengths(frames, per_frame)
    (frame,), _ = clip.draw(0, 1)
    objects = Bill()
    for number in range(regions):
        thing = clip.THINGS[number % len(clip.THINGS)]
        crop = object_crop(frame.image, clip.mask_of(thing, 0.0), counter.config)
        crop_grid = crop.picture.shape[0] // PATCH_SIZE, crop.picture.shape[1] // PATCH_SIZE
        cells = int((crop.grid_mask > 0).sum())
        objects += Bill(
            tower=counter.picture(crop_grid),
            region_encoder=counter.regions((crop_grid,), (cells,)),
        )
    clip_bill = Bill(tower=frames * counter.frame(grid, video))
    theirs, own = [], []
    for number, one in enumerate(questions):
        decode = counter.decode(one.tokens, one.answer)
        theirs.append(
            objects + (clip_bill + Bill(prefill=counter.read(one.tokens), decode=decode)) * regions
        )
        known = one.tokens - one.new if number else common
        bill = Bill(prefill=counter.read(one.tokens - known, known), decode=decode) * regions
        if not number:
            bill += clip_bill + objects + Bill(prefill=counter.read(common, heads=0))
        own.append(bill)
    all_theirs, all_own = plan.total(theirs), plan.total(own)
    return {
        'model': size,
        'regions': regions,
        'frames': frames,
        'questions': len(questions),
        'tokens': questions[0].tokens,
        'reference': all_theirs.as_dict(),
        'ours': all_own.as_dict(),
        'first_question': own[0].as_dict(),
        'second_question': own[1].as_dict(),
        'ratio': all_theirs.total / all_own.total,
        'ratio_second_question': theirs[1].total / own[1].total,
    }


def measured(counter: FullCounter) -> dict[str, float]:
    """Count the prompt that was measured before this package was written, with one region."""
    frames, tokens = int(MEASURED['frames']), int(MEASURED['tokens'])
    grid = frame_grid(counter, frames, int(MEASURED['width']), int(MEASURED['height']))
    crop = (24, 24)
    tower = frames * counter.picture(grid) + counter.picture(crop)
    language = counter.read(tokens, heads=tokens)
    rest = frames * (counter.frame(grid, True) - counter.picture(grid))
    rest += counter.regions((crop,), (50,))
    return {
        'tokens': tokens,
        'tower_t': tower / 1e12,
        'language_t': language / 1e12,
        'total_t': (tower + language + rest) / 1e12,
    }
