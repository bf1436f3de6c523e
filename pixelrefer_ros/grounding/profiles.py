# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say how a model family is to be asked: sizes, coordinates, words. Data in YAML, not code.

The profiles of this package lie in ``profiles/`` beside this file; a user's own is a file of the
same form. ReVSeg's sizes are those of its paper (arXiv 2512.02835), the words are our own.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from pixelrefer_ros.core.chat import Decoding
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.grounding.boxes import Coordinates
from pixelrefer_ros.grounding.parsing import NotPresent, parse_key_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FOLDER: Final = Path(__file__).with_name('profiles')
_PLACEHOLDER: Final = re.compile(r'\{([A-Za-z_]\w*)\}')

# A picture of more pixels on a side is no size of a vision tower but a slip.
_MAX_SIDE: Final = 8192
_MAX_FRAMES: Final = 512
_MAX_NEW_TOKENS: Final = 32768


class FramesAs(StrEnum):
    """Say in what form the frames of the first turn go to the model."""

    VIDEO = 'video'
    PICTURES = 'pictures'
    AUTO = 'auto'


@dataclass(frozen=True, slots=True)
class Prompts:
    """Hold what the user says; ``{name}`` stands for a value, see ``PLACEHOLDERS``.

    Attributes:
        turn1: Asks for reasoning, the key frame's index and the target's description.
        turn2: Comes after the key frame and asks for the box.
        single: Asks for frame and box at once; '' when the profile has no such turn.
        turn1_repair: Asks again when the answer cannot be used; '' not to ask again.
        turn2_repair: The same for the second turn.
        single_repair: The same for the single turn.
    """

    turn1: str
    turn2: str
    single: str = ''
    turn1_repair: str = ''
    turn2_repair: str = ''
    single_repair: str = ''


_FIRST: Final = ('question', 'frame_count', 'last_frame', 'duration_s', 'fps', 'absent')
_SIZE: Final = ('width', 'height')

# What each prompt may speak of, and what it must.
PLACEHOLDERS: Final[dict[str, tuple[str, ...]]] = {
    'turn1': _FIRST,
    'turn2': ('description', 'question', 'absent', *_SIZE),
    'single': (*_FIRST, *_SIZE),
    'turn1_repair': ('problem', *_FIRST),
    'turn2_repair': ('problem', 'description', 'question', 'absent', *_SIZE),
    'single_repair': ('problem', *_FIRST, *_SIZE),
}
_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    'turn1': ('question',), 'turn2': ('description',), 'single': ('question',),
}  # fmt: skip
PICTURE_LABEL_PLACEHOLDERS: Final = ('index', 'time_s')


