# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say in codes what tokens show: what the tower is to say, and what language learns on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from pixelrefer_ros.training.grounding_codes import (
    BOX_PERIODS,
    FACTS,
    PARTS,
    SIDES,
    WIDTH,
    background,
    box_code,
    code_table,
    waves,
)
from pixelrefer_ros.training.grounding_config import CLIP_SIZE, KEY_SIZE, TOKEN_PX
from pixelrefer_ros.training.grounding_pictures import BACKGROUND, Shown, iou, labels, looks_of
from pixelrefer_ros.training.pictures import IGNORE

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pixelrefer_ros.simulation.reasoning_clips import ReasoningClip

LOOKS = ('colour', 'shape', 'size')
_BACKGROUND_WEIGHT = 0.06
_FARTHEST_PX = 80  # a box's side from the middle of a token that shows the thing


def middles(size: tuple[int, int]) -> Tensor:
    """Return x, y, x, y of the middle of every token of a picture, (n, 4) in its pixels."""
    rows, columns = torch.meshgrid(
        torch.arange(size[1] // TOKEN_PX), torch.arange(size[0] // TOKEN_PX), indexing='ij')
    return (torch.stack([columns, rows, columns, rows], -1).flatten(0, 1) + 0.5) * TOKEN_PX


def _doubted(probabilities: Tensor, fact: str, rng: np.random.Generator) -> Tensor:
    """Mix some things' classes with others, as a tower that is not sure does."""
    count, classes = probabilities.shape
    doubted = torch.from_numpy(rng.random(count) < 0.12)
    share = torch.from_numpy(rng.uniform(0.0, 0.55, count)).float() * doubted
    if fact in ('start', 'stop'):
        step = torch.from_numpy(rng.choice((-1, 1), count))
        other = (probabilities.argmax(-1) + step).clamp(1, classes - 1)
        other = torch.where(probabilities.argmax(-1) == 0, 0, other)
    else:
        other = torch.from_numpy(rng.integers(0, classes, count))
    mixed = _one_hot(other, classes)
    return probabilities * (1 - share[:, None]) + mixed * share[:, None]


def _one_hot(classes: Tensor, count: int) -> Tensor:
    return functional.one_hot(classes, count).float()


def _thing_codes(
    clip: ReasoningClip, facts: tuple[str, ...], rng: np.random.Generator | None
) -> Tensor:
    """Return what is told of every thing but its box, (N, WIDTH)."""
    known = looks_of(clip)
    code = torch.zeros(len(clip.actors), WIDTH)
    for fact in facts:
        classes = _one_hot(torch.tensor(known[fact]), FACTS[fact])
        if rng is not None:
            classes = _doubted(classes, fact, rng)
        code += classes @ code_table(fact)
    return code


def told(shown: Shown, *, key: bool, rng: np.random.Generator | None = None
         ) -> tuple[Tensor, Tensor]:
    """Say what tokens show.

    Args:
        shown: A batch.
        key: Speak of the pictures, of the clips otherwise.
        rng: Doubt some of it, and say all of it less clearly, as a tower does.

    Returns:
        (B, n, WIDTH) codes, and (B, n) bool: whether it is clear what the token shows.
    """
    cells = shown.picture_cells if key else shown.first_cells
    boxes = shown.boxes if key else shown.first_boxes
    facts = LOOKS if key else (*LOOKS, 'role', 'start', 'stop')
    centre = middles(KEY_SIZE if key else CLIP_SIZE)
    tokens = background().repeat(*cells.shape, 1)
    for b, clip in enumerate(shown.facts[:len(cells)]):
        on = cells[b] >= 0
        things = cells[b][on]
        offsets = boxes[b][things].float() - centre[on]
        blur: Tensor | float = 0.0
        if rng is not None:
            sure = torch.from_numpy(rng.uniform(0.3, 2.0, len(clip.actors))).float()
            blur = sure[things][:, None]
            offsets = offsets + torch.from_numpy(rng.standard_normal(offsets.shape)).float() * (
                0.7 * blur)
        seen = _thing_codes(clip, facts, rng)[things] + box_code(offsets, blur)
        if rng is not None:  # half of a token may show something else
            faint = torch.from_numpy(
                rng.uniform(0.3, 1.0, len(things)) ** (rng.random(len(things)) < 0.25)).float()
            seen = seen * faint[:, None] + background() * (1 - faint[:, None])
        tokens[b][on] = seen
        if rng is not None:
            unclear = (cells[b] == IGNORE).nonzero().flatten()
            for at in unclear.tolist():
                other = tokens[b][int(rng.integers(len(on)))]
                tokens[b][at] = 0.5 * tokens[b][at] + 0.3 * other
    if rng is not None:
        loud = float(rng.uniform(0.0, 0.05))
        tokens = tokens + torch.from_numpy(rng.standard_normal(tokens.shape)).float() * loud
    return tokens, cells != IGNORE


def telling_loss(tokens: Tensor, shown: Shown, *, key: bool) -> tuple[Tensor, dict[str, float]]:
    """Return how far tokens are from what they are to say, and how often each fact is right.

    Args:
        tokens: (B, n, WIDTH) of the merger.
        shown: The batch.
        key: They are the pictures', the clips' otherwise.
    """
    cells = shown.picture_cells if key else shown.first_cells
    wanted, clear = (part.to(tokens.device) for part in told(shown, key=key))
    far = (tokens.float() - wanted).square().sum(-1)
    weight = torch.stack([_weights(part) for part in cells]).to(tokens.device) * clear
    loss = (far * weight).sum() / weight.sum()
    return loss, telling_scores(tokens.detach().float().cpu(), shown, key=key)


def _weights(cells: Tensor) -> Tensor:
    """Weigh tokens, (n,): those of small things more, those of the background little."""
    weight = torch.full(cells.shape, _BACKGROUND_WEIGHT)
    for thing in cells[cells >= 0].unique():
        shown = cells == thing
        weight[shown] = float(shown.sum()) ** -0.5
    return weight


def telling_scores(tokens: Tensor, shown: Shown, *, key: bool) -> dict[str, float]:
    """Return how often tokens that show a thing say each fact rightly, and its box.

    Frames count when they are at most one off, boxes when the IoU passes 0.5; of frames, only
    those of things that start or stop.
    """
    cells = shown.picture_cells if key else shown.first_cells
    boxes = shown.boxes if key else shown.first_boxes
    on = cells >= 0
    if not bool(on.any()):
        return {}
    said, name = tokens[on], 'key' if key else 'clip'
    looks = [looks_of(clip) for clip in shown.facts[:len(cells)]]
    scores = {}
    for fact in LOOKS if key else (*LOOKS, 'role', 'start', 'stop'):
        wanted = torch.cat([labels(look[fact], part)[part >= 0]
                            for look, part in zip(looks, cells, strict=True)])
        if fact in ('start', 'stop'):
            part = PARTS['number' if fact == 'start' else 'stop']
            scored = wanted > 0
            if bool(scored.any()):
                near = (said[scored][:, part] @ code_table(fact)[1:, part].T).argmax(-1)
                scores[f'{name}_{fact}'] = ((near - wanted[scored] + 1).abs() <= 1
                                            ).float().mean().item()
        else:
            scores[f'{name}_{fact}'] = (said[:, PARTS[fact]].argmax(-1) == wanted
                                        ).float().mean().item()
    offsets = torch.stack([_offset(said[:, PARTS[side]]) for side in SIDES], -1)
    centre = middles(KEY_SIZE if key else CLIP_SIZE)
    told_boxes = offsets + centre.expand(len(cells), -1, -1)[on]
    right = torch.cat([boxes[b][cells[b][cells[b] >= 0]] for b in range(len(cells))])
    scores[f'{name}_box'] = (iou(told_boxes, right.float()) > 0.5).float().mean().item()
    none = cells == BACKGROUND
    called = tokens[..., PARTS['none']].squeeze(-1)
    scores[f'{name}_thing'] = ((called[on] < 0.5).float().mean().item()
                               + (called[none] >= 0.5).float().mean().item()) / 2
    return scores


def _offset(code: Tensor) -> Tensor:
    """Return the offset in pixels that a code, (n, waves), is nearest."""
    tried = torch.arange(-float(_FARTHEST_PX), _FARTHEST_PX + 1)
    return tried[(code @ waves(tried, BOX_PERIODS).T).argmax(-1)]
