# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn reasoning clips into patches for the grounding model, and say what each patch shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from pixelrefer_ros.simulation.reasoning_story import ROLES
from pixelrefer_ros.training.grounding_config import CLIP_SIZE, KEY_SIZE, MERGE, PATCH, TOKEN_PX
from pixelrefer_ros.training.pictures import COLOUR_IDS, IGNORE, SHAPE_IDS, SIZE_IDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.simulation.reasoning_clips import ReasoningClip

ROLE_IDS = {name: i for i, name in enumerate((*ROLES, 'hit by'))}
BACKGROUND = -1
# Of a cell, samples along a side, and the share of them that a thing covers which it shows.
_SAMPLES = 7
_SHARE = 0.25


def blocks(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Order (R, C, ...) patches as the model reads them: those of a token together; (R*C, ...)."""
    rows, columns = values.shape[0] // MERGE, values.shape[1] // MERGE
    parts = values.reshape(rows, MERGE, columns, MERGE, *values.shape[2:])
    return np.swapaxes(parts, 1, 2).reshape(rows * columns * MERGE**2, *values.shape[2:])


def to_patches(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Cut frames of one size into patches through all of them, (L, 3 * T * PATCH * PATCH)."""
    clip = np.stack(images)
    frames, height, width, _ = clip.shape
    cut = clip.reshape(frames, height // PATCH, PATCH, width // PATCH, PATCH, 3)
    patches = blocks(cut.transpose(1, 3, 5, 0, 2, 4))
    return np.asarray(patches.reshape(len(patches), -1), np.uint8)


def places(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return row and column of every patch of a picture of ``size`` (width, height), (L,)."""
    rows, columns = np.mgrid[: size[1] // PATCH, : size[0] // PATCH]
    return (torch.from_numpy(blocks(rows).astype(np.float32)),
            torch.from_numpy(blocks(columns).astype(np.float32)))


def shown_in(numbers: NDArray[np.uint8], size: tuple[int, int], cell: int) -> NDArray[np.int64]:
    """Return which thing each cell of a resized picture shows.

    Args:
        numbers: (H, W) uint8 as in ``ReasoningClip``.
        size: Width and height of the resized picture.
        cell: Side of a cell in its pixels.

    Returns:
        (rows, columns): thing, BACKGROUND, or IGNORE where it is hardly seen. A thing too small
        to fill a cell is shown by the one that it covers most of.
    """
    columns, rows = size[0] // cell, size[1] // cell
    fine = cv2.resize(numbers, (columns * _SAMPLES, rows * _SAMPLES),
                      interpolation=cv2.INTER_NEAREST)
    fine = fine.reshape(rows, _SAMPLES, columns, _SAMPLES)
    things = range(1, int(fine.max()) + 2)  # and one that is nowhere, for pictures without any
    shares = np.stack([(fine == k).mean(axis=(1, 3)) for k in things])
    best = shares.max(0)
    out = np.where(best >= _SHARE, shares.argmax(0), np.where(best > 0, IGNORE, BACKGROUND))
    for k in np.argsort(-shares.max((1, 2))).tolist():
        if shares[k].any() and not (out == k).any():
            alone = [j for j in range(len(shares)) if (out == j).sum() == 1]
            free = np.where(np.isin(out, alone), 0, shares[k])  # hide no other
            if free.any():
                out[np.unravel_index(free.argmax(), out.shape)] = k
    return out


@dataclass(slots=True)
class Shown:
    """Say what the tokens of clips, and of one picture of each of the first P, show.

    Attributes:
        first_cells: (B, L1 / 4) thing each token of a clip shows in the first frame, BACKGROUND
            or IGNORE.
        picture_cells: (P, L2 / 4) the same for the pictures.
        first_boxes: Per clip, (N, 4) float32 boxes of all things in the first frame, in pixels
            of the clip as it is shown.
        boxes: The same for the picture, in its pixels.
        facts: The clips' facts.
    """

    first_cells: Tensor
    picture_cells: Tensor
    first_boxes: list[Tensor]
    boxes: list[Tensor]
    facts: list[ReasoningClip]


@dataclass(slots=True)
class Sights(Shown):
    """Hold clips and pictures cut into patches, with what they show.

    Attributes:
        clips: (B, L1, 3 * 16 * 49) uint8.
        pictures: (P, L2, 3 * 49) uint8.
        first: (B, L1) thing each patch shows in the first frame, BACKGROUND or IGNORE.
        last: (B, L1) the same for the last frame.
        picture: (P, L2) the same for the pictures.
    """

    clips: Tensor
    pictures: Tensor
    first: Tensor
    last: Tensor
    picture: Tensor

    def to(self, device: torch.device) -> Sights:
        """Return the same with the patches on a device; what they show stays on the CPU."""
        return replace(self, clips=self.clips.to(device), pictures=self.pictures.to(device))


def boxes_shown(clip: ReasoningClip, frame: int, shown: tuple[int, int], size: tuple[int, int]
                ) -> Tensor:
    """Return the boxes of all things in a sampled frame, (N, 4), in pixels as it is shown.

    Args:
        clip: The facts.
        frame: Number of the sampled frame.
        shown: Width and height it is shown with.
        size: Width and height it was rendered with.
    """
    scale = torch.tensor([shown[0] / size[0], shown[1] / size[1]]).repeat(2)
    return torch.from_numpy(clip.boxes[clip.sampled[frame]]) * scale


def _grid(values: Tensor, columns: int, side: int) -> Tensor:
    """Return (B, L, ...) patches in reading order, (B, rows, columns, ...); undoes ``blocks``."""
    parts = values.unflatten(1, (-1, columns // side, side, side)).transpose(2, 3)
    return parts.flatten(3, 4).flatten(1, 2)


def _mirrored(values: Tensor, width: int, cell: int) -> Tensor:
    """Mirror what is said of cells of a picture ``width`` pixels wide, (B, L, ...)."""
    columns, side = width // cell, MERGE if cell == PATCH else 1
    grid = _grid(values, columns, side).flip(2)
    parts = grid.unflatten(2, (columns // side, side)).unflatten(1, (-1, side)).transpose(2, 3)
    return parts.flatten(1, 4)


def flipped(sights: Sights) -> Sights:
    """Return the mirror images; the facts that tell left from right are not changed."""
    def pixels(patches: Tensor, width: int) -> Tensor:
        cut = patches.unflatten(-1, (-1, PATCH)).flip(-1).flatten(-2)
        return _mirrored(cut, width, PATCH)

    def boxes(given: list[Tensor], width: int) -> list[Tensor]:
        return [torch.stack([width - box[:, 2], box[:, 1], width - box[:, 0], box[:, 3]], 1)
                for box in given]

    token, clip, key = TOKEN_PX, CLIP_SIZE[0], KEY_SIZE[0]
    return replace(
        sights, clips=pixels(sights.clips, clip), pictures=pixels(sights.pictures, key),
        first=_mirrored(sights.first, clip, PATCH), last=_mirrored(sights.last, clip, PATCH),
        picture=_mirrored(sights.picture, key, PATCH),
        first_cells=_mirrored(sights.first_cells, clip, token),
        picture_cells=_mirrored(sights.picture_cells, key, token),
        first_boxes=boxes(sights.first_boxes, clip), boxes=boxes(sights.boxes, key))


def looks_of(clip: ReasoningClip) -> dict[str, list[int]]:
    """Return the class of every thing by what is told: colour, shape, size, role, start, stop."""
    actors = clip.actors
    return {
        'colour': [COLOUR_IDS[a.colour] for a in actors],
        'shape': [SHAPE_IDS[a.shape] for a in actors],
        'size': [SIZE_IDS[a.size] for a in actors],
        'role': [ROLE_IDS[a.role] for a in actors],
        'start': [a.start + 1 for a in actors],
        'stop': [a.stop + 1 for a in actors],
    }


def labels(table: Sequence[int], shown: Tensor, background: int = IGNORE) -> Tensor:
    """Return the class of what each patch shows.

    Args:
        table: Class per thing.
        shown: (...) thing per patch, BACKGROUND or IGNORE.
        background: Class of the background.
    """
    found = torch.tensor([*table, background])[shown.clamp(min=BACKGROUND)]
    return torch.where(shown == IGNORE, IGNORE, found)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersections over unions of (N, 4) boxes x1, y1, x2, y2."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (a, b)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)
