# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the processor."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pixelrefer_ros.models.pixelrefer import CheckpointError, PixelReferProcessor
from tests.models.conftest import box_mask, picture, small_config

if TYPE_CHECKING:
    from pathlib import Path


def test_prompt_of_a_picture(processor: PixelReferProcessor) -> None:
    prompt = processor.prompt('Is <region> on <region>?', [1, 1])
    tokens = '[' + '<REGION>' * 8 + ']'
    assert prompt == (
        f'<|im_start|>user\nIs {tokens} on {tokens}?<|im_end|>\n<|im_start|>assistant\n'
    )


def test_prompt_of_a_video(processor: PixelReferProcessor) -> None:
    tokens = '<REGION>' * 8
    prompt = processor.prompt('<region> and <region>', [2, 1], [0.0, 0.25, 1.06])
    assert f'[Time 0.0:{tokens},Time 0.2:{tokens}] and [Time 1.1:{tokens}]' in prompt


def test_times_must_match_the_masks(processor: PixelReferProcessor) -> None:
    with pytest.raises(ValueError, match='1 times for 2 masks'):
        processor.prompt('<region>', [2], [0.0])


def test_region_tokens_are_one_id_each(processor: PixelReferProcessor) -> None:
    ids = processor.encode(processor.prompt('<region>', [3]))[0].tolist()
    assert ids.count(262) == 24
    assert (ids[0], ids.count(258)) == (257, 1)


def test_words_come_back_without_special_tokens(processor: PixelReferProcessor) -> None:
    ids = processor.encode('<|im_start|> a cup<|im_end|>')[0]
    assert processor.decode(ids) == 'a cup'


def test_every_frame_is_encoded_once(processor: PixelReferProcessor) -> None:
    frames = [picture(seed) for seed in range(4)]
    masks = [box_mask(5, 5, 20, 20), box_mask(20, 20, 20, 20), box_mask(10, 40, 10, 30)]
    inputs = processor.regions(frames, masks, [3, 1, 3])
    assert inputs.frames.grids == ((5, 5),) * 2
    assert inputs.frame_index.tolist() == [1, 0, 1]
    assert inputs.contexts.grids == ((4, 4),) * 3
    assert len(inputs.crops.grids) == len(inputs.layout.lengths) == 3
    assert inputs.crops.patches.shape[1] == 588


def test_mask_of_another_size_is_refused(processor: PixelReferProcessor) -> None:
    with pytest.raises(ValueError, match='a mask is 80x59 pixels and its frame 80x60'):
        processor.regions([picture()], [np.ones((59, 80), np.uint8)], [0])


def test_working_size_makes_large_frames_cheap(processor: PixelReferProcessor) -> None:
    config = small_config(working_long_side=80)
    small = PixelReferProcessor(config, processor.tokenizer)
    frame, mask = picture(0, 600, 800), box_mask(100, 100, 200, 200, (600, 800))
    inputs = small.regions([frame], [mask], [0])
    expected = small.regions([picture(0, 600, 800)[5::10, 5::10]], [mask[5::10, 5::10]], [0])
    assert inputs.crops.grids == expected.crops.grids
    assert inputs.layout.positions.equal(expected.layout.positions)


def test_directory_without_tokenizer_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint / 'config.json', tmp_path)
    with pytest.raises(CheckpointError, match='no usable tokenizer'):
        PixelReferProcessor.from_pretrained(tmp_path)


def strip_tokens(checkpoint: Path, directory: Path, ids: range) -> Path:
    """Copy the small model's directory, its tokenizer without some added tokens."""
    shutil.copytree(checkpoint, directory)
    path = directory / 'tokenizer_config.json'
    config = json.loads(path.read_text(encoding='utf-8'))
    for number in ids:
        del config['added_tokens_decoder'][str(number)]
    path.write_text(json.dumps(config), encoding='utf-8')
    return directory


def test_tokenizer_stored_before_the_region_token_gets_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    directory = strip_tokens(checkpoint, tmp_path / 'model', range(259, 263))
    processor = PixelReferProcessor.from_pretrained(directory)
    assert processor.encode('<REGION>a<|stream_end|>').tolist() == [[262, 97, 261]]


def test_tokenizer_without_region_token_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    directory = strip_tokens(checkpoint, tmp_path / 'model', range(262, 263))
    config = small_config(region_token_index=None)
    with pytest.raises(CheckpointError, match='no token <REGION>'):
        PixelReferProcessor.from_pretrained(directory, config)


def test_the_tokenizer_says_which_token_is_the_regions(processor: PixelReferProcessor) -> None:
    config = small_config(region_token_index=7)
    PixelReferProcessor(config, processor.tokenizer)
    assert config.region_token_index == 262


def test_region_token_needs_a_row_in_the_model(processor: PixelReferProcessor) -> None:
    with pytest.raises(ValueError, match='262 in the tokenizer, the model has 200 tokens'):
        PixelReferProcessor(small_config(vocab_size=200), processor.tokenizer)
