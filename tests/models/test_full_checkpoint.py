# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test loading the full PixelRefer: published layouts, and refusal of other models."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from pixelrefer_ros.models.pixelrefer import CheckpointError, PixelReferForConditionalGeneration
from pixelrefer_ros.models.pixelrefer.full import (
    FullPixelReferConfig,
    FullPixelReferForConditionalGeneration,
    FullPixelReferProcessor,
)
from tests.models.test_checkpoint import (
    EMBED,
    HEAD,
    assert_same,
    change_config,
    write_shards,
    write_single,
)

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHED: dict[str, Any] = {
    'architectures': ['PixelreferQwen2ForCausalLM'],
    'model_type': 'pixelrefer_qwen2',
    'hidden_size': 1536,
    'intermediate_size': 8960,
    'num_hidden_layers': 28,
    'num_attention_heads': 12,
    'num_key_value_heads': 2,
    'tie_word_embeddings': True,
    'torch_dtype': 'bfloat16',
    'vocab_size': 151669,
    'mm_hidden_size': 1152,
    'mm_max_length': 8192,
    'mm_projector_type': 'mlp2x_gelu',
    'use_token_compression': True,
    'spatial_merge_size': 2,
    'mask_num': 32,
    'image_token_index': 151665,
    'region_token_index': 151668,
    'is_alignment': False,
}

load = FullPixelReferForConditionalGeneration.from_pretrained


