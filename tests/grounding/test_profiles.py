# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the shipped profiles, a user's own, and what is said about wrong ones."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pixelrefer_ros.core.chat import Decoding
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.grounding.boxes import Coordinates
from pixelrefer_ros.grounding.parsing import KeyFrame, SaidBox, parse_box, parse_key_frame
from pixelrefer_ros.grounding.profiles import (
    FramesAs,
    fill,
    load_profile,
    parse_profile,
    shipped_profiles,
)

if TYPE_CHECKING:
    from pathlib import Path

MINE: dict[str, Any] = {
    'name': 'mine',
    'frames': 8,
    'frame_size': [112, 84],
    'key_size': [224, 168],
    'size_multiple': 28,
    'coordinates': 'absolute',
    'prompts': {
        'turn1': 'Find {question}. {"frame_idx": 1} or {absent}.',
        'turn2': 'Box {description}.',
    },
    'decoding': {'turn1': {'max_new_tokens': 9, 'temperature': 0}, 'turn2': {
        'max_new_tokens': 8, 'temperature': 0.5}},
}  # fmt: skip


def test_the_shipped_profiles_are_those_of_the_model_families() -> None:
    assert shipped_profiles() == ('qwen2.5-vl', 'qwen3-vl', 'revseg', 'tabletop')
    for name in shipped_profiles():
        profile = load_profile(name)
        assert profile.name == name
        assert profile.frames == 16
        assert profile.fps == 2.0
        assert profile.turn1.temperature == profile.turn2.temperature == 0.0
        assert profile.prompts.single
    revseg = load_profile('revseg')
    assert (revseg.frame_size, revseg.key_size) == ((448, 448), (840, 840))
    assert revseg.coordinates == Coordinates.ABSOLUTE
    qwen3 = load_profile('qwen3-vl')
    assert (qwen3.key_size, qwen3.size_multiple) == ((832, 832), 32)
    assert qwen3.coordinates == Coordinates.RELATIVE_1000


@pytest.mark.parametrize('name', ['qwen2.5-vl', 'qwen3-vl', 'revseg'])
def test_the_prompts_show_answers_that_can_be_read(name: str) -> None:
    prompts = load_profile(name).prompts
    for text in (prompts.turn1, prompts.turn1_repair, prompts.single, prompts.single_repair):
        example = text[text.rindex('[{"frame_idx"') :].split('}]')[0] + '}]'
        assert isinstance(parse_key_frame(example), KeyFrame)
    for text in (prompts.single, prompts.single_repair, prompts.turn2_repair):
        example = text[text.rindex('[{') :].split('}]')[0] + '}]'
        assert isinstance(parse_box(example.replace('x1, y1, x2, y2', '1, 2, 3, 4')), SaidBox)


def test_an_own_profile_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump(MINE), encoding='utf-8')
    profile = load_profile(path)
    assert profile == load_profile(str(path))
    assert profile.turn2 == Decoding(max_new_tokens=8, temperature=0.5)
    assert (profile.frames_as, profile.fps, profile.absent) == (FramesAs.AUTO, 2.0, '[]')
    assert (profile.system, profile.picture_label, profile.prompts.single) == ('', '', '')


def test_sizes_are_changed_in_code_and_checked_again() -> None:
    profile = dataclasses.replace(load_profile('tabletop'), key_size=(280, 196))
    assert profile.key_size == (280, 196)
    with pytest.raises(PixelReferError, match='key_size .*300 could be 308'):
        dataclasses.replace(profile, key_size=(300, 196))


def changed(path: str, value: object) -> dict[str, Any]:
    data = copy.deepcopy(MINE)
    *parents, last = path.split('.')
    at = data
    for name in parents:
        at = at[name]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return data


