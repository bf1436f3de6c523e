# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold reasoning clips: frames with masks, and what every thing does when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.simulation.clips import MIN_AREA_PX
from pixelrefer_ros.simulation.reasoning_story import project

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.simulation.reasoning_story import Event, Story

KINDS = ('fell', 'first', 'last', 'hit', 'hitter', 'carried', 'stopped', 'stayed', 'moved',
         'refer')
"""What is asked for: what fell, moved first or last, was hit, hit something, was carried,
stopped, never moved, moved, or is just described."""
ABSENT_EVERY = 5  # rounds of the kinds
MOVED_M = 0.01  # farther from its first or last place, a thing is seen to move
MIN_GAP_X = 0.08  # of the picture's width, between two things that are left and right


@dataclass(frozen=True, slots=True)
class Actor:
    """Hold what is true of one thing over a clip; frames are numbers of sampled frames.

    Attributes:
        colour: Colour name.
        shape: Shape name.
        size: Size name.
        role: One of ``reasoning_story.ROLES``, or 'hit by'.
        start: First frame in which it has left its first place; -1 when it never moves.
        stop: First frame in which it has come to its last place; -1 when it never moves, or
            still moves at the end.
        visible: Per sampled frame, whether enough of it is seen.
        x: (S,) middle of its visible pixels in units of the picture's width, NaN where not
            visible.
    """

    colour: str
    shape: str
    size: str
    role: str
    start: int
    stop: int
    visible: tuple[bool, ...]
    x: NDArray[np.float32]

    @property
    def look(self) -> tuple[str, str, str]:
        """Return size, colour and shape."""
        return self.size, self.colour, self.shape

    @property
    def moves(self) -> bool:
        """Return whether it moves at some time."""
        return self.role != 'stay'


@dataclass(frozen=True, slots=True)
class ReasoningClip:
    """Hold frames with masks, and what happens in them.

    Attributes:
        seed: Which clip.
        kind: The kind of question it was made for, of ``KINDS``.
        absent: Whether that question's target is absent.
        images: (T, H, W, 3) uint8 RGB.
        numbers: (T, H, W) uint8, 0 background, k + 1 thing k.
        times_s: (T,) seconds.
        sampled: Indices of the S frames a model is shown, ascending.
        actors: One per thing.
        events: In order of their start.
        areas: (T, N) int32 visible pixels of every thing.
        boxes: (T, N, 4) int32 smallest boxes x0, y0, x1, y1 around them, x1 and y1 exclusive;
            -1 where nothing is visible.
    """

    seed: int
    kind: str
    absent: bool
    images: NDArray[np.uint8]
    numbers: NDArray[np.uint8]
    times_s: NDArray[np.float32]
    sampled: tuple[int, ...]
    actors: tuple[Actor, ...]
    events: tuple[Event, ...]
    areas: NDArray[np.int32] = field(repr=False)
    boxes: NDArray[np.int32] = field(repr=False)

    def mask(self, frame: int, thing: int) -> NDArray[np.bool_]:
        """Return the (H, W) bool mask of a thing in a frame."""
        return self.numbers[frame] == thing + 1

    def frame_at(self, time_s: float) -> int:
        """Return the number of the first sampled frame at or after a time, the last at most."""
        times = self.times_s[list(self.sampled)]
        return min(int(np.searchsorted(times, time_s)), len(times) - 1)

    def event(self, kind: str, thing: int | None = None) -> Event | None:
        """Return the first event of a kind, of a thing when one is given."""
        return next((e for e in self.events
                     if e.kind == kind and thing in (None, e.thing)), None)


def assignment(seed: int) -> tuple[str, bool]:
    """Return the kind of question a seed's clip is made for, and whether the target is absent."""
    return KINDS[seed % len(KINDS)], seed // len(KINDS) % ABSENT_EVERY == ABSENT_EVERY - 1


