# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say how large the embedded grounding model is, and start it so that it can learn.

It has the Qwen2.5-VL architecture of transformers. A patch is 7 pixels wide and goes through all
sixteen frames: what happens at a place over the clip is in one token, and the tower, which looks
across places but never across time, can follow a thing from where it was first. A key frame is
a clip that stands still.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pixelrefer_ros.training.grounding_codes import (
    BOX_PERIODS,
    PARTS,
    WIDTH,
    waves,
    words_in_codes,
)
from pixelrefer_ros.training.grounding_words import ANCHORS, CLIP_START, END, PAD, UNKNOWN

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

FRAMES = 16
CLIP_SIZE = (224, 168)
"""Width and height of the frames of the first turn; that of the profile."""
KEY_SIZE = (224, 168)
"""Width and height of the key frame; that of the profile."""
PATCH = 7
MERGE = 2
TOKEN_PX = PATCH * MERGE
MAX_NEW_TOKENS = 128
LAYERS, READING_LAYERS = 9, 5
"""Of the language model, and how many of them a word may need to be read off a thing. What one
token has read is known to the tokens after it in the layers that follow."""

# Which of a head's 16 rotary pairs turn with time, row, column, time, row, column, ...: every
# direction has quick pairs, which tell neighbours apart, and slow ones.
_SECTIONS = (1, 2, 2, 1, 2, 2, 2, 2, 2)
_PLACE_STRENGTH = {'row': 7.0, 'column': 14.0}
_ANCHOR_SCORE = 8.0
_ECHO = 3.5


def grounding_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """Return the sizes: 5.3 million parameters, 11 MB in half precision."""

    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    return Qwen2_5_VLConfig(
        text_config={
            'vocab_size': len(tokenizer), 'hidden_size': WIDTH, 'intermediate_size': 448,
            'num_hidden_layers': LAYERS, 'num_attention_heads': 5, 'num_key_value_heads': 5,
            'max_position_embeddings': 2048, 'tie_word_embeddings': True,
            'rope_parameters': {'rope_type': 'default', 'rope_theta': 40.0,
                                'mrope_section': list(_SECTIONS)},
            'bos_token_id': token(PAD), 'eos_token_id': token(END), 'pad_token_id': token(PAD),
        },
        vision_config={
            'depth': 5, 'hidden_size': 160, 'intermediate_size': 384, 'num_heads': 5,
            'patch_size': PATCH, 'spatial_merge_size': MERGE, 'temporal_patch_size': FRAMES,
            'out_hidden_size': WIDTH, 'window_size': 112, 'fullatt_block_indexes': list(range(5)),
            'tokens_per_second': 2,
            'rope_parameters': {'rope_type': 'axial', 'rope_theta': 10.0},
        },
        image_token_id=token('<|image_pad|>'), video_token_id=token('<|video_pad|>'),
        vision_start_token_id=token(CLIP_START),
        vision_end_token_id=token('<|vision_end|>'), tie_word_embeddings=True,
    )


