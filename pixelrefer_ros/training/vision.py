# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Teach the vision side of PixelRefer-Lite what is on a table, before any language.

Two stages. *Dense*: the tower alone learns what each patch shows; it needs minutes, where a
language model's loss alone needs days. *Regions*: tower, object tokenizer and infusion
together, with small heads that read attributes, motion, position and neighbour off the region
tokens. The heads are thrown away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pixelrefer_ros.models.pixelrefer.object_tokenizer import cell_layout, object_tokens
from pixelrefer_ros.simulation.world import COLOURS, MOTIONS, SHAPES, SIZES
from pixelrefer_ros.training.fast_tower import run_tower
from pixelrefer_ros.training.pictures import (
    COLOUR_IDS,
    IGNORE,
    MOTION_IDS,
    SHAPE_IDS,
    SIZE_IDS,
    PictureSet,
    RegionPictures,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
    from pixelrefer_ros.simulation.clips import Clip, ThingFacts

FRAMES = 4
DISTANCE_SCALE = 8.0  # per metre


def _head(width: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, classes))


class VisionHeads(nn.Module):
    """Read facts off patches and region tokens during training."""

    def __init__(self, width: int) -> None:
        """Create the heads."""
        super().__init__()
        self.patch = nn.Linear(width, len(COLOURS) + len(SHAPES) + len(SIZES) + 3)
        self.pooled = nn.Linear(width, len(COLOURS) + len(SHAPES) + len(SIZES))
        self.region = nn.ModuleDict({
            'colour': nn.Linear(width, len(COLOURS)),
            'shape': nn.Linear(width, len(SHAPES)),
            'size': nn.Linear(width, len(SIZES)),
        })
        self.motion = _head(FRAMES * (width + 1), len(MOTIONS))
        self.place = nn.Linear(width, 2)
        self.distance = _head(width, 1)
        self.neighbour_colour = nn.Linear(width, len(COLOURS) + 1)
        self.neighbour_shape = nn.Linear(width, len(SHAPES) + 1)
        self.role = nn.Linear(width, 4)


