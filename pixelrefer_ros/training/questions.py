# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask about simulated clips, and know the right answers.

Answers state what decides them before they decide ("It is red, so no."): a small language
model then only has to compare words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.simulation.world import COLOURS, MOTIONS, SHAPES, SIZES
from pixelrefer_ros.training.wordings import word

if TYPE_CHECKING:
    from pixelrefer_ros.simulation.clips import Clip, ThingFacts

CANNOT_TELL = "I can't tell."
MOTION_WORDS = {m: 'being carried' if m == 'carried' else m for m in MOTIONS}
MIN_GAP_X = 0.08  # of the picture's width, between two things that are left and right
MIN_GAP_M = 0.05  # in distance from the camera, between a closer and a farther thing
DISTANCE_STEP_M = 0.02
FIRST_STEP = 25  # the first of the distances that answers state, in steps
DISTANCES = tuple(f'{i * DISTANCE_STEP_M:.2f}' for i in range(FIRST_STEP, 71))


@dataclass(frozen=True, slots=True)
class Question:
    """Hold a question with its answer.

    Attributes:
        key: What it is scored as: a key of the accuracy table, or '' when it is only trained.
        case: The class within the key, for balanced scores.
        text: The question.
        answer: The answer in full.
        verdict: The part of the answer that decides, lower case.
    """

    key: str
    case: str
    text: str
    answer: str
    verdict: str


def a(noun: str) -> str:
    """Put the indefinite article before a word."""
    return f'an {noun}' if noun[0] in 'aeiou' else f'a {noun}'


def description(thing: ThingFacts, moving: bool) -> str:
    """Describe a thing; its motion too when the frames tell it."""
    text = f'{a(thing.size)} {thing.colour} {thing.shape}'
    if moving:
        text += f', {MOTION_WORDS[thing.motion]}'
    return text[0].upper() + text[1:] + '.'


def percent(x: float) -> int:
    """Round a share of the picture's width to the nearest 5 %."""
    return int(round(x * 20)) * 5


def metres(distance_m: float) -> str:
    """Write a distance as the answers do: to the nearest of ``DISTANCES``."""
    return DISTANCES[distance_step(distance_m)]


def distance_step(distance_m: float) -> int:
    """Return the index of the nearest of ``DISTANCES``."""
    return min(max(round(distance_m / DISTANCE_STEP_M) - FIRST_STEP, 0), len(DISTANCES) - 1)


def _one(
    thing: ThingFacts, clip: Clip, frames: int, kind: str, rng: np.random.Generator,
    held_out: bool, two: bool, swap: bool,
) -> Question | None:
    """Ask one question of one thing; None when there is no clear answer."""
    known_motion = thing.motion if frames > 1 else ''

    def ask(name: str, value: str = '') -> str:
        return word(name, rng, held_out=held_out, two=two, swap=swap, value=value)

    if kind == 'colour':
        return Question('colour', thing.colour, ask('colour'), f'It is {thing.colour}.',
                        thing.colour)
    if kind == 'shape':
        return Question('shape', thing.shape, ask('shape'), f'It is {a(thing.shape)}.',
                        thing.shape)
    if kind == 'size':
        return Question('size', thing.size, ask('size'), f'It is {thing.size}.', thing.size)
    if kind in ('motion', 'moving'):
        if frames == 1:
            return Question('', '', ask(kind), CANNOT_TELL, CANNOT_TELL.lower())
        if not known_motion:
            return None
        words = MOTION_WORDS[known_motion]
        if kind == 'motion':
            return Question('motion', known_motion, ask('motion'), f'It is {words}.', words)
        verdict = 'no' if known_motion == 'still' else 'yes'
        return Question('moving', verdict, ask('moving'), f'It is {words}, so {verdict}.', verdict)
    if kind == 'attribute':
        choices = [('is_value', thing.colour, tuple(COLOURS)), ('is_a_value', thing.shape, SHAPES),
                   ('is_value', thing.size, tuple(SIZES))]
        if known_motion:
            choices.append(('is_value', MOTION_WORDS[known_motion], tuple(MOTION_WORDS.values())))
        name, truth, values = choices[rng.integers(len(choices))]
        verdict = 'yes' if rng.random() < 0.5 else 'no'
        value = truth if verdict == 'yes' else str(rng.choice([v for v in values if v != truth]))
        stated = a(truth) if name == 'is_a_value' else truth
        return Question('attribute_yes_no', verdict, ask(name, value),
                        f'It is {stated}, so {verdict}.', verdict)
    if kind == 'neighbour':
        if thing.neighbour == -2:
            return None
        if thing.neighbour == -1:
            return Question('neighbour', 'nothing', ask('neighbour'), 'Nothing is next to it.',
                            'nothing')
        other = clip.things[thing.neighbour]
        named = f'{other.colour} {other.shape}'
        return Question('neighbour', 'something', ask('neighbour'),
                        f'{a(named).capitalize()} is next to it.', named)
    if kind == 'describe':
        if frames > 1 and not known_motion:
            return None
        answer = description(thing, frames > 1)
        return Question('description_all' if frames > 1 else '', known_motion, ask('describe'),
                        answer, answer.lower())
    if kind == 'unknowable':
        text = ask('unknowable')
        if not held_out and rng.random() < 0.45:
            text = _with_unknown_word(rng, two, swap)
        return Question('unanswerable', 'unanswerable', text, CANNOT_TELL, CANNOT_TELL.lower())
    raise ValueError(f'no question of kind {kind!r}')


