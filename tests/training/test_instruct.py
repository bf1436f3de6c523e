# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test instruction tuning end to end, with a model of some ten thousand parameters."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import ErrorCode, Frame, PixelReferError, RegionClip
from pixelrefer_ros.models.pixelrefer import PixelReferDescriber
from pixelrefer_ros.training.instruct import (
    TuneOptions,
    TuneResult,
    newest_checkpoint,
    tune,
)
from pixelrefer_ros.training.instruct_trainer import part_of
from tests.models.conftest import (
    box_mask,
    picture,
    small_config,
    small_full_config,
    small_full_model,
    small_model,
    write_tokenizer,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

ANSWERS = ('red', 'a cup')
QUESTION = 'What is it?'
INTRODUCTION = 'There is an object in the image: <object0><region>.'

FAST = TuneOptions(
    steps=4, batch_size=2, accumulate=1, language_lr=5e-3, region_lr=5e-3, workers=0,
    save_every=2, keep=3, log_every=1, device='cpu', progress=False,
)  # fmt: skip


def with_options(**changes: Any) -> TuneOptions:
    return TuneOptions(**{**vars(FAST), **changes})


HARD = with_options(steps=50, save_every=100, language_lr=2e-2, region_lr=2e-2, warmup=0.1)


def rle(mask: np.ndarray) -> dict[str, Any]:
    return {'size': list(mask.shape), 'counts': list(masks.encode(mask).counts)}


def region(number: int) -> np.ndarray:
    return box_mask(5 + 20 * number, 5 + 30 * number, 25, 30)


def record(number: int, **changes: Any) -> dict[str, Any]:
    return {
        'image': f'{number}.png',
        'masks': [rle(region(number))],
        'conversations': [
            {'from': 'human', 'value': f'<image>\n{INTRODUCTION} {QUESTION}'},
            {'from': 'gpt', 'value': ANSWERS[number]},
        ],
        **changes,
    }


def write_data(folder: Path, *records: Any) -> Path:
    for number in range(2):
        rgb = cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f'{number}.png'), rgb)
    path = folder / 'data.json'
    path.write_text(json.dumps(records or (record(0), record(1))), encoding='utf-8')
    return path


