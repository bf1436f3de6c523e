# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define what both kinds of PixelRefer have in common: Qwen2 that reads tokens of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import torch
from transformers import Qwen2ForCausalLM

from pixelrefer_ros.models.pixelrefer import checkpoint
from pixelrefer_ros.models.pixelrefer.configuration import RegionModelConfig
from pixelrefer_ros.models.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.tower import PackedVisionModel


class RegionLanguageModel(Qwen2ForCausalLM):
    """Put regions into words.

    ``from_pretrained`` reads published directories as they are. ``forward`` and ``generate``
    take what Qwen2 takes, and in addition ``region_tokens``, the tokens that ``input_ids`` only
    holds places for.
    """

    config: RegionModelConfig
    config_class = RegionModelConfig

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any
    ) -> Self:
        """Load a directory with config.json and weights, .bin or safetensors, sharded or not.

        Args:
            pretrained_model_name_or_path: A directory, or a name that
                ``models.registry`` knows.
            *args: Passed on.
            **kwargs: Passed on: ``dtype``, ``device_map``, ``config`` and the like.

        Returns:
            The model in evaluation mode.

        Raises:
            CheckpointError: The directory holds no model of this kind, or not all of it;
                says what is missing and what is unexpected.
        """
        directory = resolve(str(pretrained_model_name_or_path))
        kwargs['config'] = checkpoint.check(cls, directory, kwargs.get('config'))
        return cast('Self', super().from_pretrained(directory, *args, **kwargs))

    @property
    def tower(self) -> PackedVisionModel:
        """The vision tower; takes (N, 588) pixels, grid_thw and merge_sizes."""
        return self.model.vision_encoder.vision_encoder

    def encode_images(self, patches: Tensor, grids: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Encode pictures, packed; only a great many take the tower more than one pass.

        Args:
            patches: (N, 588) uint8, or floats already normalised; pictures one after another.
            grids: Per picture, (rows, columns) of patches.

        Returns:
            Per picture, (rows * columns, V).
        """
        return self.model.vision_encoder(patches, grids)

    def embed(self, input_ids: Tensor, region_tokens: Tensor) -> Tensor:
        """Embed a prompt, tokens put in for the ids that hold their places, in order.

        Args:
            input_ids: (B, L) int64.
            region_tokens: (..., D), in the order of ``config.placeholder_ids`` in the prompts.

        Returns:
            (B, L, D).

        Raises:
            ValueError: The prompts have room for another number of tokens than there are.
        """
        embeds = self.model.embed_tokens(input_ids)
        places = torch.isin(input_ids, input_ids.new_tensor(self.config.placeholder_ids))
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
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """Run the language model, as Qwen2 does; ``region_tokens`` as in ``embed``.

        ``logits_to_keep`` is named because ``generate`` looks for it: where it is not, the words
        of every position of the prompt are predicted, and thrown away.
        """
        if region_tokens is not None and input_ids is not None:
            kwargs['inputs_embeds'] = self.embed(input_ids, region_tokens)
            input_ids = None
        return super().forward(input_ids, *args, logits_to_keep=logits_to_keep, **kwargs)

    def generate(self, *args: Any, region_tokens: Tensor | None = None, **kwargs: Any) -> Any:
        """Generate as Qwen2 does.

        Args:
            *args: As transformers' ``generate`` takes them.
            region_tokens: Put in for their ids as in ``embed``; the ids
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
