# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Lay out conversations about a reasoning clip as one training row: a tree of turns.

The clip is read once. Questions branch off it; one of them goes on with a key frame, and off
that branch the boxes of the things in it. A token sees its own branch and what leads to it, and
its position is the one it has in the conversation alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pixelrefer_ros.grounding.profiles import fill, load_profile
from pixelrefer_ros.simulation.reasoning_names import called, describe, words_of
from pixelrefer_ros.simulation.reasoning_questions import ask, questions
from pixelrefer_ros.simulation.world import COLOURS, SHAPES, SIZES
from pixelrefer_ros.training.grounding_config import CLIP_SIZE, FRAMES, KEY_SIZE, TOKEN_PX
from pixelrefer_ros.training.grounding_words import (
    ANCHORS,
    CLIP_START,
    PICTURE_START,
    UNKNOWN,
    box_answer,
    key_frame_answer,
    misnamed,
    spoken_box,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from pixelrefer_ros.simulation.reasoning_clips import ReasoningClip
    from pixelrefer_ros.simulation.reasoning_questions import ReasoningQuestion
    from pixelrefer_ros.training.grounding_store import ReasoningStore

DECIDING_WEIGHT = 3.0
"""How much more the words that decide count than the words around them."""
SIDE_WEIGHT = 2.0
"""How much more than that what follows a look counts where two things look so: few do."""
UNKNOWN_SHARE = 0.05
"""Of the questions about looks, those that ask for a word it does not know."""
LOOKED_FOR = 2
"""Of the questions about a clip alone, those that ask for looks, half of them in vain."""
MISNAMED_SHARE = 0.3
"""Of the boxes, those asked for by a slightly wrong name: shapes are told badly in a clip."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Say where an answer is in a row, and what it is about.

    Attributes:
        kind: 'reason', 'single' or 'box'.
        start: Its first token.
        end: After its last token.
        target: The thing; None when it is absent.
        question: The question, None for a box.
    """

    kind: str
    start: int
    end: int
    target: int | None
    question: ReasoningQuestion | None = None


class Pointer(NamedTuple):
    """Say that what comes after a token is read off a thing.

    ``head`` is a number of ``HEADS``, or where ``box``, that of a side x1, y1, x2, y2; ``in_key``
    tells the key frame from the clip. ``thing`` may be ``NONE``: nothing is to be looked at.
    """

    token: int
    head: int
    thing: int
    in_key: bool = False
    box: bool = False


HEADS = {'start': 0, 'stop': 1, 'role': 2, 'looks': 3, 'alike': 4, 'other': 5}
"""Heads that read a clip's tokens. After a look, one looks at all things that look so, and one,
two layers above, at that which is not the one spoken of, so that its side can be told. Those that
read a key frame's are x1, y1, x2, y2."""
NONE = -2


@dataclass(slots=True)
class Row:
    """Hold one training row.

    Attributes:
        number: Which clip of the store.
        frame: The key frame.
        ids: Token ids.
        node: Per token, its turn in the tree.
        parent: Per turn, the turn it follows, -1 for the first.
        place: Per token, its three positions: time, row, column.
        weight: Per token, how much its loss counts; 0 outside of answers.
        clip_at: First of the clip's tokens.
        key_at: First of the key frame's tokens.
        answers: In order.
        pointers: What is read off what.
    """

    number: int
    frame: int
    ids: list[int] = field(default_factory=list)
    node: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    place: list[tuple[int, int, int]] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    clip_at: int = 0
    key_at: int = 0
    answers: list[Answer] = field(default_factory=list)
    pointers: list[Pointer] = field(default_factory=list)
    _ends: list[int] = field(default_factory=list)

    def branch(self, parent: int) -> int:
        """Begin a turn after another and return its number."""
        self.parent.append(parent)
        self._ends.append(self._ends[parent] if parent >= 0 else 0)
        return len(self.parent) - 1

    def say(self, node: int, ids: Sequence[int], weights: Sequence[float] | None = None) -> None:
        """Add words to a turn."""
        start = self._ends[node]
        self.ids += ids
        self.node += [node] * len(ids)
        self.place += [(start + i,) * 3 for i in range(len(ids))]
        self.weight += weights or [0.0] * len(ids)
        self._ends[node] += len(ids)

    def show(self, node: int, token: int, size: tuple[int, int]) -> int:
        """Add a clip or picture to a turn; return the place of its first token."""
        start, first = self._ends[node], len(self.ids)
        columns, rows = size[0] // TOKEN_PX, size[1] // TOKEN_PX
        self.ids += [token] * (rows * columns)
        self.node += [node] * (rows * columns)
        self.place += [(start, start + row, start + column)
                       for row in range(rows) for column in range(columns)]
        self.weight += [0.0] * (rows * columns)
        self._ends[node] = start + max(rows, columns)
        return first


class RowMaker:
    """Draw training rows from clips."""

    def __init__(
        self, store: ReasoningStore, tokenizer: PreTrainedTokenizerBase, *, asked: int = 4,
        boxes: int = 10, single_share: float = 1.0, held_out: bool = False,
    ) -> None:
        """Keep what rows are made of.

        Args:
            store: The clips.
            tokenizer: The grounding model's.
            asked: Questions per clip.
            boxes: Boxes per key frame at most; things are asked for twice, some by other names.
            single_share: Of the rows, those that also ask for frame and box at once.
            held_out: Word questions as training never does.
        """
        self._store, self._tokenizer = store, tokenizer
        self._asked, self._boxes, self._single_share = asked, boxes, single_share
        self._held_out = held_out
        self._prompts = load_profile('tabletop').prompts
        self._looks = set(tokenizer.convert_tokens_to_ids([*COLOURS, *SHAPES, *SIZES]))
        self._decides = self._looks | set(tokenizer.convert_tokens_to_ids(
            ['[]', '{"frame_idx":', 'left', 'right', 'no']))
        self._begins = self._token('<answer>')
        self._describes = self._token(', "object description": "')
        self._closes = {self._token('"}'), self._token('", "bbox_2d": [')}
        self._percent, self._stop = self._token('percent'), self._token('.')
        self._numbers = {self._token(str(n)) for n in range(16)}
        self._joins = {self._token(word) for word in ('at', ',', '.')}
        self._unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)

    def draw(
        self, number: int, rng: np.random.Generator, frames: Sequence[int] = range(FRAMES)
    ) -> Row | None:
        """Draw a row from a clip; None when no question of it has a target to be seen.

        Args:
            number: Which clip.
            rng: Chooses questions and key frame.
            frames: Those that the key frame may be.
        """
        clip = self._store.facts(number)
        asked = questions(clip, rng, self._asked, held_out=self._held_out)
        there = [q for q in asked if q.target is not None]
        if not there:
            return None
        leading = there[int(rng.integers(len(there)))]
        assert leading.target is not None
        seen = [i for i in frames if clip.actors[leading.target].visible[i]]
        if not seen:
            return None
        frame = leading.key
        if frame not in seen or rng.random() < 0.3:  # another may be chosen that shows it
            frame = int(rng.choice(seen))
        row = Row(number, frame)
        first = self._show_clip(row)
        # The one that goes on comes last: the others are of no concern to what follows.
        for question in [*(q for q in asked if q is not leading), leading]:
            node = row.branch(first)
            text = self._asked_for(self._prompts.turn1, question)
            self._ask(row, node, text, question, rng, clip)
        if rng.random() < self._single_share:
            single = asked[int(rng.integers(len(asked)))]
            text = self._asked_for(self._prompts.single, single)
            self._ask(row, row.branch(first), text, single, rng, clip, boxed=True)
        self._show_key(row, clip, node, leading.target, rng)
        return row

    def ask(self, number: int, rng: np.random.Generator, count: int) -> Row:
        """Draw a row of questions alone, one branch each, at most ``count``."""
        clip, row = self._store.facts(number), Row(number, 0)
        first = self._show_clip(row)
        asked = questions(clip, rng, count - LOOKED_FOR, held_out=self._held_out)
        absent = rng.random(LOOKED_FOR) < 0.5  # whether it is there is settled by one word
        looks = (ask(clip, 'refer', bool(a), rng, held_out=self._held_out) for a in absent)
        for question in [*asked, *(q for q in looks if q is not None)]:
            text = self._asked_for(self._prompts.turn1, question)
            self._ask(row, row.branch(first), text, question, rng, clip)
        return row

    def _show_clip(self, row: Row) -> int:
        """Begin a row with its clip; return the turn that others follow."""
        first = row.branch(-1)
        row.say(first, self._encode(''.join(('<|im_start|>user', CLIP_START, *ANCHORS))))
        row.clip_at = row.show(first, self._token('<|video_pad|>'), CLIP_SIZE)
        row.say(first, self._encode('<|vision_end|>'))
        return first

    @staticmethod
    def _asked_for(prompt: str, question: ReasoningQuestion) -> str:
        return fill(prompt, {'question': question.text, 'frame_count': FRAMES})

    def _ask(
        self, row: Row, node: int, text: str, question: ReasoningQuestion,
        rng: np.random.Generator, clip: ReasoningClip, *, boxed: bool = False,
    ) -> None:
        """Add a question with its answer, with the box when ``boxed``."""
        ids = self._encode(text)
        reasoning, key, target = question.reasoning, question.key, question.target
        if question.kind == 'refer' and rng.random() < UNKNOWN_SHARE and target is None:
            looks = [i for i, t in enumerate(ids) if t in self._looks]
            if looks:
                ids[looks[-1]] = self._unknown
                reasoning = 'There is no thing.'
        corners = None
        if boxed and target is not None:
            corners = self._spoken(clip, target, key, CLIP_SIZE)
        answer = key_frame_answer(reasoning, key, question.description, corners)
        self._answer(row, node, ids, answer, Answer(
            'single' if boxed else 'reason', 0, 0, target, question), clip)

    def _show_key(
        self, row: Row, clip: ReasoningClip, after: int, target: int, rng: np.random.Generator
    ) -> None:
        """Add the key frame and ask for the boxes in it, the target's first."""
        node = row.branch(after)
        row.say(node, self._encode(''.join(('<|im_start|>user', PICTURE_START, *ANCHORS))))
        row.key_at = row.show(node, self._token('<|image_pad|>'), KEY_SIZE)
        row.say(node, self._encode('<|vision_end|>'))
        others = [int(k) for k in rng.permutation(len(clip.actors)) if k != target]
        for thing in ([target, *others] * 2)[: self._boxes]:
            if not clip.actors[thing].visible[row.frame]:
                continue
            description = describe(clip, thing, row.frame)
            if description is not None:
                if rng.random() < MISNAMED_SHARE:
                    description = misnamed(clip, thing, description, rng)
                text = fill(self._prompts.turn2, {'description': description})
                answer = box_answer(self._spoken(clip, thing, row.frame, KEY_SIZE))
                self._answer(row, row.branch(node), self._encode(text), answer,
                             Answer('box', 0, 0, thing), clip)

    def _answer(
        self, row: Row, node: int, asked: Sequence[int], answer: str, about: Answer,
        clip: ReasoningClip,
    ) -> None:
        row.say(node, [*asked, *self._encode('<|im_end|><|im_start|>assistant')])
        ids = self._encode(answer + '<|im_end|>')
        boxed = about.kind == 'box'
        read = [] if boxed else self._read_off(clip, ids, about)
        # What follows a look tells whether another looks the same, how a sentence begins whether
        # it is the last one: what is said there decides, whatever it is.
        alike = Counter(at + 1 for at, head, _ in read if head == HEADS['alike'])
        weights = [DECIDING_WEIGHT * (SIDE_WEIGHT if alike[n] > 1 else 1.0)
                   if i in self._decides or n in alike
                   or (n and ids[n - 1] == self._stop) or (boxed and 1 <= n < len(ids) - 2)
                   else 1.0 for n, i in enumerate(ids)]
        start = len(row.ids)
        row.say(node, ids, weights)
        row.answers.append(Answer(about.kind, start, len(row.ids), about.target, about.question))
        row.pointers += [Pointer(start + at, head, thing) for at, head, thing in read]
        if about.target is not None and (boxed or about.kind == 'single'):
            # The form, a number, a comma, a number, ...: each is said by the token before it.
            first = start if boxed else len(row.ids) - 11
            row.pointers += [Pointer(first + 2 * i, i, about.target, in_key=boxed, box=True)
                             for i in range(4)]

    def _read_off(
        self, clip: ReasoningClip, ids: list[int], about: Answer
    ) -> list[tuple[int, int, int]]:
        """Return what words of an answer about a clip are read off which thing.

        Returns:
            Per word: the token before it, the head, the thing.
        """
        end = ids.index(self._begins)
        names = {k: self._encode(name) for k in range(len(clip.actors))
                 if (name := called(clip, k)) is not None}
        mentions = sorted(
            (at, at + len(name), k) for k, name in names.items() for at in range(end)
            if ids[at:at + len(name)] == name)
        found = []
        counts_frames = self._percent not in ids[:end]
        for n, (at, after, k) in enumerate(mentions):
            following = mentions[n + 1][0] if n + 1 < len(mentions) else end
            found += self._read_name(clip, at, after, k)
            if not counts_frames:
                continue
            said = [i for i in range(after, following) if ids[i] in self._numbers]
            if ids[after] not in self._joins:
                found.append((after - 1, HEADS['role'], k))
            found += [(i - 1, head, k) for i, head in zip(
                said, (HEADS['start'], HEADS['stop']), strict=False)]
        if about.target is not None:
            at = ids.index(self._describes) + 1
            after = next(i for i in range(at, len(ids)) if ids[i] in self._closes)
            found += self._read_name(clip, at, after, about.target)
        return found

    def _read_name(
        self, clip: ReasoningClip, at: int, after: int, thing: int
    ) -> list[tuple[int, int, int]]:
        """Return what the words of a name, from ``at`` on and before ``after``, are read off."""
        look = clip.actors[thing].look
        same = [k for k, a in enumerate(clip.actors) if a.look == look]
        other = next((k for k in same if k != thing), NONE)
        last = at + len(self._encode(f'the {words_of(look)}')) - 1  # what follows is the side
        return [*((i, HEADS['looks'], thing) for i in range(at, after - 1)),
                *(pointer for i in range(last, max(last + 1, after - 1)) for pointer in (
                    *((i, HEADS['alike'], k) for k in same), (i, HEADS['other'], other)))]

    def _spoken(
        self, clip: ReasoningClip, thing: int, frame: int, shown: tuple[int, int]
    ) -> tuple[int, int, int, int]:
        box = clip.boxes[clip.sampled[frame], thing].tolist()
        return spoken_box(box, shown, self._store.size)

    def _token(self, text: str) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(text))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)['input_ids']
        return ids
