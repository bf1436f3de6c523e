# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Teach the grounding model's tower what every patch shows and does, before any language.

A patch of a clip tells what stood there first and what becomes of it: what it does, when it
starts, when it stops. A patch of a key frame tells what is there and where its box ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from pixelrefer_ros.simulation.world import COLOURS, SHAPES, SIZES
from pixelrefer_ros.training.fast_tower import rope_table, rotate
from pixelrefer_ros.training.grounding_config import FRAMES, KEY_SIZE, PATCH
from pixelrefer_ros.training.grounding_pictures import (
    ROLE_IDS,
    Sights,
    iou,
    labels,
    looks_of,
    places,
)
from pixelrefer_ros.training.pictures import IGNORE

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Qwen2_5_VLForConditionalGeneration

_LOOKS = {'colour': len(COLOURS) + 1, 'shape': len(SHAPES) + 1, 'size': len(SIZES) + 1}
_STORY = {'role': len(ROLE_IDS), 'start': FRAMES + 1, 'stop': FRAMES + 1}
_LAST = {'last_colour': len(COLOURS) + 1, 'last_shape': len(SHAPES) + 1,
         'last_role': len(ROLE_IDS), 'last_stop': FRAMES + 1}
_CLIP = {**_LOOKS, **_STORY, **_LAST}
_BOX_SCALE = 28.0  # pixels of the key frame
_WEIGHTS = {'shape': 2.0, 'role': 2.0}
_FEW = 512  # tokens for which plain matrix products are quicker on a CPU, backwards too


class GroundingHeads(nn.Module):
    """Read facts off patches during training; thrown away later."""

    def __init__(self, width: int) -> None:
        """Create the heads."""
        super().__init__()

        def even() -> nn.Module:
            return nn.RMSNorm(width, elementwise_affine=False)

        self.clip = nn.Sequential(even(), nn.Linear(width, sum(_CLIP.values())))
        self.picture = nn.Sequential(even(), nn.Linear(width, sum(_LOOKS.values())))
        self.box = nn.Sequential(even(), nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 4))


def run_blocks(
    model: Qwen2_5_VLForConditionalGeneration, patches: Tensor, size: tuple[int, int]
) -> Tensor:
    """Encode a batch of clips, or of pictures, of one size.

    The weights and the arithmetic are those of transformers' tower with full attention in every
    block; a picture is a clip that stands still, so its kernels can be summed over time.

    Args:
        model: The model.
        patches: (B, L, 3 * 16 * 49) uint8 of clips, (B, L, 3 * 49) of pictures.
        size: Width and height in pixels.

    Returns:
        (B, L, V), before the merger.
    """
    tower = model.model.visual
    kernel = tower.patch_embed.proj.weight
    still = patches.shape[-1] != kernel[0].numel()
    kernel = kernel.sum(2) if still else kernel
    x = functional.linear(patches.to(kernel.dtype) / 127.5 - 1, kernel.flatten(1))
    rows, columns = (place.to(x.device)[None] for place in places(size))
    cos, sin = (part.to(x.dtype) for part in rope_table(
        rows, columns, tower.rotary_pos_emb.inv_freq))

    for block in tower.blocks:
        attention = block.attn
        q, k, v = attention.qkv(block.norm1(x)).unflatten(
            -1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q * attention.scaling, cos, sin), rotate(k, cos, sin)
        if x.device.type == 'cpu' and x.shape[1] <= _FEW:
            read = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        else:
            read = functional.scaled_dot_product_attention(q, k, v, scale=1.0)
        x = x + attention.proj(read.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    return x


def merge(model: Qwen2_5_VLForConditionalGeneration, features: Tensor) -> Tensor:
    """Return the tokens of encoded patches, (B, L / 4, D)."""
    merged: Tensor = model.model.visual.merger(features.flatten(0, 1))
    return merged.unflatten(0, (len(features), -1))


def _cross_entropy(logits: Tensor, target: Tensor, background: bool) -> Tensor:
    if not bool((target != IGNORE).any()):  # their mean would be no number
        return logits.float().sum() * 0
    weight = torch.ones(logits.shape[-1], device=logits.device)
    if background:
        weight[-1] = 0.3
    return functional.cross_entropy(logits.flatten(0, -2).float(), target.flatten(),
                                    weight=weight, ignore_index=IGNORE)


def dense_loss(
    heads: GroundingHeads, clip_features: Tensor, picture_features: Tensor, sights: Sights
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of telling what patches show and do, and how often each is right.

    Args:
        heads: The heads.
        clip_features: (B, L1, V).
        picture_features: (B, L2, V).
        sights: The batch.
    """
    device = clip_features.device
    looks = [looks_of(clip) for clip in sights.facts]
    loss, scores = clip_features.new_zeros((), dtype=torch.float32), {}

    def add(name: str, logits: Tensor, shown: Tensor, fact: str) -> None:
        nonlocal loss
        sees = fact in _LOOKS  # only looks have a class for the background
        none = _LOOKS[fact] - 1 if sees else IGNORE
        target = torch.stack([labels(look[fact], part, none) for look, part in zip(
            looks, shown, strict=False)]).to(device)  # fewer pictures than clips are fine
        loss = loss + _WEIGHTS.get(fact, 1.0) * _cross_entropy(logits, target, sees)
        on = (target != IGNORE) & (target != none)
        if bool(on.any()):
            scores[name] = (logits.argmax(-1) == target)[on].float().mean().item()

    for (name, _), logits in zip(_CLIP.items(), heads.clip(clip_features).split(
            list(_CLIP.values()), -1), strict=True):
        last = name.startswith('last_')
        add(f'clip_{name}', logits, sights.last if last else sights.first,
            name.removeprefix('last_'))
    for (name, _), logits in zip(_LOOKS.items(), heads.picture(picture_features).split(
            list(_LOOKS.values()), -1), strict=True):
        add(f'key_{name}', logits, sights.picture, name)
    error, iou = _box_error(heads.box(picture_features).float(), sights)
    scores['key_box'] = iou
    return loss + 2 * error, scores


def _box_error(said: Tensor, sights: Sights) -> tuple[Tensor, float]:
    """Return the error of boxes told by patches, and how often the IoU passes 0.5."""
    rows, columns = places(KEY_SIZE)
    centre = torch.stack([columns, rows, columns, rows], -1) * PATCH + PATCH / 2
    wanted = torch.zeros(*sights.picture.shape, 4)
    on = sights.picture >= 0
    for b, boxes in enumerate(sights.boxes):
        wanted[b][on[b]] = (boxes[sights.picture[b][on[b]]] - centre[on[b]]) / _BOX_SCALE
    if not bool(on.any()):
        return said.sum() * 0, 0.0
    inside = on.to(said.device)
    error = functional.smooth_l1_loss(said[inside], wanted.to(said.device)[inside], beta=0.1)
    return error, (iou(said.detach().cpu()[on], wanted[on]) > 0.5).float().mean().item()
