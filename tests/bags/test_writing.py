# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that bags are written whole or not at all, and always the same."""

from __future__ import annotations

import pytest

from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.writing import BagWriter
from tests.bags.makers import string_message, write_bag


@pytest.mark.parametrize('name', ['bag.mcap', 'bag.db3', 'folder'])
def test_same_content_same_bytes(tmp_path, name):
    for place in ('a', 'b'):
        (tmp_path / place).mkdir()
        write_bag(tmp_path / place / name)
    first, second = (
        {file.relative_to(tmp_path / place): file.read_bytes()
         for file in sorted((tmp_path / place).rglob('*')) if file.is_file()}
        for place in ('a', 'b')
    )
    assert first == second
    assert len(first) == (2 if name == 'folder' else 1)


@pytest.mark.parametrize('name', ['bag.mcap', 'folder'])
def test_existing_bag_is_kept_unless_told(tmp_path, name):
    path = write_bag(tmp_path / name)
    with pytest.raises(FileError, match='exists already'):
        BagWriter(path)
    with BagWriter(path, overwrite=True) as writer:
        writer.write('/chatter', string_message('new'), 1)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_nothing_is_left_after_an_error(tmp_path):
    path = write_bag(tmp_path / 'bag.mcap')
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        break_off(path)
    assert path.read_bytes() == before
    with pytest.raises(ZeroDivisionError):
        break_off(tmp_path / 'other' / 'bag')
    assert list((tmp_path / 'other').iterdir()) == []


def break_off(path):
    with BagWriter(path, overwrite=True) as writer:
        writer.write('/chatter', string_message('new'), 1)
        raise ZeroDivisionError


def test_unknown_storage(tmp_path):
    with pytest.raises(FileError, match="neither 'mcap' nor 'sqlite3'"):
        BagWriter(tmp_path / 'bag', storage='parquet')
