# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask about reasoning clips for one thing, and know which it is, or that there is none.

A question is asked only when exactly one thing answers it, or, of an absent target, none does.
The reasoning states what decides before it decides: a small language model then only has to
compare words. It counts time in sampled frames, as the answer does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.simulation.reasoning_accounts import (
    account_of_deed,
    compared,
    deed,
    percent,
)
from pixelrefer_ros.simulation.reasoning_clips import KINDS, MIN_GAP_X
from pixelrefer_ros.simulation.reasoning_names import (
    ANY,
    DEED_SHARES,
    LOOK_SHARES,
    Noun,
    alike,
    called,
    describe,
    fits,
    fitting,
    pick,
    pick_in_form,
    pointed_at,
    words_of,
)
from pixelrefer_ros.simulation.reasoning_wordings import word
from pixelrefer_ros.simulation.world import COLOURS, SHAPES, SIZES

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.simulation.reasoning_clips import Actor, ReasoningClip

MIN_GAP_STEPS = 1.6  # between the first and the second to start, in fifteenths of the clip
ABSENT_SHARE = 0.3
NEARLY_AS_LARGE = 0.85
"""Of the largest box: what counts as large when a key frame is chosen."""


@dataclass(frozen=True, slots=True)
class ReasoningQuestion:
    """Hold a question with its answer.

    Attributes:
        kind: One of ``KINDS``.
        text: The question.
        target: Index of the thing asked for, None when there is none.
        reasoning: What decides, and what follows from it.
        description: What the target looks like in the key frame, and where when another looks
            the same; '' without a target.
        key: Sampled frame in which the target's box is large, -1 without a target.
    """

    kind: str
    text: str
    target: int | None
    reasoning: str
    description: str
    key: int


@dataclass(frozen=True, slots=True)
class _Finding:
    """Hold what a question is about before it is worded."""

    target: int | None
    reasoning: str
    noun: str = ''
    other: str = ''
    wording: str = ''


def roles_for(kind: str, absent: bool, rng: np.random.Generator) -> list[str]:
    """Draw what three to six things do in a clip that is made for a kind of question."""
    count = int(rng.integers(3, 7))
    free = ['stay', 'move', 'go', 'fall', 'carry', 'hit']
    chance = {'stay': 0.36, 'move': 0.26, 'go': 0.14, 'fall': 0.09, 'carry': 0.09, 'hit': 0.06}
    roles: list[str] = []
    if kind in ('first', 'last') and absent:
        return ['stay'] * count
    if kind in ('first', 'last'):
        roles = [str(r) for r in rng.choice(('move', 'move', 'go', 'fall', 'carry'), 2)]
        if kind == 'last':  # what still moves at the end is last in another sense
            free.remove('go')
    wanted = {'fell': 'fall', 'carried': 'carry', 'hit': 'hit', 'hitter': 'hit'}.get(kind)
    if wanted is not None:
        if not absent or rng.random() < 0.4:  # then it is another thing that is asked for
            roles.append(wanted)
        else:
            free.remove(wanted)
    if kind == 'stopped':
        free = ['stay', 'go']
        if not absent:
            roles.append('move' if rng.random() < 0.7 else 'carry')
    if kind in ('stayed', 'moved'):
        mover = str(rng.choice(('move', 'go', 'carry')))
        roles = [mover, 'stay']
        if absent:
            roles[1 if kind == 'stayed' else 0] = 'move' if kind == 'stayed' else 'stay'
        roles = [roles[i] for i in rng.permutation(2)]
    alone = [r for r in ('fall', 'carry', 'hit') if r in roles]
    roles = roles[:1] + ['stay'] if len(set(alone)) < sum(r in alone for r in roles) else roles
    while len(roles) + roles.count('hit') < count:
        left = [r for r in free if r not in ('fall', 'carry', 'hit') or r not in roles]
        if len(roles) + roles.count('hit') == count - 1 and 'hit' in left:
            left.remove('hit')
        weights = np.array([chance[r] for r in left])
        roles.append(str(rng.choice(left, p=weights / weights.sum())))
    return roles


