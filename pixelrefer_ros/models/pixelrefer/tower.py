# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the vision tower over many pictures of mixed sizes in one packed call."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from transformers import VideoLlama3VisionConfig, VideoLlama3VisionModel
from transformers.models.video_llama_3.modeling_video_llama_3 import (
    VideoLlama3VisionAttention,
    VideoLlama3VisionEmbeddings,
    apply_rotary_pos_emb_vision,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


MAX_PATCHES = 16384
"""Most patches of one pass: 0.5 GB at the published size in half precision, and 15 TFLOP, enough
to keep any GPU busy."""

MAX_PATCHES_CPU = 4096
"""The same on a CPU, which is as fast from 1024 patches on; requests can stop between passes."""


class GroupedAttention(VideoLlama3VisionAttention):
    """Attend inside each picture, neighbouring pictures of the same size as one batch."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        runs: tuple[tuple[int, int], ...] | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Attend.

        Args:
            hidden_states: (N, V), pictures one after another.
            cu_seqlens: (pictures + 1,) their bounds.
            position_embeddings: Cosine and sine, (N, V / heads) each.
            runs: (count, length) of neighbouring pictures of the same size; worked out from
                the bounds when None.

        Returns:
            (N, V) and None, attention weights being never made.
        """
        runs = runs or length_runs((cu_seqlens[1:] - cu_seqlens[:-1]).tolist())
        heads = (len(hidden_states), self.num_heads, self.head_dim)
        query, key = apply_rotary_pos_emb_vision(
            self.q_proj(hidden_states).view(heads),
            self.k_proj(hidden_states).view(heads),
            *position_embeddings,
        )
        value = self.v_proj(hidden_states).view(heads)
        outputs = []
        start = 0
        for count, length in runs:
            end = start + count * length
            q, k, v = (
                tensor[start:end].unflatten(0, (count, length)).transpose(1, 2)
                for tensor in (query, key, value)
            )
            dropout = self.attention_dropout if self.training else 0.0
            read = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
            outputs.append(read.transpose(1, 2).reshape(count * length, -1))
            start = end
        return self.out_proj(torch.cat(outputs)), None


class LinearEmbeddings(VideoLlama3VisionEmbeddings):
    """Embed patches with one matrix product; a convolution of patch-sized steps is the same."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Turn (N, 588) pixels into (N, V)."""
        convolution = self.patch_embedding
        return functional.linear(hidden_states, convolution.weight.flatten(1), convolution.bias)


class PackedVisionModel(VideoLlama3VisionModel):
    """Be transformers' tower, with attention batched over pictures of the same size."""

    def __init__(self, config: VideoLlama3VisionConfig) -> None:
        """Create the tower with random weights."""
        super().__init__(config)
        self.embeddings = LinearEmbeddings(config)
        for layer in self.encoder.layers:
            layer.self_attn = GroupedAttention(config)
        self.post_init()

    def pixel_unshuffle(
        self, hidden_states: Tensor, grid_thw: Tensor, merge_sizes: Tensor
    ) -> Tensor:
        """Leave the features as they are where nothing is to be merged."""
        if bool((merge_sizes == 1).all()):
            return hidden_states
        return super().pixel_unshuffle(hidden_states, grid_thw, merge_sizes)


class VisionEncoder(nn.Module):
    """Hold the tower under the doubled name that published weights use."""

    def __init__(self, config: VideoLlama3VisionConfig) -> None:
        """Create the tower with random weights."""
        super().__init__()
        self.vision_encoder = PackedVisionModel(config)

    def forward(self, patches: Tensor, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Encode pictures.

        Args:
            patches: (N, 588) normalised pixels, or uint8 which is normalised here; pictures one
                after another, patches in raster order.
            grids: Per picture, (rows, columns) of patches.

        Returns:
            Per picture, (rows * columns, V) features in raster order.
        """
        features: list[Tensor] = []
        start = 0
        for part in passes(grids, MAX_PATCHES):
            end = start + sum(rows * columns for rows, columns in part)
            features += self._encode(patches[start:end], part)
            start = end
        return features

    def _encode(self, patches: Tensor, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Encode pictures in one pass."""
        tower = self.vision_encoder
        device = tower.device
        lengths = [rows * columns for rows, columns in grids]
        patches = patches.to(device)
        if patches.dtype == torch.uint8:
            patches = normalise(patches)
        output = tower(
            patches,
            torch.tensor([(1, rows, columns) for rows, columns in grids]),
            torch.ones(len(grids), dtype=torch.int64),
            position_ids=torch.cat([raster(*grid) for grid in grids]).to(device),
            runs=length_runs(lengths),
        )
        return list(output.last_hidden_state.split(lengths))


def pass_size(device: torch.device) -> int:
    """Return how many patches to encode in one pass on a device."""
    return MAX_PATCHES_CPU if device.type == 'cpu' else MAX_PATCHES


def normalise(patches: Tensor) -> Tensor:
    """Turn uint8 pixels into the float range the tower was trained on, mean and std 0.5."""
    return (patches.float() / 255 - 0.5) / 0.5


def passes(grids: Sequence[tuple[int, int]], max_patches: int) -> Iterator[list[tuple[int, int]]]:
    """Split pictures into passes of at most this many patches, never a picture itself."""
    part: list[tuple[int, int]] = []
    size = 0
    for rows, columns in grids:
        if part and size + rows * columns > max_patches:
            yield part
            part, size = [], 0
        part.append((rows, columns))
        size += rows * columns
    if part:
        yield part


def length_runs(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return (count, length) for each run of equal neighbours."""
    return tuple((len(list(group)), length) for length, group in groupby(lengths))


@lru_cache(maxsize=256)
def raster(rows: int, columns: int) -> Tensor:
    """Return (rows * columns, 2) int64, row and column of each patch."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
