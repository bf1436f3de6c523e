# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make small PixelRefer models with random weights, in the published layout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pixelrefer_ros.core.types import Frame, RegionClip
from pixelrefer_ros.models.pixelrefer import (
    PixelReferConfig,
    PixelReferDescriber,
    PixelReferForConditionalGeneration,
    PixelReferProcessor,
)
from pixelrefer_ros.models.pixelrefer.full import (
    FullPixelReferConfig,
    FullPixelReferForConditionalGeneration,
    FullPixelReferProcessor,
)

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL = (
    '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<image>', '<|stream_start|>',
    '<|stream_end|>', '<REGION>',
)  # fmt: skip


def byte_symbols() -> list[str]:
    """Return the printable stand-ins byte-level tokenizers have for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def write_tokenizer(directory: Path) -> None:
    """Write a tokenizer of single bytes and the special tokens, as published ones are."""
    vocab = {symbol: number for number, symbol in enumerate(byte_symbols())}
    added = {256 + number: token for number, token in enumerate(SPECIAL)}
    plain = {'lstrip': False, 'rstrip': False, 'normalized': False, 'single_word': False}
    config = {
        'tokenizer_class': 'Qwen2Tokenizer',
        'added_tokens_decoder': {
            str(number): {'content': token, 'special': True, **plain}
            for number, token in added.items()
        },
        'eos_token': '<|im_end|>',
        'pad_token': '<|endoftext|>',
        'unk_token': '<|endoftext|>',
        'padding_side': 'right',
    }
    (directory / 'vocab.json').write_text(json.dumps(vocab), encoding='utf-8')
    (directory / 'merges.txt').write_text('#version: 0.2\n', encoding='utf-8')
    (directory / 'tokenizer_config.json').write_text(json.dumps(config), encoding='utf-8')


SMALL: dict[str, Any] = {
    'vocab_size': 256 + len(SPECIAL),
    'hidden_size': 32,
    'intermediate_size': 48,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'max_position_embeddings': 4096,
    'tie_word_embeddings': True,
    'bos_token_id': 256,
    'eos_token_id': 258,
    'region_token_index': 262,
    'vision_encoder_config': {
        'hidden_size': 32,
        'intermediate_size': 40,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'patch_size': 14,
    },
    'mask_num': 8,
    'object_margin': 6,
}
"""Fields of both kinds of model, of some ten thousand parameters."""


def small_config(**changes: Any) -> PixelReferConfig:
    """Return the configuration of a small PixelRefer-Lite model."""
    lite = {'fusion_heads': 4, 'global_size': 70, 'local_size': 56, 'context_margin': 14}
    return PixelReferConfig(**{**SMALL, **lite, **changes})


def small_full_config(**changes: Any) -> FullPixelReferConfig:
    """Return the configuration of a small full PixelRefer model."""
    return FullPixelReferConfig(**{**SMALL, 'image_token_index': 259, **changes})


def small_model(config: PixelReferConfig) -> PixelReferForConditionalGeneration:
    """Return a model with random weights large enough for features to differ."""
    return with_weights(PixelReferForConditionalGeneration, config)


def small_full_model(config: FullPixelReferConfig) -> FullPixelReferForConditionalGeneration:
    """Return a model with random weights large enough for features to differ."""
    return with_weights(FullPixelReferForConditionalGeneration, config)


def with_weights(model_class: type[Any], config: Any) -> Any:
    """Return a model whose random weights make a difference."""
    torch.manual_seed(5)
    model = model_class(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and 'embed' not in name:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


def write_model(directory: Path, model: Any) -> None:
    """Write a model's directory as it is published."""
    write_tokenizer(directory)
    model.generation_config.eos_token_id = 258
    model.generation_config.pad_token_id = 256
    model.save_pretrained(directory)


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory with a small model, not to be written to."""
    directory = tmp_path_factory.mktemp('checkpoint')
    write_model(directory, small_model(small_config()))
    return directory


@pytest.fixture(scope='session')
def model(checkpoint: Path) -> PixelReferForConditionalGeneration:
    """Load the small model."""
    return PixelReferForConditionalGeneration.from_pretrained(checkpoint)


@pytest.fixture(scope='session')
def processor(checkpoint: Path) -> PixelReferProcessor:
    """Load the small model's processor."""
    return PixelReferProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope='session')
def describer(checkpoint: Path) -> PixelReferDescriber:
    """Load the small model as the engine does."""
    return PixelReferDescriber.load(str(checkpoint), device='cpu', max_new_tokens=12)


@pytest.fixture(scope='session')
def full_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory with a small full model, not to be written to."""
    directory = tmp_path_factory.mktemp('full')
    write_model(directory, small_full_model(small_full_config()))
    return directory


@pytest.fixture(scope='session')
def full_model(full_checkpoint: Path) -> FullPixelReferForConditionalGeneration:
    """Load the small full model."""
    return FullPixelReferForConditionalGeneration.from_pretrained(full_checkpoint)


@pytest.fixture(scope='session')
def full_processor(full_checkpoint: Path) -> FullPixelReferProcessor:
    """Load the small full model's processor."""
    return FullPixelReferProcessor.from_pretrained(full_checkpoint)


def picture(seed: int = 0, height: int = 60, width: int = 80) -> np.ndarray:
    """Return a picture of coarse random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (height // 10, width // 10, 3))
    return np.kron(blocks, np.ones((10, 10, 1))).astype(np.uint8)


def box_mask(
    top: int, left: int, height: int, width: int, size: tuple[int, int] = (60, 80)
) -> np.ndarray:
    """Return a mask of one filled rectangle."""
    mask = np.zeros(size, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def clip(count: int = 3) -> tuple[list[Frame], list[RegionClip]]:
    """Return frames half a second apart and two regions seen in all of them."""
    frames = [Frame('cam', 1_000_000_000 + 500_000_000 * i, picture(i)) for i in range(count)]
    every = tuple(range(count))
    return frames, [
        RegionClip('cup', every, [box_mask(10 + 2 * i, 10, 20, 24) for i in every]),
        RegionClip('ball', every, [box_mask(30, 40 + 3 * i, 15, 15) for i in every]),
    ]
