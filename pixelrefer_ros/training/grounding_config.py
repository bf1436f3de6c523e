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

from pixelrefer_ros.training.grounding_words import (
    CLIP_ANCHORS,
    END,
    PAD,
    PICTURE_ANCHORS,
    UNKNOWN,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

FRAMES = 16
CLIP_SIZE = (168, 112)
"""Width and height of the frames of the first turn; that of the profile."""
KEY_SIZE = (224, 168)
"""Width and height of the key frame; that of the profile."""
PATCH = 7
MERGE = 2
MAX_NEW_TOKENS = 128

# Of a head's 16 rotary pairs: those that turn with time, row and column.
_SECTIONS = (2, 7, 7)
_PLACE_STRENGTH = 3.0
_ANCHOR_SCORE = 8.0


def grounding_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """Return the sizes: 3.8 million parameters, 7.6 MB in half precision."""

    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    return Qwen2_5_VLConfig(
        text_config={
            'vocab_size': len(tokenizer), 'hidden_size': 160, 'intermediate_size': 448,
            'num_hidden_layers': 5, 'num_attention_heads': 5, 'num_key_value_heads': 5,
            'max_position_embeddings': 2048, 'tie_word_embeddings': True,
            'rope_parameters': {'rope_type': 'default', 'rope_theta': 40.0,
                                'mrope_section': list(_SECTIONS)},
            'bos_token_id': token(PAD), 'eos_token_id': token(END), 'pad_token_id': token(PAD),
        },
        vision_config={
            'depth': 5, 'hidden_size': 160, 'intermediate_size': 384, 'num_heads': 5,
            'patch_size': PATCH, 'spatial_merge_size': MERGE, 'temporal_patch_size': FRAMES,
            'out_hidden_size': 160, 'window_size': 112, 'fullatt_block_indexes': list(range(5)),
            'tokens_per_second': 2,
            'rope_parameters': {'rope_type': 'axial', 'rope_theta': 10.0},
        },
        image_token_id=token('<|image_pad|>'), video_token_id=token('<|video_pad|>'),
        vision_start_token_id=token(CLIP_ANCHORS[0]),
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
    _start_language(model)
    _start_numbers(model, tokenizer)
    _start_places(model, tokenizer)
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
def _start_language(model: Qwen2_5_VLForConditionalGeneration) -> None:
    language = model.model.language_model
    _scale_matrices(language.layers, len(language.layers))
    language.embed_tokens.weight.normal_(0, language.config.hidden_size**-0.5)


@torch.no_grad()
def _start_numbers(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Start the words of near numbers near each other: waves of their value, some of them."""
    table = model.model.language_model.embed_tokens.weight
    width = table.shape[1]
    numbers = torch.arange(256)
    ids = torch.tensor(tokenizer.convert_tokens_to_ids([str(int(n)) for n in numbers]))
    periods = torch.logspace(math.log10(6.0), math.log10(600.0), 10)
    angles = 2 * math.pi * numbers[:, None] / periods
    waves = torch.cat([angles.cos(), angles.sin()], 1)
    turn, _ = torch.linalg.qr(torch.randn(width, waves.shape[1]))
    table[ids] = 0.4 * table[ids] + waves @ turn.T * waves.shape[1] ** -0.5 * 2**0.5


@torch.no_grad()
def _start_places(
    model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Start heads of the first layer telling tokens that see in which row and column they are.

    Rotary positions are in no value: a token knows its place only by how much it looks at
    what. Each of these heads looks at two anchors before the picture, at the first the more
    the farther it is along one side; their values are opposite.
    """
    layer = model.model.language_model.layers[0]
    attention, dim = layer.self_attn, layer.self_attn.head_dim
    frequency = model.model.language_model.rotary_emb.inv_freq
    table = model.model.language_model.embed_tokens.weight
    base = dim // 2 - 1  # turns slowest: the score of both anchors whatever the place
    pairs = {'row': sum(_SECTIONS[:1]), 'column': sum(_SECTIONS[:2])}
    merged = {'row': (112 // 14, 168 // 14), 'column': (168 // 14, 224 // 14)}
    for head, (anchors, side) in enumerate(
            (anchors, side) for anchors in (CLIP_ANCHORS, PICTURE_ANCHORS)
            for side in ('row', 'column')):
        part = slice(head * dim, (head + 1) * dim)
        ids = tokenizer.convert_tokens_to_ids(list(anchors))
        count = merged[side][head // 2]
        # The fastest pair of the side that turns by less than half a circle over it.
        start = pairs[side]
        pair = next(i for i in range(start, start + 7)
                    if frequency[i] * count < 0.8 * math.pi or i == start + 6)
        middle = float(frequency[pair]) * (count / 2 + 1.5)
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight[part] *= 0.2
            projection.bias[part] = 0
        scale = dim**0.25
        query = attention.q_proj.bias[part]
        query[base] = scale * _ANCHOR_SCORE**0.5
        # The score of the first anchor goes with the sine of how far behind the middle it is.
        query[pair] = scale * _PLACE_STRENGTH**0.5 * math.cos(-middle - math.pi / 2)
        query[pair + dim // 2] = scale * _PLACE_STRENGTH**0.5 * math.sin(-middle - math.pi / 2)
        width = table.shape[1]
        for number, token in enumerate(ids):
            direction = table[token] / table[token].norm() * width**-0.5
            key = torch.zeros(dim)
            key[base] = scale * _ANCHOR_SCORE**0.5
            if number == 0:
                key[pair] = scale * _PLACE_STRENGTH**0.5
            attention.k_proj.weight[part] += key[:, None] * direction
            value = torch.zeros(dim)
            value[:4] = 2.0 if number == 0 else -2.0
            attention.v_proj.weight[part] += value[:, None] * direction


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
