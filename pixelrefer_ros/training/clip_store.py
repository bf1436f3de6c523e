# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep simulated clips on disk, so that an epoch does not render them again."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from pixelrefer_ros.simulation.clips import Clip

SHARD = 500


def _shard_path(folder: Path, first_seed: int, count: int) -> Path:
    return folder / f'clips-{first_seed:010d}-{count}'


def _write_shard(folder: Path, first_seed: int, count: int) -> None:
    from pixelrefer_ros.simulation.clips import ClipMaker

    path = _shard_path(folder, first_seed, count)
    maker = ClipMaker()
    clips = [maker.make(first_seed + i) for i in range(count)]
    np.save(path.with_suffix('.images.npy'), np.stack([c.images for c in clips]))
    np.save(path.with_suffix('.numbers.npy'), np.stack([c.numbers for c in clips]))
    # The facts go last: their file says that the shard is whole.
    with path.with_suffix('.pkl').open('wb') as file:
        pickle.dump([(c.times_s, c.things) for c in clips], file)


class ClipStore:
    """Read clips by number from memory-mapped shards, rendering those that are missing."""

    def __init__(self, folder: Path, clips: int, first_seed: int = 0, processes: int = 2) -> None:
        """Make or find ``clips`` clips in a folder, from ``first_seed`` on."""
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(folder, first_seed + i, min(SHARD, clips - i)) for i in range(0, clips, SHARD)]
        paths = [_shard_path(*job) for job in jobs]
        missing = [job for job, path in zip(jobs, paths, strict=True)
                   if not path.with_suffix('.pkl').exists()]
        if missing:
            # A process of its own per shard: rendering contexts are one per process.
            context = get_context('spawn')
            with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
                list(pool.map(_write_shard, *zip(*missing, strict=True)))
        self._images = [np.load(p.with_suffix('.images.npy'), mmap_mode='r') for p in paths]
        self._numbers = [np.load(p.with_suffix('.numbers.npy'), mmap_mode='r') for p in paths]
        self._facts = []
        for path in paths:
            with path.with_suffix('.pkl').open('rb') as file:
                self._facts.append(pickle.load(file))
        self._count = clips

    def __len__(self) -> int:
        """Return the number of clips."""
        return self._count

    def __getitem__(self, index: int) -> Clip:
        """Return a clip; its arrays are views of the file."""
        from pixelrefer_ros.simulation.clips import Clip

        if not 0 <= index < self._count:
            raise IndexError(f'clip {index} of {self._count}')
        shard, i = divmod(index, SHARD)
        times_s, things = self._facts[shard][i]
        return Clip(self._images[shard][i], self._numbers[shard][i], times_s, things)