def fresh_model(
    tokenizer: PreTrainedTokenizerBase, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """Return an untrained model, started so that places and numbers matter from step one."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(grounding_config(tokenizer))
    model.set_attn_implementation('eager')  # its backward pass is the faster one on a CPU
    _start_tower(model)
    _start_language(model, tokenizer)
    _start_places(model, tokenizer)
    _start_echoes(model)
    model.generation_config.max_new_tokens = MAX_NEW_TOKENS
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(END)
    model.generation_config.pad_token_id = tokenizer.convert_tokens_to_ids(PAD)
    model.generation_config.suppress_tokens = [tokenizer.convert_tokens_to_ids(UNKNOWN)]
    return model


@torch.no_grad()
def _scale_matrices(module: nn.Module, depth: int) -> None:
    """Draw all matrices at the scale of their width; the usual 0.02 is for much larger ones."""
    residual = (2 * depth) ** -0.5
    for name, matrix in module.named_parameters():
        if matrix.ndim == 2:
            ends = name.endswith(('o_proj.weight', 'down_proj.weight', 'attn.proj.weight'))
            matrix.normal_(0, (residual if ends else 1.0) * matrix.shape[1] ** -0.5)


@torch.no_grad()
def _start_tower(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Start patches as cosines over space and time, and each head looking at one side.

    Rotary positions have no effect on queries and keys without content. Constant parts in both
    (the biases), the query's turned by the wanted offset, make the scores peak there.
    """
    tower = model.model.visual
    _scale_matrices(tower.blocks, len(tower.blocks))
    _scale_matrices(tower.merger, 1)
    tower.merger.mlp[2].weight *= 0.3  # not much louder than words
    kernel = tower.patch_embed.proj.weight
    kernel.normal_(0, 0.5 * kernel[0].numel() ** -0.5)
    for i, (basis, loudness) in enumerate(_waves()):
        kernel[i] = basis * loudness
    inv_freq = tower.rotary_pos_emb.inv_freq
    offsets = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (1, 1), (-1, 1), (1, -1))
    for depth, block in enumerate(tower.blocks):
        dim, heads = block.attn.head_dim, block.attn.num_heads
        bias = block.attn.qkv.bias.view(3, heads, dim)
        amplitude = 2.5 / (1 + 0.5 * depth)
        for head in range(heads):
            row, column = offsets[(head + 3 * depth) % len(offsets)]
            turn = torch.cat([row * inv_freq, column * inv_freq])
            bias[0, head] = amplitude * torch.cat([turn.cos(), turn.sin()])
            bias[1, head] = amplitude * torch.cat([torch.ones(dim // 2), torch.zeros(dim // 2)])


def _waves() -> list[tuple[Tensor, float]]:
    """Return the first kernels, (3, FRAMES, PATCH, PATCH) of norm 1, and how loud they are."""
    waves = []
    for time in range(FRAMES):
        for row in range(PATCH):
            for column in range(PATCH):
                order = row + column
                if (time == 0 and order <= 3) or order == 0 or (time < 8 and order == 1):
                    colours = torch.eye(3) if order == 0 or time == 0 else torch.ones(1, 3)
                    loudness = 0.05 if time == order == 0 else 0.2 if order == 0 else 0.3
                    waves += [(colour, time, row, column, loudness) for colour in colours]
    made = []
    for colour, time, row, column, loudness in waves:
        over_time, over_row, over_column = (
            torch.cos(math.pi * n * (torch.arange(size) + 0.5) / size)
            for n, size in ((time, FRAMES), (row, PATCH), (column, PATCH)))
        basis = torch.einsum('c,t,h,w->cthw', colour, over_time, over_row, over_column)
        made.append((basis / basis.norm(), loudness))
    return made


@torch.no_grad()
def _start_language(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Start words that name facts as the codes of these, others anywhere."""
    language = model.model.language_model
    _scale_matrices(language.layers, len(language.layers))
    table = language.embed_tokens.weight
    table.normal_(0, WIDTH**-0.5)
    for word, code in words_in_codes().items():
        number = 0.5 if word.isdigit() else 0.0  # numbers are words as well
        at = tokenizer.convert_tokens_to_ids(word)
        table[at] = code + number * table[at]


@torch.no_grad()
def _start_places(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Start two heads of the first layer telling tokens that see where in the picture they are.

    Rotary positions are in no value: they only say how far away something is. As many tokens
    before its row's (its column's) number as there are anchors, a token that sees finds the
    anchor of that number, which holds the place in pixels.
    """
    layer = model.model.language_model.layers[0]
    attention, dim = layer.self_attn, layer.self_attn.head_dim
    frequency = model.model.language_model.rotary_emb.inv_freq
    table = model.model.language_model.embed_tokens.weight
    mark = torch.zeros(WIDTH)
    mark[PARTS['row'].stop:] = 1.0
    mark /= mark.norm()
    middles = TOKEN_PX * (torch.arange(len(ANCHORS)) + 0.5)
    for i, at in enumerate(tokenizer.convert_tokens_to_ids(list(ANCHORS))):
        table[at] = mark
        table[at, PARTS['column']] = waves(middles[i], BOX_PERIODS)
    turns = [side for n, count in enumerate(_SECTIONS)
             for side in [('time', 'row', 'column')[n % 3]] * count]
    loud = WIDTH**0.5 * 2**-0.5  # of mark and of place, after the norm
    for head, side in enumerate(('row', 'column')):
        part = slice(head * dim, (head + 1) * dim)
        query, key = torch.zeros(dim), torch.zeros(dim)
        for pair in (n for n, turned in enumerate(turns) if turned == side):
            size = (_PLACE_STRENGTH[side] * dim**0.5) ** 0.5
            angle = -float(frequency[pair]) * len(ANCHORS)
            query[pair], query[pair + dim // 2] = size * math.cos(angle), size * math.sin(angle)
            key[pair] = size
        slow = max(n for n, turned in enumerate(turns) if turned == 'time')
        query[slow] = key[slow] = (_ANCHOR_SCORE * dim**0.5) ** 0.5
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[part] *= 0.1
            projection.bias[part] = 0
        attention.q_proj.bias[part] = query
        attention.k_proj.weight[part] += key[:, None] * mark / loud
        copied = torch.arange(2 * len(BOX_PERIODS))
        attention.v_proj.weight[part][copied, PARTS['column'].start + copied] += 1 / loud
        attention.o_proj.weight[:, part] *= 0.1
        attention.o_proj.weight[PARTS[side].start + copied, head * dim + copied] += 1.0


@torch.no_grad()
def _start_echoes(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Start the last layers adding nothing, heads of the first of them looking at what precedes.

    A name takes several words. The first of them is said by a token that has found the thing;
    the next need not find it again when they look back at what that token has read.
    """
    language = model.model.language_model
    for layer in language.layers[READING_LAYERS:]:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    attention = language.layers[READING_LAYERS].self_attn
    frequency, dim = language.rotary_emb.inv_freq, attention.head_dim
    looks = torch.arange(PARTS['none'].start)
    for head in range(4):
        part = slice(head * dim, (head + 1) * dim)
        angle = -frequency * (head + 1)
        attention.q_proj.weight[part] *= 0.1
        attention.k_proj.weight[part] *= 0.1
        attention.q_proj.bias[part] = _ECHO * torch.cat([angle.cos(), angle.sin()])
        attention.k_proj.bias[part] = _ECHO * torch.cat([torch.ones(dim // 2),
                                                         torch.zeros(dim // 2)])
        attention.v_proj.weight[part] *= 0.1
        attention.v_proj.weight[part][looks, looks] += 0.3


def save_model(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Save a copy in half precision, with tokenizer, chat template and picture settings."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = Qwen2_5_VLForConditionalGeneration(model.config)
    copy.load_state_dict({k: v.float().cpu() for k, v in model.state_dict().items()})
    copy.generation_config = model.generation_config
    copy.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sizes = {'patch_size': PATCH, 'temporal_patch_size': FRAMES, 'merge_size': MERGE,
             'image_mean': [0.5] * 3, 'image_std': [0.5] * 3,
             'processor_class': 'Qwen2_5_VLProcessor'}
    for name, own in (
        ('preprocessor_config', {'image_processor_type': 'Qwen2VLImageProcessor',
                                 'size': {'shortest_edge': 14 * 14,
                                          'longest_edge': 1024 * 1024}}),
        ('video_preprocessor_config', {'video_processor_type': 'Qwen2VLVideoProcessor'}),
    ):
        (folder / f'{name}.json').write_text(json.dumps({**own, **sizes}, indent=2) + '\n')
