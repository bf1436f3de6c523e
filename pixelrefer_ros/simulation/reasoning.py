# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make clips in which things happen over time, with exact masks and what happened.

Sixteen frames over four to eight seconds, as the two-turn chain samples them; more frames may
lie between, as a camera gives them to a tracker. Every clip is made for one kind of question:
the kinds take turns with the seed, and in every fifth round the target is absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.imaging import decode_compressed, encode_jpeg
from pixelrefer_ros.simulation.clips import MIN_AREA_PX
from pixelrefer_ros.simulation.reasoning_clips import (
    ReasoningClip,
    actors_of,
    assignment,
    columns,
    is_clear,
    measure,
    rehearse,
)
from pixelrefer_ros.simulation.reasoning_questions import ReasoningQuestion, ask, roles_for
from pixelrefer_ros.simulation.reasoning_story import Story, StoryTeller
from pixelrefer_ros.simulation.render import MATERIALS, TabletopRenderer

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVALUATION_SEED = 2_000_000_000
"""Training uses seeds below this one, evaluation from it on."""
FRAMES = 16


class Grime:
    """Make clean renders look like one camera's pictures: JPEG, noise, exposure."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        """Draw what the whole clip has in common."""
        self._quality = int(rng.integers(60, 96))
        self._gain = float(rng.uniform(0.85, 1.12)) if rng.random() < 0.5 else 1.0
        # One field of noise, cut out at another place for every frame.
        shape = height + 32, width + 32, 3
        self._noise = np.zeros(shape, np.float32)
        if rng.random() < 0.5:
            sigma = np.float32(rng.uniform(0.5, 5))
            self._noise = rng.standard_normal(shape, np.float32) * sigma

    def on(self, image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
        """Return one frame, (H, W, 3) uint8, as the camera gives it."""
        height, width = image.shape[:2]
        y, x = number * 13 % 32, number * 7 % 32
        noise = self._noise[y : y + height, x : x + width]
        image = cv2.addWeighted(image, self._gain, noise, 1.0, 0.0, dtype=cv2.CV_8U)
        return decode_compressed(encode_jpeg(image, self._quality))


class ReasoningMaker:
    """Make clips by seed; the same seed gives the same clip."""

    def __init__(
        self, width: int = 384, height: int = 288, supersample: float = 1.0, shadow: int = 512
    ) -> None:
        """Make the renderer; pictures are drawn larger and averaged down by ``supersample``."""
        self._size = (width, height)
        self._renderer = TabletopRenderer(round(width * supersample), round(height * supersample),
                                          shadow=shadow)
        self.rendered = 0

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()

    def make(self, seed: int, frames: int = FRAMES, between: int = 0) -> ReasoningClip:
        """Make one clip.

        Args:
            seed: Which clip; it decides the kind of question too (``assignment``).
            frames: Number of sampled frames, evenly spaced; the first and the last of the clip.
            between: Frames between two sampled ones; they change nothing about the sampled
                frames.
        """
        kind, absent = assignment(seed)
        rng = np.random.default_rng((seed, 7))
        teller = StoryTeller(rng, MATERIALS)
        while True:
            story = teller.tell(roles_for(kind, absent, rng), alike=kind in ('stayed', 'moved'))
            # Drawing pictures is what takes time: ask of a story first that has none.
            if not self._asks(rehearse(story, seed, frames)):
                continue
            trial = self._film(story, seed, frames, 0)
            self.rendered += 1
            if is_clear(trial) and self._asks(trial):
                return self._film(story, seed, frames, between) if between else trial

    def _asks(self, clip: ReasoningClip) -> ReasoningQuestion | None:
        return ask(clip, clip.kind, clip.absent, np.random.default_rng((clip.seed, 9)))

    def _film(self, story: Story, seed: int, frames: int, between: int) -> ReasoningClip:
        """Render a story."""
        count = (frames - 1) * (between + 1) + 1
        times = np.linspace(0, story.span_s, count).astype(np.float32)
        sampled = tuple(range(0, count, between + 1))
        grime = Grime(np.random.default_rng((seed, 8)), self._size[1], self._size[0])
        self._renderer.dress(story.world)
        images, numbers = [], []
        for i, t in enumerate(times):
            image, number = self._renderer.render(story.world, float(t))
            if image.shape[1::-1] != self._size:
                image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
                number = cv2.resize(number, self._size, interpolation=cv2.INTER_NEAREST_EXACT)
            # A sampled frame looks the same however many frames lie between.
            place, extra = divmod(i, between + 1)
            images.append(grime.on(image, place + 101 * extra))
            numbers.append(number)
        stack = np.stack(numbers)
        things = len(story.world.things)
        areas, boxes = measure(stack, things)
        shown = list(sampled)
        least = MIN_AREA_PX * self._size[0] ** 2 // 384**2
        actors = actors_of(story, times[shown], areas[shown] >= least,
                           columns(stack[shown], things))
        kind, absent = assignment(seed)
        return ReasoningClip(seed, kind, absent, np.stack(images), stack, times, sampled, actors,
                             story.events, areas, boxes)