def measure(numbers: NDArray[np.uint8], things: int) -> tuple[NDArray[np.int32],
                                                              NDArray[np.int32]]:
    """Return areas (T, N) and boxes (T, N, 4) as in ``ReasoningClip``."""
    areas = np.zeros((len(numbers), things), np.int32)
    boxes = np.full((len(numbers), things, 4), -1, np.int32)
    for i, picture in enumerate(numbers):
        for k in range(things):
            mask = (picture == k + 1).view(np.uint8)
            areas[i, k] = cv2.countNonZero(mask)
            if areas[i, k]:
                x, y, width, height = cv2.boundingRect(mask)
                boxes[i, k] = x, y, x + width, y + height
    return areas, boxes


def actors_of(
    story: Story, times_s: NDArray[np.float32], visible: NDArray[np.bool_], x: NDArray[np.float32]
) -> tuple[Actor, ...]:
    """Derive what is true of every thing.

    Args:
        story: The story that was filmed.
        times_s: (S,) seconds of the sampled frames.
        visible: (S, N) whether enough is seen of a thing.
        x: (S, N) where its visible pixels lie, in units of the picture's width.
    """
    actors = []
    for k, thing in enumerate(story.world.things):
        places = np.array([thing.position(float(t)) for t in times_s])
        left = np.linalg.norm(places - places[0], axis=1) > MOVED_M
        away = np.linalg.norm(places - places[-1], axis=1) > MOVED_M
        start = int(np.argmax(left)) if left.any() else -1
        stop = len(times_s) - int(np.argmax(away[::-1])) if away.any() else -1
        if story.roles[k] == 'go':
            stop = -1
        actors.append(Actor(thing.colour, thing.shape, thing.size, story.roles[k], start, stop,
                            tuple(visible[:, k].tolist()),
                            np.where(visible[:, k], x[:, k], np.nan).astype(np.float32)))
    return tuple(actors)


def columns(numbers: NDArray[np.uint8], things: int) -> NDArray[np.float32]:
    """Return the mean column of every thing's pixels, (S, N) in units of the width, or NaN."""
    count, _, width = numbers.shape
    x = np.full((count, things), np.nan, np.float32)
    middles = (np.arange(width) + 0.5) / width
    for i, picture in enumerate(numbers):
        for k in range(things):
            weights = np.count_nonzero(picture == k + 1, axis=0)
            if weights.any():
                x[i, k] = weights @ middles / weights.sum()
    return x


def rehearse(story: Story, seed: int, frames: int) -> ReasoningClip:
    """Return the clip of a story without its pictures, as if nothing hid anything.

    Its areas and boxes are not those of the pictures; what is asked about order, roles and
    places is the same.
    """
    times = np.linspace(0, story.span_s, frames).astype(np.float32)
    things = story.world.things
    x = np.array([[project(story.world.camera.at(float(t)), thing.position(float(t)))[0]
                   for thing in things] for t in times], np.float32)
    shape = frames, len(things)
    kind, absent = assignment(seed)
    nothing = np.zeros((0, 0, 0), np.uint8)
    return ReasoningClip(
        seed, kind, absent, nothing, nothing, times, tuple(range(frames)),
        actors_of(story, times, np.ones(shape, np.bool_), x), story.events,
        np.full(shape, MIN_AREA_PX, np.int32),
        np.broadcast_to(np.array([0, 0, 10, 10], np.int32), (*shape, 4)))


def is_clear(clip: ReasoningClip) -> bool:
    """Tell whether the sampled frames show what happens.

    What stays is visible in most frames; what moves before and after, or before when it falls,
    and in at least half of the frames; two things that look the same are apart.
    """
    count = len(clip.sampled)
    for k, actor in enumerate(clip.actors):
        seen = np.array(actor.visible)
        if actor.moves:
            if actor.start < 1 or not seen[: actor.start].any():
                return False
            after = seen[actor.stop :] if actor.stop >= 0 else seen[-2:]
            if actor.role == 'fall':
                edge = clip.event('falling', k)
                before = clip.frame_at(edge.start_s) if edge else 0
                if seen[:before].sum() < 3 or before <= actor.start:
                    return False
            elif seen.mean() < 0.5 or not after.any():
                return False
        elif seen.mean() < 0.7 or count == 0:
            return False
        for other in clip.actors[:k]:
            if other.look == actor.look and not abs(other.x[0] - actor.x[0]) >= MIN_GAP_X:
                return False
    return True
