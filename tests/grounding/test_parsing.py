# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check how the answers of both turns are read, well-formed and broken."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.grounding.parsing import (
    Failure,
    KeyFrame,
    NotPresent,
    SaidBox,
    Unreadable,
    parse_box,
    parse_key_frame,
)
from pixelrefer_ros.grounding.replies import Note

Quote = Callable[[str, str], tuple[str, str]]

# Descriptions as models write them, with apostrophes and quotes inside.
descriptions = st.lists(
    st.sampled_from(('the', 'red', "dog's", 'dogs\u2019', 'cup,', 'left', '(far)', 'caf\xe9',
                     'No.', '3', '50%', 'rock-n-roll', "'n'roll", 'left/right', 'frame')),
    min_size=1, max_size=6,
).map(' '.join).filter(lambda text: text[-1] not in ',' and text[0] != "'")  # fmt: skip
thoughts = st.lists(
    st.sampled_from(('first', 'the [red] one', "it's", 'frame 3:', '{x}', '(1, 2, 3)', '"cup"',
                     'moves [0, 1, 2, 3]', 'so\n', '<b>')),
    max_size=6,
).map(' '.join).map(str.strip)  # fmt: skip


def json_quotes(key: str, text: str) -> tuple[str, str]:
    return json.dumps(key), json.dumps(text, ensure_ascii=False)


def python_quotes(key: str, text: str) -> tuple[str, str]:
    return repr(key), repr(text)


def careless_quotes(key: str, text: str) -> tuple[str, str]:
    return f"'{key}'", f"'{text}'"


def curly_quotes(key: str, text: str) -> tuple[str, str]:
    return f'\u201c{key}\u201d', f'\u201c{text}\u201d'


quotes = st.sampled_from((json_quotes, python_quotes, careless_quotes, curly_quotes))
brackets = st.sampled_from(('[{%s}]', '{%s}', '[ { %s } ]\n', '{{%s}}', '[{%s}, ]'))
fences = st.sampled_from(('%s', '```json\n%s\n```', '```\n%s```', 'Here it is: %s'))
tags = st.sampled_from((
    '<think>{why}</think><answer>{answer}</answer>',
    '<think> {why} </think>\n\n<answer>\n{answer}\n</answer>\n',
    '<THINK>{why}</THINK> < answer >{answer}</ answer>',
    '{why}</think><answer>{answer}</answer>',
    '<think>{why}</think><answer>{answer}',
    '<think>{why}</think>{answer}',
    '<think>{why}<answer>{answer}</answer>',
    '<think>{why}</think><answer><answer>{answer}</answer></answer>',
))  # fmt: skip


@given(
    st.integers(0, 99), descriptions, thoughts, quotes, brackets, fences, tags,
    st.sampled_from(('frame_idx', 'frame_index', 'frame id', 'Frame Idx', 'keyframe_index')),
    st.sampled_from(('object description', 'object_description', 'description')),
    st.sampled_from(('{}', '{}.0', '"{}"', '[{}]')),
    st.booleans(),
)  # fmt: skip
def test_a_key_frame_is_read_in_every_style(
    index: int, description: str, why: str, quote: Quote, bracket: str, fence: str, tag: str,
    frame_key: str, text_key: str, number: str, frame_first: bool,
) -> None:  # fmt: skip
    quoted_key, quoted_text = quote(text_key, description)
    fields = [f'{quote(frame_key, "")[0]}: {number.format(index)}', f'{quoted_key}: {quoted_text}']
    answer = fence % (bracket % ', '.join(fields if frame_first else fields[::-1]))
    found = parse_key_frame(tag.replace('{why}', why).replace('{answer}', answer))
    assert isinstance(found, KeyFrame)
    assert (found.index, found.description) == (index, description)
    assert found.reasoning == why


@given(
    st.tuples(*[st.integers(-5, 1000) | st.floats(0, 1000).map(lambda v: round(v, 2))] * 4),
    descriptions, thoughts, quotes, fences, tags,
    st.sampled_from(('bbox_2d', 'bbox', 'box', 'BBox 2D')),
    st.sampled_from(('[{}, {}, {}, {}]', '[{},{},{},{}]', '({}, {}, {}, {})',
                     '[[{}, {}], [{}, {}]]', '[[{}, {}, {}, {}]]', '"[{}, {}, {}, {}]"',
                     '["{}", "{}", "{}", "{}"]')),
    st.sampled_from(('[{%s}]', '{%s}', '[[{%s}]]')),
)  # fmt: skip
def test_a_box_is_read_in_every_style(
    corners: tuple[float, ...], label: str, why: str, quote: Quote, fence: str, tag: str,
    key: str, numbers: str, bracket: str,
) -> None:  # fmt: skip
    quoted_key, quoted_text = quote('label', label)
    fields = f'{quote(key, "")[0]}: {numbers.format(*corners)}, {quoted_key}: {quoted_text}'
    answer = fence % (bracket % fields)
    found = parse_box(tag.replace('{why}', why).replace('{answer}', answer))
    assert isinstance(found, SaidBox)
    assert (found.corners, found.label) == (corners, label)
    assert found.reasoning == why


