# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold what is true of a bag, and say whether answers and descriptions are right.

The truth is a JSON file beside the bag: ``tabletop.truth.json`` for ``tabletop.mcap``::

    {
      "format": "pixelrefer_ros truth 1",
      "origin_ns": 1767225600000000000,
      "queries": {
        "q01": {"accept": ["red"], "kind": "colour"},
        "q02": {"accept": ["yes"], "reject": ["no"], "kind": "moving"},
        "q03": {"all_of": [["red"], ["ball", "sphere"]]},
        "g01": {"track": "cup"},
        "g02": {"absent": true}
      },
      "regions": {
        "obj1": [
          {"from_s": 0.0, "to_s": 4.0,
           "attributes": {"colour": ["red"], "shape": ["ball", "sphere"],
                          "size": ["small"], "motion": ["still", "not moving"]}}
        ]
      },
      "vocabulary": {"colour": ["red", "green", "blue"]},
      "tracks": {"cup": [[0.0, 40, 52, 20, 16], [0.5, 44, 52, 20, 16]]}
    }

``queries`` are named by query_id. An answer is right when it contains one of ``accept`` (when
there are any), one of each list in ``all_of``, and none of ``reject``. ``kind`` is free text
that the summary groups by.

A query that finds something (GROUND) may name a ``track``: the answer is right when the box in
its key frame overlaps the track's there by ``MIN_IOU`` or more, and its words are right too if any
are asked for. With ``absent``, it is right to say that it is not there (NOT_GROUNDED), and
nothing else is.

``tracks`` are lists of [seconds after ``origin_ns``, x, y, width, height] in pixels, in order of
time. Between two that are at most a second apart the box is interpolated; elsewhere the thing is
not in sight.

``regions`` are named by region_id; each entry says what holds from ``from_s`` to ``to_s``,
seconds of image time after ``origin_ns``. A description is right when, for every attribute, it
contains one of the words that hold at some time while the model looked. ``vocabulary`` (which
may be left out) lists all the words of an attribute: a description that also contains one of
the others is wrong.

