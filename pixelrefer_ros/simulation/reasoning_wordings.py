# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Word questions about what happened on a table, in many ways.

``{n}`` is what kind of thing is asked for ("object", "red thing", "small red ball"), ``{o}``
another thing that is spoken of ("the blue cube"). A core that starts with ``!`` is held out:
training never sees it. Of the rest, one in eight combinations of core and sentence around it is
held out too.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

GENERIC = ('object', 'thing', 'one')

# Sentences around "the object that fell", and around "which object fell".
AROUND_NAMES = ('{q}', '{q}', '{q}.', 'find {q}', 'find {q}.', 'please find {q}', 'show me {q}',
                'please show me {q}', 'where is {q}?', 'point to {q}', 'point at {q}',
                'can you find {q}?', 'can you show me {q}?', 'could you point to {q}?',
                'look for {q}', 'mark {q}', 'I am looking for {q}', 'which one is {q}?',
                'do you see {q}?', 'I want to see {q}', 'show {q}', 'locate {q}')
AROUND_QUESTIONS = ('{q}?', '{q}?', '{q}?', '{q}', 'please, {q}?', '{q}, please?', 'robot, {q}?',
                    'now, {q}?')
AROUND_CLAUSES = ('tell me {q}', 'please tell me {q}', 'can you tell me {q}?', 'show me {q}',
                  'do you know {q}?', 'I want to know {q}', 'can you see {q}?', 'find out {q}',
                  'did you see {q}?')

# kind: (names, questions that can also be clauses, questions that cannot)
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    'fell': (
        ('the {n} that fell', 'the {n} that fell off the table', 'the {n} that fell down',
         'the {n} that dropped off the table', 'the {n} which fell', 'the {n} that fell to the '
         'floor', 'the {n} that went over the edge', '!the {n} that dropped to the floor'),
        ('which {n} fell', 'which {n} fell off the table', 'which {n} dropped off the table',
         'which {n} fell down', 'which {n} went over the edge', '!which {n} fell to the floor'),
        ('which {n} did fall', 'which {n} did fall off the table'),
    ),
    'first': (
        ('the {n} that moved first', 'the {n} that started to move first',
         'the first {n} that moved', 'the first {n} to move', 'the {n} that was first to move',
         'the {n} that moved before all others', '!the {n} that began to move first'),
        ('which {n} moved first', 'which {n} started moving first',
         'which {n} was the first to move', 'which {n} started to move first',
         '!which {n} began to move first'),
        ('which {n} did move first',),
    ),
    'last': (
        ('the {n} that moved last', 'the {n} that started to move last',
         'the last {n} that moved', 'the last {n} to move', 'the {n} that was last to move',
         'the {n} that moved after all others', '!the {n} that began to move last'),
        ('which {n} moved last', 'which {n} started moving last',
         'which {n} was the last to move', 'which {n} started to move last',
         '!which {n} began to move last'),
        ('which {n} did move last',),
    ),
    'hit': (
        ('the {n} that {o} hit', 'the {n} hit by {o}', 'the {n} that {o} ran into',
         'the {n} {o} bumped into', 'the {n} that {o} pushed away', 'the {n} {o} touched',
         '!the {n} that was hit by {o}'),
        ('what {o} hit', 'which {n} {o} hit', 'what was hit by {o}', 'which {n} was hit by {o}',
         '!which {n} {o} ran into'),
        ('what did {o} hit', 'which {n} did {o} hit', 'what did {o} run into',
         'which {n} did {o} bump into', 'what did {o} touch', '!what did {o} bump into'),
    ),
    'hitter': (
        ('the {n} that hit {o}', 'the {n} that ran into {o}', 'the {n} that bumped into {o}',
         'the {n} that pushed {o} away', 'the {n} which hit {o}', 'the {n} that touched {o}',
         '!the {n} which ran into {o}'),
        ('what hit {o}', 'which {n} hit {o}', 'which {n} ran into {o}', 'what pushed {o} away',
         'which {n} touched {o}', '!what bumped into {o}'),
        ('what did hit {o}', 'by what was {o} hit'),
    ),
    'carried': (
        ('the {n} that was carried', 'the {n} the arm carried', 'the {n} the robot moved',
         'the {n} that the arm moved', 'the {n} that the robot picked up', 'the {n} that was '
         'lifted', 'the {n} the arm lifted', 'the {n} that the arm just moved',
         '!the {n} the robot carried'),
        ('which {n} was carried', 'which {n} was picked up', 'which {n} the arm moved',
         'which {n} the robot picked up', 'which {n} was lifted', '!which {n} the arm lifted'),
        ('which {n} did the arm move', 'which {n} did the robot pick up',
         'which {n} did the arm just move', 'what did the arm carry', 'what did the robot lift',
         '!which {n} did the robot carry'),
    ),
    'stopped': (
        ('the {n} that stopped moving', 'the {n} that came to rest', 'the {n} that stopped',
         'the {n} that moved and then stopped', 'the {n} that no longer moves',
         '!the {n} that came to a stop'),
        ('which {n} stopped moving', 'which {n} came to rest', 'which {n} stopped',
         'which {n} moved and then stopped', '!which {n} came to a stop'),
        ('which {n} did stop', 'which {n} did stop moving'),
    ),
    'stayed': (
        ('the {n} that never moved', 'the {n} that did not move', 'the {n} that stayed where it '
         'was', 'the {n} that stood still', 'the {n} that was still all the time',
         'the {n} that never changed its place', '!the {n} that stayed in its place'),
        ('which {n} never moved', 'which {n} did not move', 'which {n} stayed where it was',
         'which {n} stood still', '!which {n} was still all the time'),
        ('which {n} has never moved',),
    ),
    'moved': (
        ('the {n} that moved', 'the {n} that was moving', 'the {n} that changed its place',
         'the {n} that did not stay where it was', 'the {n} that has moved', 'the moving {n}',
         '!the {n} that was in motion'),
        ('which {n} moved', 'which {n} changed its place', 'which {n} was moving',
         'which {n} has moved', '!which {n} was in motion'),
        ('which {n} did move',),
    ),
    'refer': (
        ('the {n}', 'the {n} on the table', '!the {n} you see'),
        ('where the {n} is', 'which one the {n} is', '!which thing is the {n}'),
        ('where is the {n}', 'where do you see the {n}', 'is there a {n}'),
    ),
    'left': (
        ('the {n} left of {o}', 'the {n} to the left of {o}', 'the {n} on the left of {o}',
         'the {n} that is left of {o}', '!the {n} that is to the left of {o}'),
        ('which {n} is left of {o}', 'which {n} is to the left of {o}',
         '!which {n} is on the left of {o}'),
        ('where is the {n} left of {o}', 'which {n} do you see left of {o}'),
    ),
    'right': (
        ('the {n} right of {o}', 'the {n} to the right of {o}', 'the {n} on the right of {o}',
         'the {n} that is right of {o}', '!the {n} that is to the right of {o}'),
        ('which {n} is right of {o}', 'which {n} is to the right of {o}',
         '!which {n} is on the right of {o}'),
        ('where is the {n} right of {o}', 'which {n} do you see right of {o}'),
    ),
}