@given(st.text(), st.text(max_size=5))
def test_no_text_raises(text: str, absent: str) -> None:
    assert isinstance(parse_key_frame(text, absent), KeyFrame | NotPresent | Unreadable)
    assert isinstance(parse_box(text, absent), SaidBox | NotPresent | Unreadable)


pieces = st.sampled_from((
    '<think>', '</think>', '<answer>', '</answer>', '<answer', '[', ']', '{', '}', '(', ')', ',',
    ':', '"', "'", '\u201c', '\\', '\\u12', '```json', '\n', ' ', 'frame_idx', 'bbox_2d', '-1',
    '7', '1e999', '3.5', 'null', 'object description', 'the cup', '[1,2,3,4]', 'nan', '\x00',
))  # fmt: skip


@given(st.lists(pieces, max_size=40).map(''.join))
def test_no_heap_of_pieces_raises(text: str) -> None:
    assert isinstance(parse_key_frame(text), KeyFrame | NotPresent | Unreadable)
    found = parse_box(text)
    assert isinstance(found, SaidBox | NotPresent | Unreadable)
    if isinstance(found, SaidBox):
        assert all(abs(value) < float('inf') for value in found.corners)


GOOD = (
    "<think>It's the cup that moves.</think> <answer> [{'frame_idx': 12, 'object description': "
    "'the dog's bowl, left'}] </answer>"
)
QUOTED = '<answer>[{"object description": "none of the cups", "frame_idx": "12"}]</answer>'


@pytest.mark.parametrize('length', range(len(GOOD) + 1))
def test_a_truncated_answer_is_read_right_or_not_at_all(length: int) -> None:
    found = parse_key_frame(GOOD[:length])
    assert not isinstance(found, NotPresent)
    if isinstance(found, KeyFrame):
        assert found.index == 12
        assert "the dog's bowl, left".startswith(found.description)


BOX = '```json\n[{"bbox_2d": [10, 220, 130, 440], "label": "the cup"}]\n```'


@pytest.mark.parametrize('length', range(len(QUOTED) + 1))
def test_a_truncated_answer_is_not_taken_for_absence(length: int) -> None:
    assert not isinstance(parse_key_frame(QUOTED[:length]), NotPresent)


@pytest.mark.parametrize('length', range(len(BOX) + 1))
def test_a_truncated_box_is_read_right_or_not_at_all(length: int) -> None:
    found = parse_box(BOX[:length])
    assert not isinstance(found, NotPresent)
    if isinstance(found, SaidBox):
        assert found.corners == (10, 220, 130, 440)


@pytest.mark.parametrize(
    ('text', 'index', 'description'),
    [
        ('frame id: 2 / object description: the red cup', 2, 'the red cup'),
        ('object description: the red cup, frame id: 2', 2, 'the red cup'),
        ('The frame index: 3\nDescription: a blue ball.\nThat is all.', 3, 'a blue ball.'),
        ("<answer>{'frame_idx: 4, 'object description': 'x'}</answer>", 4, 'x'),
        ("<answer>{'frame_idx': '4' 'object description': 'x'}</answer>", 4, 'x'),
        ("<answer>[{'frame_idx': 4], 'object description': 'x'}</answer>", 4, 'x'),
        ("<answer>[{'frame_idx': 4, 'object description': 'the cup}]</answer>", 4, 'the cup'),
        ('<answer>["frame_idx": 5, "object description": "a cup"]</answer>', 5, 'a cup'),
        ('<answer>[{"frame_idx": 5}, {"object description": "a cup"}]</answer>', 5, 'a cup'),
        ('<answer>{"frame_idx": "Frame 5", "description": "a cup"}</answer>', 5, 'a cup'),
        ('<answer>{"result": {"frame_idx": 5, "description": "a cup"}}</answer>', 5, 'a cup'),
        ('<answer>{"frame_idx": -3, "description": "a cup"}</answer>', -3, 'a cup'),
        # What stands after the thoughts counts, and of that the last.
        ('<think>say <answer>[{"frame_idx": 1, "description": "no"}]</answer></think>'
         '<answer>[{"frame_idx": 2, "description": "yes"}]</answer>', 2, 'yes'),
        ('<answer>[{"frame_idx": 1, "description": "a"}]</answer>'
         '<answer>[{"frame_idx": 2, "description": "b"}]</answer><answer>[{"fra', 2, 'b'),
        # A think tag that never closes.
        ('<think>so it is [{"frame_idx": 6, "object description": "a mug"}]', 6, 'a mug'),
    ],
)  # fmt: skip
def test_broken_forms_of_a_key_frame(text: str, index: int, description: str) -> None:
    found = parse_key_frame(text)
    assert isinstance(found, KeyFrame)
    assert (found.index, found.description) == (index, description)


