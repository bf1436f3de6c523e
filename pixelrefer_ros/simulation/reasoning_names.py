# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Name the things of a reasoning clip so that everyone knows which is meant."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from pixelrefer_ros.simulation.reasoning_clips import MIN_GAP_X

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from pixelrefer_ros.simulation.reasoning_clips import Actor, ReasoningClip

Noun = tuple[str, str, str]
"""Size, colour and shape that a thing must have; '' where any will do."""
ANY: Noun = ('', '', '')

# Which of size, colour and shape a question names; how often, when it asks for a look, and when it
# asks for what has not done something.
_FORMS = ((False, True, True), (True, True, True), (True, False, True), (True, True, False),
          (False, True, False), (False, False, True))
LOOK_SHARES = (0.4, 0.25, 0.1, 0.1, 0.1, 0.05)
DEED_SHARES = (0.1, 0.1, 0.16, 0.15, 0.24, 0.25)


def fits(actor: Actor, noun: Noun) -> bool:
    """Tell whether a thing has what a noun says."""
    return all(not want or want == has for want, has in zip(noun, actor.look, strict=True))


def alike(actor: Actor, noun: Noun) -> int:
    """Return how many of a noun's words are true of a thing."""
    return sum(bool(want) and want == has for want, has in zip(noun, actor.look, strict=True))


def fitting(actor: Actor) -> list[Noun]:
    """Return the nouns that fit a thing, but for those that name its size alone or nothing."""
    return [(s, c, f) for s, c, f in product(*(('', part) for part in actor.look)) if c or f]


def pick(
    rng: np.random.Generator, choices: Sequence[Noun], harder: Callable[[Noun], bool]
) -> Noun | None:
    """Draw one of the nouns, mostly one of the harder ones."""
    hard = [n for n in choices if harder(n)]
    options = hard if hard and rng.random() < 0.8 else choices
    return options[int(rng.integers(len(options)))] if options else None


def pick_in_form(
    rng: np.random.Generator, shares: tuple[float, ...], choices: Sequence[Noun],
    harder: Callable[[Noun], bool],
) -> Noun | None:
    """Draw one of the nouns, its form first, mostly one of the harder ones.

    Of the words that a question says nothing is to be learnt about whether there is such a thing:
    both are asked for in the same forms.
    """
    for form in rng.choice(len(_FORMS), len(_FORMS), replace=False, p=shares).tolist():
        options = [n for n in choices if tuple(map(bool, n)) == _FORMS[form]]
        noun = pick(rng, options, harder)
        if noun is not None:
            return noun
    return None


def words_of(noun: Noun) -> str:
    """Return a noun's words, "thing" for a missing shape."""
    return ' '.join(part for part in (*noun[:2], noun[2] or 'thing') if part)


def _unique(clip: ReasoningClip, thing: int, noun: Noun) -> bool:
    return sum(fits(a, noun) for a in clip.actors) == 1 and fits(clip.actors[thing], noun)


def _twin(clip: ReasoningClip, thing: int) -> int | None:
    look = clip.actors[thing].look
    return next((k for k, a in enumerate(clip.actors) if k != thing and a.look == look), None)


def called(clip: ReasoningClip, thing: int) -> str | None:
    """Return a thing's name in a clip, with its article.

    Size, colour and shape, whatever else there is: a name then says nothing about other things.
    With the side where one looks the same (in the first frame); None when the side is not clear.
    """
    size, colour, shape = clip.actors[thing].look
    twin = _twin(clip, thing)
    if twin is None:
        return f'the {words_of((size, colour, shape))}'
    gap = clip.actors[twin].x[0] - clip.actors[thing].x[0]
    if not abs(gap) >= MIN_GAP_X:  # NaN where one is not visible
        return None
    side = 'left' if gap > 0 else 'right'
    return f'the {words_of((size, colour, shape))} on the {side}'


def pointed_at(clip: ReasoningClip, thing: int, rng: np.random.Generator) -> str | None:
    """Name a thing in a question, by any of its looks that no other thing shares; or None."""
    nouns = [n for n in fitting(clip.actors[thing]) if _unique(clip, thing, n)]
    if not nouns:
        return None
    # The fuller names are the commoner ones.
    weights = [sum(map(bool, n)) ** 1.5 for n in nouns]
    total = sum(weights)
    return f'the {words_of(nouns[int(rng.choice(len(nouns), p=[w / total for w in weights]))])}'


def describe(clip: ReasoningClip, thing: int, frame: int) -> str | None:
    """Describe what a thing looks like in a sampled frame, with its article.

    Where another visible thing looks the same, the side is added; None when it is not clear.
    """
    actor, twin = clip.actors[thing], _twin(clip, thing)
    text = f'the {words_of(actor.look)}'
    if twin is None or not clip.actors[twin].visible[frame]:
        return text
    gap = clip.actors[twin].x[frame] - actor.x[frame]
    if not abs(gap) >= MIN_GAP_X:
        return None
    return f'{text} on the {"left" if gap > 0 else "right"}'