def is_held_out(core: str, around: str) -> bool:
    """Tell whether training never sees a core in a sentence; signs and capitals do not count."""
    text = around.replace('{q}', core.removeprefix('!'))
    words = re.findall(r'[a-z]+|{.}', text.lower())
    return core.startswith('!') or zlib.crc32(' '.join(words).encode()) % 8 == 0


def word(
    kind: str, rng: np.random.Generator, noun: str = '', other: str = '', *,
    held_out: bool = False,
) -> str:
    """Word a question.

    Args:
        kind: Key of ``WORDINGS``.
        rng: Chooses among the wordings.
        noun: What kind of thing is asked for; '' for any.
        other: The other thing that is spoken of, with its article.
        held_out: Use a wording that training never sees; otherwise one that it may see.
    """
    while True:
        form = int(rng.choice(3, p=(0.5, 0.35, 0.15)))
        core = str(rng.choice(WORDINGS[kind][form]))
        bare = core.removeprefix('!')
        around: tuple[str, ...] = AROUND_NAMES if form == 0 else AROUND_QUESTIONS
        if form == 1 and rng.random() < 0.4:
            around = AROUND_CLAUSES
        sentence = str(rng.choice(around))
        # "What the ball hit" is no question of its own, nor is "what did it hit" a red thing.
        clause_only = bare.startswith(('what {o}', 'which {n} {o}', 'which {n} the ', 'where the',
                                       'which one the'))
        if not ((clause_only and around is AROUND_QUESTIONS) or (noun and '{n}' not in core)
                or is_held_out(core, sentence) != held_out):
            break
    thing = noun or str(rng.choice(GENERIC))
    if not noun and bare.startswith('which {n}') and rng.random() < 0.35:
        bare = bare.replace('which {n}', 'what', 1)
    text = sentence.replace('{q}', bare).replace('{n}', thing).replace('{o}', other)
    if thing[0] in 'aeiou':
        text = text.replace(f' a {thing}', f' an {thing}')
    if rng.random() < 0.7:
        text = text[0].upper() + text[1:]
    return text if text.endswith(('?', '.')) or rng.random() < 0.5 else f'{text}.'
