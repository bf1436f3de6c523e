# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check when answers and descriptions count as right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.truth import (
    FORMAT,
    QueryTruth,
    RegionTruth,
    Truth,
    contains,
    load_truth,
    normalise,
    truth_beside,
)
from pixelrefer_ros.core.types import Answer, Description, ErrorCode, Timings
from tests.bags.makers import ORIGIN_NS, at


def says(text, first=0.0, last=1.0, region='cup'):
    stamps = (at(first), at(last))
    return Description('', region, '', stamps[-1], '', text, 1.0, None, stamps, Timings(), 1, 1,
                       'm')


def test_normalise():
    assert normalise("  The RED—cup, isn't moving! ") == "red cup isn't moving"
    assert normalise("I can't tell .") == "i can't tell"


@pytest.mark.parametrize(('text', 'phrase', 'right'), [
    ('It is red.', 'red', True),
    ('It is redder.', 'red', False),
    ('Not moving', 'not moving', True),
    ('It is not, moving', 'NOT moving.', True),
    ('A yellow bottle', 'the yellow bottle', True),
    ('bottle, yellow', 'yellow bottle', False),
    ('anything', '', False),
    ('', 'red', False),
])
def test_contains(text, phrase, right):
    assert contains(text, phrase) is right


@pytest.mark.parametrize(('truth', 'text', 'right'), [
    (QueryTruth(accept=('red',)), 'Red.', True),
    (QueryTruth(accept=('red', 'crimson')), 'It is crimson', True),
    (QueryTruth(accept=('red',)), 'blue', False),
    (QueryTruth(accept=('yes',), reject=('no',)), 'Yes and no', False),
    (QueryTruth(all_of=(('red',), ('ball', 'sphere'))), 'a red sphere', True),
    (QueryTruth(all_of=(('red',), ('ball', 'sphere'))), 'a red cube', False),
    (QueryTruth(accept=('left',), all_of=(('red',),)), 'left of the blue one', False),
])
def test_answers(truth, text, right):
    assert truth.right(text) is right
    judged = Truth(queries={'q': truth})
    assert judged.judge_answer(Answer('q', text=text)) is right
    assert judged.judge_answer(Answer('other', text=text)) is None
    failed = Answer('q', text=text, error_code=ErrorCode.TIMEOUT)
    assert judged.judge_answer(failed) is False


TRUTH = Truth(
    ORIGIN_NS,
    queries={'q': QueryTruth(accept=('red',), kind='colour')},
    regions={'cup': (
        RegionTruth(0.0, 4.0, {'colour': ('red',), 'motion': ('still',)}),
        RegionTruth(4.0, 9.0, {'colour': ('red',), 'motion': ('rolling', 'moving')}),
    )},
    vocabulary={'colour': ('red', 'blue')},
)


def test_descriptions_are_judged_by_what_held_while_the_model_looked():
    assert TRUTH.judge_description(says('A red cup, still.')) == {'colour': True, 'motion': True}
    assert TRUTH.judge_description(says('A red cup, rolling.')) == {
        'colour': True, 'motion': False}
    assert TRUTH.judge_description(says('A red cup, rolling.', 5, 6)) == {
        'colour': True, 'motion': True}
    for text in ('red, still', 'red, rolling'):  # the window holds the change
        assert TRUTH.judge_description(says(text, 3, 5)) == {'colour': True, 'motion': True}


def test_other_words_of_the_vocabulary_are_wrong():
    assert TRUTH.judge_description(says('A red and blue cup, still.'))['colour'] is False


def test_what_the_truth_does_not_know_is_not_judged():
    assert TRUTH.judge_description(says('anything', region='ghost')) == {}
    assert TRUTH.judge_description(says('anything', 20, 21)) == {}


def test_file(tmp_path):
    TRUTH.save(tmp_path / 'bag.truth.json')
    assert load_truth(tmp_path / 'bag.truth.json') == TRUTH
    assert truth_beside(tmp_path / 'bag.mcap') == tmp_path / 'bag.truth.json'
    assert truth_beside(tmp_path / 'bag') == tmp_path / 'bag.truth.json'
    assert truth_beside(tmp_path / 'other.mcap') is None


def test_single_words_need_no_list(tmp_path):
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps({'format': FORMAT, 'queries': {'q': {'accept': 'red'}}}))
    assert load_truth(path).queries['q'] == QueryTruth(accept=('red',))


@pytest.mark.parametrize(('content', 'text'), [
    ('{', 'is no JSON'),
    ('[]', 'must say "format"'),
    ('{"format": "other"}', 'must say "format"'),
    (json.dumps({'format': FORMAT, 'queries': {'q': {}}}), 'accept or all_of'),
    (json.dumps({'format': FORMAT, 'queries': {'q': {'accept': [1]}}}), 'list of texts'),
    (json.dumps({'format': FORMAT, 'regions': {'a': [{'from_s': 0}]}}), 'to_s|attributes'),
])
def test_broken_files_are_refused(tmp_path, content, text):
    path = tmp_path / 'truth.json'
    path.write_text(content)
    with pytest.raises(FileError, match=text):
        load_truth(path)


def test_missing_file():
    with pytest.raises(FileError, match='cannot read'):
        load_truth(Path('/nonexistent/truth.json'))