@pytest.fixture(scope='module')
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory with a small model."""
    directory = tmp_path_factory.mktemp('start')
    write_tokenizer(directory)
    model = small_model(small_config(global_size=28, local_size=28, large_object_patches=9))
    model.generation_config.eos_token_id = 258
    model.generation_config.pad_token_id = 256
    model.to(torch.float16).save_pretrained(directory)
    return directory


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def run(
    start: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TuneResult]:
    """Run four steps, with checkpoints at two and four."""
    out = tmp_path_factory.mktemp('run') / 'out'
    return out, tune(start, data, None, out, options=FAST)


def weights(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / 'model.safetensors')


def answers(directory: Path) -> list[str]:
    describer = PixelReferDescriber.load(str(directory), device='cpu', max_new_tokens=8)
    return [
        describer.answer(
            QUESTION, [Frame('', 0, picture(number))], [RegionClip('x', (0,), [region(number)])]
        ).text
        for number in range(2)
    ]


def test_two_samples_are_learnt_by_heart(start: Path, data: Path, tmp_path: Path) -> None:
    result = tune(start, data, None, tmp_path, options=HARD)
    assert result.directory == tmp_path
    assert (result.steps, result.samples, result.refused) == (50, 2, ())
    assert result.losses[0][1] > 2
    assert result.losses[-1][1] < 0.1
    assert answers(start) != list(ANSWERS)
    assert answers(tmp_path) == list(ANSWERS)


def test_output_is_a_model_like_the_one_it_came_from(
    start: Path, run: tuple[Path, TuneResult]
) -> None:
    out, result = run
    assert result.steps == 4
    assert [step for step, _ in result.losses] == [1, 2, 3, 4]
    before, after = weights(start), weights(out)
    assert {name: (value.shape, value.dtype) for name, value in after.items()} == {
        name: (value.shape, value.dtype) for name, value in before.items()
    }
    assert weights(out / 'checkpoint-2')['model.norm.weight'].dtype == torch.float32
    fields = [json.loads((folder / 'config.json').read_text()) for folder in (start, out)]
    assert fields[0] == fields[1]


def test_frozen_parts_stay_as_they_are(start: Path, run: tuple[Path, TuneResult]) -> None:
    before, after = weights(start), weights(run[0])
    changed = {
        part: [
            not torch.equal(before[name], after[name]) for name in before if part_of(name) == part
        ]
        for part in ('language', 'region', 'vision', None)
    }
    assert not any(changed['vision'])
    assert not any(changed[None])
    assert len(changed[None]) > 0
    assert sum(changed['language']) > 0.9 * len(changed['language'])
    assert sum(changed['region']) > 0.9 * len(changed['region'])


def test_each_part_has_its_own_rate(start: Path, data: Path, tmp_path: Path) -> None:
    options = with_options(
        steps=1, language_lr=0.0, region_lr=1e-3, vision_lr=1e-2, warmup=0.0
    )
    tune(start, data, None, tmp_path, options=options)
    before, after = weights(start), weights(tmp_path / 'checkpoint-1')
    # the first step of AdamW is as long as the rate
    moved = {
        part: max(
            float((after[name] - before[name].float()).abs().max())
            for name in after
            if part_of(name) == part
        )
        for part in ('language', 'region', 'vision')
    }
    assert moved['language'] == 0
    assert moved['region'] == pytest.approx(1e-3, rel=0.01)
    assert moved['vision'] == pytest.approx(1e-2, rel=0.01)


def test_resumed_run_ends_with_the_same_weights(
    start: Path, data: Path, run: tuple[Path, TuneResult], tmp_path: Path
) -> None:
    out, _ = run
    for name in ('checkpoint-2', 'tuning.json'):
        copy = shutil.copytree if (out / name).is_dir() else shutil.copy
        copy(out / name, tmp_path / name)
    # what a run killed while it saves leaves behind
    (tmp_path / 'checkpoint-3').mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / 'checkpoint-2'
    result = tune(start, data, None, tmp_path, options=FAST, resume=True)
    assert result.steps == 4
    found, expected = weights(tmp_path / 'checkpoint-4'), weights(out / 'checkpoint-4')
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(result.losses) == 4


def test_resume_without_a_checkpoint_starts_at_the_beginning(
    start: Path, data: Path, tmp_path: Path
) -> None:
    assert tune(
        start, data, None, tmp_path, options=with_options(steps=1), resume=True
    ).steps == 1


def test_earlier_run_is_not_overwritten(
    start: Path, data: Path, run: tuple[Path, TuneResult]
) -> None:
    with pytest.raises(PixelReferError, match='checkpoint-4 of an earlier run: resume it'):
        tune(start, data, None, run[0], options=FAST)
    with pytest.raises(PixelReferError, match='seed was 42 and is 1'):
        tune(start, data, None, run[0], options=with_options(seed=1), resume=True)


def test_accumulated_batches_are_one_large_batch(start: Path, data: Path, tmp_path: Path) -> None:
    ways = {
        'large': {},
        'accumulated': {'batch_size': 1, 'accumulate': 2},
        'checkpointing': {'gradient_checkpointing': True, 'vision_lr': 1e-9},
    }
    losses = {
        name: [
            loss
            for _, loss in tune(
                start, data, None, tmp_path / name, options=with_options(steps=2, **changes)
            ).losses
        ]
        for name, changes in ways.items()
    }
    assert losses['accumulated'] == pytest.approx(losses['large'], rel=1e-3)
    assert losses['checkpointing'] == pytest.approx(losses['large'], rel=1e-3)


def test_half_precision(
    start: Path, data: Path, run: tuple[Path, TuneResult], tmp_path: Path
) -> None:
    found = tune(
        start, data, None, tmp_path, options=with_options(steps=1, precision='bf16')
    ).losses[0][1]
    assert found == pytest.approx(run[1].losses[0][1], rel=0.05)
    assert weights(tmp_path / 'checkpoint-1')['model.norm.weight'].dtype == torch.float32


def test_bad_samples_are_passed_over_and_counted(
    start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_data(
        tmp_path,
        record(0, masks=[]),
        record(0),
        record(1, masks=[rle(np.ones((6, 8)))]),
        record(1),
    )
    options = with_options(steps=0, epochs=2, batch_size=1)
    with caplog.at_level(logging.WARNING):
        result = tune(start, path, None, tmp_path / 'out', options=options)
    assert result.samples == 3
    assert [refusal.index for refusal in result.refused] == [0, 2]
    assert result.steps == 6
    assert 'sample 2: a mask is 8x6 pixels and its frame 80x60' in caplog.text
    assert '2 samples could not be used' in caplog.text
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / 'out').values())
    with pytest.raises(PixelReferError, match='sample 0'):
        tune(start, path, None, tmp_path / 'strict', options=with_options(strict=True))


def test_data_lies_where_the_root_says(start: Path, tmp_path: Path) -> None:
    (tmp_path / 'pictures').mkdir()
    path = write_data(tmp_path / 'pictures').rename(tmp_path / 'data.json')
    with pytest.raises(PixelReferError, match='no sample can be used'):
        tune(start, path, None, tmp_path / 'out', options=with_options(steps=1))
    result = tune(
        start, path, tmp_path / 'pictures', tmp_path / 'out', options=with_options(steps=1)
    )
    assert result.refused == ()


def test_worker_processes_read_the_same(
    start: Path, data: Path, run: tuple[Path, TuneResult], tmp_path: Path
) -> None:
    result = tune(start, data, None, tmp_path, options=with_options(workers=1))
    assert result.losses == run[1].losses


@pytest.mark.parametrize(
    ('changes', 'name'),
    [
        ({'batch_size': 0}, 'batch_size'),
        ({'language_lr': -1.0}, 'language_lr'),
        ({'steps': 0, 'epochs': 0.0}, 'epochs'),
        ({'warmup': 1.0}, 'warmup'),
        ({'language_lr': 0.0, 'region_lr': 0.0}, 'learning rates'),
        ({'precision': 'fp8'}, 'precision'),
        ({'device': 'tpu'}, 'device'),
    ],
)
def test_options_out_of_range(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        with_options(**changes)


def test_missing_package_is_named(
    start: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(PixelReferError, match='pip install') as caught:
        tune(start, data, None, tmp_path, options=FAST)
    assert caught.value.code == ErrorCode.UNSUPPORTED


def test_missing_model(data: Path, tmp_path: Path) -> None:
    with pytest.raises(PixelReferError, match='no config.json') as caught:
        tune(tmp_path, data, None, tmp_path / 'out', options=FAST)
    assert caught.value.code == ErrorCode.MODEL_ERROR


def test_full_model_is_refused(data: Path, tmp_path: Path) -> None:
    source = tmp_path / 'full'
    small_full_model(small_full_config()).save_pretrained(source)
    with pytest.raises(PixelReferError, match='only PixelRefer-Lite can be trained') as caught:
        tune(source, data, None, tmp_path / 'out', options=FAST)
    assert caught.value.code == ErrorCode.UNSUPPORTED


def test_shared_pixel_budget_needs_single_samples(
    start: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(start, tmp_path / 'model')
    fields = json.loads((tmp_path / 'model' / 'config.json').read_text())
    fields['compat_shared_budget'] = True
    (tmp_path / 'model' / 'config.json').write_text(json.dumps(fields))
    with pytest.raises(PixelReferError, match='set batch_size to 1'):
        tune(tmp_path / 'model', data, None, tmp_path / 'out', options=FAST)
