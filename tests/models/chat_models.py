# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make tiny vision language models with random weights, in the layout they are published in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Family = Literal['qwen2_5_vl', 'qwen3_vl', 'llava']
FAMILIES: tuple[Family, ...] = ('qwen2_5_vl', 'qwen3_vl')
"""Those that see pictures of any size, and clips. 'llava' sees pictures of one size."""

SPECIAL = (
    '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|vision_start|>', '<|vision_end|>',
    '<|vision_pad|>', '<|image_pad|>', '<|video_pad|>',
)  # fmt: skip
IDS = {token: 256 + number for number, token in enumerate(SPECIAL)}
# The published heads are longer than their vocabularies, so are these: what no token stands for
# is never said here.
VOCABULARY = 272
MULTIPLE: dict[Family, int] = {'qwen2_5_vl': 28, 'qwen3_vl': 32, 'llava': 28}
"""Sides of pictures are multiples of this."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role + '\\n' }}"
    '{%- if message.content is string -%}{{ message.content }}'
    '{%- else -%}{%- for part in message.content -%}'
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part.type == 'video' -%}VIDEO"
    '{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}'
    "{{ '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
_CLIP = {
    # Qwen3's processor writes the marks itself, one pair for each pair of frames.
    'qwen2_5_vl': '<|vision_start|><|video_pad|><|vision_end|>',
    'qwen3_vl': '<|video_pad|>',
    'llava': '',
}
_PROCESSORS = {
    'qwen2_5_vl': 'Qwen2_5_VLProcessor',
    'qwen3_vl': 'Qwen3VLProcessor',
    'llava': 'LlavaProcessor',
}
_VIDEO_PROCESSORS = {'qwen2_5_vl': 'Qwen2VLVideoProcessor', 'qwen3_vl': 'Qwen3VLVideoProcessor'}


def write_model(directory: Path, family: Family, seed: int = 3) -> Path:
    """Write a whole model directory: some 100 000 random parameters and a tokenizer of bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = {'qwen2_5_vl': _qwen2_5_vl, 'qwen3_vl': _qwen3_vl, 'llava': _llava}[family]()
    # Initialised as published, all pictures would look alike: the weights are too small.
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3 if 'patch_embed' in name else 0.12)
    model.generation_config.eos_token_id = [IDS['<|im_end|>'], IDS['<|endoftext|>']]
    model.generation_config.pad_token_id = IDS['<|endoftext|>']
    # As published: these steer sampling and must not steer greedy decoding.
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.6
    model.generation_config.top_k = 5
    # Printable letters alone: text that is read again is then the tokens that were said.
    symbols = [*range(32), *range(127, 256), *range(256 + len(SPECIAL), VOCABULARY)]
    model.generation_config.suppress_tokens = symbols
    model.save_pretrained(directory)
    _write_tokenizer(directory, family)
    _write_processors(directory, family)
    return directory