def ask(
    clip: ReasoningClip, kind: str, absent: bool, rng: np.random.Generator, *,
    held_out: bool = False,
) -> ReasoningQuestion | None:
    """Ask one question.

    Args:
        clip: The clip.
        kind: One of ``KINDS``.
        absent: Ask for what is not there.
        rng: Chooses what is spoken of and the wording.
        held_out: Word it as training never does.

    Returns:
        The question, or None when the clip has no clear one of the kind.
    """
    finding = _FINDERS[kind](clip, kind, absent, rng)
    if finding is None or (finding.target is None) != absent:
        return None
    description, key = '', -1
    if finding.target is not None:
        best = key_frame(clip, finding.target)
        if best is None:
            return None
        key, description = best
    text = word(finding.wording or kind, rng, finding.noun, finding.other, held_out=held_out)
    return ReasoningQuestion(kind, text, finding.target, finding.reasoning, description, key)


def questions(
    clip: ReasoningClip, rng: np.random.Generator, count: int = 4, *, held_out: bool = False,
) -> list[ReasoningQuestion]:
    """Ask several questions of one clip, that which it was made for first.

    The others are of different kinds; those that few clips offer are tried first, and every one
    asks for an absent target with probability ``ABSENT_SHARE``.
    """
    own = ask(clip, clip.kind, clip.absent, rng, held_out=held_out)
    asked = [] if own is None else [own]
    rest = [k for k in rng.permutation(KINDS).tolist() if k != clip.kind]
    common = ('refer', 'moved', 'stayed', 'first', 'stopped')
    rest.sort(key=lambda k: (k in common) and bool(rng.random() < 0.7))
    while len(asked) < count:
        absent = bool(rng.random() < ABSENT_SHARE)
        # What few clips show is absent from most: there the common kinds often come first.
        turned = absent and rng.random() < 0.6
        found = ((kind, ask(clip, kind, absent, rng, held_out=held_out))
                 for kind in (reversed(rest) if turned else rest))
        kind, question = next(((k, q) for k, q in found if q is not None), ('', None))
        if question is None:
            break
        asked.append(question)
        rest.remove(kind)
    return asked


def key_frame(clip: ReasoningClip, thing: int) -> tuple[int, str] | None:
    """Return a sampled frame in which a thing's box is large, and its description there.

    The box is what the temporal reward of ReVSeg compares (equation 7). Of frames in which it
    is nearly as large, the first is taken, and none beside which the thing is out of sight: who
    errs by a frame then still sees it. Where a thing that looks the same cannot be told apart,
    another frame is taken; None when there is none.
    """
    boxes = clip.boxes[list(clip.sampled), thing]
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    seen = np.array(clip.actors[thing].visible)
    beside = np.pad(seen, 1, mode='edge')
    told = {frame: text for frame in np.flatnonzero(seen).tolist()
            if (text := describe(clip, thing, frame)) is not None}
    if not told:
        return None
    safe = [frame for frame in told if beside[frame] and beside[frame + 2]] or list(told)
    largest = max(sizes[frame] for frame in safe)
    key = next(frame for frame in safe if sizes[frame] >= NEARLY_AS_LARGE * largest)
    return key, told[key]