@pytest.fixture
def state(full_checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the small full model's weights."""
    return load_file(full_checkpoint / 'model.safetensors')


@pytest.fixture
def bare(full_checkpoint: Path, tmp_path: Path) -> Path:
    """Copy the small full model's directory, without weights."""
    directory = tmp_path / 'model'
    shutil.copytree(full_checkpoint, directory)
    (directory / 'model.safetensors').unlink()
    return directory


@pytest.mark.parametrize('kind', ['safetensors', 'bin'])
@pytest.mark.parametrize('write', [write_single, write_shards])
@pytest.mark.parametrize('tied', [True, False])
def test_published_layouts_load(bare: Path, state, kind: str, write, tied: bool) -> None:
    if not tied:
        change_config(bare, tie_word_embeddings=False)
        state[HEAD] = torch.randn_like(state[EMBED])
    elif kind == 'bin':
        state[HEAD] = state[EMBED].clone()
    write(bare, state, kind)
    model = load(bare)
    assert_same(model, state)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_saving_and_loading_again_changes_nothing(
    full_model: FullPixelReferForConditionalGeneration,
    full_processor: FullPixelReferProcessor,
    tmp_path: Path,
) -> None:
    full_model.save_pretrained(tmp_path)
    full_processor.save_pretrained(tmp_path)
    written = json.loads((tmp_path / 'config.json').read_text(encoding='utf-8'))
    assert written['model_type'] == 'pixelrefer_qwen2'
    again = load(tmp_path)
    assert_same(again, full_model.state_dict())
    found, config = again.config.to_dict(), full_model.config.to_dict()
    assert found | {'_name_or_path': ''} == config | {'_name_or_path': ''}
    ids = FullPixelReferProcessor.from_pretrained(tmp_path).encode('<image>[<REGION>]')
    assert (
        ids.tolist()
        == [[259, ord('['), 262, ord(']')]]
        == (full_processor.encode('<image>[<REGION>]').tolist())
    )


def test_published_config_has_the_papers_sizes(tmp_path: Path) -> None:
    (tmp_path / 'config.json').write_text(json.dumps(PUBLISHED), encoding='utf-8')
    config = FullPixelReferConfig.from_pretrained(tmp_path)
    assert (config.mask_num, config.object_margin) == (32, 28)
    assert (config.large_object_patches, config.kmeans_iterations) == (100, 5)
    assert (config.tower_config.hidden_size, config.tower_config.num_hidden_layers) == (1152, 27)
    assert config.placeholder_ids == (151668, 151665)
    assert (config.merge_size(video=False), config.merge_size(video=True)) == (1, 2)
    assert config.frame_budget(1, video=False) == 8192 * 196
    assert config.frame_budget(2, video=True) == 8192 * 784 // 20
    assert not config.compat_shared_budget
    assert not config.compat_thin_masks
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / 'config.json').read_text(encoding='utf-8'))
    assert {key: written.get(key) for key in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize(
    ('sizes', 'width'),
    [
        (PUBLISHED, 1536),
        (
            PUBLISHED
            | {
                'hidden_size': 3584, 'intermediate_size': 18944, 'num_attention_heads': 28,
                'num_key_value_heads': 4, 'tie_word_embeddings': False,
            },
            3584,
        ),
    ],
    ids=['2B', '7B'],
)  # fmt: skip
def test_published_names_and_shapes(sizes: dict[str, Any], width: int) -> None:
    with torch.device('meta'):
        model = FullPixelReferForConditionalGeneration(FullPixelReferConfig.from_dict(sizes))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tower, region = 'model.vision_encoder.vision_encoder', 'model.region_encoder'
    published = {
        EMBED: (151669, width),
        HEAD: (151669, width),
        f'{tower}.embeddings.patch_embedding.weight': (1152, 3, 14, 14),
        f'{tower}.encoder.layers.26.mlp.fc2.weight': (1152, 4304),
        'model.mm_projector.readout.0.weight': (width, 1152),
        'model.mm_projector.readout.2.bias': (width,),
        f'{region}.feat_linear.0.weight': (width, 1152),
        f'{region}.feat_linear.2.weight': (width, width),
        f'{region}.pos_linear.weight': (1152, 2),
    }
    assert {name: shapes.get(name) for name in published} == published
    assert sum(name.startswith(f'{region}.') for name in shapes) == 6
    assert len(shapes) == 28 * 12 + 3 + (2 + 27 * 16 + 2) + 6 + 4


def test_missing_parts_are_named(bare: Path, state) -> None:
    gone = 'model.mm_projector.readout.0.weight'
    write_single(bare, {name: v for name, v in state.items() if name != gone}, 'safetensors')
    with pytest.raises(CheckpointError) as refusal:
        load(bare)
    assert refusal.value.missing == (gone,)
    assert gone in str(refusal.value)


def test_lite_model_is_refused_with_its_own_parts_named(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError) as refusal:
        load(checkpoint)
    assert "model_type is 'pixelreferlite_qwen2', only 'pixelrefer_qwen2'" in str(refusal.value)
    assert 'model.region_encoder.ln_local.weight' in refusal.value.unexpected


def test_lite_weights_with_the_full_models_config_are_refused(checkpoint, bare: Path) -> None:
    write_single(bare, load_file(checkpoint / 'model.safetensors'), 'safetensors')
    with pytest.raises(CheckpointError, match='not those of the PixelRefer model') as refusal:
        load(bare)
    assert refusal.value.missing == ()
    assert 'model.region_encoder.mask_embedding.bias' in refusal.value.unexpected


def test_lite_refuses_the_full_model_and_says_what_it_lacks(full_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match='PixelRefer-Lite') as refusal:
        PixelReferForConditionalGeneration.from_pretrained(full_checkpoint)
    assert 'model.region_encoder.ln_local.weight' in refusal.value.missing


def test_picture_token_is_the_tokenizers(bare: Path, state) -> None:
    change_config(bare, image_token_index=7, region_token_index=8)
    write_single(bare, state, 'safetensors')
    assert load(bare).config.placeholder_ids == (262, 259)


def test_tokenizer_without_picture_token_is_refused(bare: Path) -> None:
    path = bare / 'tokenizer_config.json'
    config = json.loads(path.read_text(encoding='utf-8'))
    del config['added_tokens_decoder']['259']
    path.write_text(json.dumps(config), encoding='utf-8')
    with pytest.raises(CheckpointError, match='no token <image>'):
        FullPixelReferProcessor.from_pretrained(bare)
