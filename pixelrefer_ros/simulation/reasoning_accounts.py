# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say in short sentences what things of a reasoning clip do, as reasoning before an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.simulation.reasoning_names import Noun, alike, called, words_of
from pixelrefer_ros.simulation.world import SHAPES

if TYPE_CHECKING:
    from pixelrefer_ros.simulation.reasoning_clips import ReasoningClip


def account_of_deed(
    clip: ReasoningClip, kind: str, noun: Noun, target: int | None, doers: list[int]
) -> str | None:
    """State what decides what was done.

    Of the things that did it that which comes nearest to what was asked for is named, and held
    against it.

    Args:
        clip: The clip.
        kind: 'fell', 'carried', 'stopped', 'stayed' or 'moved'.
        noun: What was asked for.
        target: The thing that did it, None when none did.
        doers: All things that did it.

    Returns:
        The sentences, or None when a thing in them has no name.
    """
    if not doers:
        nothing = {'fell': 'Nothing falls off the table.', 'carried': 'The arm takes nothing.',
                   'stopped': 'Nothing stops.', 'stayed': 'Nothing stays.', 'moved': ''}[kind]
        return f'{movers(clip)} {nothing}'.strip()
    nearest = target
    if nearest is None:
        nearest = min(doers, key=lambda k: (-alike(clip.actors[k], noun), clip.actors[k].start,
                                            float(clip.actors[k].x[0])))
    name = called(clip, nearest)
    if name is None:
        return None
    verdict = f'It is no {words_of(noun)}.' if target is None else f'So it is {name}.'
    return f'{deed(clip, nearest)} {compared(clip, nearest, noun)}{verdict}'


def compared(clip: ReasoningClip, thing: int, noun: Noun) -> str:
    """Hold a thing against what was asked for, word by word up to the first that is not true."""
    said = []
    for want, has in zip(noun, clip.actors[thing].look, strict=True):
        if want:
            said.append(f'{want.capitalize()}? It is {"a " if has in SHAPES else ""}{has}. ')
            if want != has:
                break
    return ''.join(said)


def deed(clip: ReasoningClip, k: int) -> str:
    """Say in a sentence what a thing does and when."""
    actor, name = clip.actors[k], called(clip, k) or 'one thing'
    name = name[0].upper() + name[1:]
    if actor.role == 'stay':
        return f'{name} stays.'
    if actor.role == 'fall':
        return f'{name} moves from frame {actor.start} and falls by frame {actor.stop}.'
    if actor.role == 'carry':
        return (f'{name} is carried from frame {actor.start} and put down at frame '
                f'{actor.stop}.')
    if actor.stop < 0:
        return f'{name} moves from frame {actor.start} and does not stop.'
    return f'{name} moves from frame {actor.start} and stops at frame {actor.stop}.'


def movers(clip: ReasoningClip) -> str:
    """Say what moves, in the order of the starts."""
    order = sorted((k for k, a in enumerate(clip.actors) if a.moves),
                    key=lambda k: clip.actors[k].start)
    if not order:
        return 'Nothing moves.'
    return ' '.join(deed(clip, k) for k in order[:3])


def percent(x: float) -> int:
    """Round a share of the picture's width to the nearest 5 %."""
    return int(round(x * 20)) * 5
