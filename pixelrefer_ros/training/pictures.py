# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn simulated clips into padded batches of pictures for the vision stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from pixelrefer_ros.models.pixelrefer.crops import (
    context_crop,
    object_crop,
    padded_box,
    square,
    tight_box,
)
from pixelrefer_ros.models.pixelrefer.pixels import to_patches
from pixelrefer_ros.simulation.world import COLOURS, MOTIONS, SHAPES, SIZES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.configuration import PixelReferConfig
    from pixelrefer_ros.simulation.clips import Clip

COLOUR_IDS = {name: i for i, name in enumerate(COLOURS)}
SHAPE_IDS = {name: i for i, name in enumerate(SHAPES)}
SIZE_IDS = {name: i for i, name in enumerate(SIZES)}
MOTION_IDS = {name: i for i, name in enumerate(MOTIONS)}
IGNORE = -100


@dataclass(slots=True)
class PictureSet:
    """Collect pictures of one kind: their patches, grids and what each patch shows."""

    patches: list[NDArray[np.uint8]] = field(default_factory=list)
    grids: list[tuple[int, int]] = field(default_factory=list)
    shown: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, picture: NDArray[np.uint8], shown: NDArray[np.int64]) -> None:
        """Add a (14 r, 14 c, 3) picture and the (r, c) object index per patch, -1 for none."""
        patches, grid = to_patches(picture, 1, 1 << 30)
        self.patches.append(patches)
        self.grids.append(grid)
        self.shown.append(shown.ravel())

    def only(self, keep: list[int]) -> PictureSet:
        """Return some of the pictures."""
        return PictureSet([self.patches[i] for i in keep], [self.grids[i] for i in keep],
                          [self.shown[i] for i in keep])

    def padded(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return (B, L, 588) patches, (B, L) rows, columns, inside, and objects shown."""
        longest = max(len(p) for p in self.patches)
        count = len(self.patches)
        patches = np.full((count, longest, 588), 128, np.uint8)
        rows = np.zeros((count, longest), np.float32)
        columns = np.zeros((count, longest), np.float32)
        inside = np.zeros((count, longest), bool)
        shown = np.full((count, longest), IGNORE, np.int64)
        for i, (p, (r, c), s) in enumerate(
                zip(self.patches, self.grids, self.shown, strict=True)):
            patches[i, :len(p)] = p
            rows[i, :len(p)] = np.repeat(np.arange(r), c)
            columns[i, :len(p)] = np.tile(np.arange(c), r)
            inside[i, :len(p)] = True
            shown[i, :len(p)] = s
        pixels = torch.from_numpy(patches).float().div_(127.5).sub_(1)
        return (pixels, torch.from_numpy(rows), torch.from_numpy(columns),
                torch.from_numpy(inside), torch.from_numpy(shown))


def at_patch_centres(
    numbers: NDArray[np.uint8], box: tuple[int, int, int, int], grid: tuple[int, int]
) -> NDArray[np.int64]:
    """Return which object each patch's centre shows, (rows, columns) int64, -1 for none.

    Args:
        numbers: (H, W) object numbers, 0 background.
        box: (top, left, bottom, right) of the picture in the frame, inclusive.
        grid: (rows, columns) of patches.
    """
    top, left, bottom, right = box
    ys = top + (np.arange(grid[0]) + 0.5) / grid[0] * (bottom + 1 - top)
    xs = left + (np.arange(grid[1]) + 0.5) / grid[1] * (right + 1 - left)
    return numbers[np.ix_(ys.astype(int), xs.astype(int))].astype(np.int64) - 1


def region_mask(
    clip: Clip, frame: int, thing: int, as_box: bool, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the region as it is given: the exact mask, or a box around it as a mask."""
    mask = clip.mask(frame, thing)
    if not as_box:
        return mask
    ys, xs = np.nonzero(mask)
    slack = rng.integers(-1, 4, 4)
    box = np.zeros_like(mask)
    box[max(0, ys.min() - slack[0]):ys.max() + 1 + slack[1],
        max(0, xs.min() - slack[2]):xs.max() + 1 + slack[3]] = True
    return box


@dataclass(slots=True)
class RegionPictures:
    """Hold the pictures of some clips, with an entry per region and frame.

    Attributes:
        frames: Whole frames.
        contexts: Context crops, one per entry.
        crops: Object crops, one per entry.
        entry_clip: Per entry, which clip of the batch.
        entry_frame: Per entry, its whole frame's index in ``frames``.
        entry_region: Per entry, index of its region in ``regions``.
        entry_step: Per entry, which frame of the clip.
        grid_masks: Per entry, the mask on the crop's patch grid.
        boxes: Per entry, (top, left, bottom, right) of the crop.
        regions: Per region, (clip of the batch, object).
    """

    frames: PictureSet = field(default_factory=PictureSet)
    contexts: PictureSet = field(default_factory=PictureSet)
    crops: PictureSet = field(default_factory=PictureSet)
    entry_clip: list[int] = field(default_factory=list)
    entry_frame: list[int] = field(default_factory=list)
    entry_region: list[int] = field(default_factory=list)
    entry_step: list[int] = field(default_factory=list)
    grid_masks: list[NDArray[np.float32]] = field(default_factory=list)
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    regions: list[tuple[int, int]] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)


def draw_pictures(
    clips: list[Clip],
    config: PixelReferConfig,
    rng: np.random.Generator,
    *,
    steps: tuple[int, ...] | None = None,
    box_share: float = 0.2,
    max_regions: int = 6,
) -> RegionPictures:
    """Cut the pictures of every usable region of some clips.

    Args:
        clips: Clips of one size.
        config: Sizes and margins.
        rng: Chooses regions, and which are given as boxes.
        steps: Frames to use; all when None.
        box_share: Share of regions given as boxes.
        max_regions: At most this many regions per clip.
    """
    out = RegionPictures()
    out.size = clips[0].images.shape[1:3]
    height, width = out.size
    whole = (0, 0, height - 1, width - 1)
    for b, clip in enumerate(clips):
        used = range(len(clip.images)) if steps is None else steps
        first_frame = len(out.frames.patches)
        for i in used:
            side = config.global_size // 14
            out.frames.add(square(clip.images[i], config.global_size),
                           at_patch_centres(clip.numbers[i], whole, (side, side)))
        usable = [k for k, t in enumerate(clip.things) if any(t.visible[i] for i in used)]
        rng.shuffle(usable)
        for k in usable[:max_regions]:
            region = len(out.regions)
            out.regions.append((b, k))
            as_box = rng.random() < box_share
            for n, i in enumerate(used):
                if not clip.things[k].visible[i]:
                    continue
                mask = region_mask(clip, i, k, as_box, rng)
                given = mask.astype(np.uint8)
                cut = object_crop(clip.images[i], given, config)
                rows, columns = cut.grid_mask.shape
                out.crops.add(cut.picture,
                              at_patch_centres(clip.numbers[i], cut.box, (rows, columns)))
                tight = tight_box(given)
                assert tight is not None, 'visible things have pixels'
                side = config.local_size // 14
                out.contexts.add(
                    context_crop(clip.images[i], given, config),
                    at_patch_centres(clip.numbers[i],
                                     padded_box(tight, config.context_margin, out.size),
                                     (side, side)))
                out.entry_clip.append(b)
                out.entry_frame.append(first_frame + n)
                out.entry_region.append(region)
                out.entry_step.append(i)
                out.grid_masks.append(cut.grid_mask)
                out.boxes.append(cut.box)
    return out