Phrases are compared as whole words, without case, punctuation and the articles a, an, the.
"""

from __future__ import annotations

import bisect
import itertools
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.core.types import NS_PER_S, Box, ErrorCode
from pixelrefer_ros.grounding.rewards import box_iou

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pixelrefer_ros.core.types import Answer, Description

FORMAT = 'pixelrefer_ros truth 1'

MIN_IOU = 0.5
"""From this overlap on a box is right."""

# A box of a track holds until the next when that is no later than this.
_GAP_S = 1.0
# How far a stamp may be off the only box near it.
_TOLERANCE_S = 0.05

_ARTICLES = frozenset({'a', 'an', 'the'})


def normalise(text: str) -> str:
    """Return the words of a text, lower case, without punctuation and articles."""
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())
    return ' '.join(word for word in words if word not in _ARTICLES)


def contains(text: str, phrase: str) -> bool:
    """Return whether a text contains a phrase as whole words, both being normalised."""
    wanted = normalise(phrase)
    return bool(wanted) and f' {wanted} ' in f' {normalise(text)} '


def _any(text: str, phrases: Iterable[str]) -> bool:
    return any(contains(text, phrase) for phrase in phrases)


class Spot(NamedTuple):
    """Say where something is, in pixels, at a time."""

    at_s: float
    x: float
    y: float
    width: float
    height: float


def box_at(track: Sequence[Spot], at_s: float) -> Box | None:
    """Return where a track is at a time; None when it is not in sight, see the module."""
    index = bisect.bisect_right(track, at_s, key=lambda spot: spot.at_s)
    around = track[max(0, index - 1) : index + 1]
    if len(around) == 2 and around[1].at_s - around[0].at_s <= _GAP_S:
        one, other = around
        part = max(0.0, (at_s - one.at_s) / (other.at_s - one.at_s))
        return Box(*(round(a + part * (b - a)) for a, b in zip(one[1:], other[1:], strict=True)))
    near = min(around, key=lambda spot: abs(spot.at_s - at_s), default=None)
    if near is None or abs(near.at_s - at_s) > _TOLERANCE_S:
        return None
    return Box(*map(round, near[1:]))


@dataclass(frozen=True)
class QueryTruth:
    """Say which answers to a question are right; see the module."""

    accept: tuple[str, ...] = ()
    all_of: tuple[tuple[str, ...], ...] = ()
    reject: tuple[str, ...] = ()
    kind: str = ''
    track: str = ''
    absent: bool = False

    def right(self, text: str) -> bool:
        """Return whether the words of an answer are right."""
        return (
            (not self.accept or _any(text, self.accept))
            and all(_any(text, words) for words in self.all_of)
            and not _any(text, self.reject)
        )

    @property
    def words(self) -> str:
        """Return what was expected, for a person."""
        if self.absent:
            return 'to hear that it is not there'
        parts = [' / '.join(group) for group in (self.accept, *self.all_of) if group]
        if self.track:
            parts.append(f'the place of {self.track}')
        return ', '.join(parts)


@dataclass(frozen=True)
class RegionTruth:
    """Say what holds of a region for a while; attributes map to accepted phrases."""

    from_s: float
    to_s: float
    attributes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Truth:
    """Hold what is true of a bag; see the module.

    Attributes:
        origin_ns: Stamp that the seconds of the regions count from.
        queries: By query_id.
        regions: By region_id.
        vocabulary: By attribute, all its words.
        tracks: By name, where something is over time.
    """

    origin_ns: int = 0
    queries: Mapping[str, QueryTruth] = field(default_factory=dict)
    regions: Mapping[str, tuple[RegionTruth, ...]] = field(default_factory=dict)
    vocabulary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tracks: Mapping[str, tuple[Spot, ...]] = field(default_factory=dict)

    def judge_answer(self, answer: Answer) -> bool | None:
        """Return whether an answer is right; None when the truth does not know the question."""
        truth = self.queries.get(answer.query_id)
        if truth is None:
            return None
        if truth.absent:
            return answer.error_code == ErrorCode.NOT_GROUNDED
        if answer.error_code != ErrorCode.OK or not truth.right(answer.text):
            return False
        return not truth.track or (self.overlap(answer) or 0.0) >= MIN_IOU

    def overlap(self, answer: Answer) -> float | None:
        """Return how far the box in the key frame is that of the track, in [0, 1].

        None when the truth knows no track for the question, or nothing was found.
        """
        truth = self.queries.get(answer.query_id)
        if truth is None or not truth.track or not answer.evidence:
            return None
        key = answer.evidence[0]
        wanted = box_at(self.tracks[truth.track], (key.stamp_ns - self.origin_ns) / NS_PER_S)
        return 0.0 if key.box is None or wanted is None else box_iou(key.box, wanted)

    def judge_description(self, description: Description) -> dict[str, bool]:
        """Return per attribute whether it is right; empty when the truth does not know it."""
        accepted = self.expected(description)
        text = description.text
        return {
            name: _any(text, words)
            and not any(
                contains(text, other)
                for other in self.vocabulary.get(name, ())
                if normalise(other) not in set(map(normalise, words))
            )
            for name, words in accepted.items()
        }

    def expected(self, description: Description) -> dict[str, tuple[str, ...]]:
        """Return the phrases accepted per attribute while the model looked."""
        stamps_ns = description.frame_stamps_ns or (description.stamp_ns,)
        first_s = (min(stamps_ns) - self.origin_ns) / NS_PER_S
        last_s = (max(stamps_ns) - self.origin_ns) / NS_PER_S
        accepted: dict[str, list[str]] = {}
        for truth in self.regions.get(description.region_id, ()):
            if truth.from_s <= last_s and first_s <= truth.to_s:
                for name, words in truth.attributes.items():
                    accepted.setdefault(name, []).extend(words)
        return {name: tuple(dict.fromkeys(words)) for name, words in accepted.items()}

    def save(self, path: Path) -> None:
        """Write the file."""
        content: dict[str, Any] = {'format': FORMAT, **asdict(self)}
        for query in content['queries'].values():
            for name in ('track', 'absent'):
                if not query[name]:
                    del query[name]
        if not self.tracks:
            del content['tracks']
        path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def truth_beside(bag: Path) -> Path | None:
    """Return the ground truth that belongs to a bag by its name; None when there is none."""
    stem = bag.stem if bag.suffix in ('.mcap', '.db3') else bag.name
    path = bag.parent / f'{stem}.truth.json'
    return path if path.is_file() else None


def load_truth(path: Path) -> Truth:
    """Read a ground truth.

    Raises:
        FileError: It is missing or not of this format; the text says where.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise FileError(f'cannot read {path}: {error.strerror or error}') from error
    except ValueError as error:
        raise FileError(f'{path} is no JSON: {error}') from error
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise FileError(f'{path} is no ground truth: it must say "format": "{FORMAT}"')
    try:
        truth = Truth(
            origin_ns=int(content.get('origin_ns', 0)),
            queries={name: _query(entry) for name, entry in content.get('queries', {}).items()},
            regions={
                name: tuple(_region(entry) for entry in entries)
                for name, entries in content.get('regions', {}).items()
            },
            vocabulary={
                name: _phrases(words) for name, words in content.get('vocabulary', {}).items()
            },
            tracks={
                name: tuple(Spot(*map(float, spot)) for spot in spots)
                for name, spots in content.get('tracks', {}).items()
            },
        )
        _check_tracks(truth)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f'{path} is not as a ground truth must be: {error!r}') from error
    return truth


def _check_tracks(truth: Truth) -> None:
    for name, track in truth.tracks.items():
        if any(b.at_s <= a.at_s for a, b in itertools.pairwise(track)):
            raise ValueError(f'the times of track {name} must ascend')
    for name, query in truth.queries.items():
        if query.track and query.track not in truth.tracks:
            raise ValueError(f'query {name} speaks of track {query.track}, which is not there')


def _phrases(value: Any) -> tuple[str, ...]:
    """Return a phrase, or a list of them, as a tuple."""
    if isinstance(value, str):
        return (value,)
    phrases = tuple(value)
    if not all(isinstance(phrase, str) for phrase in phrases):
        raise TypeError(f'{value!r} must be a text or a list of texts')
    return phrases


def _query(entry: Mapping[str, Any]) -> QueryTruth:
    truth = QueryTruth(
        accept=_phrases(entry.get('accept', ())),
        all_of=tuple(_phrases(words) for words in entry.get('all_of', ())),
        reject=_phrases(entry.get('reject', ())),
        kind=str(entry.get('kind', '')),
        track=str(entry.get('track', '')),
        absent=entry.get('absent', False) is True,
    )
    if not (truth.accept or truth.all_of or truth.track or truth.absent):
        raise ValueError('a query needs accept, all_of, track or absent')
    return truth


def _region(entry: Mapping[str, Any]) -> RegionTruth:
    return RegionTruth(
        from_s=float(entry['from_s']),
        to_s=float(entry['to_s']),
        attributes={name: _phrases(words) for name, words in entry['attributes'].items()},
    )
