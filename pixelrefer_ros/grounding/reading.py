# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read the values in text that is JSON, a Python literal, or nearly so.

Models write JSON the way people do: with single or curly quotes, an apostrophe inside them, a
comma too few, a bracket too many, prose before and after, and cut off where their tokens end.
A strict parser rejects all of that, and one that repairs takes the half of a number that was
cut off for the whole. This reader takes what is surely there and leaves out the rest. It looks
at each character a bounded number of times and never raises.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# A string, a number, a truth value, None, a list or a dict of such.
Value = object

# Deeper brackets are skipped: no answer needs them, and the stack has an end.
MAX_DEPTH: Final = 24

_CURLY: Final = str.maketrans({
    **dict.fromkeys('\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb', '"'),
    **dict.fromkeys('\u2018\u2019\u201a\u201b\u2032', "'"),
})  # fmt: skip
_CLOSERS: Final = {'[': ']', '(': ')', '{': '}'}
_WORDS: Final[dict[str, Value]] = {
    'null': None, 'none': None, 'true': True, 'false': False,
}  # fmt: skip
_NUMBER: Final = re.compile(r'[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?(?![\w.])')
_ESCAPES: Final = {'n': '\n', 't': '\t', 'r': '\r', 'b': '\b', 'f': '\f'}
# What may follow the quote that ends a string; any other quote belongs to its words. After a
# comma something must begin, so that the comma in 'the dogs', sleeping' is not taken for one
# between values.
_END: Final = (
    r'\s{0,40}(?:$|[\]})<]|```|\n\s{0,40}["\']|'
    r',\s{0,40}(?:$|["\'\[({\]})]|[-+]?\.?\d|(?i:null|none|true|false)\s{0,40}[,\]})]|'
    r'[\w ]{1,24}["\']?\s{0,4}[:=]))'
)
_VALUE_END: Final = re.compile(_END)
_ITEM_END: Final = re.compile(rf'{_END}|\s{{0,40}}:')
_KEY_END: Final = re.compile(r'\s{0,40}(?:$|[:=,}\]])')


class Found(NamedTuple):
    """Hold one bracketed value of a text.

    Attributes:
        value: A list or a dict.
        whole: False when something in it is missing, or the text ends before its brackets do.
    """

    value: Value
    whole: bool


def straight(text: str) -> str:
    """Return the text with straight quotes for curly ones, character for character."""
    return text.translate(_CURLY)


def read_values(text: str) -> list[Found]:
    """Return the outermost bracketed values of a text, in its order.

    A number the text ends in inside a bracket is left out: its other digits may be missing. A
    string the text ends in is kept.
    """
    reader = _Reader(text)
    found: list[Found] = []
    while True:
        start = reader.seek('[{')
        if start < 0:
            return found
        reader.cut = False
        found.append(Found(reader.bracket(1), not reader.cut))


def walk(value: Value) -> Iterator[Value]:
    """Yield a value and all values inside it, outer before inner, in their order."""
    yield value
    inside = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for item in inside:  # type: ignore[attr-defined]
            yield from walk(item)


# Stands for a value that is not there, or not surely.
_MISSING: Final = object()


