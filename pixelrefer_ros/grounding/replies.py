# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take a model's reply apart: its reasoning, and where its answer may be."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple


class Note(StrEnum):
    """Say what is irregular about an answer that can be read all the same."""

    NO_THINK_TAGS = 'no_think_tags'
    NO_ANSWER_TAGS = 'no_answer_tags'
    CUT_OFF = 'cut_off'
    SEVERAL = 'several'
    SWAPPED = 'swapped'
    CLIPPED = 'clipped'
    RELATIVE = 'relative'


class Place(NamedTuple):
    """Hold a part of a reply where the answer may be.

    ``is_answer`` is False for reasoning: there only what carries the names of an answer counts.
    """

    text: str
    is_answer: bool


class Parts(NamedTuple):
    """Hold the parts of a reply.

    Attributes:
        places: Where the answer may be, the likeliest first.
        reasoning: What was said before the answer.
        notes: What its tags lack.
        empty: Whether nothing is said beside tags.
    """

    places: tuple[Place, ...]
    reasoning: str
    notes: tuple[Note, ...]
    empty: bool


_TAG: Final = re.compile(r'<\s{0,4}(/?)\s{0,4}(think|answer)\s{0,4}/?>', re.IGNORECASE)


def split_reply(text: str) -> Parts:
    """Return the parts of a reply."""
    tags = [(m.start(), m.end(), m[1] + m[2].lower()) for m in _TAG.finditer(text)]
    ends = [*(start for start, _, _ in tags[1:]), len(text)]
    thought_ends = [end for _, end, name in tags if name == '/think']
    thought_end = thought_ends[-1] if thought_ends else 0
    # (after the thoughts, closed, position), the greatest first: a model may speak of the
    # tags while it thinks, and what it says last is what it came to.
    answers = sorted(
        (
            (start >= thought_end, tags[i + 1 : i + 2] != [] and tags[i + 1][2] == '/answer',
             end, stop)
            for (i, (start, end, name)), stop in zip(enumerate(tags), ends, strict=False)
            if name == 'answer' and text[end:stop].strip()
        ),
        reverse=True,
    )  # fmt: skip
    places = [Place(text[start:stop], is_answer=True) for _, _, start, stop in answers]
    names = [name for _, _, name in tags]
    thinks = 'think' in names or '/think' in names
    if thought_end:
        places.append(Place(_TAG.sub(' ', text[thought_end:]), is_answer=True))
    places.append(Place(_TAG.sub(' ', text), is_answer=not thinks))
    notes = []
    if not ('think' in names and '/think' in names):
        notes.append(Note.NO_THINK_TAGS)
    if not any(closed for _, closed, _, _ in answers):
        notes.append(Note.NO_ANSWER_TAGS)
    return Parts(
        tuple(place for place in places if place.text.strip()),
        _reasoning(text, tags, answers[0][2] if answers else None, thought_end),
        tuple(notes),
        not _TAG.sub('', text).strip(),
    )


def _reasoning(
    text: str, tags: list[tuple[int, int, str]], answer_at: int | None, thought_end: int
) -> str:
    """Return the thoughts, or what comes before the answer where they have no tags."""
    opened = next((end for _, end, name in tags if name == 'think'), 0)
    if thought_end:
        said = text[opened if opened < thought_end else 0 : thought_end]
    elif answer_at is not None:
        said = text[min(opened, answer_at) : answer_at]
    else:
        bracket = re.search(r'```|[\[{]', text[opened:])
        said = text[opened : opened + bracket.start() if bracket else len(text)]
    return _TAG.sub(' ', said).strip()


def ends_open(plain: str) -> bool:
    """Return whether a text ends inside brackets, so that its last number may be cut."""
    return sum(map(plain.count, '[{(')) > sum(map(plain.count, ']})'))
