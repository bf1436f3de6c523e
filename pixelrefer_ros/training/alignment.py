# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Align region tokens with the words of the language model, beside its own loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from pixelrefer_ros.training.pictures import COLOUR_IDS, IGNORE, SHAPE_IDS, SIZE_IDS
from pixelrefer_ros.training.questions import DISTANCES, distance_step, percent
from pixelrefer_ros.training.vision import neighbour_classes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
    from pixelrefer_ros.training.clip_store import ClipStore
    from pixelrefer_ros.training.language import Batch, TokenCache

NEIGHBOUR_HEAD = (1, 3)
"""Layer and number of the attention head whose values speak of the neighbour."""


class WordAlignment:
    """Make region tokens speak the language model's own words.

    The mean token of a mask must be nearest, among the embeddings of the colour words, to its
    colour, and likewise for shape, size, place and distance. The embeddings are those the model
    answers with, so that naming becomes copying. The words of its neighbour must come out of
    one attention head's values, because the token itself already says its own.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, store: ClipStore) -> None:
        """Look the words up."""
        self._store = store

        def ids(words: Iterable[object]) -> Tensor:
            return torch.tensor([tokenizer.convert_tokens_to_ids(str(word)) for word in words])

        self._own = [ids(words) for words in (
            COLOUR_IDS, SHAPE_IDS, SIZE_IDS, range(0, 101, 5), DISTANCES)]
        self._beside = [ids([*words, 'Nothing']) for words in (COLOUR_IDS, SHAPE_IDS)]

    def loss(
        self, model: PixelReferForConditionalGeneration, tokens: Tensor, batch: Batch,
        cache: TokenCache,
    ) -> Tensor:
        """Return the loss of (M, mask_num, D) region tokens of a batch."""
        own, beside = [], []
        for row, frame in batch.region.tolist():
            number, k = cache.regions[row]
            things = self._store[number].things
            thing = things[k]
            own.append((COLOUR_IDS[thing.colour], SHAPE_IDS[thing.shape], SIZE_IDS[thing.size],
                        percent(float(thing.centre[frame, 0])) // 5,
                        distance_step(float(thing.distance_m[frame]))))
            beside.append(neighbour_classes(things, k, frame) or (IGNORE, IGNORE))
        mean = tokens.mean(1).float()
        total = _word_loss(model, mean, self._own, torch.tensor(own))
        read = _values(model, mean, NEIGHBOUR_HEAD)
        return total + 2 * _word_loss(model, read, self._beside, torch.tensor(beside))


def _word_loss(
    model: PixelReferForConditionalGeneration, said: Tensor, words: list[Tensor], targets: Tensor
) -> Tensor:
    table = model.model.embed_tokens.weight
    total = said.new_zeros(())
    for ids, target in zip(words, targets.T, strict=True):
        if bool((target != IGNORE).any()):
            total = total + functional.cross_entropy(
                said @ table[ids].float().T, target, ignore_index=IGNORE)
    return total


def _values(
    model: PixelReferForConditionalGeneration, tokens: Tensor, place: tuple[int, int]
) -> Tensor:
    """Return what an attention head adds to a token that looks at these, (M, D)."""
    number, head = place
    layer = model.model.layers[number]
    attention = layer.self_attn
    part = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
    values = attention.v_proj(layer.input_layernorm(tokens))[:, part]
    return functional.linear(values, attention.o_proj.weight[:, part])
