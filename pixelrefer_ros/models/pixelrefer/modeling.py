# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define PixelRefer-Lite: vision tower, region encoder, and Qwen2 reading region tokens.

Parameter names are those of published checkpoints. No picture token reaches the language
model: it reads ``mask_num`` tokens per mask and nothing else of the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import Qwen2ForCausalLM, Qwen2Model
from transformers import initialization as init

from pixelrefer_ros.models.pixelrefer import checkpoint
from pixelrefer_ros.models.pixelrefer.configuration import PixelReferConfig
from pixelrefer_ros.models.pixelrefer.infusion import CrossAttention
from pixelrefer_ros.models.pixelrefer.object_tokenizer import object_tokens, pack_to_mask_grids
from pixelrefer_ros.models.pixelrefer.tower import PackedVisionModel, VisionEncoder
from pixelrefer_ros.models.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
        packed = pack_to_mask_grids(crops, layout)
        positions = layout.positions.to(device=packed.device, dtype=self.pos_linear.weight.dtype)
        return packed[layout.cells.to(packed.device)] + self.pos_linear(positions)

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
    """Hold the picture projector of published weights, which Lite never calls."""

    def __init__(self, config: PixelReferConfig) -> None:
        """Create the layers."""
        super().__init__()
        self.readout = nn.Sequential(
            nn.Linear(config.mm_hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )


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


class PixelReferForConditionalGeneration(Qwen2ForCausalLM):
    """Put regions into words.

    ``from_pretrained`` reads published directories as they are. ``forward`` and ``generate``
    take what Qwen2 takes, and in addition ``region_tokens``, which replace the region tokens of
    ``input_ids`` in order.
    """

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

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any
    ) -> PixelReferForConditionalGeneration:
        """Load a directory with config.json and weights, .bin or safetensors, sharded or not.

        Args:
            pretrained_model_name_or_path: A directory, or a name that
                ``models.registry`` knows.
            *args: Passed on.
            **kwargs: Passed on: ``dtype``, ``device_map``, ``config`` and the like.

        Returns:
            The model in evaluation mode.

        Raises:
            CheckpointError: The directory holds no PixelRefer-Lite model, or not all of it;
                says what is missing and what is unexpected.
        """
        directory = resolve(str(pretrained_model_name_or_path))
        kwargs['config'] = checkpoint.check(cls, directory, kwargs.get('config'))
        return super().from_pretrained(directory, *args, **kwargs)

    @property
    def tower(self) -> PackedVisionModel:
        """The vision tower; takes (N, 588) pixels, grid_thw and merge_sizes."""
        return self.model.vision_encoder.vision_encoder

    @property
    def region_encoder(self) -> RegionEncoder:
        """The part between tower and language model."""
        return self.model.region_encoder

    def encode_images(self, patches: Tensor, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Encode pictures, packed; only a great many take the tower more than one pass.

        Args:
            patches: (N, 588) uint8, or floats already normalised; pictures one after another.
            grids: Per picture, (rows, columns) of patches.

        Returns:
            Per picture, (rows * columns, V).
        """
        return self.model.vision_encoder(patches, grids)

    def encode_regions(
        self,
        inputs: RegionInputs,
        frames: Sequence[Tensor],
        contexts: Sequence[Tensor],
        crops: Sequence[Tensor],
        starts: Tensor | None = None,
    ) -> Tensor:
        """Turn features into region tokens.

        Args:
            inputs: Which mask lies where, and which frame and context it reads.
            frames: Per distinct frame, (Lf, V) features.
            contexts: Per distinct context crop, (Lc, V) features.
            crops: Per mask, (cells, V) features.
            starts: (M, mask_num) cells k-means starts from; evenly spaced ones when None.

        Returns:
            (M, mask_num, D).
        """
        return self.region_encoder(
            crops,
            inputs.layout.to(self.device),
            torch.stack(list(contexts)),
            torch.stack(list(frames)),
            context_index=inputs.context_index.to(self.device),
            frame_index=inputs.frame_index.to(self.device),
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
            inputs,
            features[:after_frames],
            features[after_frames:after_contexts],
            features[after_contexts:],
            starts,
        )

    def embed(self, input_ids: Tensor, region_tokens: Tensor) -> Tensor:
        """Embed a prompt, region tokens put in for their ids in order.

        Args:
            input_ids: (B, L) int64.
            region_tokens: (M, mask_num, D), masks in the order the prompts speak of them.

        Returns:
            (B, L, D).

        Raises:
            ValueError: The prompts have another number of region ids than there are tokens.
        """
        if self.config.region_token_index is None:
            raise ValueError('config.region_token_index is not set')
        embeds = self.model.embed_tokens(input_ids)
        places = input_ids.eq(self.config.region_token_index)
        wanted, given = int(places.sum()), region_tokens.shape[:-1].numel()
        if wanted != given:
            raise ValueError(f'the prompt has room for {wanted} region tokens, {given} given')
        tokens = region_tokens.reshape(-1, region_tokens.shape[-1]).to(embeds)
        return embeds.masked_scatter(places[..., None], tokens)

    def forward(
        self,
        input_ids: Tensor | None = None,
        *args: Any,
        region_tokens: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the language model, as Qwen2 does; ``region_tokens`` as in ``embed``."""
        if region_tokens is not None and input_ids is not None:
            kwargs['inputs_embeds'] = self.embed(input_ids, region_tokens)
            input_ids = None
        return super().forward(input_ids, *args, **kwargs)

    def generate(self, *args: Any, region_tokens: Tensor | None = None, **kwargs: Any) -> Any:
        """Generate as Qwen2 does.

        Args:
            *args: As transformers' ``generate`` takes them.
            region_tokens: Replace the region tokens of ``input_ids`` as in ``embed``; the ids
                returned are then those of new tokens only.
            **kwargs: As transformers' ``generate`` takes them.

        Returns:
            What transformers' ``generate`` returns.
        """
        if region_tokens is not None:
            input_ids = args[0] if args else kwargs.pop('input_ids')
            args = ()
            kwargs['inputs_embeds'] = self.embed(input_ids, region_tokens)
            kwargs.setdefault('attention_mask', torch.ones_like(input_ids))
        return super().generate(*args, **kwargs)

    def generate_from_regions(
        self, input_ids: Tensor, region_tokens: Tensor, **kwargs: Any
    ) -> Any:
        """Generate words after a prompt about regions.

        Args:
            input_ids: (1, L) int64.
            region_tokens: (M, mask_num, D) from ``encode`` or ``encode_regions``.
            **kwargs: As transformers' ``generate`` takes them.

        Returns:
            What ``generate`` returns; ids are those of new tokens only.
        """
        return self.generate(input_ids, region_tokens=region_tokens, **kwargs)