def _by_deed(
    clip: ReasoningClip, kind: str, absent: bool, rng: np.random.Generator
) -> _Finding | None:
    """Ask for what fell, was carried, stopped, never moved or moved."""
    done = _DEEDS[kind]
    doers = [k for k, a in enumerate(clip.actors) if done(a)]
    nouns = [n for n in {n for a in clip.actors for n in fitting(a)} | {ANY}
             if sum(fits(clip.actors[k], n) for k in doers) == (0 if absent else 1)]
    if kind == 'stopped':  # what lies on the floor has stopped too, and was not meant
        nouns = [n for n in nouns
                 if not any(fits(a, n) and a.role == 'fall' for a in clip.actors)]
    nouns.sort()
    others = [k for k in range(len(clip.actors)) if k not in doers]
    looks = [n for n in nouns if n != ANY]
    noun: Noun | None = ANY

    def shared(n: Noun) -> bool:
        return any(fits(clip.actors[k], n) for k in others)

    at_all = 0.65 if kind in ('fell', 'carried', 'stopped') else 0.25
    if ANY not in nouns or rng.random() >= at_all:
        # All that is not there fits others: it is asked for in the forms of what is there.
        noun = (pick_in_form(rng, DEED_SHARES, looks, shared) if absent
                else pick(rng, looks, shared))
    if noun is None:
        return None
    target = next((k for k in doers if fits(clip.actors[k], noun)), None)
    if kind == 'stopped':
        doers = [k for k in doers if clip.actors[k].role != 'fall']
    reasoning = account_of_deed(clip, kind, noun, target, doers)
    return None if reasoning is None else _Finding(
        target, reasoning, '' if noun == ANY else words_of(noun))


_DEEDS: dict[str, Callable[[Actor], bool]] = {
    'fell': lambda a: a.role == 'fall',
    'carried': lambda a: a.role == 'carry',
    'stopped': lambda a: a.stop >= 0,
    'stayed': lambda a: not a.moves,
    'moved': lambda a: a.moves,
}


def _by_order(
    clip: ReasoningClip, kind: str, absent: bool, rng: np.random.Generator
) -> _Finding | None:
    """Ask for what moved first or last; two must move, clearly one after the other.

    The last to start must also be the last to move at all.
    """
    movers = sorted((k for k, a in enumerate(clip.actors) if a.moves),
                    key=lambda k: clip.actors[k].start)
    if absent:
        return _Finding(None, 'Nothing moves.') if not movers else None
    if len(movers) < 2:
        return None
    begin = {k: min(e.start_s for e in clip.events if e.thing == k) for k in movers}
    end = {k: max(e.end_s for e in clip.events if e.thing == k) for k in movers}
    step = float(clip.times_s[-1]) / 15
    target, rival = (movers[0], movers[1]) if kind == 'first' else (movers[-1], movers[-2])
    if (abs(begin[target] - begin[rival]) < MIN_GAP_STEPS * step
            or clip.actors[target].start == clip.actors[rival].start):
        return None
    if kind == 'last' and any(end[k] > end[target] - step for k in movers if k != target):
        return None
    names = {k: called(clip, k) for k in movers}
    if None in names.values():
        return None
    shown = movers[:4] if kind == 'first' else movers[-4:]
    starts = ', '.join(f'{names[k]} at frame {clip.actors[k].start}' for k in shown)
    return _Finding(target, f'It starts with {starts}. The {kind} is {names[target]}.'
                    if kind == 'first' else
                    f'They start: {starts}. The {kind} is {names[target]}.')


def _by_hit(
    clip: ReasoningClip, kind: str, absent: bool, rng: np.random.Generator
) -> _Finding | None:
    """Ask for what a thing hit, or what hit it."""
    event = clip.event('hits')
    parts = () if event is None else (event.thing, event.other)
    if not absent:
        if event is None:
            return None
        spoken, target = (event.thing, event.other) if kind == 'hit' else (
            event.other, event.thing)
        other, first, second = (pointed_at(clip, spoken, rng), called(clip, event.thing),
                                called(clip, event.other))
        if other is None or first is None or second is None:
            return None
        when = clip.actors[event.other].start
        # What is spoken of comes first, as where it hits nothing or nothing hits it.
        told = (f'{first.capitalize()} moves from frame {clip.actors[event.thing].start} and hits '
                f'{second} at frame {when}.' if kind == 'hit' else
                f'{second.capitalize()} is hit at frame {when} by {first}.')
        return _Finding(target, f'{told} So it is {called(clip, target)}.', other=other)
    idle = [k for k in range(len(clip.actors)) if k not in parts]
    moving = [k for k in idle if clip.actors[k].moves]
    if kind == 'hit' and moving and rng.random() < 0.8:
        idle = moving
    if not idle:
        return None
    spoken = idle[rng.integers(len(idle))]
    other = pointed_at(clip, spoken, rng)
    if other is None or called(clip, spoken) is None:
        return None
    verdict = 'It hits nothing.' if kind == 'hit' else 'Nothing hits it.'
    return _Finding(None, f'{deed(clip, spoken)} {verdict}', other=other)


