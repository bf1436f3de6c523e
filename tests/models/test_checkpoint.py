# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test loading: every published layout, and refusal of what is not a PixelRefer-Lite model."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelrefer_ros.models.pixelrefer import (
    CheckpointError,
    PixelReferConfig,
    PixelReferForConditionalGeneration,
    PixelReferProcessor,
)
from tests.models.conftest import small_config, small_model

if TYPE_CHECKING:
    from pathlib import Path

EMBED, HEAD = 'model.embed_tokens.weight', 'lm_head.weight'

load = PixelReferForConditionalGeneration.from_pretrained


@pytest.fixture
def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the small model's weights."""
    return load_file(checkpoint / 'model.safetensors')


@pytest.fixture
def bare(checkpoint: Path, tmp_path: Path) -> Path:
    """Copy the small model's directory, without weights."""
    directory = tmp_path / 'model'
    shutil.copytree(checkpoint, directory)
    (directory / 'model.safetensors').unlink()
    return directory


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / 'config.json'
    fields = json.loads(path.read_text(encoding='utf-8')) | changes
    path.write_text(json.dumps(fields), encoding='utf-8')


def write_shards(directory: Path, state: dict[str, torch.Tensor], kind: str) -> None:
    """Write two shards and their index."""
    stem = 'model' if kind == 'safetensors' else 'pytorch_model'
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f'{stem}-0000{number}-of-00002.{kind}'
        tensors = {name: state[name].contiguous() for name in part}
        if kind == 'safetensors':
            save_file(tensors, directory / file, metadata={'format': 'pt'})
        else:
            torch.save(tensors, directory / file)
        weight_map |= dict.fromkeys(part, file)
    index = {'metadata': {'total_size': 1}, 'weight_map': weight_map}
    (directory / f'{stem}.{kind}.index.json').write_text(json.dumps(index), encoding='utf-8')


def write_single(directory: Path, state: dict[str, torch.Tensor], kind: str) -> None:
    if kind == 'safetensors':
        save_file(state, directory / 'model.safetensors', metadata={'format': 'pt'})
    else:
        torch.save(state, directory / 'pytorch_model.bin')


def assert_same(model: PixelReferForConditionalGeneration, state: dict[str, torch.Tensor]) -> None:
    found = model.state_dict()
    assert not model.training
    for name, value in state.items():
        assert torch.equal(found[name], value), name


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


def test_tied_weights_may_be_stored_under_the_heads_name(bare: Path, state) -> None:
    embed = state.pop(EMBED)
    write_single(bare, state | {HEAD: embed}, 'safetensors')
    assert torch.equal(load(bare).model.embed_tokens.weight, embed)


