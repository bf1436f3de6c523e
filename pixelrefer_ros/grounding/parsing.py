# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read what a model answered: the key frame and the target in it, or the box around it.

The form asked for is ReVSeg's (arXiv 2512.02835, figure 6): reasoning in ``<think>``, then in
``<answer>`` a JSON list of one object. Models keep to it roughly, so everything here is taken
where it can be told from something else, and what is irregular is noted. Nothing raises.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeVar

from pixelrefer_ros.grounding.reading import read_values, straight, walk
from pixelrefer_ros.grounding.replies import Note, ends_open, split_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pixelrefer_ros.grounding.reading import Value
    from pixelrefer_ros.grounding.replies import Place

Corners = tuple[float, float, float, float]


class Failure(StrEnum):
    """Say what an answer lacks."""

    EMPTY = 'empty'
    NO_ANSWER = 'no_answer'
    NO_FRAME = 'no_frame'
    NO_DESCRIPTION = 'no_description'
    NO_BOX = 'no_box'
    BAD_BOX = 'bad_box'


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """Hold the answer of the first turn.

    Attributes:
        index: Of the frame among those shown, as said: it may lie outside.
        description: Of the target in that frame.
        reasoning: What was said before the answer.
        notes: What is irregular.
    """

    index: int
    description: str
    reasoning: str = ''
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class SaidBox:
    """Hold the answer of the second turn.

    Attributes:
        corners: x1, y1, x2, y2 as said, in the model's coordinates.
        label: Name of what is in the box; '' when not said.
        reasoning: What was said before the answer.
        notes: What is irregular.
    """

    corners: Corners
    label: str = ''
    reasoning: str = ''
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class NotPresent:
    """Say that the model finds no target in what it was shown."""

    reasoning: str = ''
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Say why there is no answer in a text."""

    failure: Failure
    reasoning: str = ''
    notes: tuple[Note, ...] = ()


def parse_key_frame(text: str, absent: str = '') -> KeyFrame | NotPresent | Unreadable:
    """Read the answer of the first turn: frame index and description.

    Args:
        text: What the model said.
        absent: What it was told to answer when the target is not there. An empty list or
            object, null and the index -1 are understood besides.
    """
    found, reasoning, notes = _read(text, absent, _key_frame, Failure.NO_ANSWER)
    if isinstance(found, tuple):
        return KeyFrame(*found, reasoning, notes)
    if isinstance(found, Failure):
        return Unreadable(found, reasoning, notes)
    return NotPresent(reasoning, notes)


def parse_box(text: str, absent: str = '') -> SaidBox | NotPresent | Unreadable:
    """Read the answer of the second turn: a box.

    Of several boxes the first is taken, and noted.

    Args:
        text: What the model said.
        absent: As in ``parse_key_frame``; a box that is null or an empty list is understood
            besides.
    """
    found, reasoning, notes = _read(text, absent, _box, Failure.NO_BOX)
    if isinstance(found, tuple):
        return SaidBox(*found, reasoning, notes)
    if isinstance(found, Failure):
        return Unreadable(found, reasoning, notes)
    return NotPresent(reasoning, notes)


class _Absent:
    """Stand for an answer that says there is no target."""


_ABSENT: Final = _Absent()
_Answer = TypeVar('_Answer')


def _read(
    text: str,
    absent: str,
    look: Callable[[list[Value], Place, list[Note]], _Answer | _Absent | Failure | None],
    nothing: Failure,
) -> tuple[_Answer | _Absent | Failure, str, tuple[Note, ...]]:
    """Look for an answer in the places of a reply, the likeliest first.

    Args:
        text: The reply.
        absent: What says that there is no target.
        look: Returns the answer in some values and the text around them, what it lacks, or None
            when nothing there looks like one; adds to the notes.
        nothing: The failure when nothing looks like an answer anywhere.

    Returns:
        The answer or the failure of the likeliest place, the reasoning, and the notes.
    """
    reply = split_reply(text)
    failure: Failure | None = None
    for place in reply.places:
        notes = [*reply.notes]
        values = _values(place.text, notes)
        found = look(values, place, notes)
        if found is None and _says_absent(values, place, notes, absent):
            found = _ABSENT
        if found is not None and not isinstance(found, Failure):
            return found, reply.reasoning, tuple(notes)
        failure = failure or found
    return failure or (Failure.EMPTY if reply.empty else nothing), reply.reasoning, reply.notes


def _values(text: str, notes: list[Note]) -> list[Value]:
    found = read_values(text)
    if any(not value.whole for value in found):
        notes.append(Note.CUT_OFF)
    return [value.value for value in found]


# Absence.

_ABSENT_WORDS: Final = frozenset(
    ('', 'none', 'null', 'n/a', 'absent', 'not present', 'not visible', 'not found')
)


def _plain_words(text: str) -> str:
    return re.sub(r'```\w{0,9}|[`"\'.!]', ' ', straight(text)).strip().lower()


def _says_absent(values: list[Value], place: Place, notes: list[Note], absent: str) -> bool:
    """Return whether a place holds the words for absence, or brackets with nothing in them."""
    if not place.is_answer:
        return False
    words = _plain_words(place.text)
    if words and (words in _ABSENT_WORDS or (absent and words == _plain_words(absent))):
        return True
    leaves = [leaf for value in values for leaf in walk(value)
              if not isinstance(leaf, list | dict)]  # fmt: skip
    # What was cut off may have gone on to say something.
    return bool(values) and Note.CUT_OFF not in notes and all(map(_is_nothing, leaves))


def _is_nothing(value: Value) -> bool:
    if isinstance(value, str):
        return _plain_words(value) in _ABSENT_WORDS
    return value is None or (isinstance(value, list | dict) and not value)


# The first turn.

_FRAME_KEY: Final = re.compile(r'(?:key)?frame(?:idx|index|id|no|num|number)?')
_DESCRIPTION_KEYS: Final = frozenset(
    ('objectdescription', 'description', 'targetdescription', 'object', 'target', 'label')
)
_FRAME_FIELD: Final = re.compile(
    r'frame[\s_-]{0,2}(?:idx|index|id|number|num|no)?["\']?\s{0,4}[:=]\s{0,4}["\']?'
    r'(-?\d{1,9}|none|null)(?:\.0{1,6})?(?!\w|\.\d)',
    re.IGNORECASE,
)
_DESCRIPTION_FIELD: Final = re.compile(
    r'description["\']?\s{0,4}[:=]\s{0,4}(["\']?)([^\n]{1,2000})', re.IGNORECASE
)
_DESCRIPTION_END: Final = re.compile(
    r'["\']\s{0,4}(?:[}\]]|$|,\s{0,4}["\'\w])|[}\]]|[,;/]\s{0,4}["\']?(?:key)?frame',
    re.IGNORECASE,
)


def _key(name: str) -> str:
    return re.sub(r'[^a-z0-9]', '', name.lower())


def _dicts(values: list[Value]) -> Iterator[Mapping[str, Value]]:
    for value in values:
        for item in walk(value):
            if isinstance(item, dict):
                entries: dict[str, Value] = {}
                for name, entry in item.items():
                    entries.setdefault(_key(name), entry)
                yield entries


def _key_frame(
    values: list[Value], place: Place, notes: list[Note]
) -> tuple[int, str] | _Absent | Failure | None:
    """Return index and description, what is missing, or None when nothing looks like them."""
    index: int | _Absent | None = None
    description = ''
    frames = 0
    for entries in _dicts(values):
        for name, value in entries.items():
            if _FRAME_KEY.fullmatch(name):
                said = (
                    [_index(item) for item in value or [None]]
                    if isinstance(value, list)
                    else [_index(value)]
                )
                frames += len(said)
                index = said[0] if index is None else index
        named = (entries[key] for key in entries if key in _DESCRIPTION_KEYS)
        words = next((v.strip() for v in named if isinstance(v, str) and v.strip()), '')
        description = description or words
    if frames > 1:
        notes.append(Note.SEVERAL)
    plain = straight(place.text)
    # Loose words count in an answer alone: thoughts speak of frames that were not chosen.
    if index is None and place.is_answer:
        match = _FRAME_FIELD.search(plain)
        if match and not (match.end() == len(plain) and ends_open(plain)):
            index = _index(match[1])
    if place.is_answer:
        description = description or _described(place.text, plain)
    if isinstance(index, _Absent) or _plain_words(description) in _ABSENT_WORDS - {''}:
        # What was cut off may have gone on to say something.
        return Failure.NO_FRAME if Note.CUT_OFF in notes else _ABSENT
    if index is not None and description:
        return index, description
    if index is None and not description:
        return None
    return Failure.NO_FRAME if index is None else Failure.NO_DESCRIPTION


def _index(value: Value) -> int | _Absent | None:
    """Return a frame index; None for what is none."""
    if _is_nothing(value):
        return _ABSENT
    if isinstance(value, str):
        match = re.fullmatch(r'\D{0,12}?(-?\d{1,9})(?:\.0{0,6})?', value.strip())
        value = int(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return _ABSENT if value == -1 else value


def _described(text: str, plain: str) -> str:
    """Return a description that stands in no readable brackets."""
    match = _DESCRIPTION_FIELD.search(plain)
    if match is None:
        return ''
    start = match.start(2)
    end = _DESCRIPTION_END.search(plain, start, match.end(2))
    return text[start : end.start() if end else match.end(2)].strip(' \t"\',')


# The second turn.

_BOX_KEY: Final = re.compile(r'(?:bbox|box|boundingbox|boxes|bboxes)(?:2d)?(?:list|xyxy)?')
_LABEL_KEYS: Final = ('label', 'objectdescription', 'description', 'object', 'name')
# Numbers and what may stand between them.
_NUMBERS: Final = re.compile(r'[-\d.(\[][-\d.\s,;()\[\]]*')


def _box(
    values: list[Value], place: Place, notes: list[Note]
) -> tuple[Corners, str] | _Absent | Failure | None:
    """Return corners and label, what is wrong, or None when nothing looks like a box."""
    boxes: list[tuple[Corners, str]] = []
    bad = nothing = False
    whole = Note.CUT_OFF not in notes
    for entries in _dicts(values):
        said = [value for name, value in entries.items() if _BOX_KEY.fullmatch(name)]
        if not said and {'x1', 'y1', 'x2', 'y2'} <= entries.keys():
            said = [[entries[key] for key in ('x1', 'y1', 'x2', 'y2')]]
        label = next((v for v in map(entries.get, _LABEL_KEYS) if isinstance(v, str)), '')
        for value in said:
            corners = _corners(value)
            boxes += [(box, label.strip()) for box in corners]
            nothing |= whole and _is_nothing(value)
            bad |= not corners
    if not boxes and not (bad or nothing) and place.is_answer:
        boxes = [(box, '') for box in _bare(values, straight(place.text))]
    if len(boxes) > 1:
        notes.append(Note.SEVERAL)
    if boxes:
        return boxes[0]
    if nothing:
        return _ABSENT
    return Failure.BAD_BOX if bad else None


def _bare(values: list[Value], plain: str) -> list[Corners]:
    """Return boxes that carry no name: lists of four numbers, or four numbers in a row."""
    lists = [item for value in values for item in walk(value) if isinstance(item, list)]
    boxes = [corners for item in lists if (corners := _four(item))]
    if boxes:
        return boxes
    for run in _NUMBERS.finditer(plain):
        numbers = [float(number) for number in re.findall(r'-?\d+(?:\.\d*)?', run.group())]
        cut = run.end() == len(plain) and ends_open(plain)
        if len(numbers) == 4 and not cut and all(map(math.isfinite, numbers)):
            return [(numbers[0], numbers[1], numbers[2], numbers[3])]
    return []


def _corners(value: Value) -> list[Corners]:
    """Return the boxes a named value holds: four numbers, two corners, or a list of such."""
    if isinstance(value, str):
        return _bare([v.value for v in read_values(value)], straight(value))
    if isinstance(value, dict):
        value = [value[key] for key in ('x1', 'y1', 'x2', 'y2') if key in value]
    if not isinstance(value, list):
        return []
    corners = _four(value)
    if corners:
        return [corners]
    return [corners for item in value if isinstance(item, list) and (corners := _four(item))]


def _four(items: list[Value]) -> Corners | None:
    """Return four numbers, or two pairs of them; None for anything else."""
    if len(items) == 2 and all(isinstance(item, list) and len(item) == 2 for item in items):
        items = [number for pair in items for number in walk(pair)
                 if not isinstance(number, list)]  # fmt: skip
    numbers = [number for item in items if (number := _number(item)) is not None]
    if len(items) != 4 or len(numbers) != 4:
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _number(value: Value) -> float | None:
    if isinstance(value, str) and re.fullmatch(r'\s*-?\d{1,9}(?:\.\d{0,9})?\s*', value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
