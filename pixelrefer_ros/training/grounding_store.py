# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep simulated reasoning clips on disk: pictures as JPEG, masks packed, facts as they are.

Ten thousand clips of sixteen frames take some 5 GB so; as plain pixels they would take 70 GB.
"""

from __future__ import annotations

import pickle
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.imaging import decode_compressed, encode_jpeg
from pixelrefer_ros.simulation.reasoning_clips import ReasoningClip

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHARD = 100
JPEG_QUALITY = 95
"""The clips hold a camera's JPEG traces already; packing them again should add none."""
_EMPTY = np.zeros((0, 0, 0), np.uint8)


def _shard_path(folder: Path, first_seed: int, count: int) -> Path:
    return folder / f'reasoning-{first_seed:010d}-{count}'


def _write_shard(folder: Path, first_seed: int, count: int, size: tuple[int, int]) -> None:
    from pixelrefer_ros.simulation.reasoning import ReasoningMaker

    path = _shard_path(folder, first_seed, count)
    maker = ReasoningMaker(*size)
    facts: list[tuple[ReasoningClip, list[tuple[int, int]]]] = []
    with path.with_suffix('.bin').open('wb') as file:
        for seed in range(first_seed, first_seed + count):
            clip = maker.make(seed)
            places = []
            for image, number in zip(clip.images, clip.numbers, strict=True):
                for part in (encode_jpeg(image, JPEG_QUALITY), zlib.compress(number.tobytes(), 6)):
                    places.append((file.tell(), len(part)))
                    file.write(part)
            facts.append((replace(clip, images=_EMPTY, numbers=_EMPTY), places))
    maker.close()
    # The facts go last: their file says that the shard is whole.
    with path.with_suffix('.pkl.tmp').open('wb') as file:
        pickle.dump((size, facts), file)
    path.with_suffix('.pkl.tmp').replace(path.with_suffix('.pkl'))


class ReasoningStore:
    """Read reasoning clips by number from shards, rendering those that are missing.

    Attributes:
        size: Width and height of the pictures.
    """

    def __init__(
        self, folder: Path, clips: int, first_seed: int = 0, processes: int = 2,
        size: tuple[int, int] = (384, 288),
    ) -> None:
        """Make or find ``clips`` clips of ``size`` (width, height), from ``first_seed`` on.

        Raises:
            PixelReferError: BAD_REQUEST when those in ``folder`` are of another size.
        """
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(folder, first_seed + i, min(SHARD, clips - i), size)
                for i in range(0, clips, SHARD)]
        paths = [_shard_path(*job[:3]) for job in jobs]
        missing = [job for job, path in zip(jobs, paths, strict=True)
                   if not path.with_suffix('.pkl').exists()]
        if missing:
            # A process of its own per shard: rendering contexts are one per process.
            context = get_context('spawn')
            with ProcessPoolExecutor(processes, context, max_tasks_per_child=1) as pool:
                list(pool.map(_write_shard, *zip(*missing, strict=True)))
        self._bytes: list[NDArray[np.uint8]] = []
        self._facts: list[tuple[ReasoningClip, list[tuple[int, int]]]] = []
        self.size = size
        for path in paths:
            with path.with_suffix('.pkl').open('rb') as file:
                made, facts = pickle.load(file)
            if made != size:
                raise PixelReferError(
                    ErrorCode.BAD_REQUEST,
                    f'{path} holds pictures of {made}, not {size}: remove it')
            self._facts += facts
            self._bytes.append(np.memmap(path.with_suffix('.bin'), np.uint8, 'r'))

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self._facts)

    def facts(self, index: int) -> ReasoningClip:
        """Return a clip without its pictures and masks (they are empty)."""
        if not 0 <= index < len(self._facts):
            raise IndexError(f'clip {index} of {len(self._facts)}')
        return self._facts[index][0]

    def images(self, index: int, frames: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Return pictures of a clip, each (H, W, 3) uint8 RGB."""
        return [decode_compressed(self._part(index, 2 * frame)) for frame in frames]

    def numbers(self, index: int, frames: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Return which thing each pixel shows, each (H, W) uint8 as in ``ReasoningClip``."""
        return [np.frombuffer(zlib.decompress(self._part(index, 2 * frame + 1)),
                              np.uint8).reshape(self.size[::-1]) for frame in frames]

    def __getitem__(self, index: int) -> ReasoningClip:
        """Return a whole clip."""
        clip = self.facts(index)
        frames: Any = range(len(clip.times_s))
        return replace(clip, images=np.stack(self.images(index, frames)),
                       numbers=np.stack(self.numbers(index, frames)))

    def _part(self, index: int, number: int) -> bytes:
        start, length = self._facts[index][1][number]
        return self._bytes[index // SHARD][start:start + length].tobytes()
