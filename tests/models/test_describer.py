# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the describer as the engine uses it."""

from __future__ import annotations

import logging
import math
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import (
    ErrorCode,
    Frame,
    PixelReferError,
    RegionClip,
    Task,
    Utterance,
)
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
    assert describer.answer('Is {b} like {a}?', frames, [empty, tiny]).tokens_out > 0
    assert asked[0].count('<REGION>') == 16
    assert content(asked[0]) == (
        f'There are two regions in the image: <region0>[{TOKENS}], <region1>[{TOKENS}]. '
        'Is <region1> like <region0>?'
    )


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
    assert first.text == second.text
    assert first.mean_logprob == pytest.approx(second.mean_logprob, abs=1e-5)


def test_mean_logprob_is_that_of_the_tokens(describer: PixelReferDescriber) -> None:
    frames, regions = clip(1)
    said = describer.describe(frames, regions[0])
    model, processor = describer.model, describer.processor
    ids = processor.encode(processor.prompt(model.config.describe_prompt_image, [1]))
    with torch.inference_mode():
        tokens = model.encode(processor.regions([frames[0].image], [regions[0].masks[0]], [0]))
        new = model.generate(ids, region_tokens=tokens, max_new_tokens=12, do_sample=False)
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
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ErrorCode.OUT_OF_MEMORY),
        (RuntimeError('kernel failed'), ErrorCode.MODEL_ERROR),
        (KeyError('kernel'), ErrorCode.MODEL_ERROR),
    ],
)
def test_failures_of_the_model_have_codes(
    describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch, problem, code: ErrorCode
) -> None:
    def fail(*_: object) -> None:
        raise problem

    monkeypatch.setattr(describer.model, 'encode_images', fail)
    frames, regions = clip(1)
    assert refusal(describer, 'What?', frames, regions).code == code


def outcomes(
    describer: PixelReferDescriber, requests: list[Request]
) -> list[Utterance | PixelReferError]:
    said: dict[int, Utterance | PixelReferError] = {}

    def on_said(place: int, outcome: Utterance | PixelReferError) -> None:
        assert place not in said
        said[place] = outcome

    describer.say(requests, on_said)
    return [said[place] for place in range(len(requests))]


def requests_of(count: int = 3) -> list[Request]:
    """Return a description and questions about one clip, and one about another."""
    frames, regions = clip(count)
    others = [Frame('cam', frame.stamp_ns, picture(7 + i)) for i, frame in enumerate(frames)]
    return [
        Request(Task.DESCRIBE, tuple(frames), (regions[0],)),
        Request(Task.ASK, tuple(frames), tuple(regions), 'Is {ball} left of {cup}?'),
        Request(Task.ASK, tuple(others), (regions[1],), 'What colour?'),
        Request(Task.ASK, tuple(frames[:1]), (RegionClip('x', (0,), regions[0].masks[:1]),), 'x?'),
    ]


def words(outcome: Utterance | PixelReferError) -> tuple[str, int, int]:
    assert isinstance(outcome, Utterance), outcome
    return outcome.text, outcome.tokens_in, outcome.tokens_out


def test_together_is_the_same_as_one_at_a_time(describer: PixelReferDescriber) -> None:
    requests = requests_of()
    describer.forget()
    together = [words(one) for one in outcomes(describer, requests)]
    assert [words(one) for one in outcomes(describer, requests)] == together
    for request, expected in zip(requests, together, strict=True):
        describer.forget()
        assert [words(one) for one in outcomes(describer, [request])] == [expected]


