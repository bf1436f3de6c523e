# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test how SAM 2 is loaded from directories in the hub's layout, and how it sees frames."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam3TrackerVideoConfig, Sam3TrackerVideoModel

from bench._tiny_sam2 import tiny_model
from pixelrefer_ros.core.types import ErrorCode, PixelReferError, TrackState
from pixelrefer_ros.tracking.sam2 import Sam2Tracker
from pixelrefer_ros.tracking.sam2_model import load_segmenter
from tests.tracking.sam2_rig import box, frame, same, segmenter

if TYPE_CHECKING:
    from pathlib import Path

GRID = 'prompt_encoder.shared_embedding.positional_embedding'


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Return a directory in the layout of facebook/sam2.1-hiera-*: config and one weight file."""
    directory = tmp_path / 'sam2.1-hiera-tiny'
    tiny_model().save_pretrained(directory)
    assert {path.name for path in directory.iterdir()} == {'config.json', 'model.safetensors'}
    return directory


def rewrite(directory: Path, **changes: Any) -> None:
    path = directory / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(name: object, **options: str) -> str:
    with pytest.raises(PixelReferError) as error:
        load_segmenter(str(name), **options)
    assert error.value.code == ErrorCode.MODEL_ERROR
    return str(error.value)


@pytest.mark.parametrize('kind', ['sam2_video', 'sam2'])
def test_a_saved_model_follows_as_the_one_in_memory(hub: Path, kind: str) -> None:
    rewrite(hub, model_type=kind)
    loaded = load_segmenter(str(hub), device='cpu')
    assert (loaded.image_size, loaded.model.dtype) == (64, torch.float32)
    told = []
    for one in (Sam2Tracker(loaded), Sam2Tracker(segmenter())):
        told.append([one.start(frame(0), box()), *(one.step(frame(n))[0] for n in range(1, 10))])
    assert all(same(first, second) for first, second in zip(*told, strict=True))


def test_a_fetched_hub_name_is_found(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cached(name: str, *, local_files_only: bool) -> str:
        assert (name, local_files_only) == ('facebook/sam2.1-hiera-tiny', True)
        return str(hub)

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', cached)
    assert load_segmenter('facebook/sam2.1-hiera-tiny').image_size == 64


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_dtypes(hub: Path, dtype: str) -> None:
    loaded = load_segmenter(str(hub), device='cpu', dtype=dtype)
    assert loaded.model.dtype == getattr(torch, dtype)
    assert loaded.look(0, frame(0).image).pixels.dtype == getattr(torch, dtype)


def test_a_matrix_that_older_files_hold_once_is_set_twice(hub: Path) -> None:
    weights = load_file(hub / 'model.safetensors')
    del weights[GRID]
    save_file(weights, hub / 'model.safetensors', metadata={'format': 'pt'})
    state = load_segmenter(str(hub)).model.state_dict()
    assert torch.equal(state[GRID], weights['shared_image_embedding.positional_embedding'])


def test_partial_weights_are_refused_with_their_names(hub: Path) -> None:
    weights = load_file(hub / 'model.safetensors')
    del weights['no_object_pointer']
    weights['fc.weight'] = torch.zeros(2)
    weights['no_memory_embedding'] = torch.zeros(1, 1, 3)
    save_file(weights, hub / 'model.safetensors', metadata={'format': 'pt'})
    told = refusal(hub)
    assert 'missing (1): no_object_pointer' in told
    assert 'unexpected (1): fc.weight' in told
    assert 'of another shape (1): no_memory_embedding' in told


def test_weights_of_the_image_model_alone_are_refused(hub: Path) -> None:
    weights = load_file(hub / 'model.safetensors')
    image = {name: one for name, one in weights.items() if not name.startswith('memory_')}
    save_file(image, hub / 'model.safetensors', metadata={'format': 'pt'})
    rewrite(hub, model_type='sam2')
    assert 'missing' in refusal(hub)


def test_files_that_are_missing_or_broken_are_refused(hub: Path) -> None:
    (hub / 'model.safetensors').write_bytes(b'no weights')
    assert 'cannot be loaded' in refusal(hub)
    (hub / 'model.safetensors').unlink()
    assert 'no file named model.safetensors' in refusal(hub)
    (hub / 'config.json').write_text('[]')
    assert 'config.json' in refusal(hub)
    (hub / 'config.json').unlink()
    assert 'pixelrefer fetch facebook/sam2.1-hiera-tiny' in refusal(hub)


@pytest.mark.parametrize('name', ['', '/no/such/folder', 'no-such-folder'])
def test_a_missing_folder_says_what_to_run(name: str) -> None:
    assert 'run `pixelrefer fetch facebook/sam2.1-hiera-tiny`' in refusal(name)


def test_a_hub_name_that_was_not_fetched_says_what_to_run() -> None:
    assert 'run `pixelrefer fetch nobody/no-such-sam2`' in refusal('nobody/no-such-sam2')


def test_another_model_is_refused_before_its_weights_are_read() -> None:
    assert "Sam2VideoModel needs 'sam2_video'" in refusal('tabletop')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'class_name': 'Sam2Model'}, 'must be one of Sam2VideoModel, EdgeTamVideoModel'),
        ({'dtype': 'int4'}, "'float32', 'bfloat16', 'float16'"),
        ({'device': 'tpu'}, "must be 'auto', 'cpu' or 'cuda'"),
        ({'class_name': 'EdgeTamVideoModel'}, "EdgeTamVideoModel needs 'edgetam_video'"),
    ],
)
def test_bad_options(hub: Path, options: dict[str, str], words: str) -> None:
    assert words in refusal(hub, **options)


def test_an_image_is_squared_and_normalised() -> None:
    image = np.zeros((48, 96, 3), dtype=np.uint8)
    image[:, :48, 0] = 255
    pixels = segmenter().look(5, image).pixels
    assert pixels.shape == (3, 64, 64)
    # (v/255 - mean) / std with ImageNet's figures; left half red, right half black
    assert pixels[:, 10, 10].tolist() == pytest.approx([2.2489, -2.0357, -1.8044], abs=1e-3)
    assert pixels[:, 50, 60].tolist() == pytest.approx([-2.1179, -2.0357, -1.8044], abs=1e-3)


def tiny_sam3() -> Sam3TrackerVideoModel:
    torch.manual_seed(0)
    hidden = 128
    backbone = {
        'model_type': 'sam3_vit_model', 'hidden_size': 32, 'intermediate_size': 64,
        'num_hidden_layers': 2, 'num_attention_heads': 2, 'image_size': 112, 'window_size': 4,
        'global_attn_indexes': [1], 'pretrain_image_size': 112,
    }  # fmt: skip
    config = Sam3TrackerVideoConfig(
        vision_config={
            'model_type': 'sam3_vision_model',
            'backbone_config': backbone,
            'fpn_hidden_size': hidden,
        },
        prompt_encoder_config={'hidden_size': hidden},
        mask_decoder_config={
            'hidden_size': hidden,
            'mlp_dim': 128,
            'num_attention_heads': 4,
            'iou_head_hidden_dim': 64,
        },
        image_size=112,
        memory_attention_hidden_size=hidden,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=128,
        memory_encoder_hidden_size=hidden,
        mask_downsampler_embed_dim=hidden,
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=128,
    )
    return Sam3TrackerVideoModel(config)


def test_the_tracker_of_sam3_drops_in(tmp_path: Path) -> None:
    tiny_sam3().save_pretrained(tmp_path)
    loaded = load_segmenter(str(tmp_path), class_name='Sam3TrackerVideoModel', device='cpu')
    assert loaded.image_size == 112
    # it was trained with pixels from -1 to 1
    pixels = loaded.look(0, np.full((20, 30, 3), 255, dtype=np.uint8)).pixels
    assert float(pixels.min()) == pytest.approx(1.0)
    follower = Sam2Tracker(loaded)
    assert follower.start(frame(0), box()).state == TrackState.NEW
    for number in range(1, 20):
        assert [seen.region_id for seen in follower.step(frame(number))] == ['a']