def _by_look(
    clip: ReasoningClip, kind: str, absent: bool, rng: np.random.Generator
) -> _Finding | None:
    """Ask for a thing by its looks, or by its looks and where it stands."""
    if rng.random() < 0.5:
        found = _by_side(clip, absent, rng)
        if found is not None:
            return found
    actors, wanted = clip.actors, 0 if absent else 1
    looks = product(('', *SIZES), ('', *COLOURS), ('', *SHAPES))
    nouns = [n for n in looks if (n[1] or n[2]) and sum(fits(a, n) for a in actors) == wanted]
    noun = pick_in_form(rng, LOOK_SHARES, nouns, lambda n: any(0 < alike(a, n) < sum(map(bool, n))
                                                            for a in actors))
    if noun is None:
        return None
    target = None if absent else next(k for k, a in enumerate(actors) if fits(a, noun))
    near = [k for k, a in enumerate(actors) if alike(a, noun)]
    told = f'There is no {words_of(noun)}.'
    if near:
        nearest = min(near, key=lambda k: (-alike(actors[k], noun), float(actors[k].x[0])))
        name = called(clip, nearest)
        if name is None:
            return None
        verdict = told if target is None else f'So it is {name}.'
        told = f'There is {name}. {compared(clip, nearest, noun)}{verdict}'
    return _Finding(target, told, words_of(noun))


def _by_side(
    clip: ReasoningClip, absent: bool, rng: np.random.Generator
) -> _Finding | None:
    """Ask for a thing left or right of another; none of them moves, and the side is clear."""
    still = [k for k, a in enumerate(clip.actors) if not a.moves]
    middle = {k: float(np.nanmean(clip.actors[k].x)) for k in still}
    pairs = [(k, mark) for k in still for mark in still
             if k != mark and abs(middle[k] - middle[mark]) >= MIN_GAP_X]
    for i in rng.permutation(len(pairs)).tolist():
        k, mark = pairs[i]
        side = 'left' if middle[k] < middle[mark] else 'right'
        asked = side if not absent else ('right' if side == 'left' else 'left')
        other, name = pointed_at(clip, mark, rng), called(clip, mark)
        nouns = []
        for noun in fitting(clip.actors[k]):
            same = [j for j, a in enumerate(clip.actors) if fits(a, noun) and j != mark]
            clear = all(j in middle and abs(middle[j] - middle[mark]) >= MIN_GAP_X for j in same)
            there = [j for j in same if clear and (middle[j] < middle[mark]) == (asked == 'left')]
            if clear and len(there) == (0 if absent else 1) and (absent or there[0] == k):
                nouns.append((noun, same))
        if not nouns or other is None or name is None:
            continue
        several = [n for n in nouns if len(n[1]) > 1]
        choices = several if several and rng.random() < 0.8 else nouns
        noun, same = choices[rng.integers(len(choices))]
        places = {j: f'{called(clip, j)} at {percent(middle[j])}' for j in (*same, mark)}
        if any(called(clip, j) is None for j in same):
            continue
        others = ', '.join(places[j] for j in sorted(same, key=lambda j: middle[j]))
        stated = f'Of the width, {places[mark]} percent; {others} percent.'
        verdict = (f'No {words_of(noun)} is {asked} of it.' if absent
                   else f'So it is {called(clip, k)}.')
        return _Finding(None if absent else k, f'{stated} {verdict}', words_of(noun), other,
                        asked)
    return None


_FINDERS: dict[str, Callable[[ReasoningClip, str, bool, np.random.Generator],
                             _Finding | None]] = {
    'fell': _by_deed, 'carried': _by_deed, 'stopped': _by_deed, 'stayed': _by_deed,
    'moved': _by_deed, 'first': _by_order, 'last': _by_order, 'hit': _by_hit,
    'hitter': _by_hit, 'refer': _by_look,
}
