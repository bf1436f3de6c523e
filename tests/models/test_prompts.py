# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test how prompts are put together."""

from __future__ import annotations

import pytest

from pixelrefer_ros.models.pixelrefer import prompts


def test_region_text_of_pictures_and_videos() -> None:
    assert prompts.region_text(1, 2, None) == '[<REGION><REGION>]'
    assert prompts.region_text(2, 1, [0, 2.46]) == '[Time 0.0:<REGION>,Time 2.5:<REGION>]'
    assert prompts.region_text(0, 4, []) == '[]'


def test_regions_fill_their_marks_left_to_right() -> None:
    assert prompts.fill_regions('<region> on <region>.', ['[a]', '[b]']) == '[a] on [b].'


@pytest.mark.parametrize('text', ['none', '<region> <region>'])
def test_marks_must_match_the_objects(text: str) -> None:
    with pytest.raises(ValueError, match='marks for 1 objects'):
        prompts.fill_regions(text, ['[a]'])


def test_names_become_places() -> None:
    found = prompts.name_objects('Is {cup 1} on {table}? {cup 1}!', ['table', 'cup 1'])
    assert found == 'Is <object1> on <object0>? <object1>!'


def test_pictures_have_regions() -> None:
    assert prompts.name_objects('Is {cup} red?', ['cup'], 'region') == 'Is <region0> red?'
    assert prompts.introduction('{objects}!', '{objects}?', 2, 'region') == (
        '<region0><region>, <region1><region>?')
    assert prompts.say_region_ids('<region1> is red.', ['cup', 'plate']) == 'plate is red.'


def test_unknown_name_says_which_are_known() -> None:
    with pytest.raises(ValueError, match=r'\{dog\} names no region .* it has \{cup\}'):
        prompts.name_objects('Where is {dog}?', ['cup'])


@pytest.mark.parametrize('mark', ['<region>', '<REGION>', '<image>', '<video>', '<|im_end|>'])
def test_structure_is_kept_out_of_questions(mark: str) -> None:
    with pytest.raises(ValueError, match='must not be in the text'):
        prompts.name_objects(f'What is {mark}?', ['cup'])


def test_introductions() -> None:
    one, many = 'An object: {objects}.', 'There are {count} objects: {objects}.'
    assert prompts.introduction(one, many, 1) == 'An object: <object0><region>.'
    assert prompts.introduction(one, many, 2) == (
        'There are two objects: <object0><region>, <object1><region>.'
    )
    assert prompts.introduction(one, many, 13).startswith('There are 13 objects')


def test_user_turn() -> None:
    assert prompts.user_turn(' hi ') == '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n'


def test_region_ids_take_the_place_of_object_names():
    said = prompts.say_region_ids('<object1> is closer than <object0>.', ['cup', 'plate'])
    assert said == 'plate is closer than cup.'
    assert prompts.say_region_ids('<object2> is not there.', ['cup']) == '<object2> is not there.'
