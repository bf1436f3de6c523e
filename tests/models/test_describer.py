# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the describer as the engine uses it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pixelrefer_ros.core.types import ErrorCode, Frame, PixelReferError, RegionClip
from pixelrefer_ros.models import devices
from pixelrefer_ros.models.pixelrefer import PixelReferDescriber
from pixelrefer_ros.models.registry import resolve
from tests.models.conftest import box_mask, clip, picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKENS = '<REGION>' * 8


@pytest.fixture
def asked(describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect the prompts that reach the model."""
    prompts: list[str] = []
    encode = describer.processor.encode

    def keep(prompt: str) -> torch.Tensor:
        prompts.append(prompt)
        return encode(prompt)

    monkeypatch.setattr(describer.processor, 'encode', keep)
    return prompts


def content(prompt: str) -> str:
    return prompt.removeprefix('<|im_start|>user\n').split('<|im_end|>')[0]


def test_picture_is_described_with_the_papers_words(
    describer: PixelReferDescriber, asked: list[str]
) -> None:
    frames, regions = clip(1)
    said = describer.describe(frames, regions[0])
    assert [content(prompt) for prompt in asked] == [
        f'Please describe the region [{TOKENS}] in the image in detail.'
    ]
    assert said.tokens_in > 8
    assert 1 <= said.tokens_out <= 12
    assert -math.log(263) * 20 < said.mean_logprob < 0
    assert min(said.preprocess_s, said.vision_s, said.language_s) > 0
    assert not said.canceled


def test_video_is_described_with_times_since_its_first_frame(
    describer: PixelReferDescriber, asked: list[str]
) -> None:
    frames, regions = clip(3)
    seen = RegionClip('cup', (1, 2), regions[0].masks[1:])
    describer.describe(frames, seen, hint='Say more about {cup}.')
    assert content(asked[0]) == (
        f'There is an object in the video: <object0>[Time 0.5:{TOKENS},Time 1.0:{TOKENS}]. '
        'Please describe <object0> in the video in detail. Say more about <object0>.'
    )


def test_several_regions_are_introduced_and_named(
    describer: PixelReferDescriber, asked: list[str]
) -> None:
    frames, regions = clip(2)
    describer.answer('Is {ball} left of {cup}?', frames, regions)
    times = f'[Time 0.0:{TOKENS},Time 0.5:{TOKENS}]'
    assert content(asked[0]) == (
        f'There are two objects in the video: <object0>{times}, <object1>{times}. '
        'Is <object1> left of <object0>?'
    )


def test_frames_where_a_region_is_hidden_are_not_listed(
    describer: PixelReferDescriber, asked: list[str]
) -> None:
    frames, _ = clip(2)
    empty = np.zeros((60, 80), bool)
    hidden = RegionClip('cup', (0, 1), [empty, box_mask(5, 5, 20, 20)])
    gone = RegionClip('ball', (0, 1), [empty, empty])
    describer.answer('Where?', frames, [hidden, gone])
    assert f'<object0>[Time 0.5:{TOKENS}], <object1>[].' in asked[0]
    assert describer.answer('Where?', frames, [gone]).tokens_out > 0


def test_empty_and_tiny_masks_of_a_picture_are_asked_about(
    describer: PixelReferDescriber, asked: list[str]
) -> None:
    frames, _ = clip(1)
    empty = RegionClip('a', (0,), [np.zeros((60, 80), np.uint8)])
    tiny = RegionClip('b', (0,), [box_mask(59, 79, 1, 1)])
    assert describer.answer('Same?', frames, [empty, tiny]).tokens_out > 0
    assert asked[0].count('<REGION>') == 16


def test_own_wording_comes_from_the_config(
    describer: PixelReferDescriber, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = describer.model.config
    monkeypatch.setattr(config, 'describe_prompt_video', 'describe <object0> .')
    monkeypatch.setattr(config, 'one_object_prefix_video', 'here is {objects} .')
    frames, regions = clip(2)
    describer.describe(frames, regions[0])
    assert content(asked[0]).startswith('here is <object0>[Time')
    assert content(asked[0]).endswith('] . describe <object0> .')


def test_the_same_question_gets_the_same_answer(describer: PixelReferDescriber) -> None:
    frames, regions = clip(3)
    first = describer.answer('What moves?', frames, regions)
    second = describer.answer('What moves?', frames, regions)
    assert (first.text, first.mean_logprob) == (second.text, second.mean_logprob)


def test_mean_logprob_is_that_of_the_tokens(describer: PixelReferDescriber) -> None:
    frames, regions = clip(1)
    said = describer.describe(frames, regions[0])
    model, processor = describer.model, describer.processor
    ids = processor.encode(processor.prompt(model.config.describe_prompt_image, [1]))
    with torch.inference_mode():
        tokens = model.encode(processor.regions([frames[0].image], [regions[0].masks[0]], [0]))
        new = model.generate_from_regions(ids, tokens, max_new_tokens=12, do_sample=False)
        both = torch.cat([ids, new], dim=1)
        logits = model(both, region_tokens=tokens).logits[0].log_softmax(-1)
    taken = logits[ids.shape[1] - 1 : -1].gather(1, new[0][:, None])
    assert said.tokens_out == new.shape[1]
    assert said.mean_logprob == pytest.approx(float(taken.mean()), abs=1e-4)
    assert said.text == processor.decode(new[0])


def test_text_streams_through_all_stages(describer: PixelReferDescriber) -> None:
    frames, regions = clip(2)
    seen: list[tuple[str, str]] = []
    said = describer.describe(
        frames, regions[0], on_progress=lambda stage, text: seen.append((stage, text))
    )
    stages = [stage for stage, _ in seen]
    assert stages[:3] == ['preprocess', 'vision', 'language']
    texts = [text for stage, text in seen if stage == 'language']
    assert len(texts) > 2
    assert texts[-1] == said.text.rstrip('\N{REPLACEMENT CHARACTER}')
    assert all(len(a) <= len(b) for a, b in zip(texts, texts[1:], strict=False))


def test_cancel_after_a_token_keeps_the_words_so_far(describer: PixelReferDescriber) -> None:
    frames, regions = clip(2)
    whole = describer.describe(frames, regions[0])
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 5  # before vision, before language, then once per token

    said = describer.describe(frames, regions[0], should_stop=stop)
    assert said.canceled
    assert not whole.canceled
    assert said.tokens_out == 3 < whole.tokens_out


@pytest.mark.parametrize('when', [1, 2])
def test_cancel_before_the_words(describer: PixelReferDescriber, when: int) -> None:
    frames, regions = clip(2)
    calls = iter(range(1, 100))
    said = describer.describe(frames, regions[0], should_stop=lambda: next(calls) == when)
    assert said.canceled
    assert (said.text, said.tokens_out, said.language_s) == ('', 0, 0.0)
    assert (said.vision_s > 0) == (when == 2)


def refusal(describer: PixelReferDescriber, question: str, frames, regions) -> PixelReferError:
    with pytest.raises(PixelReferError) as error:
        describer.answer(question, frames, regions)
    return error.value


def test_bad_requests_say_what_is_wrong(describer: PixelReferDescriber) -> None:
    frames, regions = clip(2)
    wrong = [
        (' ', frames, regions, 'question is empty'),
        ('What?', frames, [], 'at least one region'),
        ('What?', [], regions, 'no frames'),
        ('Is {dog} there?', frames, regions, r'{dog} names no region'),
        ('Is <region> there?', frames, regions, 'must not be in the text'),
        ('What?', frames[:1], regions, 'frame 1 of 1'),
        ('What?', frames, [RegionClip('a', (), [])], 'at least one'),
        ('What?', frames, [RegionClip('a', (0, 1), [box_mask(1, 1, 5, 5)])], '1 masks for 2'),
        ('What?', frames, [RegionClip('a', (0,), [np.ones((9, 9), bool)])], '9x9 pixels'),
        ('x' * 5000, frames, regions, 'fewer frames'),
    ]
    for question, some_frames, some_regions, text in wrong:
        error = refusal(describer, question, some_frames, some_regions)
        assert error.code == ErrorCode.BAD_REQUEST
        assert text in str(error)


def test_too_long_and_thin_a_frame_is_a_bad_request(describer: PixelReferDescriber) -> None:
    frame = Frame('cam', 0, picture(0, 20, 30000))
    region = RegionClip('a', (0,), [np.ones((20, 30000), bool)])
    assert refusal(describer, 'What?', [frame], [region]).code == ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    ('problem', 'code'),
    [
        (torch.cuda.OutOfMemoryError('CUDA out of memory'), ErrorCode.OUT_OF_MEMORY),
        (MemoryError(), ErrorCode.OUT_OF_MEMORY),
        (RuntimeError('kernel failed'), ErrorCode.MODEL_ERROR),
    ],
)
def test_failures_of_the_model_have_codes(
    describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch, problem, code: ErrorCode
) -> None:
    def fail(*_: object) -> None:
        raise problem

    monkeypatch.setattr(describer.model, 'encode', fail)
    frames, regions = clip(1)
    assert refusal(describer, 'What?', frames, regions).code == code


def test_loading_names_the_model_and_its_frames(
    describer: PixelReferDescriber, checkpoint
) -> None:
    assert describer.name == str(checkpoint)
    assert describer.frames_per_region == describer.model.config.max_frames_per_region


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision_describes(checkpoint: Path, dtype: str) -> None:
    half = PixelReferDescriber.load(str(checkpoint), device='cpu', dtype=dtype, max_new_tokens=3)
    assert str(half.model.dtype) == f'torch.{dtype}'
    frames, regions = clip(2)
    assert 1 <= half.answer('What?', frames, regions).tokens_out <= 3


def test_broken_directory_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(PixelReferError, match='no config.json') as error:
        PixelReferDescriber.load(str(tmp_path), device='cpu')
    assert error.value.code == ErrorCode.MODEL_ERROR


def test_cuda_without_a_device_is_refused_and_auto_says_what_it_took(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(PixelReferError, match="no CUDA device; use 'cpu' or 'auto'"):
        devices.pick_device('cuda')
    with caplog.at_level(logging.INFO):
        assert devices.pick_device('auto').type == 'cpu'
    assert 'took cpu' in caplog.text


@pytest.mark.parametrize('device', ['gpu', 'meta', ''])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(PixelReferError, match="must be 'auto', 'cpu' or 'cuda'"):
        devices.pick_device(device)


def test_words_stop_where_the_model_can_read_no_further(
    describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, regions = clip(1)
    long = describer.describe(frames, regions[0])
    limit = long.tokens_in + 2
    monkeypatch.setattr(describer.model.config, 'max_position_embeddings', limit)
    assert describer.describe(frames, regions[0]).tokens_out == 2 < long.tokens_out


def test_unknown_dtype_is_refused(checkpoint: Path) -> None:
    with pytest.raises(PixelReferError, match="dtype is 'int8'"):
        PixelReferDescriber.load(str(checkpoint), device='cpu', dtype='int8')


def test_packaged_model_is_small_and_describes() -> None:
    try:
        directory = resolve('tabletop')
    except PixelReferError as error:
        pytest.skip(str(error))
    assert sum(file.stat().st_size for file in directory.iterdir()) <= 12 * 2**20
    frames, regions = clip(2)
    said = PixelReferDescriber.load('tabletop', device='cpu').describe(frames, regions[0])
    assert said.tokens_out >= 1
    assert math.isfinite(said.mean_logprob)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_cuda_describes(checkpoint: Path) -> None:
    cuda = PixelReferDescriber.load(str(checkpoint), device='cuda', max_new_tokens=4)
    frames, regions = clip(3)
    assert 1 <= cuda.answer('What?', frames, regions).tokens_out <= 4