@pytest.mark.parametrize(
    ('key', 'value', 'words'),
    [
        ('frams', 3, 'frams is unknown; there are name, frames, '),
        ('frames', None, 'frames is missing'),
        ('prompts', None, 'prompts is missing'),
        ('prompts.turn2', None, 'prompts.turn2 is missing'),
        ('prompts.turn3', 'x', 'prompts.turn3 is unknown; there are turn1, turn2, single'),
        ('decoding.turn1', None, 'decoding.turn1 is missing'),
        ('decoding.turn1.top_p', 1, 'decoding.turn1.top_p is unknown; there are max_new_tokens'),
        ('decoding.turn1.temperature', None, 'decoding.turn1.temperature is missing'),
        ('decoding.turn1.temperature', 3, r'decoding.turn1.temperature is 3.0; .* 0\.\.2'),
        ('decoding.turn2.max_new_tokens', 0, 'decoding.turn2.max_new_tokens is 0; .* 1'),
        ('decoding.turn2', 4, 'decoding.turn2 must be a mapping'),
        ('name', '', 'name may not be empty'),
        ('name', 3, 'name is 3; it must be text'),
        ('frames', 0, r'frames is 0; it must lie in 1\.\.512'),
        ('frames', '16', "frames is '16'; it must be a whole number"),
        ('frames', True, 'frames is True; it must be a whole number'),
        ('frame_size', [112], r'frame_size is \[112\]; it must be \[width, height\]'),
        ('frame_size', 112, r'frame_size is 112; it must be \[width, height\]'),
        ('frame_size', [112, 84.5], 'frame_size is 84.5; it must be a whole number'),
        ('key_size', [840, 800], 'key_size .840, 800. is not a multiple of size_multiple 28: '
                                 '800 could be 812'),
        ('size_multiple', 0, 'size_multiple is 0'),
        ('size_multiple', 32, 'frame_size .* size_multiple 32: 112 could be 128'),
        ('coordinates', 'pixels', "coordinates is 'pixels'; .* absolute, relative_1000"),
        ('frames_as', 'gif', "frames_as is 'gif'; .* video, pictures, auto"),
        ('frames_as', 1, 'frames_as is 1; .* video, pictures, auto'),
        ('fps', 0, 'fps is 0.0; it must lie in'),
        ('fps', float('nan'), 'fps is nan; it must be a number'),
        ('prompts.turn1', 'Find {query} {question}', r'prompts.turn1 speaks of \{query\}; there '
                                                     r'are \{question\}, \{frame_count\}'),
        ('prompts.turn1', 'Find it, or {absent}', r'prompts.turn1 must speak of \{question\}'),
        ('prompts.turn1', 'Find {question}', 'prompts.turn1 does not tell .* absent'),
        ('prompts.turn2', '', r'prompts.turn2 must speak of \{description\}'),
        ('prompts.turn2_repair', '{fps}', r'prompts.turn2_repair speaks of \{fps\}'),
        ('prompts.single', 'Box it', r'prompts.single must speak of \{question\}'),
        ('picture_label', '{frame}', r'picture_label speaks of \{frame\}; .*\{index\}'),
        ('absent', '{"frame_idx": 0, "description": "x"}', 'absent .* reads as an answer'),
    ],
)  # fmt: skip
def test_a_wrong_profile_is_refused_by_file_and_key(key: str, value: object, words: str) -> None:
    with pytest.raises(PixelReferError, match=f'mine.yaml: {words}') as caught:
        parse_profile(changed(key, value), 'mine.yaml')
    assert caught.value.code == ErrorCode.BAD_REQUEST


@pytest.mark.parametrize('absent', ['[]', 'none', '{"frame_idx": -1}', 'No such thing', ''])
def test_absence_may_be_said_in_any_way_that_is_no_answer(absent: str) -> None:
    assert parse_profile(changed('absent', absent), 'mine.yaml').absent == absent


@pytest.mark.parametrize('data', [None, [], 'text', {1: 2}])
def test_what_is_no_mapping_is_refused(data: object) -> None:
    with pytest.raises(PixelReferError, match='mine.yaml must be a mapping'):
        parse_profile(data, 'mine.yaml')


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PixelReferError, match=r'gone\.yaml cannot be read: No such file'):
        load_profile(tmp_path / 'gone.yaml')
    for content in (b'a: [', b'\xff\xfe\x00a', b'!!python/object:os.system {}'):
        path = tmp_path / 'bad.yaml'
        path.write_bytes(content)
        with pytest.raises(PixelReferError, match='bad.yaml is no YAML') as caught:
            load_profile(path)
        assert caught.value.code == ErrorCode.BAD_REQUEST


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PixelReferError, match='qwen2.5-vl, qwen3-vl, revseg, tabletop'):
        load_profile('qwen4-vl')


def test_values_go_into_a_text_once_and_other_braces_stay() -> None:
    text = '{question}: [{"frame_idx": 1}], {}, {other}, {fps}'
    values = {'question': 'the {fps} {question}', 'fps': 2}
    assert fill(text, values) == 'the {fps} {question}: [{"frame_idx": 1}], {}, {other}, 2'
