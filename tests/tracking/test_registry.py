# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test how trackers are made by name."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench._tiny_sam2 import tiny_model
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.tracking.registry import BACKENDS, tracker_factory
from tests.tracking.sam2_rig import box, frame

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory: Path = tmp_path_factory.mktemp('sam2')
    tiny_model().save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize('backend', [one for one in BACKENDS if one != 'none'])
def test_every_backend_makes_trackers_of_its_name(backend: str, weights: str) -> None:
    make = tracker_factory(backend, model=weights, device='cpu')
    first, second = make(), make()
    assert first is not second
    assert first.name == second.name == backend
    first.start(frame(0), box())
    assert [one.region_id for one in first.step(frame(1))] == ['a']
    assert second.region_ids == ()


def test_weights_are_loaded_once(weights: str) -> None:
    make = tracker_factory('sam2', model=weights, device='cpu', dtype='bfloat16')
    first, second = make(), make()
    assert first._segmenter is second._segmenter
    assert str(first._segmenter.model.dtype) == 'torch.bfloat16'


@pytest.mark.parametrize('backend', ['sam2', 'auto'])
@pytest.mark.parametrize('model', ['', '/no/such/folder', 'org/never-fetched'])
def test_missing_weights_refuse_with_the_command_to_run(backend: str, model: str) -> None:
    with pytest.raises(PixelReferError, match=r'run `pixelrefer fetch [\w./-]+`') as error:
        tracker_factory(backend, model=model)
    assert error.value.code == ErrorCode.MODEL_ERROR


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(PixelReferError, match='must be one of anchored, sam2, auto, none'):
        tracker_factory('csrt')


def test_following_nothing_needs_no_tracker() -> None:
    assert tracker_factory('none') is None


@pytest.mark.parametrize(
    'call',
    [
        'tracker_factory("anchored")()',
        'with suppress(PixelReferError): tracker_factory("sam2", model="/no/such/folder")',
    ],
    ids=['anchored', 'missing weights'],
)
def test_without_weights_no_torch_is_needed(call: str) -> None:
    code = (
        'import sys\n'
        'from contextlib import suppress\n'
        'from pixelrefer_ros.core.types import PixelReferError\n'
        'from pixelrefer_ros.tracking.registry import tracker_factory\n'
        f'{call}\n'
        'assert "torch" not in sys.modules and "transformers" not in sys.modules\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
