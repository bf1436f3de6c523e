# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test how models are found and fetched; nothing here reaches the network."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models import registry
from pixelrefer_ros.models.registry import Use

ROOT = Path(__file__).resolve().parents[2]

def test_directories_are_themselves(tmp_path: Path) -> None:
    assert registry.resolve(str(tmp_path)) == tmp_path
    assert registry.fetch(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ('use', 'folder', 'command'),
    [
        (Use.DESCRIBING, 'tabletop', 'pixelrefer train tabletop'),
        (Use.GROUNDING, 'tabletop_grounding', 'pixelrefer train grounding'),
    ],
)
def test_tabletop_is_in_the_package(
    use: Use, folder: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.resources, 'files', lambda package: tmp_path)
    with pytest.raises(PixelReferError, match=f'for {use} is not in .*{command}') as error:
        registry.resolve('tabletop', use)
    assert error.value.code == ErrorCode.MODEL_ERROR
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'config.json').write_text('{}')
    assert registry.resolve('tabletop', use) == tmp_path / folder
    other = next(one for one in Use if one != use)
    with pytest.raises(PixelReferError, match=f'for {other} is not in'):
        registry.resolve('tabletop', other)


@pytest.mark.parametrize(
    ('use', 'kind'), [(Use.DESCRIBING, 'pixelreferlite_qwen2'), (Use.GROUNDING, 'qwen2_5_vl')]
)
def test_each_packaged_tabletop_is_of_its_kind(use: Use, kind: str) -> None:
    try:
        directory = registry.resolve('tabletop', use)
    except PixelReferError as error:
        pytest.skip(str(error))
    assert json.loads((directory / 'config.json').read_text())['model_type'] == kind
    files = [path.name for path in directory.iterdir()]
    assert {'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'} <= set(files)
    # what wheels take along is listed by folder
    package_data = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools'][
        'package-data']['pixelrefer_ros']
    assert f'models/{directory.name}/*' in package_data
    assert sum(path.stat().st_size for path in directory.iterdir()) < 16e6


def test_unfetched_model_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *, local_files_only: bool) -> str:
        assert local_files_only
        raise LocalEntryNotFoundError('not there')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', absent)
    with pytest.raises(PixelReferError, match='run `pixelrefer fetch org/name`') as error:
        registry.resolve('org/name')
    assert error.value.code == ErrorCode.MODEL_ERROR


def test_fetched_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda name, **_: str(tmp_path))
    assert registry.resolve('org/name') == tmp_path


@pytest.mark.parametrize('name', ['', 'no-such-model', '/no/such/directory', 'a/b/c'])
def test_unknown_names_say_what_is_possible(name: str) -> None:
    with pytest.raises(PixelReferError, match="neither 'tabletop', nor a directory"):
        registry.resolve(name or '/no')


class FakeHub:
    """Stand for the hub: one commit with weights, text and code."""

    def __init__(self, directory: Path, sha256: str) -> None:
        self.directory = directory
        self.files = [
            SimpleNamespace(rfilename='config.json', lfs=None),
            SimpleNamespace(rfilename='model.safetensors', lfs=SimpleNamespace(sha256=sha256)),
            SimpleNamespace(rfilename='pytorch_model.bin', lfs=SimpleNamespace(sha256='0')),
            SimpleNamespace(rfilename='code.py', lfs=None),
        ]
        self.patterns: list[str] = []

    def model_info(self, name: str, **_: object) -> SimpleNamespace:
        if name != 'org/name':
            raise HfHubHTTPError('no such model', response=SimpleNamespace(headers={}, request=1))
        return SimpleNamespace(sha='c0ffee', siblings=self.files)

    def snapshot_download(self, name: str, allow_patterns: list[str]) -> str:
        self.patterns = allow_patterns
        (self.directory / 'config.json').write_text('{}')
        (self.directory / 'model.safetensors').write_bytes(b'weights')
        return str(self.directory)


def serve(monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
    monkeypatch.setattr(huggingface_hub, 'HfApi', lambda: hub)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', hub.snapshot_download)


def test_fetch_verifies_what_it_got(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub(tmp_path, hashlib.sha256(b'weights').hexdigest())
    serve(monkeypatch, hub)
    lines: list[str] = []
    assert registry.fetch('org/name', lines.append) == tmp_path
    assert '*.safetensors' in hub.patterns
    assert not {'*.bin', '*.py'} & set(hub.patterns)
    assert any('model.safetensors: sha256' in line for line in lines)


def test_fetch_removes_a_file_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, FakeHub(tmp_path, hashlib.sha256(b'other').hexdigest()))
    with pytest.raises(PixelReferError, match='model.safetensors; fetch again'):
        registry.fetch('org/name')
    assert not (tmp_path / 'model.safetensors').exists()
    assert (tmp_path / 'config.json').exists()


def test_fetch_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, FakeHub(tmp_path, '0'))
    with pytest.raises(PixelReferError, match="could not fetch 'org/other'"):
        registry.fetch('org/other')