def test_bad_requests_of_a_batch_do_not_harm_the_others(describer: PixelReferDescriber) -> None:
    requests = requests_of()
    expected = [words(one) for one in outcomes(describer, requests)]
    frames, regions = clip(2)
    bad = [
        Request(Task.ASK, tuple(frames), tuple(regions), 'Is {dog} there?'),
        Request(Task.ASK, (), tuple(regions), 'What?'),
    ]
    found = outcomes(describer, [bad[0], *requests[:2], bad[1], *requests[2:]])
    assert [words(found[place]) for place in (1, 2, 4, 5)] == expected
    for place in (0, 3):
        assert isinstance(found[place], PixelReferError)
        assert found[place].code == ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    'problem', [torch.OutOfMemoryError('CUDA out of memory'), MemoryError(), RuntimeError('no')]
)
def test_what_fails_together_is_tried_one_at_a_time(
    describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    requests = requests_of()
    expected = [words(one) for one in outcomes(describer, requests)]
    describer.forget()
    see = describer.eyes.see
    asked: list[int] = []

    def fail_together(prepared):
        asked.append(len(prepared))
        if len(prepared) > 1 or prepared[0].input_ids.tolist() == culprit:
            raise problem
        return see(prepared)

    culprit = describer.eyes.prepare(requests[1]).input_ids.tolist()
    monkeypatch.setattr(describer.eyes, 'see', fail_together)
    found = outcomes(describer, requests)
    assert asked == [4, 1, 1, 1, 1]
    assert [words(found[place]) for place in (0, 2, 3)] == [expected[k] for k in (0, 2, 3)]
    assert isinstance(found[1], PixelReferError)
    memory = not isinstance(problem, RuntimeError) or isinstance(problem, torch.OutOfMemoryError)
    assert found[1].code == (ErrorCode.OUT_OF_MEMORY if memory else ErrorCode.MODEL_ERROR)


def test_memory_of_the_caches_is_given_back_before_giving_up(
    describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, regions = clip(3)
    describer.answer('What?', frames, regions)
    encode = describer.model.encode_images

    def fail_with_a_full_cache(*args):
        if describer.vision_stats().held_bytes:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return encode(*args)

    monkeypatch.setattr(describer.model, 'encode_images', fail_with_a_full_cache)
    corrected = RegionClip('cup', (0,), [box_mask(11, 10, 20, 24)])
    assert describer.answer('What?', frames, [corrected]).tokens_out > 0


def test_memory_of_the_caches_is_given_back_for_pictures(
    describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, regions = clip(2)
    describer.answer('What?', frames, regions)
    prepare = describer.eyes.prepare

    def fail_with_a_full_cache(request):
        if describer.vision_stats().held_bytes:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return prepare(request)

    monkeypatch.setattr(describer.eyes, 'prepare', fail_with_a_full_cache)
    assert describer.answer('What?', frames, regions).tokens_out > 0


def test_pictures_without_room_beside_others_are_cut_after_them(
    describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = requests_of()
    expected = [words(one) for one in outcomes(describer, requests)]
    too_large = replace(requests[0], text='Far too large.')
    frames, regions = clip(2)
    bad = Request(Task.ASK, tuple(frames), tuple(regions), 'Is {dog} there?')
    prepare = describer.eyes.prepare
    cut: weakref.WeakSet[object] = weakref.WeakSet()
    most = 0

    def with_room_for_two(request: Request) -> object:
        nonlocal most
        if len(cut) == 2 or request is too_large:
            raise torch.OutOfMemoryError('CUDA out of memory')
        prepared = prepare(request)
        cut.add(prepared)
        most = max(most, len(cut))
        return prepared

    monkeypatch.setattr(describer.eyes, 'prepare', with_room_for_two)
    found = outcomes(describer, [bad, *requests[:2], too_large, *requests[2:]])
    assert most == 2
    assert [words(found[place]) for place in (1, 2, 4, 5)] == expected
    assert [found[place].code for place in (0, 3)] == [
        ErrorCode.BAD_REQUEST,
        ErrorCode.OUT_OF_MEMORY,
    ]


def test_who_asks_badly_harms_nobody_else(describer: PixelReferDescriber) -> None:
    requests = requests_of()
    expected = [words(one) for one in outcomes(describer, requests)]

    def fail(stage: str, text: str) -> None:
        raise ZeroDivisionError

    requests[1] = replace(requests[1], on_progress=fail)
    found = outcomes(describer, requests)
    assert [words(found[place]) for place in (0, 2, 3)] == [expected[k] for k in (0, 2, 3)]
    assert isinstance(found[1], PixelReferError)
    assert found[1].code == ErrorCode.MODEL_ERROR

    def fail_late(stage: str, text: str) -> None:
        if text:
            raise KeyError(stage)

    requests[1] = replace(requests[1], on_progress=fail_late)
    found = outcomes(describer, requests)
    assert [words(found[place]) for place in (0, 2, 3)] == [expected[k] for k in (0, 2, 3)]
    assert isinstance(found[1], PixelReferError)


def test_words_that_were_said_before_a_failure_are_not_said_again(
    describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = requests_of()
    expected = [words(one) for one in outcomes(describer, requests)]
    say = describer.voice.say
    calls: list[int] = []

    def fail_after_the_first(prompts, *, on_said, **more):
        calls.append(len(prompts))

        def pass_on(place, said):
            on_said(place, said)
            if len(prompts) > 1:
                raise RuntimeError('kernel failed')

        say(prompts, on_said=pass_on, **more)

    monkeypatch.setattr(describer.voice, 'say', fail_after_the_first)
    assert [words(one) for one in outcomes(describer, requests)] == expected
    assert calls == [4, 1, 1, 1]


def test_stopping_one_request_leaves_the_others(describer: PixelReferDescriber) -> None:
    requests = requests_of()
    expected = [words(one) for one in outcomes(describer, requests)]
    asked = iter(range(100))
    requests[1] = replace(requests[1], should_stop=lambda: next(asked) > 3)
    requests[2] = replace(requests[2], should_stop=lambda: True)
    found = outcomes(describer, requests)
    assert [words(found[place]) for place in (0, 3)] == [expected[0], expected[3]]
    stopped, never = found[1], found[2]
    assert isinstance(stopped, Utterance)
    assert isinstance(never, Utterance)
    assert stopped.canceled
    assert expected[1][0].startswith(stopped.text.rstrip('\N{REPLACEMENT CHARACTER}'))
    assert never.canceled
    assert never.tokens_out == 0


def test_each_request_is_told_its_own_progress(describer: PixelReferDescriber) -> None:
    told: list[list[tuple[str, str]]] = [[], []]
    frames, regions = clip(2)
    requests = [
        Request(Task.ASK, tuple(frames), (region,), 'What?',
                on_progress=lambda *one, mine=mine: mine.append(one))
        for region, mine in zip(regions, told, strict=True)
    ]  # fmt: skip
    found = outcomes(describer, requests)
    for mine, outcome in zip(told, found, strict=True):
        assert [stage for stage, _ in mine[:3]] == ['preprocess', 'vision', 'language']
        assert isinstance(outcome, Utterance)
        assert mine[-1][1] == outcome.text.rstrip('\N{REPLACEMENT CHARACTER}')


def test_second_question_needs_no_tower(describer: PixelReferDescriber) -> None:
    frames, regions = clip(3)
    describer.answer('What is {cup}?', frames, regions)
    before = describer.vision_stats()
    calls: list[int] = []
    hook = describer.model.tower.register_forward_hook(lambda *_: calls.append(1))
    said = describer.answer('And {ball}?', frames, regions)
    hook.remove()
    assert said.tokens_out > 0
    assert calls == []
    after = describer.vision_stats()
    assert after.misses == before.misses
    assert after.hits == before.hits + 3 + 2 * 6


def test_looking_ahead_spares_the_whole_frame(describer: PixelReferDescriber) -> None:
    frames, regions = clip(1)
    before = describer.vision_stats()
    assert describer.look_ahead(frames[0])
    assert not describer.look_ahead(frames[0])
    describer.answer('What?', frames, regions)
    after = describer.vision_stats()
    assert after.encoded_ahead == before.encoded_ahead + 1
    assert after.misses == before.misses + 2 * 2


def test_looking_ahead_gives_way_where_memory_is_short(
    describer: PixelReferDescriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, regions = clip(1)
    describer.answer('What?', frames, regions)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError('CUDA out of memory')

    held = describer.vision_stats().held_bytes, describer.language_stats().held_bytes
    others = [Frame('cam', 2 + seed, picture(5 + seed)) for seed in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(describer.model, 'encode_images', fail)
        assert not describer.look_ahead(others[0])
    assert min(held) > 0
    assert (describer.vision_stats().held_bytes, describer.language_stats().held_bytes) == held
    assert not describer.look_ahead(others[1])  # not before somebody asks again
    describer.answer('What?', frames, regions)
    assert describer.look_ahead(others[1])


def test_warming_up_uses_every_part_and_leaves_nothing(describer: PixelReferDescriber) -> None:
    used: list[str] = []
    parts = {'tower': describer.model.tower, 'regions': describer.model.region_encoder,
             'language': describer.model.model.layers[-1]}  # fmt: skip
    hooks = [
        part.register_forward_hook(lambda *_, name=name: used.append(name))
        for name, part in parts.items()
    ]
    describer.warm_up()
    for hook in hooks:
        hook.remove()
    assert set(used) == set(parts)
    assert describer.vision_stats().held_bytes == 0
    assert describer.language_stats().held_bytes == 0


def test_caches_have_the_size_that_is_asked_for(checkpoint: Path) -> None:
    none = PixelReferDescriber.load(
        str(checkpoint), device='cpu', max_new_tokens=3, feature_cache_mib=0, prefix_cache_mib=0
    )
    frames, regions = clip(2)
    first = none.answer('What?', frames, regions)
    assert none.answer('What?', frames, regions).text == first.text
    assert none.vision_stats().hits == none.vision_stats().held_bytes == 0
    assert none.vision_stats().max_bytes == none.language_stats().held_bytes == 0


def test_resizing_on_the_device_describes(checkpoint: Path) -> None:
    there = PixelReferDescriber.load(
        str(checkpoint), device='cpu', max_new_tokens=3, resize='device'
    )
    frames, regions = clip(2)
    assert 1 <= there.answer('What?', frames, regions).tokens_out <= 3
    with pytest.raises(PixelReferError, match="resize is 'fast'"):
        PixelReferDescriber.load(str(checkpoint), device='cpu', resize='fast')


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
