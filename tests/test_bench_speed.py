# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the baseline of the speed benchmark, its models and its stopwatch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch

from bench import _clip as clip
from bench import _common as common
from bench import _document as document
from bench import _plan as plan
from bench import _plots as plots
from bench import _sizes as sizes
from bench import _speed_tables as tables
from bench import speed
from bench._reference_schedule import ReferenceSchedule
from bench._stages import watching
from bench.speed import say
from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import PixelReferError, Task
from tests.test_bench_flops import tiny_config

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = 8


def test_the_middle_size_is_proportioned_as_the_2b() -> None:
    shares = {}
    for size in ('2B', 'mid'):
        model = sizes.meta_model(size)
        tower = sum(one.numel() for one in model.tower.parameters())
        shares[size] = tower / model.num_parameters()
    assert 55e6 < model.num_parameters() < 70e6
    assert shares['mid'] == pytest.approx(shares['2B'], rel=0.05)


def test_every_row_of_the_embedding_is_a_word() -> None:
    config = tiny_config()
    tokens = sizes.processor(config, clip.QUESTIONS)
    assert len(tokens.tokenizer.get_vocab()) == config.vocab_size
    ids = tokens.encode(tokens.prompt('What is <object0><region> made of?', [2], [0.0, 0.5]))[0]
    assert tokens.tokenizer.unk_token_id not in ids.tolist()
    assert int((ids == config.region_token_index).sum()) == 2 * config.mask_num


def test_the_baseline_says_what_the_describer_says() -> None:
    config = tiny_config()
    model = sizes.random_model(config)
    tokens = sizes.processor(config, clip.QUESTIONS)
    baseline = ReferenceSchedule(model, tokens, ANSWER)
    describer = sizes.describer(model, tokens, ANSWER)
    calls: list[int] = []
    model.tower.register_forward_pre_hook(lambda *_: calls.append(1))
    texts = set()
    for asked in clip.rounds(3, 2):
        calls.clear()
        theirs = [baseline.say(request) for request in asked]
        assert len(calls) == 3 * len(asked)
        own, first_s = say(describer, asked)
        assert [one.text for one in theirs] == [one.text for one in own]
        assert [one.tokens_in for one in theirs] == [one.tokens_in for one in own]
        assert [one.tokens_out for one in theirs] == [one.tokens_out for one in own]
        assert first_s > 0
        texts |= {one.text for one in own}
    assert len(texts) > 3  # words depend on the region and on the question


def test_a_request_that_fails_fails_the_measurement() -> None:
    config = tiny_config()
    tokens = sizes.processor(config)
    describer = sizes.describer(sizes.random_model(config), tokens, ANSWER)
    with pytest.raises(PixelReferError, match='no frames'):
        say(describer, [Request(Task.DESCRIBE, (), ())])


def test_stages_add_up_and_the_model_is_left_as_it_was() -> None:
    config = tiny_config()
    model = sizes.random_model(config)
    describer = sizes.describer(model, sizes.processor(config, clip.QUESTIONS), ANSWER)
    asked = clip.rounds(1, 2)[0]
    with watching(model, describer.eyes) as watch:
        began_s = watch.now()
        say(describer, asked)
        took_s = watch.now() - began_s
    assert sum(watch.seconds.values()) == pytest.approx(took_s, rel=0.2)
    assert min(watch.seconds.values()) >= 0
    assert {stage: calls for stage, calls in watch.calls.items() if calls} == {
        'preprocess': 1, 'tower': 1, 'tokenizer': 1, 'infusion': 1, 'prefill': 1,
        'decode': ANSWER - 1, 'next_token': ANSWER,
    }  # fmt: skip
    assert 'encode_images' not in vars(model)
    assert 'forward' not in vars(model.lm_head)


def test_weights_have_the_type_they_are_made_in() -> None:
    model = sizes.random_model(tiny_config(), dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32


def test_a_measurement_holds_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config()
    monkeypatch.setattr(sizes, 'config', lambda size: copy.deepcopy(config))
    monkeypatch.setattr(speed, 'COPIED', 2**16)
    result = speed.measure('mid', 'cpu', torch.float32, quick=True)
    same = result['side_by_side']
    assert same['words_equal'] == same['words_compared'] == 2 * 6
    assert same['different_words'] > 2
    assert same['tokens_out'] == same['tokens_out_reference'] == 6 * 4
    assert same['ours_pictures_encoded'] == [same['pictures_there_are'], 0, 0]
    assert same['ours_tower_calls'][1:] == [0, 0]
    for who in ('reference', 'ours'):
        for seconds, stages in zip(same[f'{who}_s'], same[f'{who}_stages_s'], strict=True):
            assert sum(stages.values()) == pytest.approx(seconds, rel=0.2)
    assert same['flops']['ratio'] > 2
    (decoding,) = result['decoding']
    language = sizes.random_model(config).model
    weights = sum(
        one.nbytes for one in (*language.layers.parameters(), language.embed_tokens.weight)
    )
    # keys and values of 2 layers, 2 heads, 8 floats of 4 bytes, for the prompt and half the answer
    (_, asked, *_), _ = plan.questions_of_clip(speed.FRAMES)
    slots = asked.tokens + decoding['steps'] // 2 + 1
    assert decoding['bytes_per_step'] == weights + 2 * 2 * 2 * 8 * 4 * slots

    monkeypatch.setattr(plots, 'IMAGES', tmp_path / 'images')
    monkeypatch.setattr(common, 'ROOT', tmp_path)
    drawn = plots.speed(result).read_text()
    assert 'reference, question 3' in drawn
    monkeypatch.setattr(document, 'DOCUMENT', tmp_path / 'performance.md')
    (tmp_path / 'performance.md').write_text(f'{document.BEGIN}{document.END}')
    document.put({'machine': common.machine(), 'runs': [result]})
    told = (tmp_path / 'performance.md').read_text()
    assert '12 of 12 answers equal' in told
    assert f'≥ 10 ×: {"met" if same["ratio"] >= 10 else "missed"}' in told
    tables.show(result)
    shown = capsys.readouterr().out
    assert '12 of 12 answers have the same words' in ' '.join(shown.split())


def test_results_go_between_the_marks_of_the_document(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / 'performance.md'
    monkeypatch.setattr(document, 'DOCUMENT', path)
    monkeypatch.setattr(common, 'ROOT', tmp_path)
    path.write_text(f'before\n{document.BEGIN}\nold\n{document.END}\nafter\n')
    results = {'machine': common.machine(), 'runs': []}
    document.put(results)
    written = path.read_text()
    assert written.startswith('before\n')
    assert written.endswith('\nafter\n')
    assert 'old' not in written
    assert results['machine']['cpu'] in written
    path.write_text('nothing')
    with pytest.raises(ValueError, match='lacks the lines'):
        document.put(results)


def test_the_document_has_the_marks() -> None:
    text = document.DOCUMENT.read_text(encoding='utf-8')
    assert text.count(document.BEGIN) == text.count(document.END) == 1