def object_labels(clips: list[Clip], clip: int, shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return colour, shape and size class per patch; the last class is background.

    Args:
        clips: The batch.
        clip: Which clip the picture is of.
        shown: (...,) object index per patch, -1 background, IGNORE padding.
    """
    tables = []
    for ids, name in ((COLOUR_IDS, 'colour'), (SHAPE_IDS, 'shape'), (SIZE_IDS, 'size')):
        row = [ids[getattr(t, name)] for t in clips[clip].things] + [len(ids)]
        tables.append(torch.tensor(row))
    index = shown.clamp(min=-1)
    labels = []
    for table in tables:
        label = table[index]
        labels.append(torch.where(shown == IGNORE, IGNORE, label))
    return labels[0], labels[1], labels[2]


def dense_loss(
    heads: VisionHeads, features: Tensor, shown: Tensor, clips: list[Clip], owner: list[int]
) -> Tensor:
    """Return the loss of telling what each patch shows."""
    parts = heads.patch(features).split([len(COLOURS) + 1, len(SHAPES) + 1, len(SIZES) + 1], -1)
    labels = [object_labels(clips, b, s) for b, s in zip(owner, shown, strict=True)]
    total = features.new_zeros(())
    for i, logits in enumerate(parts):
        target = torch.stack([row[i] for row in labels])
        background = torch.ones(logits.shape[-1])
        background[-1] = 0.3
        total = total + functional.cross_entropy(
            logits.flatten(0, 1).float(), target.flatten(), weight=background,
            ignore_index=IGNORE)
    return total


def role_loss(
    heads: VisionHeads, contexts: Tensor, shown: Tensor, pictures: RegionPictures,
    clips: list[Clip],
) -> Tensor:
    """Return the loss of telling, in a context crop, the region from its neighbour and the rest.

    Nothing but its place in the middle marks the region in its context crop. Once the patches
    know who is who, one head of the infusion can read the neighbour off them.
    """
    other, region, beside, background = range(4)
    target = torch.zeros_like(shown)
    target[shown == -1] = background
    target[shown == IGNORE] = IGNORE
    for i, r in enumerate(pictures.entry_region):
        b, k = pictures.regions[r]
        target[i][shown[i] == k] = region
        neighbour = clips[b].things[k].neighbour
        if neighbour >= 0:
            target[i][shown[i] == neighbour] = beside
        elif neighbour == -2:  # others may be as near
            target[i][target[i] == other] = IGNORE
    weight = torch.tensor([1.0, 1.0, 1.0, 0.3])
    return functional.cross_entropy(heads.role(contexts).flatten(0, 1).float(), target.flatten(),
                                    weight=weight, ignore_index=IGNORE)


def among(values: Tensor, group: Tensor) -> Tensor:
    """Subtract from each value the mean of its group.

    Args:
        values: (N,).
        group: (N,) int64 group numbers from 0.
    """
    count = torch.zeros(int(group.max()) + 1).index_add(0, group, torch.ones(len(group)))
    total = torch.zeros(len(count)).index_add(0, group, values)
    return values - (total / count.clamp(min=1))[group]


def encode(
    model: PixelReferForConditionalGeneration, pictures: PictureSet
) -> tuple[Tensor, Tensor, Tensor]:
    """Encode pictures; return (B, L, V) features, (B, L) inside, (B, L) objects shown."""
    patches, rows, columns, inside, shown = pictures.padded()
    if bool(inside.all()):
        return run_tower(model.tower, patches, rows, columns), inside, shown
    # Two batches, the smaller and the larger pictures, waste less on padding.
    lengths = inside.sum(1)
    order = lengths.argsort()
    index = torch.zeros_like(order)
    parts = []
    for part in order.chunk(2):
        longest = int(lengths[part].max())
        encoded = run_tower(model.tower, patches[part, :longest], rows[part, :longest],
                            columns[part, :longest], inside[part, :longest])
        parts.append(functional.pad(encoded, (0, 0, 0, inside.shape[1] - longest)))
    index[order] = torch.arange(len(order))
    return torch.cat(parts)[index], inside, shown


def pooled_loss(
    heads: VisionHeads, crops: Tensor, pictures: RegionPictures, clips: list[Clip]
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of naming the region from the mean of its cells."""
    means = []
    for i, mask in enumerate(pictures.grid_masks):
        cells = torch.from_numpy((mask > 0).ravel())
        means.append(crops[i, :len(cells)][cells].mean(0))
    logits = heads.pooled(torch.stack(means)).float().split(
        [len(COLOURS), len(SHAPES), len(SIZES)], -1)
    things = [clips[b].things[k] for b, k in
              (pictures.regions[r] for r in pictures.entry_region)]
    loss, scores = crops.new_zeros(()), {}
    for part, name, ids in zip(logits, ('colour', 'shape', 'size'),
                               (COLOUR_IDS, SHAPE_IDS, SIZE_IDS), strict=True):
        target = torch.tensor([ids[getattr(t, name)] for t in things])
        loss = loss + functional.cross_entropy(part, target)
        scores[f'pooled_{name}'] = (part.argmax(-1) == target).float().mean().item()
    return loss, scores


def region_tokens(
    model: PixelReferForConditionalGeneration, pictures: RegionPictures,
    frames: Tensor, contexts: Tensor, crops: Tensor,
) -> Tensor:
    """Tokenize and infuse, (entries, mask_num, V)."""
    encoder = model.region_encoder
    entries = len(pictures.boxes)
    layout = cell_layout(pictures.grid_masks, pictures.crops.grids, pictures.boxes,
                         [pictures.size] * entries)
    lengths = [r * c for r, c in pictures.crops.grids]
    packed = torch.cat([crops[i, :n] for i, n in enumerate(lengths)])
    cells = packed[layout.cells] + encoder.pos_linear(layout.positions)
    tokens = object_tokens(cells, layout.lengths, encoder.count, encoder.iterations)
    return encoder.infuse(tokens.to(contexts.dtype), contexts, frames, None,
                          torch.tensor(pictures.entry_frame))


def neighbour_classes(
    things: Sequence[ThingFacts], thing: int, frame: int
) -> tuple[int, int] | None:
    """Return colour and shape class of a thing's neighbour in a frame, None when not settled.

    Facts hold at the last frame; where both things stand still they hold at all frames. The
    last class says that there is none.
    """
    neighbour = things[thing].neighbour
    if neighbour == -2:
        return None
    still = things[thing].motion == 'still' and (
        neighbour >= 0 and things[neighbour].motion == 'still')
    if frame != FRAMES - 1 and not still:
        return None
    if neighbour < 0:
        return len(COLOURS), len(SHAPES)
    return COLOUR_IDS[things[neighbour].colour], SHAPE_IDS[things[neighbour].shape]


def region_loss(
    heads: VisionHeads, tokens: Tensor, pictures: RegionPictures, clips: list[Clip]
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of reading the facts off region tokens, and how often each is right.

    Args:
        heads: The heads.
        tokens: (entries, n, V).
        pictures: Says what each entry is.
        clips: The batch.
    """
    count = len(pictures.regions)
    region, step = torch.tensor(pictures.entry_region), torch.tensor(pictures.entry_step)
    mean = tokens.float().mean(1)
    things = [clips[b].things[k] for b, k in pictures.regions]
    seen = torch.zeros(count, FRAMES)
    seen[region, step] = 1
    by_frame = mean.new_zeros(count, FRAMES, mean.shape[-1])
    by_frame = by_frame.index_put((region, step), mean)
    pooled = by_frame.sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
    loss, scores = mean.new_zeros(()), {}

    def add(name: str, logits: Tensor, target: Tensor, weight: float = 1.0,
            last_class: float = 1.0) -> None:
        nonlocal loss
        known = target != IGNORE
        if bool(known.any()):
            classes = torch.ones(logits.shape[-1])
            classes[-1] = last_class
            loss = loss + weight * functional.cross_entropy(
                logits, target, weight=classes, ignore_index=IGNORE)
            scores[name] = (logits.argmax(-1) == target)[known].float().mean().item()

    for name, ids in (('colour', COLOUR_IDS), ('shape', SHAPE_IDS), ('size', SIZE_IDS)):
        target = torch.tensor([ids[getattr(t, name)] for t in things])
        weight = 2.0 if name == 'shape' else 1.0  # the slowest to learn
        add(name, heads.region[name](pooled), target, weight)
        each = functional.cross_entropy(heads.region[name](mean), target[region])
        loss = loss + 0.5 * weight * each
    motion = torch.tensor([MOTION_IDS.get(t.motion, IGNORE) for t in things])
    add('motion', heads.motion(torch.cat([by_frame, seen[..., None]], -1).flatten(1)),
        torch.where(seen.sum(1) > 1, motion, IGNORE), 2.0)
    facts = [(things[r], s) for r, s in zip(
        pictures.entry_region, pictures.entry_step, strict=True)]
    error = heads.place(mean) - torch.tensor(
        np.stack([(thing.centre[s] - 0.5) * 4 for thing, s in facts]))
    distance = torch.tensor([float(thing.distance_m[s]) for thing, s in facts])
    off = heads.distance(mean)[:, 0] - (distance - 0.9) * DISTANCE_SCALE
    # What is closer than what in one picture matters more than how far the camera stands off.
    nearer = among(off, torch.tensor(pictures.entry_frame))
    loss = loss + 0.3 * error.square().mean() + 0.3 * off.square().mean() + (
        2 * nearer.square().mean())
    scores['place_rmse'] = error.detach().square().mean().sqrt().item() / 4
    scores['distance_rmse_m'] = nearer.detach().square().mean().sqrt().item() / DISTANCE_SCALE
    beside = [neighbour_classes(clips[b].things, k, s) or (IGNORE, IGNORE)
              for (b, k), s in ((pictures.regions[r], s) for r, s in zip(
                  pictures.entry_region, pictures.entry_step, strict=True))]
    colour, shape = torch.tensor(beside).T
    settled = colour != IGNORE
    if bool(settled.any()):
        colour, shape = colour[settled], shape[settled]
        said_colour = heads.neighbour_colour(mean[settled])
        said_shape = heads.neighbour_shape(mean[settled])
        # Most regions have no neighbour, the last class.
        add('neighbour_colour', said_colour, colour, 2.5, 0.4)
        add('neighbour_shape', said_shape, shape, 2.5, 0.4)
        there = colour != len(COLOURS)
        if bool(there.any()):
            right = (said_colour.argmax(-1) == colour) & (said_shape.argmax(-1) == shape)
            scores['neighbour'] = right[there].float().mean().item()
    return loss, scores
