# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Show that whatever a server sends is a reply or one of two errors."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.models.chat.wire import (
    Gathering,
    ProtocolError,
    ServerError,
    error_text,
    model_names,
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ['choices', 'delta', 'message', 'content', 'usage', 'error', 'logprobs']
                + ['logprob', 'finish_reason', 'reasoning', 'prompt_tokens', 'data', 'id']
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)

_NEARLY = st.fixed_dictionaries(
    {
        'choices': st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    'delta': _JSON | st.fixed_dictionaries({'content': _JSON, 'reasoning': _JSON}),
                    'message': _JSON | st.fixed_dictionaries({'content': _JSON}),
                    'finish_reason': _JSON,
                    'logprobs': _JSON
                    | st.fixed_dictionaries(
                        {'content': st.lists(st.fixed_dictionaries({'logprob': _JSON}))}
                    ),
                },
            ),
            max_size=2,
        )
    },
    optional={
        'usage': _JSON
        | st.fixed_dictionaries(
            {},
            optional={
                'prompt_tokens': _JSON,
                'completion_tokens': _JSON,
                'prompt_tokens_details': _JSON,
            },
        )
    },
)


@given(
    st.lists(_NEARLY.map(json.dumps) | _JSON.map(json.dumps) | st.text(max_size=20), max_size=4),
    st.booleans(),
)
def test_any_stream_is_a_reply_or_an_error_of_its_own(events: list[str], whole: bool) -> None:
    so_far = Gathering()
    try:
        for event in events:
            if whole:
                so_far.whole(event)
            else:
                so_far.line(f'data: {event}')
        reply = so_far.reply()
    except (ProtocolError, ServerError):
        return
    assert isinstance(reply.text, str)
    assert reply.tokens_out >= 0
    assert math.isnan(reply.log_prob) or isinstance(reply.log_prob, float)


def test_an_error_that_is_none_is_no_failure() -> None:
    so_far = Gathering()
    choice = {'delta': {'content': 'fine'}, 'finish_reason': 'stop'}
    so_far.line(f'data: {json.dumps({"choices": [choice], "error": None})}')
    assert (so_far.text, so_far.finished) == ('fine', True)


def test_tokens_without_a_probability_are_counted_and_left_out_of_the_mean() -> None:
    so_far = Gathering()
    tokens = [{'logprob': -0.5}, {'logprob': None}, {'token': 'a'}, {'logprob': -1.5}]
    choice = {'delta': {'content': 'fine'}, 'logprobs': {'content': tokens}}
    so_far.line(f'data: {json.dumps({"choices": [choice]})}')
    reply = so_far.reply()
    assert (reply.log_prob, reply.tokens_out) == (-1.0, 4)


@given(_JSON.map(json.dumps) | st.text())
def test_any_error_and_any_list_of_models_is_read(body: str) -> None:
    assert isinstance(error_text(body), str)
    with contextlib.suppress(ProtocolError):
        assert all(isinstance(name, str) for name in model_names(body))


@pytest.mark.parametrize(
    ('body', 'says'),
    [
        ('{"error": {"message": "m", "type": "t"}}', 'm'),
        ('{"error": "m"}', 'm'),
        ('{"detail": "m"}', 'm'),
        ('{"detail": [{"loc": ["body"]}]}', '[{"loc": ["body"]}]'),
        ('plain\n words', 'plain words'),
        ('', ''),
    ],
)
def test_finds_what_a_server_says_went_wrong(body: str, says: str) -> None:
    assert error_text(body) == says
