# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define PixelRefer-Lite: vision tower, region encoder, and Qwen2 reading region tokens.

Parameter names are those of published checkpoints. No picture token reaches the language
model: it reads ``mask_num`` tokens per mask and nothing else of the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import Qwen2Model
from transformers import initialization as init

from pixelrefer_ros.models.pixelrefer.base_modeling import RegionLanguageModel
from pixelrefer_ros.models.pixelrefer.configuration import PixelReferConfig, RegionModelConfig
from pixelrefer_ros.models.pixelrefer.infusion import CrossAttention
from pixelrefer_ros.models.pixelrefer.object_tokenizer import locate, object_tokens
from pixelrefer_ros.models.pixelrefer.tower import VisionEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.inputs import RegionInputs
    from pixelrefer_ros.models.pixelrefer.object_tokenizer import CellLayout


class RegionEncoder(nn.Module):
    """Turn feature maps and masks into tokens of the language model's width."""

    def __init__(self, config: PixelReferConfig) -> None:
        """Create the layers."""
        super().__init__()
        width = config.mm_hidden_size
        self.count = config.mask_num
        self.iterations = config.kmeans_iterations
        if config.use_mask_embedding:
            self.mask_embedding = nn.Conv2d(1, width, kernel_size=1)
        self.feat_linear = nn.Sequential(
            nn.Linear(width, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )
        self.pos_linear = nn.Linear(2, width)
        self.fusion_attention_local = CrossAttention(width, config.fusion_heads)
        self.fusion_attention_global = CrossAttention(width, config.fusion_heads)
        self.ln_local = nn.LayerNorm(width)
        self.ln_global = nn.LayerNorm(width)

    def forward(
        self,
        crops: Sequence[Tensor],
        layout: CellLayout,
        contexts: Tensor,
        frames: Tensor,
        context_index: Tensor | None = None,
        frame_index: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Encode all masks at once.

        Args:
            crops: Per mask, (cells, V) features of its object crop.
            layout: Cells of the masks, on the device of the features.
            contexts: (C, Lc, V) features of the context crops.
            frames: (F, Lf, V) features of the whole frames.
            context_index: (M,) the context of each mask; None when C is M, in order.
            frame_index: (M,) the frame of each mask; None when F is M, in order.
            starts: (M, mask_num) cells k-means starts from; evenly spaced ones when None.

        Returns:
            (M, mask_num, D).
        """
        tokens = self.tokenize(crops, layout, starts)
        tokens = self.infuse(tokens, contexts, frames, context_index, frame_index)
        return self.feat_linear(tokens)

    def locate(self, crops: Sequence[Tensor], layout: CellLayout) -> Tensor:
        """Return the masks' cells with their position added, packed, (T, V)."""
        return locate(crops, layout, self.pos_linear)

    def tokenize(
        self, crops: Sequence[Tensor], layout: CellLayout, starts: Tensor | None = None
    ) -> Tensor:
        """Return (M, mask_num, V), the object tokens before they look around."""
        cells = self.locate(crops, layout)
        return object_tokens(cells, layout.lengths, self.count, self.iterations, starts)

    def infuse(
        self,
        tokens: Tensor,
        contexts: Tensor,
        frames: Tensor,
        context_index: Tensor | None = None,
        frame_index: Tensor | None = None,
    ) -> Tensor:
        """Let the tokens read from the context crop, then from the whole frame, (M, n, V)."""
        tokens = tokens + self.fusion_attention_local(
            self.ln_local(tokens), contexts, context_index
        )
        return tokens + self.fusion_attention_global(self.ln_global(tokens), frames, frame_index)


class Projector(nn.Module):
    """Turn features of whole pictures into tokens; Lite's weights hold one and never call it."""

    def __init__(self, config: RegionModelConfig) -> None:
        """Create the layers."""
        super().__init__()
        self.readout = nn.Sequential(
            nn.Linear(config.mm_hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Turn (N, V) into (N, D)."""
        tokens: Tensor = self.readout(features)
        return tokens


class PixelReferModel(Qwen2Model):
    """Be Qwen2 without its head, holding the vision parts under their published names."""

    config_class = PixelReferConfig

    def __init__(self, config: PixelReferConfig) -> None:
        """Create the model with random weights."""
        super().__init__(config)
        self.vision_encoder = VisionEncoder(config.tower_config)
        if config.use_mm_proj:
            self.mm_projector = Projector(config)
        self.region_encoder = RegionEncoder(config)
        self.post_init()


class PixelReferForConditionalGeneration(RegionLanguageModel):
    """Put regions into words."""

    config: PixelReferConfig
    config_class = PixelReferConfig
    _no_split_modules = ['Qwen2DecoderLayer', 'VideoLlama3VisionEncoderLayer', 'RegionEncoder']

    def __init__(self, config: PixelReferConfig) -> None:
        """Create the model with random weights."""
        super().__init__(config)
        self.model = PixelReferModel(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CrossAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)

    @property
    def region_encoder(self) -> RegionEncoder:
        """The part between tower and language model."""
        return self.model.region_encoder

    def encode_regions(
        self,
        layout: CellLayout,
        frames: Sequence[Tensor],
        contexts: Sequence[Tensor],
        crops: Sequence[Tensor],
        frame_index: Tensor,
        context_index: Tensor,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Turn features into region tokens.

        Args:
            layout: Cells of the masks in their crops.
            frames: Per distinct frame, (Lf, V) features.
            contexts: Per distinct context crop, (Lc, V) features.
            crops: Per mask, (cells, V) features.
            frame_index: (M,) int64, frame of each mask.
            context_index: (M,) int64, context crop of each mask.
            starts: (M, mask_num) cells k-means starts from; evenly spaced ones when None.

        Returns:
            (M, mask_num, D).
        """
        return self.region_encoder(
            crops,
            layout.to(self.device),
            torch.stack(list(contexts)),
            torch.stack(list(frames)),
            context_index=context_index.to(self.device),
            frame_index=frame_index.to(self.device),
            starts=starts,
        )

    def encode(self, inputs: RegionInputs, starts: Tensor | None = None) -> Tensor:
        """Go from pictures to region tokens, all pictures packed, (M, mask_num, D)."""
        if not inputs.layout.lengths:
            return self.model.embed_tokens.weight.new_zeros(
                0, self.config.mask_num, self.config.hidden_size
            )
        frames, contexts, crops = inputs.frames, inputs.contexts, inputs.crops
        features = self.encode_images(
            torch.cat([frames.patches, contexts.patches, crops.patches]),
            [*frames.grids, *contexts.grids, *crops.grids],
        )
        after_frames = len(frames.grids)
        after_contexts = after_frames + len(contexts.grids)
        return self.encode_regions(
            inputs.layout,
            features[:after_frames],
            features[after_frames:after_contexts],
            features[after_contexts:],
            inputs.frame_index,
            inputs.context_index,
            starts,
        )
