# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Count the floating-point operations of a model's parts, without memory for the model.

Torch's FlopCounterMode watches the package's own modules run on the meta device, where tensors
have shapes and no contents. FLOPs are twice the multiply-accumulates; what is no matrix product
(norms, activations, softmax) is not counted. Pictures attend only to themselves, so the tower's
work is the sum over pictures.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from bench import _sizes as sizes
from pixelrefer_ros.models.pixelrefer.object_tokenizer import CellLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.models.pixelrefer import PixelReferForConditionalGeneration

Grid = tuple[int, int]


def count(work: Callable[[], object]) -> int:
    """Return the FLOPs of what a function does."""
    with (
        torch.inference_mode(),
        FlopCounterMode(display=False) as counter,
        # autocast, which the region encoder switches off, does not know the meta device
        patch('torch.autocast', lambda *_, **__: nullcontext()),
    ):
        work()
    return int(counter.get_total_flops())


class Counter:
    """Count what the parts of a PixelRefer-Lite model cost."""

    def __init__(self, model: PixelReferForConditionalGeneration) -> None:
        """Count for a model on the meta device."""
        self.model = model
        self.config = model.config
        self.picture = lru_cache(maxsize=None)(self._picture)
        self.read = lru_cache(maxsize=None)(self._read)
        self.regions = lru_cache(maxsize=None)(self._regions)

    @classmethod
    def of(cls, size: str) -> Counter:
        """Count for one of the sizes of ``_sizes``."""
        return cls(sizes.meta_model(size))

    def _picture(self, grid: Grid) -> int:
        """Return the tower's FLOPs for a picture of (rows, columns) patches."""
        patches = torch.empty(grid[0] * grid[1], 588, dtype=torch.uint8, device='meta')
        return count(lambda: self.model.encode_images(patches, [grid]))

    def pictures(self, grids: Sequence[Grid]) -> int:
        """Return the tower's FLOPs for several pictures."""
        return sum(self.picture(grid) for grid in grids)

    def _regions(
        self,
        crops: tuple[Grid, ...],
        cells: tuple[int, ...],
        contexts: int,
        frames: int,
    ) -> int:
        """Return the region encoder's FLOPs: clustering, infusion, projection.

        Args:
            crops: Per mask, (rows, columns) of its object crop.
            cells: Per mask, how many of them belong to it.
            contexts: How many distinct context crops the masks read from.
            frames: How many distinct whole frames.
        """
        config = self.config
        total = sum(cells)
        layout = CellLayout(
            tuple(crops),
            tuple(crops),
            tuple(cells),
            torch.empty(total, dtype=torch.int64, device='meta'),
            torch.empty(total, 2, device='meta'),
        )
        index = torch.empty(len(crops), dtype=torch.int64, device='meta')

        def features(patches: int) -> torch.Tensor:
            return torch.empty(patches, config.mm_hidden_size, device='meta')

        local, whole = (side // 14 for side in (config.local_size, config.global_size))
        return count(
            lambda: self.model.region_encoder(
                [features(rows * columns) for rows, columns in crops],
                layout,
                features(contexts * local**2).unflatten(0, (contexts, -1)),
                features(frames * whole**2).unflatten(0, (frames, -1)),
                index,
                index,
            )
        )

    def _read(self, tokens: int, past: int = 0, heads: int = 1) -> int:
        """Return the language model's FLOPs for reading tokens of one sequence.

        Args:
            tokens: How many are read.
            past: How many are in the key-value cache already.
            heads: At how many of them the next token is predicted.
        """
        config = self.config
        cache = DynamicCache(config=config)
        width = config.hidden_size // config.num_attention_heads
        for layer in range(config.num_hidden_layers if past else 0):
            kept = torch.empty(1, config.num_key_value_heads, past, width, device='meta')
            cache.update(kept, kept, layer)
        embeds = torch.empty(1, tokens, config.hidden_size, device='meta')

        def work() -> None:
            hidden = self.model.model(
                inputs_embeds=embeds, past_key_values=cache, use_cache=True
            ).last_hidden_state
            if heads:
                self.model.lm_head(hidden[:, -heads:])

        return count(work)

    def decode(self, past: int, tokens: int) -> int:
        """Return the FLOPs of generating tokens after a prompt that predicted the first.

        A step's work grows by the same amount with each token before it, so all of them cost
        what as many of the middle ones would.
        """
        steps = tokens - 1
        if steps < 1:
            return 0
        return steps * (self.read(1, past) + self.read(1, past + steps - 1)) // 2
