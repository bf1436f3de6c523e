# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make PixelRefer-Lite models of the published sizes and of a middle size, with random weights.

A model's speed does not depend on what its weights know. The middle size is for CPUs: widths a
quarter, depths half and the vocabulary an eighth of the 2B, so that tower and language model
share parameters and work as they do there. Pictures, patches and tokens per mask are unchanged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pixelrefer_ros.models.pixelrefer import (
    PixelReferConfig,
    PixelReferDescriber,
    PixelReferForConditionalGeneration,
    PixelReferProcessor,
)
from pixelrefer_ros.models.pixelrefer.eyes import LiteEyes
from pixelrefer_ros.models.pixelrefer.full import FullPixelReferConfig
from pixelrefer_ros.models.pixelrefer.prompts import ADDED_TOKENS, IMAGE_TOKEN, REGION_TOKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixelrefer_ros.models.pixelrefer.configuration import RegionModelConfig

# (hidden, MLP, layers, heads, key-value heads, tied) of the language models
_LANGUAGE = {
    '2B': (1536, 8960, 28, 12, 2, True),
    '7B': (3584, 18944, 28, 28, 4, False),
    'mid': (384, 2240, 14, 6, 1, True),
}
_VOCABULARY = 151669
_SPECIAL = ('<|endoftext|>', '<|im_start|>', '<|im_end|>', *ADDED_TOKENS)
_SIGNS = '[],.:?!<>-'
# single digits and single signs, as in Qwen2's tokenizer; there most words are one token too
_PIECES = r'\d|[A-Za-z_]+|[^\sA-Za-z0-9_]'


def config(size: str, **changes: Any) -> PixelReferConfig:
    """Return the configuration of a PixelRefer-Lite.

    Args:
        size: '2B' or '7B' as published, 'mid' for some 60 million parameters.
        **changes: Other fields of ``PixelReferConfig``.
    """
    small: dict[str, Any] = {}
    if size == 'mid':
        # cross attention with heads as wide as the published ones; nothing that is never called
        small = {'fusion_heads': 2, 'use_mm_proj': False, 'use_mask_embedding': False}
    return PixelReferConfig(**(_fields(size) | small | changes))


def full_config(size: str) -> FullPixelReferConfig:
    """Return the configuration of a full PixelRefer; sizes as in ``config``."""
    return FullPixelReferConfig(**_fields(size))


def _fields(size: str) -> dict[str, Any]:
    """Return what both kinds have in common."""
    hidden, mlp, layers, heads, kv_heads, tied = _LANGUAGE[size]
    fields: dict[str, Any] = {
        'vocab_size': _VOCABULARY,
        'region_token_index': len(_SPECIAL) - 1,
        'image_token_index': _SPECIAL.index(IMAGE_TOKEN),
        'hidden_size': hidden,
        'intermediate_size': mlp,
        'num_hidden_layers': layers,
        'num_attention_heads': heads,
        'num_key_value_heads': kv_heads,
        'tie_word_embeddings': tied,
        'max_position_embeddings': 32768,
        'rope_theta': 1e6,
    }
    if size == 'mid':
        tower = {'hidden_size': 288, 'intermediate_size': 1076, 'num_hidden_layers': 14}
        fields |= {
            'vision_encoder_config': tower | {'num_attention_heads': 4, 'patch_size': 14},
            'vocab_size': _VOCABULARY // 8,
        }
    return fields


def meta_model(size: str, **changes: Any) -> PixelReferForConditionalGeneration:
    """Return a model without memory: its tensors have shapes only."""
    with torch.device('meta'):
        return PixelReferForConditionalGeneration(config(size, **changes)).eval()


def random_model(
    wanted: PixelReferConfig,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> PixelReferForConditionalGeneration:
    """Return a model with random weights, large enough that its words depend on the pictures.

    Attention of the language model is made sharp, so that a word depends on all of the prompt.
    No token ends an answer: all are as long as they may be.
    """
    before = torch.get_default_dtype()
    torch.manual_seed(seed)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = PixelReferForConditionalGeneration(wanted).eval()
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and 'embed_tokens' not in name and 'lm_head' not in name:
                language = name.startswith('model.layers.')
                sharp = (
                    2.0 if language and name.endswith(('q_proj.weight', 'k_proj.weight')) else 1.0
                )
                parameter.normal_(std=sharp * parameter[0].numel() ** -0.5)
    model.generation_config.eos_token_id = wanted.vocab_size
    return model


def processor(wanted: PixelReferConfig, texts: Sequence[str] = ()) -> PixelReferProcessor:
    """Return a processor with the tokenizer of ``tokenizer``."""
    return PixelReferProcessor(wanted, tokenizer(wanted, texts))


def tokenizer(wanted: RegionModelConfig, texts: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Return a tokenizer that has a token for each row of the model's embedding.

    Args:
        wanted: The model's configuration.
        texts: What will be asked; each of their words is a token.
    """
    templates = (
        wanted.describe_prompt_image, wanted.describe_prompt_video,
        wanted.one_object_prefix_image, wanted.one_object_prefix_video,
        wanted.many_objects_prefix_image, wanted.many_objects_prefix_video,
    )  # fmt: skip
    spoken = ' '.join((*templates, *texts, 'user assistant Time s object region'))
    words = sorted({*re.findall(_PIECES, spoken), *_SIGNS, *'0123456789'})
    listed = [*_SPECIAL, *(word for word in words if word not in _SPECIAL)]
    listed += [f'word{number}' for number in range(wanted.vocab_size - len(listed))]
    made = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(listed)}, _SPECIAL[0])
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r'\s+'), 'removed'),
            pre_tokenizers.Split(Regex(_PIECES), 'isolated'),
        ]
    )
    made.decoder = decoders.WordPiece(prefix='##', cleanup=False)
    made.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token='<|im_end|>', pad_token='<|endoftext|>',
        unk_token='<|endoftext|>', padding_side='right',
        additional_special_tokens=[_SPECIAL[1], REGION_TOKEN], clean_up_tokenization_spaces=False,
    )  # fmt: skip


def describer(
    model: PixelReferForConditionalGeneration, tokens: PixelReferProcessor, max_new_tokens: int
) -> PixelReferDescriber:
    """Return a describer with nothing in its caches."""
    return PixelReferDescriber(
        model,
        tokens,
        'random',
        eyes=LiteEyes(model, tokens),
        max_new_tokens=max_new_tokens,
    )