@dataclass(frozen=True, slots=True)
class Profile:
    """Say how to ask a model; checked when made, also by ``dataclasses.replace``.

    Attributes:
        name: Of the profile.
        frames: How many frames of the window the first turn shows at most.
        frame_size: Their width and height in pixels; the aspect is not kept.
        key_size: Width and height of the key frame in the second turn.
        size_multiple: Side of the square that becomes one token: 28 pixels for Qwen2.5-VL, 32
            for Qwen3-VL. Sizes are multiples of it, or the model's processor would resize again
            and absolute coordinates would not be those of the picture sent.
        coordinates: What the model counts boxes in.
        prompts: What is said.
        turn1: How the first (and the single) turn is decoded.
        turn2: How the second turn is decoded.
        frames_as: Whether the frames go as a clip or as pictures; AUTO asks the model.
        fps: Frames per second the model is told, whatever the window: what it was trained with.
        picture_label: Said before each frame when they go as pictures; '' for nothing.
        absent: What the model is told to answer when the target is not there; '' when it is told
            nothing.
        system: System prompt; '' for none of our own.
        source: File it came from, for error messages.
    """

    name: str
    frames: int
    frame_size: tuple[int, int]
    key_size: tuple[int, int]
    size_multiple: int
    coordinates: Coordinates
    prompts: Prompts
    turn1: Decoding
    turn2: Decoding
    frames_as: FramesAs = FramesAs.AUTO
    fps: float = 2.0
    picture_label: str = ''
    absent: str = '[]'
    system: str = ''
    source: str = dataclasses.field(default='', compare=False)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            PixelReferError: BAD_REQUEST naming file and key.
        """
        if not self.name:
            raise _bad(self.source, 'name', 'may not be empty')
        _within(self.source, 'frames', self.frames, 1, _MAX_FRAMES)
        _within(self.source, 'size_multiple', self.size_multiple, 1, 256)
        for key in ('frame_size', 'key_size'):
            self._check_size(key, getattr(self, key))
        if not 0 < self.fps <= 1000:
            raise _bad(self.source, 'fps', f'is {self.fps}; it must lie in (0, 1000]')
        for key in ('turn1', 'turn2'):
            decoding = getattr(self, key)
            where = f'decoding.{key}'
            _within(self.source, f'{where}.max_new_tokens', decoding.max_new_tokens,
                    1, _MAX_NEW_TOKENS)  # fmt: skip
            if not 0 <= decoding.temperature <= 2:
                raise _bad(
                    self.source,
                    f'{where}.temperature',
                    f'is {decoding.temperature}; it must lie in 0..2, 0 for greedy',
                )
        self._check_words()

    def _check_size(self, key: str, size: tuple[int, int]) -> None:
        for side in size:
            _within(self.source, key, side, 1, _MAX_SIDE)
            if side % self.size_multiple:
                step = self.size_multiple
                near = max(step, round(side / step) * step)
                raise _bad(
                    self.source,
                    key,
                    f'{list(size)} is not a multiple of size_multiple {step}: {side} could be '
                    f'{near}',
                )

    def _check_words(self) -> None:
        for name, allowed in PLACEHOLDERS.items():
            text = getattr(self.prompts, name)
            if text or name in ('turn1', 'turn2'):
                _check_placeholders(self.source, f'prompts.{name}', text, allowed,
                                    _REQUIRED.get(name, ()))  # fmt: skip
        _check_placeholders(
            self.source, 'picture_label', self.picture_label, PICTURE_LABEL_PLACEHOLDERS
        )
        if not self.absent:
            return
        answer = parse_key_frame(f'<answer>{self.absent}</answer>', self.absent)
        if not isinstance(answer, NotPresent):
            raise _bad(
                self.source,
                'absent',
                f'\'{self.absent}\' reads as an answer; take [], {{"frame_idx": -1}} or a word',
            )
        if '{absent}' not in self.prompts.turn1:
            raise _bad(
                self.source,
                'prompts.turn1',
                "does not tell the model what to say when the target is absent: put '{absent}' "
                "in it, or make absent ''",
            )


def fill(text: str, values: Mapping[str, object]) -> str:
    """Put values for the placeholders of a text; braces around anything else stay.

    A value is put in as it is: braces in a question are no placeholders.
    """
    return _PLACEHOLDER.sub(lambda match: str(values.get(match[1], match[0])), text)


def shipped_profiles() -> tuple[str, ...]:
    """Return the names of the profiles that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob('*.yaml')))


def load_profile(name: str | Path) -> Profile:
    """Return a shipped profile by name, or a user's by the path of its file.

    Args:
        name: One of ``shipped_profiles``, or a path that ends in .yaml or .yml.

    Raises:
        PixelReferError: BAD_REQUEST when there is none, or it is wrong; the text names the file,
            the key and what is allowed.
    """
    path = Path(name).expanduser()
    if path.suffix not in ('.yaml', '.yml'):
        if str(name) not in shipped_profiles():
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f"no grounding profile '{name}': take one of {', '.join(shipped_profiles())}, or "
                'the path of a .yaml file',
            )
        path = _FOLDER / f'{name}.yaml'
    source = str(path)
    try:
        data = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise _bad(source, '', f'cannot be read: {error.strerror or error}') from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(source, '', f'is no YAML: {error}') from None
    return parse_profile(data, source)


def parse_profile(data: object, source: str) -> Profile:
    """Return the profile a YAML document holds.

    Args:
        data: What the YAML library made of it.
        source: File name, for error messages.

    Raises:
        PixelReferError: BAD_REQUEST, as ``load_profile``.
    """
    given = _mapping(source, '', data)
    _check_keys(source, '', given, _TOP)
    values = {key: _TOP[key](source, key, value) for key, value in given.items()}
    decoding = values.pop('decoding')
    return Profile(**values, **decoding, source=source)