class _Reader:
    """Read forward through a text; ``cut`` is set when a value or its end is missing."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._plain = straight(text)
        self._at = 0
        self.cut = False

    def seek(self, wanted: str) -> int:
        """Move to the next of these characters; return where, or -1."""
        while self._at < len(self._plain):
            if self._plain[self._at] in wanted:
                return self._at
            self._at += 1
        return -1

    def bracket(self, depth: int) -> Value:
        """Read the list or dict that begins here."""
        opener = self._plain[self._at]
        self._at += 1
        return self._dict(depth) if opener == '{' else self._list(_CLOSERS[opener], depth)

    def _list(self, closer: str, depth: int) -> Value:
        items: list[Value] = []
        named: dict[str, Value] = {}
        while self._next_inside(closer):
            item = self._value(depth, _ITEM_END, ',:[]{}()')
            if self._peek() == ':':
                # Names where there should be braces.
                self._at += 1
                name, item = str(item), self._value(depth, _VALUE_END, ',[]{}()')
                if item is not _MISSING:
                    named.setdefault(name, item)
            elif item is not _MISSING:
                items.append(item)
        return [*items, named] if named else items

    def _dict(self, depth: int) -> Value:
        entries: dict[str, Value] = {}
        while self._next_inside('}'):
            bracketed = self._plain[self._at] in _CLOSERS
            name = self._value(depth, _KEY_END, ':=,}]\n')
            if bracketed or self._peek() not in ('=', ':'):
                # A value without a name, as in doubled braces.
                if name is not _MISSING:
                    entries[f'#{len(entries)}'] = name
                continue
            self._at += 1
            if self._plain[self._at : self._at + 1] in ('=', '>'):
                self._at += 1
            value = self._value(depth, _VALUE_END, ',]}\n')
            if value is not _MISSING:
                entries.setdefault(str(name), value)
        return entries

    def _peek(self) -> str:
        """Skip spaces and return the next character, '' at the end."""
        while self._at < len(self._plain) and self._plain[self._at].isspace():
            self._at += 1
        return self._plain[self._at : self._at + 1]

    def _next_inside(self, closer: str) -> bool:
        """Move to the next item of a bracket; return False at its end.

        A closer of another kind ends it too and is left for the bracket it belongs to.
        """
        while (char := self._peek()) in (',', ';', ':', '='):
            self._at += 1
        if not char:
            self.cut = True
            return False
        if char in '])}':
            self._at += char == closer
            return False
        return True

    def _value(self, depth: int, string_end: re.Pattern[str], word_end: str) -> Value:
        """Read the next value; return ``_MISSING`` when nothing sure is there."""
        char = self._peek()
        if not char:
            self.cut = True
            return _MISSING
        if char in ',;])}':
            self.cut = True
            return _MISSING
        if char in _CLOSERS:
            if depth < MAX_DEPTH:
                return self.bracket(depth + 1)
            self._at += 1
            return None
        if char in '"\'':
            return self._string(char, string_end)
        number = _NUMBER.match(self._plain, self._at)
        if number:
            self._at = number.end()
            if self._at == len(self._plain):
                self.cut = True
                return _MISSING
            value = float(number.group())
            if math.isfinite(value):
                return int(value) if value.is_integer() and abs(value) < 2**53 else value
            return None
        return self._word(word_end)

    def _string(self, quote: str, end: re.Pattern[str]) -> str:
        self._at += 1
        said: list[str] = []
        plain = self._plain
        while self._at < len(plain):
            char = plain[self._at]
            if char == '\\' and self._at + 1 < len(plain):
                said.append(self._escaped())
                continue
            self._at += 1
            if char == quote and end.match(plain, self._at):
                return _joined(said)
            said.append(self._text[self._at - 1])
        # The text ends first, or the quote is missing and the brackets were taken for words.
        self.cut = True
        return _joined(said).rstrip().rstrip('}])').rstrip()

    def _escaped(self) -> str:
        r"""Read an escape such as \n, \" or \u00e9."""
        code = self._plain[self._at + 1]
        digits = self._plain[self._at + 2 : self._at + 6]
        if code == 'u' and re.fullmatch('[0-9a-fA-F]{4}', digits):
            self._at += 6
            return chr(int(digits, 16))
        self._at += 2
        return _ESCAPES.get(code, self._text[self._at - 1])

    def _word(self, end: str) -> Value:
        """Read what stands without quotes."""
        start = self._at
        # The first character goes in whatever it is, so that the reader always moves on.
        self._at += 1
        while self._at < len(self._plain) and self._plain[self._at] not in end:
            self._at += 1
        word = self._text[start : self._at].strip()
        if self._at == len(self._plain):
            self.cut = True
        lowered = word.lower()
        return _WORDS.get(lowered, word)


def _joined(said: list[str]) -> str:
    """Return the characters as text, with escaped surrogate pairs made one character."""
    return ''.join(said).encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
