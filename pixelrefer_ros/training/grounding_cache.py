# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep reasoning clips cut into patches on disk: unpacking JPEGs would take most of a step."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import torch

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.grounding.pictures import resize
from pixelrefer_ros.training.grounding_config import (
    CLIP_SIZE,
    FRAMES,
    KEY_SIZE,
    MERGE,
    PATCH,
    TOKEN_PX,
)
from pixelrefer_ros.training.grounding_pictures import (
    Shown,
    Sights,
    blocks,
    boxes_shown,
    shown_in,
    to_patches,
)
from pixelrefer_ros.training.grounding_store import ReasoningStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

SHARD = 100
PICTURES = 3
"""Frames of every clip that are kept as large pictures; of the others, only what they show."""
_LABELS = 2
"""How cells are told what they show; another number where that changes."""


def _patches(size: tuple[int, int]) -> int:
    return size[0] * size[1] // PATCH**2


_ARRAYS: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
    'clips': ((_patches(CLIP_SIZE), 3 * FRAMES * PATCH**2), np.uint8),
    'pictures': ((PICTURES, _patches(KEY_SIZE), 3 * PATCH**2), np.uint8),
    'kept': ((PICTURES,), np.int8),
    'first': ((_patches(CLIP_SIZE),), np.int8),
    'last': ((_patches(CLIP_SIZE),), np.int8),
    'picture': ((FRAMES, _patches(KEY_SIZE)), np.int8),
    'first_cells': ((_patches(CLIP_SIZE) // MERGE**2,), np.int8),
    'picture_cells': ((FRAMES, _patches(KEY_SIZE) // MERGE**2), np.int8),
}


def cut(store: ReasoningStore, number: int, kept: Sequence[int]
        ) -> dict[str, NDArray[np.generic]]:
    """Cut a clip into patches, and frames ``kept`` of it as large pictures; say what they show.

    Returns:
        The arrays of ``Sights`` by name, for this clip alone: ``pictures`` of the frames kept,
        ``picture`` and ``picture_cells`` of all its frames.
    """
    images = store.images(number, range(FRAMES))
    masks = store.numbers(number, range(FRAMES))
    return {
        'clips': to_patches([resize(image, CLIP_SIZE) for image in images]),
        'pictures': np.stack([to_patches([resize(images[i], KEY_SIZE)]) for i in kept]),
        'kept': np.asarray(kept),
        'first': blocks(shown_in(masks[0], CLIP_SIZE, PATCH)),
        'last': blocks(shown_in(masks[-1], CLIP_SIZE, PATCH)),
        'picture': np.stack([blocks(shown_in(mask, KEY_SIZE, PATCH)) for mask in masks]),
        'first_cells': shown_in(masks[0], CLIP_SIZE, TOKEN_PX).ravel(),
        'picture_cells': np.stack([shown_in(mask, KEY_SIZE, TOKEN_PX).ravel() for mask in masks]),
    }


def _write(clips: Path, total: int, folder: Path, first: int, count: int) -> None:
    store = ReasoningStore(clips, total)
    path = folder / f'{first:07d}-{count}'
    path.with_suffix('.part').mkdir(exist_ok=True)
    arrays = {name: np.lib.format.open_memmap(
        path.with_suffix('.part') / f'{name}.npy', 'w+', kind, (count, *shape))
        for name, (shape, kind) in _ARRAYS.items()}
    for i in range(count):
        chosen = np.random.default_rng((first + i, 11)).permutation(FRAMES)[:PICTURES]
        for name, values in cut(store, first + i, np.sort(chosen).tolist()).items():
            arrays[name][i] = values
    for array in arrays.values():
        array.flush()
    path.with_suffix('.part').rename(path)  # a folder of this name is whole


class SightCache:
    """Draw clips with what they show, from patches on disk; about 2.2 MB a clip."""

    def __init__(self, clips: Path, total: int, folder: Path, processes: int = 2) -> None:
        """Cut those clips of the store in ``clips`` that are not cut yet.

        Raises:
            PixelReferError: BAD_REQUEST when those in ``folder`` were cut in another way.
        """
        folder.mkdir(parents=True, exist_ok=True)
        way, note = json.dumps([CLIP_SIZE, KEY_SIZE, PICTURES, _LABELS]), folder / 'cut.json'
        if not any(folder.iterdir()):
            note.write_text(way)
        if not note.exists() or note.read_text() != way:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST, f'{folder} holds clips cut in another way: remove it')
        jobs = [(clips, total, folder, first, min(SHARD, total - first))
                for first in range(0, total, SHARD)]
        paths = [folder / f'{first:07d}-{count}' for *_, first, count in jobs]
        missing = [job for job, path in zip(jobs, paths, strict=True) if not path.exists()]
        if missing:
            with ProcessPoolExecutor(processes, get_context('spawn')) as pool:
                list(pool.map(_write, *zip(*missing, strict=True)))
        self.store = ReasoningStore(clips, total)
        self._shards = [{name: np.load(path / f'{name}.npy', mmap_mode='r') for name in _ARRAYS}
                        for path in paths]

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.store)

    def kept(self, number: int) -> list[int]:
        """Return the frames of a clip that are kept as large pictures."""
        frames: list[int] = self._part('kept', number).tolist()
        return frames

    def shown(self, numbers: Sequence[int], frames: Sequence[int]) -> Shown:
        """Return what clips, and any one frame of each, show, without the pixels."""
        facts = [self.store.facts(number) for number in numbers]
        size = self.store.size
        return Shown(
            self._stack('first_cells', numbers),
            self._stack('picture_cells', numbers[:len(frames)], frames),
            [boxes_shown(clip, 0, CLIP_SIZE, size) for clip in facts],
            [boxes_shown(clip, frame, KEY_SIZE, size)
             for clip, frame in zip(facts, frames, strict=False)], facts)

    def draw(self, numbers: Sequence[int], frames: Sequence[int]) -> Sights:
        """Return clips, and of the first of them one kept frame each as a picture.

        Args:
            numbers: B clips.
            frames: P frames, of the first P clips; P may be less than B.
        """
        shown, first = self.shown(numbers, frames), numbers[:len(frames)]
        places = [self.kept(number).index(frame)
                  for number, frame in zip(first, frames, strict=True)]
        return Sights(
            shown.first_cells, shown.picture_cells, shown.first_boxes, shown.boxes, shown.facts,
            clips=self._stack('clips', numbers),
            pictures=self._stack('pictures', first, places),
            first=self._stack('first', numbers), last=self._stack('last', numbers),
            picture=self._stack('picture', first, frames))

    def _part(self, name: str, number: int) -> NDArray[np.generic]:
        part: NDArray[np.generic] = self._shards[number // SHARD][name][number % SHARD]
        return part

    def _stack(self, name: str, numbers: Sequence[int], at: Sequence[int] | None = None
               ) -> Tensor:
        """Return one part of some clips; labels as int64. Of no clips, an empty one."""
        parts = [self._part(name, n) for n in numbers]
        if at is not None:
            parts = [part[i] for part, i in zip(parts, at, strict=True)]
        stacked = torch.from_numpy(np.array(parts))
        return stacked if stacked.dtype == torch.uint8 else stacked.long()
