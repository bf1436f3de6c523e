# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put chains together from what is on this machine, or refuse with what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.grounding.load import load_grounder
from pixelrefer_ros.models.chat.settings import ChatSettings
from tests.chat_doubles import ScriptedChatModel
from tests.models.chat_models import write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ('kind', 'profile'), [('qwen2_5_vl', 'qwen2.5-vl'), ('qwen3_vl', 'qwen3-vl')]
)
def test_the_profile_goes_by_the_architecture(kind: str, profile: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, kind)
    chain = load_grounder(ChatSettings(model=str(folder), device='cpu'))
    assert chain.name == str(folder)
    assert chain.profile.name == profile
    assert chain.trouble() == ''
    assert chain.at_once()._model is chain._model


def test_what_training_makes_is_asked_as_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its architecture is that of the published ones; how its tower takes frames is not."""
    from pixelrefer_ros.training.grounding_config import grounding_config
    from pixelrefer_ros.training.grounding_words import build_tokenizer

    grounding_config(build_tokenizer()).save_pretrained(tmp_path)
    model = ScriptedChatModel([])
    monkeypatch.setattr('pixelrefer_ros.grounding.load.load_chat', lambda settings: model)
    assert load_grounder(ChatSettings(model=str(tmp_path))).profile.name == 'tabletop'
    assert load_grounder(ChatSettings(model=str(tmp_path)), 'revseg').profile.name == 'revseg'


def test_the_packaged_model_is_asked_as_it_is_trained() -> None:
    try:
        chain = load_grounder(ChatSettings(model='tabletop', device='cpu'))
    except PixelReferError as error:
        pytest.skip(str(error))
    assert (chain.name, chain.profile.name) == ('tabletop', 'tabletop')
    assert chain.at_once().profile.prompts.single


def test_an_architecture_without_a_profile_needs_a_name(tmp_path: Path) -> None:
    folder = write_model(tmp_path, 'llava')
    with pytest.raises(PixelReferError, match=r"type 'llava.*qwen2\.5-vl") as error:
        load_grounder(ChatSettings(model=str(folder), device='cpu'))
    assert error.value.code == ErrorCode.BAD_REQUEST
    chain = load_grounder(ChatSettings(model=str(folder), device='cpu'), 'qwen2.5-vl')
    assert chain.profile.name == 'qwen2.5-vl'


def test_a_server_needs_a_profile() -> None:
    settings = ChatSettings(url='http://localhost:1')
    with pytest.raises(PixelReferError, match=r'name its profile, one of .*qwen3-vl'):
        load_grounder(settings)
    chain = load_grounder(settings, 'qwen3-vl')
    assert chain.name.startswith('http://localhost:1')


@pytest.mark.parametrize(
    'config', [None, 'no json', json.dumps(['a', 'list']), '{"vision_config": 7}']
)
def test_a_folder_that_holds_no_model(config: str | None, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / 'config.json').write_text(config)
    with pytest.raises(PixelReferError, match=r'config\.json is unreadable') as error:
        load_grounder(ChatSettings(model=str(tmp_path)))
    assert error.value.code == ErrorCode.MODEL_ERROR


def test_a_missing_model_says_what_to_run() -> None:
    with pytest.raises(PixelReferError, match='pixelrefer fetch org/never-fetched'):
        load_grounder(ChatSettings(model='org/never-fetched'))