def test_saving_and_loading_again_changes_nothing(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert_same(again, model.state_dict())
    found, config = again.config.to_dict(), model.config.to_dict()
    assert found | {'_name_or_path': ''} == config | {'_name_or_path': ''}
    text = 'What is [<REGION>]?'
    same = PixelReferProcessor.from_pretrained(tmp_path).encode(text)
    assert torch.equal(same, processor.encode(text))
    names = set(load_file(tmp_path / 'model.safetensors'))
    assert 'model.mm_projector.readout.0.weight' in names
    assert 'model.region_encoder.mask_embedding.weight' in names
    assert 'model.vision_encoder.vision_encoder.post_layernorm.weight' in names
    assert HEAD not in names


def test_parts_that_are_never_called_may_be_left_out(bare: Path, state) -> None:
    kept = {n: v for n, v in state.items() if 'mm_projector' not in n and 'mask_embed' not in n}
    assert len(kept) == len(state) - 6
    write_single(bare, kept, 'safetensors')
    model = load(bare)
    assert not model.config.use_mm_proj
    assert not model.config.use_mask_embedding
    assert set(kept) == set(model.state_dict()) - {HEAD}


def test_half_precision_weights_load_as_they_are_stored(bare: Path, state) -> None:
    change_config(bare, dtype='float16', torch_dtype='float16')
    write_single(bare, {name: value.half() for name, value in state.items()}, 'safetensors')
    assert load(bare).dtype == torch.float16
    assert load(bare, dtype=torch.float32).dtype == torch.float32


def test_region_token_is_the_tokenizers(bare: Path, state) -> None:
    change_config(bare, region_token_index=5)
    write_single(bare, state, 'safetensors')
    added = {'<REGION>': 262}
    (bare / 'added_tokens.json').write_text(json.dumps(added), encoding='utf-8')
    assert load(bare).config.region_token_index == 262


def test_published_names_and_shapes_are_those_of_the_2b_model() -> None:
    config = PixelReferConfig(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
        num_key_value_heads=2, vocab_size=151669, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device('meta'):
        model = PixelReferForConditionalGeneration(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tower, region = 'model.vision_encoder.vision_encoder', 'model.region_encoder'
    published = {
        EMBED: (151669, 1536),
        'model.layers.27.self_attn.k_proj.bias': (256,),
        f'{tower}.embeddings.patch_embedding.weight': (1152, 3, 14, 14),
        f'{tower}.encoder.layers.26.self_attn.out_proj.bias': (1152,),
        f'{tower}.encoder.layers.26.mlp.fc1.weight': (4304, 1152),
        f'{tower}.encoder.layers.26.layer_norm2.bias': (1152,),
        f'{tower}.post_layernorm.weight': (1152,),
        'model.mm_projector.readout.0.weight': (1536, 1152),
        'model.mm_projector.readout.2.weight': (1536, 1536),
        f'{region}.feat_linear.0.weight': (1536, 1152),
        f'{region}.feat_linear.2.bias': (1536,),
        f'{region}.pos_linear.weight': (1152, 2),
        f'{region}.mask_embedding.weight': (1152, 1, 1, 1),
        f'{region}.fusion_attention_local.in_proj_weight': (3456, 1152),
        f'{region}.fusion_attention_local.in_proj_bias': (3456,),
        f'{region}.fusion_attention_global.out_proj.weight': (1152, 1152),
        f'{region}.ln_global.bias': (1152,),
    }
    assert {name: shapes.get(name) for name in published} == published
    assert sum(name.startswith(f'{tower}.') for name in shapes) == 2 + 27 * 16 + 2
    assert sum(name.startswith(f'{region}.') for name in shapes) == 4 + 2 + 2 + 2 * 4 + 2 * 2
    assert len(shapes) == 28 * 12 + 3 + (2 + 27 * 16 + 2) + 20 + 4
    vision = sum(v.numel() for n, v in model.state_dict().items() if n.startswith(tower))
    assert round(vision / 1e6, 1) == 412.1


def test_missing_parameters_are_named(bare: Path, state) -> None:
    gone = ['model.region_encoder.pos_linear.weight', 'model.layers.1.mlp.up_proj.weight']
    write_single(bare, {n: v for n, v in state.items() if n not in gone}, 'safetensors')
    with pytest.raises(CheckpointError) as refusal:
        load(bare)
    assert sorted(refusal.value.missing) == sorted(gone)
    assert all(name in str(refusal.value) for name in gone)
    assert refusal.value.unexpected == ()


@pytest.mark.parametrize('kind', ['safetensors', 'bin'])
def test_unexpected_parameters_are_named(bare: Path, state, kind: str) -> None:
    write_single(bare, state | {'model.surprise.weight': torch.zeros(2)}, kind)
    with pytest.raises(CheckpointError, match=r'unexpected \(1\): model\.surprise\.weight'):
        load(bare)


def test_parameters_of_another_shape_are_named(bare: Path, state) -> None:
    write_single(bare, state | {'model.norm.weight': torch.zeros(7)}, 'safetensors')
    with pytest.raises(CheckpointError, match=r'model\.norm\.weight: \[7\] instead of \[32\]'):
        load(bare)


def test_embeddings_without_head_are_refused_when_untied(bare: Path, state) -> None:
    change_config(bare, tie_word_embeddings=False)
    write_single(bare, state, 'safetensors')
    with pytest.raises(CheckpointError, match=r'missing \(1\): lm_head\.weight'):
        load(bare)


def test_missing_shard_is_named(bare: Path, state) -> None:
    write_shards(bare, state, 'safetensors')
    (bare / 'model-00002-of-00002.safetensors').unlink()
    with pytest.raises(CheckpointError, match='model-00002-of-00002.safetensors') as refusal:
        load(bare)
    assert len(refusal.value.missing) == len(state) // 2


def test_foreign_model_is_refused_with_both_kinds_of_names(bare: Path) -> None:
    change_config(bare, model_type='qwen2')
    tower = {'visual.blocks.0.weight': torch.zeros(3), EMBED: torch.zeros(263, 32)}
    write_single(bare, tower, 'safetensors')
    with pytest.raises(CheckpointError) as refusal:
        load(bare)
    message = str(refusal.value)
    assert "model_type is 'qwen2'" in message
    assert 'visual.blocks.0.weight' in message
    assert 'model.region_encoder.pos_linear.weight' in refusal.value.missing
    assert 'model.region_encoder.pos_linear.weight' in message or 'more' in message


def test_full_model_is_refused(bare: Path, state) -> None:
    change_config(bare, model_type='pixelrefer_qwen2')
    write_single(bare, state, 'safetensors')
    with pytest.raises(CheckpointError, match="model_type is 'pixelrefer_qwen2', only"):
        load(bare)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda d: (d / 'config.json').unlink(), 'no config.json'),
        (lambda d: (d / 'config.json').write_text('{'), 'not JSON'),
        (lambda d: (d / 'config.json').write_text('[]'), 'no JSON object'),
        (lambda d: None, 'holds no weights'),
        (lambda d: (d / 'model.safetensors').write_bytes(b'torn'), 'cannot be read'),
        (lambda d: (d / 'pytorch_model.bin').write_bytes(b'torn'), 'cannot be read'),
        (lambda d: torch.save([1], d / 'pytorch_model.bin'), 'no named weights'),
        (lambda d: torch.save({'a': Spoiled()}, d / 'pytorch_model.bin'), 'plain weights'),
    ],
)
def test_broken_directories_are_refused(bare: Path, spoil, message: str) -> None:
    spoil(bare)
    with pytest.raises(CheckpointError, match=message):
        load(bare)


class Spoiled:
    """Stand for an object that would run code when it is read."""


def test_new_models_have_finite_weights() -> None:
    model = PixelReferForConditionalGeneration(small_config())
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    weight = model.region_encoder.fusion_attention_local.in_proj_weight
    assert 0.01 < float(weight.detach().std()) < 1
    assert small_model(small_config()).config.use_mm_proj
