# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the configuration: published files in, the same out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from pixelrefer_ros.models.pixelrefer import PixelReferConfig

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHED: dict[str, Any] = {
    'architectures': ['PixelreferliteQwen2ForCausalLM'],
    'model_type': 'pixelreferlite_qwen2',
    'hidden_size': 1536,
    'intermediate_size': 8960,
    'num_hidden_layers': 28,
    'num_attention_heads': 12,
    'num_key_value_heads': 2,
    'rms_norm_eps': 1e-6,
    'rope_theta': 1000000.0,
    'rope_scaling': None,
    'sliding_window': None,
    'tie_word_embeddings': True,
    'torch_dtype': 'bfloat16',
    'vocab_size': 151669,
    'mm_hidden_size': 1152,
    'mm_vision_encoder': 'DAMO-NLP-SG/VL3-SigLIP-NaViT',
    'mm_max_length': 8192,
    'mm_projector_type': 'mlp2x_gelu',
    'mask_num': 32,
    'image_token_index': 151665,
    'region_token_index': 151668,
    'is_alignment': False,
    'fast_token_num': 7,
}


def read(directory: Path, fields: dict[str, Any]) -> PixelReferConfig:
    (directory / 'config.json').write_text(json.dumps(fields), encoding='utf-8')
    return PixelReferConfig.from_pretrained(directory)


def test_published_file_has_the_papers_sizes(tmp_path: Path) -> None:
    config = read(tmp_path, PUBLISHED)
    assert (config.mask_num, config.global_size, config.local_size) == (32, 336, 224)
    assert (config.object_margin, config.context_margin) == (28, 28)
    assert (config.large_object_patches, config.kmeans_iterations) == (50, 3)
    assert (config.working_long_side, config.min_pixels) == (0, 3136)
    assert not config.compat_reuse_context
    assert not config.compat_shared_budget
    tower = config.vision_encoder_config
    assert (tower.hidden_size, tower.intermediate_size) == (1152, 4304)
    assert (tower.num_hidden_layers, tower.num_attention_heads) == (27, 16)
    assert tower.layer_norm_eps == 1e-6
    assert config.rope_parameters['rope_theta'] == 1e6
    assert config.dtype == torch.bfloat16


def test_published_keys_are_written_back(tmp_path: Path) -> None:
    config = read(tmp_path, PUBLISHED)
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / 'config.json').read_text(encoding='utf-8'))
    kept = {key: written.get(key) for key in PUBLISHED if PUBLISHED[key] is not None}
    assert kept == {key: value for key, value in PUBLISHED.items() if value is not None}


def test_own_fields_round_trip(tmp_path: Path) -> None:
    config = PixelReferConfig(
        vision_encoder_config={
            'hidden_size': 128, 'num_attention_heads': 4, 'patch_size': 14,
            'rope_parameters': {'rope_theta': 10.0, 'rope_type': 'axial'},
        },
        mask_num=8, object_margin=6, working_long_side=256, describe_prompt_video='Say it.',
        compat_reuse_context=True,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    again = PixelReferConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert again.vision_encoder_config.rope_parameters['rope_theta'] == 10.0
    assert again.mm_hidden_size == 128


@pytest.mark.parametrize(
    ('changes', 'name'),
    [
        ({'global_size': 100}, 'global_size'),
        ({'local_size': 0}, 'local_size'),
        ({'mask_num': 0}, 'mask_num'),
        ({'object_margin': -1}, 'object_margin'),
        ({'fusion_heads': 7}, 'fusion_heads'),
        ({'vision_encoder_config': {'patch_size': 16}}, 'patch_size'),
    ],
)
def test_bad_sizes_are_named(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        PixelReferConfig(**changes)
