# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the full PixelRefer as the engine uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import ErrorCode, PixelReferError, RegionClip, Task, Utterance
from pixelrefer_ros.models.pixelrefer import PixelReferDescriber
from pixelrefer_ros.models.pixelrefer.full import (
    FullPixelReferForConditionalGeneration,
    FullPixelReferProcessor,
)
from tests.models.conftest import clip, small_full_config, small_full_model, write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope='module')
def full_describer(full_checkpoint: Path) -> PixelReferDescriber:
    """Load the small full model as the engine does."""
    return PixelReferDescriber.load(str(full_checkpoint), device='cpu', max_new_tokens=12)


def test_the_directory_says_which_kind_of_model_it_is(
    full_describer: PixelReferDescriber, describer: PixelReferDescriber
) -> None:
    assert isinstance(full_describer.model, FullPixelReferForConditionalGeneration)
    assert isinstance(full_describer.processor, FullPixelReferProcessor)
    assert not full_describer.needs_regions
    assert full_describer.frames_per_region == 20
    assert describer.needs_regions
    assert describer.frames_per_region == 8


@pytest.mark.parametrize('count', [1, 3])
def test_regions_are_described(full_describer: PixelReferDescriber, count: int) -> None:
    frames, regions = clip(count)
    said = full_describer.describe(frames, regions[0], hint='Is {cup} red?')
    assert 1 <= said.tokens_out <= 12
    assert said.mean_logprob < 0
    assert not said.canceled


@pytest.mark.parametrize('count', [1, 3])
def test_questions_are_answered_with_and_without_regions(
    full_describer: PixelReferDescriber, count: int
) -> None:
    frames, regions = clip(count)
    general = full_describer.answer('What happens?', frames, [])
    about = full_describer.answer('Is {ball} left of {cup}?', frames, regions)
    assert general.tokens_out >= 1
    assert about.tokens_in > general.tokens_in + 2 * 8


def test_words_are_those_of_generate(full_describer: PixelReferDescriber) -> None:
    frames, regions = clip(2)
    processor, model = full_describer.processor, full_describer.model
    images = [frame.image for frame in frames]
    shown = processor.frames(images, video=True)
    masks = processor.regions(images, [regions[0].masks[0]], [0])
    text = 'There is an object in the video: <object0><region>. What is <object0>?'
    prompt = processor.prompt(text, masks.token_counts, 2, [0.0, 0.5])
    ids = processor.encode(prompt, shown.token_counts)
    with torch.inference_mode():
        tokens = model.arrange(ids, *model.encode(shown, masks))
        out = model.generate(ids, region_tokens=tokens, max_new_tokens=12, do_sample=False)[0]
    said = full_describer.answer('What is {cup}?', frames, regions[:1])
    expected = processor.decode(out).replace('<object0>', 'cup')
    assert said.text == expected
    assert said.tokens_out == len(out)
    assert said.tokens_in == ids.shape[1]


def test_asked_together_they_say_what_each_says_alone(
    full_describer: PixelReferDescriber,
) -> None:
    frames, regions = clip(3)
    requests = [
        Request(Task.ASK, tuple(frames), (), 'What happens?'),
        Request(Task.DESCRIBE, tuple(frames), (regions[0],)),
        Request(Task.ASK, tuple(frames[:1]), (), 'What is there?'),
        Request(Task.ASK, tuple(frames), (), ''),
        Request(Task.ASK, tuple(frames), (RegionClip('cup', (1,), regions[0].masks[1:2]),), 'Eh?'),
    ]
    together: dict[int, Utterance | PixelReferError] = {}
    full_describer.say(requests, together.__setitem__)
    full_describer.forget()
    for place, request in enumerate(requests):
        alone: list[Utterance | PixelReferError] = []
        full_describer.say([request], lambda _, outcome: alone.append(outcome))  # noqa: B023
        full_describer.forget()
        found, expected = together[place], alone[0]
        if isinstance(expected, PixelReferError):
            assert isinstance(found, PixelReferError)
            assert found.code == expected.code == ErrorCode.BAD_REQUEST
        else:
            assert isinstance(found, Utterance)
            assert (found.text, found.tokens_in) == (expected.text, expected.tokens_in)


def test_second_question_sees_nothing_again(full_describer: PixelReferDescriber) -> None:
    full_describer.forget()
    frames, regions = clip(3)
    full_describer.answer('What is {cup}?', frames, regions)
    misses = full_describer.vision_stats().misses
    full_describer.answer('Is {ball} red?', frames, regions)
    full_describer.answer('What happens?', frames, [])
    assert full_describer.vision_stats().misses == misses


def test_too_many_frames_say_so(tmp_path: Path) -> None:
    config = small_full_config(max_position_embeddings=64)
    write_model(tmp_path, small_full_model(config))
    short = PixelReferDescriber.load(str(tmp_path), device='cpu')
    frames, _ = clip(8)
    with pytest.raises(PixelReferError, match='the model reads 64') as refusal:
        short.answer('What?', frames, [])
    assert refusal.value.code == ErrorCode.BAD_REQUEST


def test_warm_up_leaves_nothing_behind(full_describer: PixelReferDescriber) -> None:
    full_describer.warm_up()
    assert full_describer.vision_stats().held_bytes == 0
