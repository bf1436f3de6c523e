# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say in short sentences what things of a reasoning clip do, as reasoning before an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.simulation.reasoning_names import ANY, Noun, called, words_of

if TYPE_CHECKING:
    from pixelrefer_ros.simulation.reasoning_clips import ReasoningClip


def account_of_deed(
    clip: ReasoningClip, kind: str, noun: Noun, target: int | None, same: list[int],
    doers: list[int],
) -> str | None:
    """State what decides what was done.

    Args:
        clip: The clip.
        kind: 'fell', 'carried', 'stopped', 'stayed' or 'moved'.
        noun: What was asked for.
        target: The thing that did it, None when none did.
        same: The other things that the noun fits.
        doers: All things that did it.

    Returns:
        The sentences, or None when a thing in them has no name.
    """
    names = {k: called(clip, k) for k in range(len(clip.actors))}
    meant = same if target is None else [target, *same]
    if any(names[k] is None for k in {*meant, *doers[:1]}):
        return None
    thing = 'thing' if noun == ANY else words_of(noun)
    if kind in ('fell', 'carried'):
        if target is not None:
            return f'{deed(clip, target)} So it is {names[target]}.'
        if doers:
            return f'{deed(clip, doers[0])} It is no {thing}.'
        nothing = 'Nothing falls off the table.' if kind == 'fell' else 'The arm takes nothing.'
        return f'{movers(clip)} {nothing}'
    if target is not None:
        return f'{deeds(clip, meant, target)} So it is {names[target]}.'
    missing = {'stopped': 'stops', 'stayed': 'stays', 'moved': 'moves'}[kind]
    if kind == 'stopped' and not any(clip.actors[k].moves for k in same):
        return f'Nothing moves, so no {thing} stops.'
    return f'{deeds(clip, same, None)} So no {thing} {missing}.'


def deeds(clip: ReasoningClip, things: list[int], target: int | None) -> str:
    """List what several things do, those that do the same in one sentence."""
    still = [k for k in things if not clip.actors[k].moves]
    order = sorted((k for k in things if clip.actors[k].moves),
                    key=lambda k: clip.actors[k].start)
    parts = [deed(clip, k) for k in order]
    if len(still) > 2 and target not in still:
        parts.append('The others stay.')
    else:
        parts += [deed(clip, k) for k in still]
    return ' '.join(parts)


def deed(clip: ReasoningClip, k: int) -> str:
    """Say in a sentence what a thing does and when."""
    actor, name = clip.actors[k], called(clip, k) or 'one thing'
    name = name[0].upper() + name[1:]
    if actor.role == 'stay':
        return f'{name} stays.'
    if actor.role == 'fall':
        fall = clip.event('falling', k)
        when = clip.frame_at(fall.start_s) if fall else actor.start
        return f'{name} moves from frame {actor.start} and falls at frame {when}.'
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
