# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read the words of a query: what they name, and what they want."""

from __future__ import annotations

import re

from pixelrefer_ros.core.types import Query, Task

_FIND = re.compile(r'\s*find:', re.IGNORECASE)
_NAME = re.compile(r'\{([^{}]+)\}')


def names_in(text: str) -> tuple[str, ...]:
    """Return the region ids that '{region_id}' in a text names, each once, in order."""
    return tuple(dict.fromkeys(_NAME.findall(text)))


def without_names(text: str) -> str:
    """Return a text as a hint for one region: '{region_id}' reads 'it'; '' if only names."""
    if not re.sub(r'[\W_]+', '', _NAME.sub('', text)):
        return ''
    return _NAME.sub('it', text).strip()


def query_from_text(query_id: str, text: str) -> Query:
    """Return the query that a plain text is: 'find: the cup that fell' is to find something."""
    mark = _FIND.match(text)
    if mark is None:
        return Query(query_id, text, Task.ASK)
    return Query(query_id, text[mark.end() :].strip(), Task.GROUND)