@pytest.mark.parametrize(
    'text',
    [
        'bbox: [39, 289, 608, 773]',
        'bbox: 39, 289, 608, 773',
        '[39,289,608,773]',
        '(39,289),(608,773)',
        '<|box_start|>(39,289),(608,773)<|box_end|>',
        'It is at 39, 289, 608, 773.',
        '<think>[1,2,3,4]</think>[39, 289, 608, 773]',
        '<answer>[39, 289, 608, 773]</answer>',
        '{"x1": 39, "y1": 289, "x2": 608, "y2": 773}',
        '{"bbox_2d": {"x1": 39, "y1": 289, "x2": 608, "y2": 773}}',
        '{"objects": [{"bbox_2d": [39, 289, 608, 773]}]}',
        '[{"bbox_2d": [39, 289, 608, 773}]',
        '[{"bbox_2d": [39, 289, 608, 773]',
        'frames 1, 2 and [the cup]: [39 289 608 773]',
    ],
)
def test_broken_forms_of_a_box(text: str) -> None:
    found = parse_box(text)
    assert isinstance(found, SaidBox)
    assert found.corners == (39, 289, 608, 773)


@pytest.mark.parametrize(
    'text',
    [
        '[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]',
        '{"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]]}',
        '[[1, 2, 3, 4], [5, 6, 7, 8]]',
    ],
)
def test_of_several_boxes_the_first_is_taken_and_noted(text: str) -> None:
    found = parse_box(text)
    assert isinstance(found, SaidBox)
    assert Note.SEVERAL in found.notes
    assert found.corners == (1, 2, 3, 4)


def test_a_single_box_is_not_noted_as_several() -> None:
    assert Note.SEVERAL not in parse_box('[{"bbox_2d": [1, 2, 3, 4]}]').notes


def test_of_several_frames_the_first_is_taken_and_noted() -> None:
    found = parse_key_frame('<answer>[{"frame_idx": 3, "description": "a"}, '
                            '{"frame_idx": 5, "description": "b"}]</answer>')  # fmt: skip
    assert isinstance(found, KeyFrame)
    assert (found.index, found.description) == (3, 'a')
    assert Note.SEVERAL in found.notes


@pytest.mark.parametrize(
    'answer',
    [
        '[]',
        '{}',
        '[{}]',
        'null',
        'None',
        'none.',
        '"not present"',
        '```json\n[]\n```',
        'Not found',
        '["none"]',
    ],
)
@pytest.mark.parametrize(
    'form',
    [
        '<think>hm</think><answer>{}</answer>',
        '<answer> {} </answer>',
        '<think>[1,2,3,4]</think>\n{}',
        '{}',
        '<answer>{}',
    ],
)
def test_absence_is_understood_in_both_turns(answer: str, form: str) -> None:
    text = form.replace('{}', answer, 1)
    assert isinstance(parse_key_frame(text), NotPresent)
    assert isinstance(parse_box(text), NotPresent)


@pytest.mark.parametrize(
    'answer',
    ['[{"frame_idx": null}]', '{"frame_idx": -1, "object description": ""}',
     "[{'frame_idx': None, 'object description': None}]", '{"frame_idx": "none"}',
     '[{"frame_idx": []}]', '{"frame_idx": 0, "object description": "not visible"}'],
)  # fmt: skip
def test_a_frame_that_is_none_means_absence(answer: str) -> None:
    assert isinstance(parse_key_frame(f'<answer>{answer}</answer>'), NotPresent)


@pytest.mark.parametrize('answer', ['{"bbox_2d": null}', '[{"bbox_2d": [], "label": "cup"}]'])
def test_a_box_that_is_none_means_absence(answer: str) -> None:
    assert isinstance(parse_box(answer), NotPresent)


