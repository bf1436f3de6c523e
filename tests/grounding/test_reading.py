# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the reader of values that are nearly JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.grounding.reading import MAX_DEPTH, read_values, walk

# Any characters JSON can hold, and printable ones that Python writes without escapes; quotes
# have tests of their own.
QUOTES = '"\'\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033\xab\xbb'
words = st.text(st.characters(codec='utf-8', exclude_characters=QUOTES), max_size=8)
printable = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\'\\')
    | st.sampled_from('\xe9\xdf\u4e2d'),
    max_size=8,
)


def brackets(words: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    plain = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**52), 2**52) | words,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
        max_leaves=8,
    )
    return st.lists(plain, max_size=4) | st.dictionaries(words, plain, max_size=4)


@given(brackets(words), st.sampled_from((None, 1)), st.booleans())
def test_json_reads_as_it_was_written(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert read_values(f'so: {text}.') == [(value, True)]


@given(brackets(printable))
def test_python_literals_read_as_they_were_written(value: object) -> None:
    assert read_values(repr(value)) == [(value, True)]


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ("['the dog's bowl']", ["the dog's bowl"]),
        ("{'a': 'the dogs' toy, old', 'b': 2}", {'a': "the dogs' toy, old", 'b': 2}),
        ('{"a": "the "big" one"}', {'a': 'the "big" one'}),
        ('{\u201ca\u201d: \u2018dog\u2019s\u2019}', {'a': 'dog\u2019s'}),
        (r'["\u00e9 \"x\" \n \ud83d\ude00"]', ['\u00e9 "x" \n \U0001f600']),
        ('{a: 1, b = two words, c: null}', {'a': 1, 'b': 'two words', 'c': None}),
        ('["a": 1, "b": 2]', [{'a': 1, 'b': 2}]),
        ('{{"a": 1}}', {'#0': {'a': 1}}),
        ('{a, "b": 1}', {'#0': 'a', 'b': 1}),
        ('(1, [2, 3.5, -4, 1e2])', [2, 3.5, -4, 100]),
        ('{"a": (1, 2)}', {'a': [1, 2]}),
        ('{"a": "x"\n"b": "y"}', {'a': 'x', 'b': 'y'}),
        ('[1, 2,]', [1, 2]),
        ('{"a": 1, "a": 2}', {'a': 1}),
    ],
)
def test_irregular_values_read_as_meant(text: str, value: object) -> None:
    assert read_values(text) == [(value, True)]


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('[10, 20, 3', [10, 20]),
        ('{"a": 1', {}),
        ('{"a": "the c', {'a': 'the c'}),
        ('{"a": ', {}),
        ('[{"a": 1}, {"b', [{'a': 1}, {'#0': 'b'}]),
        ("[{'a': 'the cup}]", [{'a': 'the cup'}]),
        ('{"a": , "b": 2}', {'b': 2}),
    ],
)
def test_what_is_missing_is_left_out_and_told(text: str, value: object) -> None:
    assert read_values(text) == [(value, False)]


def test_values_come_in_the_order_of_the_text() -> None:
    found = read_values('first {"a": 1} then [2, {"b": 3}] and ] no more } of it')
    assert [value for value, _ in found] == [{'a': 1}, [2, {'b': 3}]]
    assert list(walk(found[1].value)) == [[2, {'b': 3}], 2, {'b': 3}, 3]


@given(st.text(st.sampled_from('[]{}()"\'\u201d\u2019,:=\\u0 19a.-\n<`')))
def test_no_text_raises(text: str) -> None:
    for value, _ in read_values(text):
        assert isinstance(value, list | dict)


@pytest.mark.parametrize(
    'text',
    [
        '[' * 20_000,
        '{"a":' * 20_000,
        '["' * 10_000,
        '[' * 10_000 + '1' + ']' * 10_000,
        '[' + '9' * 10_000 + ']',
    ],
)
def test_deep_and_long_texts_are_read_to_the_end(text: str) -> None:
    for value, _ in read_values(text):
        assert len(list(walk(value))) <= len(text)


def test_brackets_deeper_than_the_limit_are_skipped() -> None:
    inside = [value for value, _ in read_values('[' * MAX_DEPTH + '7' + ']' * MAX_DEPTH)]
    assert 7 in list(walk(inside))
    deeper = MAX_DEPTH + 1
    assert read_values('[' * deeper + '7' + ']' * deeper)
