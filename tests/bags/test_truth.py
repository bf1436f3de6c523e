# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check when answers and descriptions count as right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.truth import (
    FORMAT,
    QueryTruth,
    RegionTruth,
    Spot,
    Truth,
    box_at,
    contains,
    load_truth,
    normalise,
    truth_beside,
)
from pixelrefer_ros.core.types import Answer, Box, Description, ErrorCode, Evidence, Timings
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


CUP = (Spot(0.0, 10, 20, 8, 8), Spot(1.0, 20, 20, 8, 8), Spot(4.0, 40, 20, 8, 8))
FINDS = Truth(
    ORIGIN_NS,
    queries={'g': QueryTruth(track='cup'), 'worded': QueryTruth(('red',), track='cup'),
             'gone': QueryTruth(absent=True)},
    tracks={'cup': CUP},
)


def found(seconds, box, query_id='g', text='a red cup'):
    key = Evidence('', 'found-g', at(seconds), '', box, None, 1.0)
    return Answer(query_id, text=text, evidence=(key,))


@pytest.mark.parametrize(('seconds', 'box'), [
    (0.0, Box(10, 20, 8, 8)),
    (0.5, Box(15, 20, 8, 8)),
    (0.75, Box(18, 20, 8, 8)),
    (1.04, Box(20, 20, 8, 8)),
    (1.06, None),  # the next is three seconds off
    (2.5, None),
    (3.96, Box(40, 20, 8, 8)),
    (4.04, Box(40, 20, 8, 8)),
    (4.06, None),
])
def test_boxes_between_those_given_are_interpolated_within_a_second(seconds, box):
    assert box_at(CUP, seconds) == box
    assert box_at((), seconds) is None


def test_what_was_found_is_right_where_it_overlaps_the_track():
    assert FINDS.judge_answer(found(0.5, Box(15, 20, 8, 8))) is True
    assert FINDS.overlap(found(0.5, Box(15, 20, 8, 8))) == 1.0
    half = found(0.5, Box(15, 20, 8, 4))
    assert (FINDS.overlap(half), FINDS.judge_answer(half)) == (0.5, True)
    less = found(0.5, Box(15, 20, 8, 3))
    assert (FINDS.overlap(less), FINDS.judge_answer(less)) == (0.375, False)
    # out of sight nothing is right, nor is an answer without evidence
    assert FINDS.judge_answer(found(2.5, Box(30, 20, 8, 8))) is False
    assert FINDS.judge_answer(Answer('g', text='a red cup')) is False
    assert FINDS.judge_answer(replace(half, error_code=ErrorCode.TIMEOUT)) is False


def test_what_was_found_must_also_be_described_as_asked():
    box = Box(15, 20, 8, 8)
    assert FINDS.judge_answer(found(0.5, box, 'worded')) is True
    assert FINDS.judge_answer(found(0.5, box, 'worded', 'a blue cup')) is False
    assert FINDS.judge_answer(found(0.5, Box(0, 0, 8, 8), 'worded')) is False


def test_of_what_is_absent_only_a_refusal_is_right():
    assert FINDS.judge_answer(found(0.5, Box(15, 20, 8, 8), 'gone')) is False
    refused = Answer('gone', error_code=ErrorCode.NOT_GROUNDED)
    assert FINDS.judge_answer(refused) is True
    assert FINDS.judge_answer(replace(refused, error_code=ErrorCode.TIMEOUT)) is False
    assert FINDS.overlap(refused) is None


def test_file_with_tracks(tmp_path):
    FINDS.save(tmp_path / 'truth.json')
    assert load_truth(tmp_path / 'truth.json') == FINDS
    content = json.loads((tmp_path / 'truth.json').read_text())
    assert content['tracks']['cup'][1] == [1.0, 20.0, 20.0, 8.0, 8.0]


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
    (json.dumps({'format': FORMAT, 'queries': {'q': {}}}), 'accept, all_of, track'),
    (json.dumps({'format': FORMAT, 'queries': {'q': {'track': 'a'}}}), 'speaks of track a'),
    (json.dumps({'format': FORMAT, 'tracks': {'a': [[0, 1, 2, 3]]}}), 'ground truth must be'),
    (json.dumps({'format': FORMAT, 'tracks': {'a': [[1, 1, 2, 3, 4], [1, 1, 2, 3, 4]]}}),
     'must ascend'),
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
