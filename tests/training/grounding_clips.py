# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make reasoning clips without rendering: true stories, boxes where things are, random pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from pixelrefer_ros.simulation.reasoning_clips import ReasoningClip, assignment, rehearse
from pixelrefer_ros.simulation.reasoning_questions import ask, roles_for
from pixelrefer_ros.simulation.reasoning_story import StoryTeller
from pixelrefer_ros.training.grounding_cache import cut
from pixelrefer_ros.training.grounding_config import CLIP_SIZE, KEY_SIZE
from pixelrefer_ros.training.grounding_pictures import Shown, Sights, boxes_shown

SIZE = (384, 288)


def story_clip(seed: int) -> ReasoningClip:
    """Return a clip that the question it is made for can be asked of."""
    kind, absent = assignment(seed)
    rng = np.random.default_rng((seed, 7))
    teller = StoryTeller(rng, 16)
    while True:
        story = teller.tell(roles_for(kind, absent, rng), alike=kind in ('stayed', 'moved'))
        clip = rehearse(story, seed, 16)
        if ask(clip, kind, absent, np.random.default_rng((seed, 9))) is not None:
            break
    boxes = np.zeros(clip.boxes.shape, np.int32)
    for k, actor in enumerate(clip.actors):
        x = np.clip(actor.x * SIZE[0], 20, SIZE[0] - 20)
        side = 12 + 4 * k + np.arange(16)
        y = 40 + 35 * k
        boxes[:, k] = np.stack([x - side / 2, 0 * x + y, x + side / 2, y + side], 1)
    return replace(clip, boxes=boxes)


class StoryStore:
    """Stand in for a store of rendered clips."""

    size = SIZE

    def __init__(self, seeds: range) -> None:
        self._clips = [story_clip(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self._clips)

    def facts(self, index: int) -> ReasoningClip:
        return self._clips[index]

    def images(self, index: int, frames):
        rng = np.random.default_rng(index)
        coarse = rng.integers(0, 256, (16, 18, 24, 3), dtype=np.uint8)
        return [np.kron(coarse[frame], np.ones((16, 16, 1), np.uint8)) for frame in frames]

    def numbers(self, index: int, frames):
        made = []
        for frame in frames:
            picture = np.zeros(SIZE[::-1], np.uint8)
            for k, (x0, y0, x1, y1) in enumerate(self._clips[index].boxes[frame].tolist()):
                picture[y0:y1, x0:x1] = k + 1
            made.append(picture)
        return made


def draw_sights(store, numbers, frames) -> Sights:
    """Cut clips, and one frame of each as a picture, as the cache on disk holds them."""
    made: dict[str, list] = {}
    for number, frame in zip(numbers, frames, strict=True):
        parts = cut(store, number, [frame])
        parts['pictures'] = parts['pictures'][0]
        for name in ('picture', 'picture_cells'):
            parts[name] = parts[name][frame]
        for name, part in parts.items():
            made.setdefault(name, []).append(part)
    del made['kept']
    facts = [store.facts(number) for number in numbers]
    return Sights(
        **{name: torch.from_numpy(np.stack(parts)) for name, parts in made.items()}, facts=facts,
        first_boxes=[boxes_shown(clip, 0, CLIP_SIZE, store.size) for clip in facts],
        boxes=[boxes_shown(clip, frame, KEY_SIZE, store.size)
               for clip, frame in zip(facts, frames, strict=True)])


def shown_of(store: StoryStore, numbers: list[int]) -> Shown:
    """Return what clips show, without pictures."""
    sights = draw_sights(store, numbers, [0] * len(numbers))
    return Shown(sights.first_cells, sights.picture_cells, sights.first_boxes, sights.boxes,
                 sights.facts)