def test_the_profile_says_how_absence_is_said() -> None:
    text = '<think>I looked.</think><answer>No target.</answer>'
    assert isinstance(parse_key_frame(text), Unreadable)
    assert parse_key_frame(text, 'no target') == NotPresent('I looked.')
    assert isinstance(parse_box('no target', 'no target'), NotPresent)


def test_words_about_absence_within_an_answer_are_no_absence() -> None:
    text = '<think>none? []</think><answer>{"frame_idx": 2, "description": "the none"}</answer>'
    assert isinstance(parse_key_frame(text, 'none'), KeyFrame)


@pytest.mark.parametrize(
    ('text', 'failure'),
    [
        ('', Failure.EMPTY),
        (' \n<think> </think><answer></answer>', Failure.EMPTY),
        ('I do not know.', Failure.NO_ANSWER),
        ('<answer>[{"frame_idx": 1', Failure.NO_ANSWER),
        ('<answer>[{"object description": "x", "frame_idx": 1', Failure.NO_FRAME),
        ('<answer>{"object description": "x"}</answer>', Failure.NO_FRAME),
        ('<answer>{"frame_idx": 4.5, "object description": "x"}</answer>', Failure.NO_FRAME),
        ('<answer>{"frame_idx": true, "object description": "x"}</answer>', Failure.NO_FRAME),
        ('<answer>{"frame_idx": 4}</answer>', Failure.NO_DESCRIPTION),
        ('<answer>{"frame_idx": 4, "object description": " "}</answer>', Failure.NO_DESCRIPTION),
    ],
)
def test_why_there_is_no_key_frame(text: str, failure: Failure) -> None:
    found = parse_key_frame(text)
    assert isinstance(found, Unreadable)
    assert found.failure == failure


@pytest.mark.parametrize(
    ('text', 'failure'),
    [
        ('', Failure.EMPTY),
        ('It is the cup.', Failure.NO_BOX),
        ('<think>[1,2,3,4]</think><answer>the cup</answer>', Failure.NO_BOX),
        ('1, 2, 3, 4, 5', Failure.NO_BOX),
        ('[1, 2, 3', Failure.NO_BOX),
        ('[1, 2, 3, 4', Failure.NO_BOX),
        ('{"bbox_2d": [1, 2, 3]}', Failure.BAD_BOX),
        ('{"bbox_2d": [1, 2, 3, 4, 5]}', Failure.BAD_BOX),
        ('{"bbox_2d": "here"}', Failure.BAD_BOX),
        ('{"bbox_2d": [1, 2, 3, true]}', Failure.BAD_BOX),
        ('{"bbox_2d": [1, 2, 3, 1e999]}', Failure.BAD_BOX),
        ('{"bbox_2d": [1, 2, 30, 4', Failure.BAD_BOX),
    ],
)
def test_why_there_is_no_box(text: str, failure: Failure) -> None:
    found = parse_box(text)
    assert isinstance(found, Unreadable)
    assert found.failure == failure


@pytest.mark.parametrize(
    ('text', 'notes'),
    [
        ('<think>a</think><answer>{"frame_idx": 1, "description": "b"}</answer>', ()),
        ('<answer>{"frame_idx": 1, "description": "b"}</answer>', (Note.NO_THINK_TAGS,)),
        ('<think>a</think>{"frame_idx": 1, "description": "b"}', (Note.NO_ANSWER_TAGS,)),
        ('<think>a</think><answer>{"frame_idx": 1, "description": "b',
         (Note.NO_ANSWER_TAGS, Note.CUT_OFF)),
    ],
)  # fmt: skip
def test_what_is_irregular_is_noted(text: str, notes: tuple[Note, ...]) -> None:
    assert parse_key_frame(text).notes == notes


def test_both_answers_are_read_from_a_single_turn() -> None:
    text = (
        '<think>a</think><answer>[{"frame_idx": 4, "object description": "the cup", '
        '"bbox_2d": [1, 2, 30, 40]}]</answer>'
    )
    assert parse_key_frame(text) == KeyFrame(4, 'the cup', 'a')
    assert parse_box(text) == SaidBox((1, 2, 30, 40), 'the cup', 'a')


def test_loose_words_of_a_thought_are_no_answer() -> None:
    text = '<think>frame_idx: 3 looks good, description: cup</think> I think the fifth.'
    assert isinstance(parse_key_frame(text), Unreadable)
    said = parse_key_frame('<think>Hm.</think> frame_idx: 3, description: a cup')
    assert isinstance(said, KeyFrame)
    assert (said.index, said.description) == (3, 'a cup')
