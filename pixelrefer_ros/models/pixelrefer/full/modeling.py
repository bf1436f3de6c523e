# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define the full PixelRefer: vision tower, projector, region encoder, and Qwen2.

Parameter names are those of published checkpoints. The language model reads the tokens of whole
frames and up to ``mask_num`` tokens per region (vision-object framework of the paper).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen2Model

from pixelrefer_ros.models.pixelrefer.base_modeling import RegionLanguageModel
from pixelrefer_ros.models.pixelrefer.full.configuration import FullPixelReferConfig
from pixelrefer_ros.models.pixelrefer.modeling import Projector
from pixelrefer_ros.models.pixelrefer.object_tokenizer import locate, object_tokens
from pixelrefer_ros.models.pixelrefer.tower import VisionEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.full.inputs import FrameInputs, ObjectInputs
    from pixelrefer_ros.models.pixelrefer.object_tokenizer import CellLayout


class FullRegionEncoder(nn.Module):
    """Turn feature maps and masks into tokens of the language model's width."""

    def __init__(self, config: FullPixelReferConfig) -> None:
        """Create the layers."""
        super().__init__()
        self.count = config.mask_num
        self.iterations = config.kmeans_iterations
        self.feat_linear = nn.Sequential(
            nn.Linear(config.mm_hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )
        self.pos_linear = nn.Linear(2, config.mm_hidden_size)

    def forward(
        self, crops: Sequence[Tensor], layout: CellLayout, starts: Tensor | None = None
    ) -> Tensor:
        """Encode all masks at once.

        Args:
            crops: Per mask, (cells, V) features of its object crop.
            layout: Cells of the masks, on the device of the features.
            starts: (M, mask_num) cells k-means starts from; evenly spaced ones when None.

        Returns:
            (T, D), masks one after another; each has as many tokens as cells, ``mask_num`` at
            most.
        """
        tokens: Tensor = self.feat_linear(self.tokenize(crops, layout, starts))
        return tokens

    def locate(self, crops: Sequence[Tensor], layout: CellLayout) -> Tensor:
        """Return the masks' cells with their position added, packed, (cells, V)."""
        return locate(crops, layout, self.pos_linear)

    def tokenize(
        self, crops: Sequence[Tensor], layout: CellLayout, starts: Tensor | None = None
    ) -> Tensor:
        """Return (T, V), the object tokens in the tower's width."""
        cells = self.locate(crops, layout)
        padded = object_tokens(cells, layout.lengths, self.count, self.iterations, starts)
        counts = torch.tensor(layout.lengths, device=padded.device)
        return padded[torch.arange(self.count, device=padded.device) < counts[:, None]]


class FullPixelReferModel(Qwen2Model):
    """Be Qwen2 without its head, holding the vision parts under their published names."""

    config_class = FullPixelReferConfig

    def __init__(self, config: FullPixelReferConfig) -> None:
        """Create the model with random weights."""
        super().__init__(config)
        self.vision_encoder = VisionEncoder(config.tower_config)
        self.mm_projector = Projector(config)
        self.region_encoder = FullRegionEncoder(config)
        self.post_init()


class FullPixelReferForConditionalGeneration(RegionLanguageModel):
    """Put pictures, videos and regions in them into words."""

    config: FullPixelReferConfig
    config_class = FullPixelReferConfig
    _no_split_modules = [
        'Qwen2DecoderLayer', 'VideoLlama3VisionEncoderLayer', 'FullRegionEncoder',
    ]  # fmt: skip

    def __init__(self, config: FullPixelReferConfig) -> None:
        """Create the model with random weights."""
        super().__init__(config)
        self.model = FullPixelReferModel(config)
        self.post_init()

    @property
    def region_encoder(self) -> FullRegionEncoder:
        """The part between tower and language model that knows regions."""
        return self.model.region_encoder

    def project_frames(
        self,
        features: Sequence[Tensor],
        grids: Sequence[tuple[int, int]],
        merges: Sequence[int],
    ) -> list[Tensor]:
        """Turn features of whole frames into tokens.

        Args:
            features: Per frame, (rows * columns, V) in raster order.
            grids: Per frame, (rows, columns).
            merges: Per frame, side in patches of the square one token stands for.

        Returns:
            Per frame, (rows / merge * columns / merge, D) in raster order.
        """
        merged = [merge_patches(*one) for one in zip(features, grids, merges, strict=True)]
        if not merged:
            return []
        tokens: Tensor = self.model.mm_projector(torch.cat(merged))
        return list(tokens.split([len(frame) for frame in merged]))

    def encode(
        self, frames: FrameInputs, regions: ObjectInputs, starts: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Go from pictures to tokens, all pictures packed.

        The plain way, which tests compare ``FullEyes`` with.

        Args:
            frames: Whole frames.
            regions: Object crops.
            starts: As in ``FullRegionEncoder.forward``.

        Returns:
            Per frame, (kept tokens, D); (T, D) of the regions, one after another.
        """
        pictures, crops = frames.pictures, regions.crops
        features = self.encode_images(
            torch.cat([pictures.patches, crops.patches]), [*pictures.grids, *crops.grids]
        )
        count = len(pictures.grids)
        merges = [frames.merge] * count
        tokens = self.project_frames(features[:count], pictures.grids, merges)
        kept = [
            frame[which.to(frame.device)] for frame, which in zip(tokens, frames.kept, strict=True)
        ]
        return kept, self.encode_regions(features[count:], regions.layout, starts)

    def encode_regions(
        self, crops: Sequence[Tensor], layout: CellLayout, starts: Tensor | None = None
    ) -> Tensor:
        """Turn features of object crops into (T, D); see ``FullRegionEncoder.forward``."""
        if not layout.lengths:
            return self.model.embed_tokens.weight.new_zeros(0, self.config.hidden_size)
        tokens: Tensor = self.region_encoder(crops, layout.to(self.device), starts)
        return tokens

    def arrange(self, input_ids: Tensor, frames: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Put what frames and regions became into the order a prompt has their places in.

        Args:
            input_ids: (1, L) or (L,) int64 on the CPU.
            frames: Per frame, (n, D) tokens, or something else of each.
            regions: (T, D), of the same.

        Returns:
            (sum of n + T, D); tokens as ``embed``, ``forward`` and ``generate`` take them.

        Raises:
            ValueError: The prompt has room for another number of tokens than there are.
        """
        region_id, image_id = self.config.placeholder_ids
        ids = input_ids.flatten()
        of_frames = (ids == image_id).nonzero()[:, 0]
        of_regions = (ids == region_id).nonzero()[:, 0]
        seen = torch.cat([*frames, regions.new_zeros(0, regions.shape[1])])
        _check_room('picture', of_frames, seen)
        _check_room('region', of_regions, regions)
        order = torch.cat([of_frames, of_regions]).argsort().to(regions.device)
        return torch.cat([seen, regions])[order]


def merge_patches(features: Tensor, grid: tuple[int, int], merge: int) -> Tensor:
    """Make one feature of each square of patches: between its middle ones, bilinear.

    Args:
        features: (rows * columns, V) in raster order.
        grid: (rows, columns), multiples of ``merge``.
        merge: Side of the squares.

    Returns:
        (rows / merge * columns / merge, V).
    """
    if merge == 1:
        return features
    rows, columns = grid
    merged = functional.interpolate(
        features.t().reshape(1, -1, rows, columns).float(),
        size=(rows // merge, columns // merge),
        mode='bilinear',
        align_corners=False,
    )
    return merged[0].flatten(1).t().to(features.dtype)


def _check_room(what: str, places: Tensor, tokens: Tensor) -> None:
    if len(places) != len(tokens):
        raise ValueError(
            f'the prompt has room for {len(places)} {what} tokens, {len(tokens)} given'
        )