def picture(seed: int, height: int = 56, width: int = 84) -> NDArray[np.uint8]:
    """Return a picture of coarse random blocks."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))[:height, :width])


def _qwen2_5_vl() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                **_text(),
                'rope_parameters': {'rope_type': 'default', 'mrope_section': [2, 3, 3]},
            },
            vision_config={
                'depth': 2,
                'hidden_size': 32,
                'intermediate_size': 48,
                'num_heads': 2,
                'patch_size': 14,
                'out_hidden_size': 64,
                'window_size': 56,
                'fullatt_block_indexes': [1],
                'tokens_per_second': 2,
            },
            **_token_ids(),
        )
    ).eval()


def _qwen3_vl() -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={
                **_text(),
                'head_dim': 16,
                'rope_parameters': {
                    'rope_type': 'default',
                    'rope_theta': 10000.0,
                    'mrope_section': [2, 3, 3],
                    'mrope_interleaved': True,
                },
            },
            vision_config={
                'depth': 2,
                'hidden_size': 32,
                'intermediate_size': 48,
                'num_heads': 2,
                'patch_size': 16,
                'out_hidden_size': 64,
                'num_position_embeddings': 64,
                'deepstack_visual_indexes': [0],
            },
            **_token_ids(),
        )
    ).eval()


def _llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Llava

    return Llava(
        LlavaConfig(
            text_config=LlamaConfig(**_text()),
            vision_config=CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=56,
                patch_size=14,
                projection_dim=32,
            ),
            image_token_index=IDS['<|image_pad|>'],
            vision_feature_layer=-1,
        )
    ).eval()


def _text() -> dict[str, Any]:
    return {
        'vocab_size': VOCABULARY,
        'hidden_size': 64,
        'intermediate_size': 96,
        'num_hidden_layers': 2,
        'num_attention_heads': 4,
        'num_key_value_heads': 2,
        'max_position_embeddings': 4096,
        'bos_token_id': IDS['<|endoftext|>'],
        'eos_token_id': IDS['<|im_end|>'],
    }


def _token_ids() -> dict[str, Any]:
    return {
        'image_token_id': IDS['<|image_pad|>'],
        'video_token_id': IDS['<|video_pad|>'],
        'vision_start_token_id': IDS['<|vision_start|>'],
        'vision_end_token_id': IDS['<|vision_end|>'],
        'tie_word_embeddings': False,
    }


def _byte_symbols() -> list[str]:
    """Return the printable stand-ins byte-level tokenizers have for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def _write_tokenizer(directory: Path, family: Family) -> None:
    plain = {'lstrip': False, 'rstrip': False, 'normalized': False, 'single_word': False}
    config: dict[str, Any] = {
        'tokenizer_class': 'Qwen2Tokenizer',
        'processor_class': _PROCESSORS[family],
        'added_tokens_decoder': {
            str(number): {'content': token, 'special': True, **plain}
            for token, number in IDS.items()
        },
        'eos_token': '<|im_end|>',
        'pad_token': '<|endoftext|>',
        'unk_token': '<|endoftext|>',
        'model_max_length': 4096,
    }
    _write(directory / 'tokenizer_config.json', config)
    _write(directory / 'vocab.json', {symbol: i for i, symbol in enumerate(_byte_symbols())})
    (directory / 'merges.txt').write_text('#version: 0.2\n', encoding='utf-8')
    if family == 'llava':
        # read by a class that cannot make sense of vocab.json and merges.txt
        from transformers import Qwen2Tokenizer

        tokenizer = Qwen2Tokenizer.from_pretrained(directory)
        tokenizer.backend_tokenizer.save(str(directory / 'tokenizer.json'))
        config['tokenizer_class'] = 'PreTrainedTokenizerFast'
        _write(directory / 'tokenizer_config.json', config)
    template = CHAT_TEMPLATE.replace('VIDEO', _CLIP[family])
    if family == 'llava':
        template = template.replace('<|vision_start|>', '').replace('<|vision_end|>', '')
    _write(directory / 'chat_template.json', {'chat_template': template})


def _write_processors(directory: Path, family: Family) -> None:
    if family == 'llava':
        side = {'height': 56, 'width': 56}
        images = {'size': side, 'crop_size': side, 'do_center_crop': False}
        _write(
            directory / 'preprocessor_config.json',
            {
                'image_processor_type': 'CLIPImageProcessor',
                'processor_class': 'LlavaProcessor',
                **images,
            },
        )
        _write(
            directory / 'processor_config.json',
            {
                'processor_class': 'LlavaProcessor',
                'patch_size': 14,
                'vision_feature_select_strategy': 'default',
                'num_additional_image_tokens': 1,
                'image_token': '<|image_pad|>',
            },
        )
        return
    patch = MULTIPLE[family] // 2
    sizes = {'patch_size': patch, 'temporal_patch_size': 2, 'merge_size': 2}
    norm = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3}
    _write(
        directory / 'preprocessor_config.json',
        {
            'image_processor_type': 'Qwen2VLImageProcessor',
            'processor_class': _PROCESSORS[family],
            # As published, these would change small pictures and large ones.
            'size': {'shortest_edge': 65536, 'longest_edge': 16777216},
            **sizes,
            **norm,
        },
    )
    _write(
        directory / 'video_preprocessor_config.json',
        {
            'video_processor_type': _VIDEO_PROCESSORS[family],
            'processor_class': _PROCESSORS[family],
            **sizes,
            **norm,
        },
    )


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding='utf-8')
