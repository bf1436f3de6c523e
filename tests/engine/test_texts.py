# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what the words of a query are taken for."""

from __future__ import annotations

import pytest

from pixelrefer_ros.core.types import Query, Task
from pixelrefer_ros.engine.texts import names_in, query_from_text, without_names


@pytest.mark.parametrize(
    ('text', 'wanted', 'task'),
    [
        ('what colour is {roi}?', 'what colour is {roi}?', Task.ASK),
        ('find: the cup that fell', 'the cup that fell', Task.GROUND),
        ('  Find:the cup that fell ', 'the cup that fell', Task.GROUND),
        ('find:', '', Task.GROUND),
        ('find the cup that fell', 'find the cup that fell', Task.ASK),
        ('can you find: it?', 'can you find: it?', Task.ASK),
        ('', '', Task.ASK),
    ],
)
def test_a_plain_text_asks_or_finds(text: str, wanted: str, task: Task) -> None:
    assert query_from_text('q', text) == Query('q', wanted, task)


def test_names() -> None:
    assert names_in('is {b} left of {a}, or {b} of {}?') == ('b', 'a')
    assert without_names('is {a} left of {b}? ') == 'is it left of it?'
    assert without_names('{a}, {b}!') == ''