# Readers of one value each: (file, key, value) -> value, or an error.


def _text(source: str, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _bad(source, key, f'is {value!r}; it must be text')
    return value.rstrip('\n')


def _integer(source: str, key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(source, key, f'is {value!r}; it must be a whole number')
    return value


def _real(source: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _bad(source, key, f'is {value!r}; it must be a number')
    return float(value)


def _size(source: str, key: str, value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise _bad(source, key, f'is {value!r}; it must be [width, height] in pixels')
    return _integer(source, key, value[0]), _integer(source, key, value[1])


def _choice(kind: type[StrEnum]) -> Callable[[str, str, object], StrEnum]:
    def read(source: str, key: str, value: object) -> StrEnum:
        if not isinstance(value, str) or value not in list(kind):
            raise _bad(source, key, f'is {value!r}; it must be one of {", ".join(kind)}')
        return kind(value)

    return read


def _prompts(source: str, key: str, value: object) -> Prompts:
    given = _mapping(source, key, value)
    _check_keys(source, key, given, dict.fromkeys(PLACEHOLDERS), needed=('turn1', 'turn2'))
    return Prompts(**{name: _text(source, f'{key}.{name}', v) for name, v in given.items()})


def _decodings(source: str, key: str, value: object) -> dict[str, Decoding]:
    given = _mapping(source, key, value)
    _check_keys(source, key, given, dict.fromkeys(('turn1', 'turn2')))
    decodings = {}
    for name, turn in given.items():
        where = f'{key}.{name}'
        options = _mapping(source, where, turn)
        _check_keys(source, where, options, _DECODING)
        decodings[name] = Decoding(
            **{option: _DECODING[option](source, f'{where}.{option}', v)
               for option, v in options.items()}
        )  # fmt: skip
    return decodings


_DECODING: Final[dict[str, Callable[[str, str, object], Any]]] = {
    'max_new_tokens': _integer,
    'temperature': _real,
}
_TOP: Final[dict[str, Callable[[str, str, object], Any]]] = {
    'name': _text,
    'frames': _integer,
    'frame_size': _size,
    'key_size': _size,
    'size_multiple': _integer,
    'coordinates': _choice(Coordinates),
    'prompts': _prompts,
    'decoding': _decodings,
    'frames_as': _choice(FramesAs),
    'fps': _real,
    'picture_label': _text,
    'absent': _text,
    'system': _text,
}
# Keys of the document that may be left out: the defaults of ``Profile``.
_OPTIONAL: Final = ('frames_as', 'fps', 'picture_label', 'absent', 'system')


def _mapping(source: str, key: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise _bad(source, key, 'must be a mapping of names to values')
    return value


def _check_keys(
    source: str,
    key: str,
    given: Mapping[str, object],
    known: Mapping[str, object],
    needed: tuple[str, ...] | None = None,
) -> None:
    """Check that there is no key too many and none too few."""
    prefix = f'{key}.' if key else ''
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise _bad(source, prefix + unknown[0], f'is unknown; there are {", ".join(known)}')
    if needed is None:
        needed = tuple(name for name in known if name not in _OPTIONAL)
    missing = [name for name in needed if name not in given]
    if missing:
        raise _bad(source, prefix + missing[0], 'is missing')


def _check_placeholders(
    source: str, key: str, text: str, allowed: tuple[str, ...], required: tuple[str, ...] = ()
) -> None:
    found = set(_PLACEHOLDER.findall(text))
    unknown = sorted(found - set(allowed))
    if unknown:
        names = ', '.join(f'{{{name}}}' for name in allowed)
        raise _bad(source, key, f'speaks of {{{unknown[0]}}}; there are {names}')
    for name in required:
        if name not in found:
            raise _bad(source, key, f'must speak of {{{name}}}')


def _within(source: str, key: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise _bad(source, key, f'is {value}; it must lie in {low}..{high}')


def _bad(source: str, key: str, what: str) -> PixelReferError:
    place = ': '.join(part for part in (source, key) if part)
    return PixelReferError(ErrorCode.BAD_REQUEST, f'grounding profile {place} {what}'.strip())