def _with_unknown_word(rng: np.random.Generator, two: bool, swap: bool) -> str:
    """Ask for something the vocabulary has no word for."""
    kind = str(rng.choice(('is_value', 'is_a_value', 'colour', 'shape', 'size', 'motion',
                           'unknowable')))
    if kind in ('is_value', 'is_a_value'):
        return word(kind, rng, two=two, swap=swap, value='<unk>')
    text = word(kind, rng, two=two, swap=swap)
    hidden = {'colour': ('colour', 'color'), 'shape': ('shape', 'kind', 'type', 'sort'),
              'size': ('size', 'big', 'large', 'small'),
              'motion': ('motion', 'movement', 'moving', 'move', 'doing', 'happening', 'happens')}
    words = text.split()
    places = [i for i, w in enumerate(words)
              if w.strip('.,?').lower() in hidden.get(kind, ()) or (
                  kind == 'unknowable' and i and len(w) > 4 and not w.startswith('<'))]
    if not places:
        return word('is_value', rng, two=two, swap=swap, value='<unk>')
    i = places[int(rng.integers(len(places)))]
    words[i] = '<unk>' + (words[i][-1] if words[i][-1] in '.,?' else '')
    return ' '.join(words)


def _pair(
    first: ThingFacts, second: ThingFacts, steps: tuple[int, int], kind: str,
    rng: np.random.Generator, held_out: bool, swap: bool,
) -> Question | None:
    """Compare two things at the last frame both are seen in; None when it is too close."""
    names = ('<object1>', '<object0>') if swap else ('<object0>', '<object1>')
    a_thing, b_thing = (second, first) if swap else (first, second)
    a_step, b_step = (steps[1], steps[0]) if swap else steps
    if kind == 'closer':
        gap = float(b_thing.distance_m[b_step] - a_thing.distance_m[a_step])
        if abs(gap) < MIN_GAP_M:
            return None
        verdict = names[0] if gap > 0 else names[1]
        return Question('closer', verdict, word('closer', rng, held_out=held_out, two=True,
                                                swap=swap),
                        f'At {metres(float(a_thing.distance_m[a_step]))} and '
                        f'{metres(float(b_thing.distance_m[b_step]))} m: {verdict} is closer.',
                        verdict)
    a_x, b_x = float(a_thing.centre[a_step, 0]), float(b_thing.centre[b_step, 0])
    if abs(a_x - b_x) < MIN_GAP_X:
        return None
    side = 'left' if a_x < b_x else 'right'
    stated = f'At {percent(a_x)} and {percent(b_x)} percent of the width: {side}'
    if kind == 'side':
        return Question('left_right', side,
                        word('left_or_right', rng, held_out=held_out, two=True, swap=swap),
                        f'{stated}.', side)
    asked = 'left' if rng.random() < 0.5 else 'right'
    verdict = 'yes' if asked == side else 'no'
    return Question('left_right', f'{asked} {verdict}',
                    word(f'is_{asked}', rng, held_out=held_out, two=True, swap=swap),
                    f'{stated}, so {verdict}.', verdict)


ONE_KINDS = ('colour', 'shape', 'size', 'motion', 'moving', 'attribute', 'neighbour', 'describe',
             'unknowable')
PAIR_KINDS = ('side', 'is_side', 'closer')


def ask_of(
    clip: Clip, regions: tuple[int, ...], frames: tuple[tuple[int, ...], ...], kind: str,
    rng: np.random.Generator, *, held_out: bool = False,
) -> Question | None:
    """Ask one question about one or two regions of a clip.

    Args:
        clip: The clip.
        regions: Indices of one or two things.
        frames: Per region, the clip's frames it is shown in, ascending.
        kind: One of ``ONE_KINDS``, or of ``PAIR_KINDS`` with two regions.
        rng: Chooses wording and values.
        held_out: Word it as training never does.

    Returns:
        The question, or None when the clip does not settle its answer.
    """
    things = [clip.things[r] for r in regions]
    swap = bool(rng.random() < 0.5) and len(things) == 2
    if kind in PAIR_KINDS:
        steps = (frames[0][-1], frames[1][-1])
        if steps[0] != steps[1]:
            return None
        return _pair(things[0], things[1], steps, kind, rng, held_out, swap)
    which = int(swap)
    return _one(things[which], clip, len(frames[which]), kind, rng, held_out, len(things) == 2,
                swap)


def verdict_in(question: Question, said: str) -> bool:
    """Tell whether a spoken answer decides as the right one does.

    Attributes are found as words; yes, no, left and right as the last word; descriptions must
    match in all four attributes.
    """
    words = said.lower().rstrip('. ').replace(',', ' ').replace(':', ' ').split()
    if question.verdict in ('yes', 'no', 'left', 'right'):
        return bool(words) and words[-1] == question.verdict
    if question.key == 'description_all':
        right = set(question.verdict.rstrip('.').replace(',', ' ').split())
        return set(words) == right
    wanted = question.verdict.rstrip('.').split()
    return any(words[i:i + len(wanted)] == wanted for i in range(len(words)))
