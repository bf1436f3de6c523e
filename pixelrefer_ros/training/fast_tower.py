# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run a vision tower over padded batches, several times as fast as picture by picture on a CPU.

The weights and the arithmetic are those of transformers' ``VideoLlama3VisionModel``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import VideoLlama3VisionModel


def rope_table(rows: Tensor, columns: Tensor, inv_freq: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, 1, L, head_dim) cosines and sines of patch positions given as (B, L)."""
    angles = torch.cat([rows[..., None] * inv_freq, columns[..., None] * inv_freq], dim=-1)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys, (..., head_dim), by their positions."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


def run_tower(
    tower: VideoLlama3VisionModel, patches: Tensor, rows: Tensor, columns: Tensor,
    inside: Tensor | None = None,
) -> Tensor:
    """Encode a padded batch of pictures.

    Args:
        tower: The vision tower.
        patches: (B, L, 588) normalised patches.
        rows: (B, L) float patch rows.
        columns: (B, L) float patch columns.
        inside: (B, L) bool, False on padding; None when there is none.

    Returns:
        (B, L, V).
    """
    embedding = tower.embeddings.patch_embedding
    x = functional.linear(patches, embedding.weight.flatten(1), embedding.bias)
    heads = tower.config.num_attention_heads
    cos, sin = rope_table(rows, columns, tower.rotary_pos_emb.inv_freq)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    bias = None
    if inside is not None:
        bias = torch.zeros(inside.shape, dtype=x.dtype).masked_fill(~inside, -1e4)[:, None, None]
    for layer in tower.encoder.layers:
        attention, normed = layer.self_attn, layer.layer_norm1(x)
        weight = torch.cat([attention.q_proj.weight, attention.k_proj.weight,
                            attention.v_proj.weight])
        offset = torch.cat([attention.q_proj.bias, attention.k_proj.bias, attention.v_proj.bias])
        q, k, v = functional.linear(normed, weight, offset).unflatten(-1, (3, heads, -1)).permute(
            2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, attn_mask=bias,
            scale=attention.scaling)
        x = x + attention.out_proj(read.transpose(1, 2).flatten(2))
        hidden = layer.mlp.fc1(layer.layer_norm2(x))
        x = x + layer.mlp.fc2(functional.gelu(hidden, approximate='tanh'))
    return tower.post_layernorm(x)


@torch.no_grad()
def start_looking_around(tower: VideoLlama3VisionModel, strength: float = 2.5) -> None:
    """Start each head looking at one side of its patch, as a convolution would.

    Rotary positions have no effect on content-free queries and keys. Constant parts in both
    (the biases), the query's turned by the wanted offset, make the scores peak there from the
    first step on.
    """
    inv_freq = tower.rotary_pos_emb.inv_freq
    offsets = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (1, 1), (-1, 1), (1, -1))
    for depth, layer in enumerate(tower.encoder.layers):
        attention = layer.self_attn
        dim = attention.head_dim
        amplitude = strength / (1 + 0.5 * depth)
        for head in range(attention.num_heads):
            row, column = offsets[(head + 4 * (depth % 2)) % len(offsets)]
            turn = torch.cat([row * inv_freq, column * inv_freq])
            start = head * dim
            attention.q_proj.bias[start:start + dim] = amplitude * torch.cat(
                [turn.cos(), turn.sin()])
            attention.k_proj.bias[start:start + dim] = amplitude * torch.cat(
                [torch.ones(dim // 2), torch.zeros(dim // 2)])
