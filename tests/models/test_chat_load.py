# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Show that the right kind of model is loaded, and what cannot be is refused early."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pixelrefer_ros.core.chat import Decoding, Turn
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.chat import quantization
from pixelrefer_ros.models.chat.load import load_chat
from pixelrefer_ros.models.chat.settings import ChatSettings
from tests.models.chat_models import write_model

if TYPE_CHECKING:
    from pathlib import Path

_REFUSED = """
import sys
from pixelrefer_ros.core.types import PixelReferError
from pixelrefer_ros.models.chat.load import load_chat
from pixelrefer_ros.models.chat.settings import ChatSettings
try:
    load_chat(ChatSettings(model=sys.argv[1]))
except PixelReferError as error:
    print(error)
print('torch' in sys.modules)
"""


@pytest.fixture(scope='module')
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp('tiny'), 'qwen2_5_vl')


def test_loads_a_directory(directory: Path) -> None:
    chat = load_chat(ChatSettings(model=str(directory), device='cpu', dtype='bfloat16'))
    assert chat.name == str(directory)
    assert chat.shows_video
    reply = chat.reply([Turn('user', ('Hello',))], Decoding(4))
    assert reply.tokens_out == 4


@pytest.mark.parametrize(
    ('name', 'says'), [('no/such', 'pixelrefer fetch no/such'), ('nothing', "no model 'nothing'")]
)
def test_refuses_a_missing_model_before_torch_is_imported(name: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, '-c', _REFUSED, name], capture_output=True, text=True, check=True
    )
    said, torch_there = done.stdout.splitlines()
    assert says in said
    assert torch_there == 'False'


def test_refuses_no_model_at_all() -> None:
    with pytest.raises(PixelReferError, match='URL of a server') as caught:
        load_chat(ChatSettings())
    assert caught.value.code == ErrorCode.MODEL_ERROR


@pytest.mark.parametrize(
    ('settings', 'says'),
    [
        ({'quantization': 'int3'}, 'torchao-int4'),
        ({'device': 'abacus'}, 'abacus'),
        ({'dtype': 'int8'}, 'bfloat16'),
    ],
)
def test_refuses_settings_that_cannot_be(
    directory: Path, settings: dict[str, str], says: str
) -> None:
    with pytest.raises(PixelReferError, match=says) as caught:
        load_chat(ChatSettings(model=str(directory), **settings))
    assert caught.value.code == ErrorCode.MODEL_ERROR


@pytest.mark.parametrize('name', list(quantization.PACKAGES))
def test_names_the_packages_a_quantization_lacks(
    directory: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('pixelrefer_ros.models.quantization.find_spec', lambda package: None)
    packages = ' '.join(quantization.PACKAGES[name])
    with pytest.raises(PixelReferError, match=f'pip install {packages}') as caught:
        load_chat(ChatSettings(model=str(directory), quantization=name))
    assert caught.value.code == ErrorCode.MODEL_ERROR


def test_refuses_a_quantization_without_kernels(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, 'check_quantization', lambda name: None)
    monkeypatch.setattr('pixelrefer_ros.models.chat.load.check_quantization', lambda name: None)
    settings = ChatSettings(model=str(directory), device='cpu', quantization='torchao-int4')
    with pytest.raises(PixelReferError, match='torchao-int8') as caught:
        load_chat(settings)
    assert caught.value.code == ErrorCode.MODEL_ERROR


def test_torchao_makes_the_language_model_small_and_leaves_the_tower(directory: Path) -> None:
    pytest.importorskip('torchao')
    from pixelrefer_ros.models.chat.local import LocalChat

    settings = ChatSettings(model=str(directory), device='cpu', quantization='torchao-int8')
    chat = load_chat(settings)
    assert isinstance(chat, LocalChat)
    base = chat.model.base_model
    small = type(base.language_model.layers[0].mlp.up_proj.weight).__name__
    assert small != 'Parameter'
    assert type(base.visual.blocks[0].mlp.up_proj.weight).__name__ == 'Parameter'
    assert chat.reply([Turn('user', ('Hello',))], Decoding(4)).tokens_out == 4
