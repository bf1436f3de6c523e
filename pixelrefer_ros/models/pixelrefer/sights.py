# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold what is seen of requests, and share it out to passes of the tower."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch

from pixelrefer_ros.models.pixelrefer.object_tokenizer import CellLayout, cell_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.crops import ObjectCrop

_NUMBERS = count()
"""Tell tokens apart; see ``Tokens.named``."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Hold finished tokens.

    Attributes:
        values: (n, D), on the model's device.
        names: (n, 2) int64 on the CPU: what tells each from all others ever made. Those that are
            made again have other names, so that nothing has to be compared.
    """

    values: Tensor
    names: Tensor

    @classmethod
    def named(cls, values: Tensor) -> Tokens:
        """Give new tokens their names: a number of their own, and their places."""
        places = torch.arange(len(values))
        return cls(values, torch.stack([torch.full_like(places, next(_NUMBERS)), places], dim=1))

    @property
    def nbytes(self) -> int:
        """What they take on the device."""
        return self.values.nbytes

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.values)

    def at(self, which: Tensor) -> Tokens:
        """Return some of them.

        Args:
            which: (n,) bool on the CPU; its places are worked out there, as the device would
                have to be waited for.
        """
        places = which.nonzero()[:, 0]
        return Tokens(self.values[places.to(self.values.device)], self.names[places])


@dataclass(eq=False)
class Picture:
    """Hold a picture to be encoded.

    Attributes:
        patches: (rows * columns, 588) uint8, on the host or the device.
        grid: (rows, columns) of patches.
    """

    patches: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class Cut:
    """Say where an object crop was cut, without holding its picture; see ``ObjectCrop``.

    Attributes:
        grid_mask: (rows, columns) float32; cells above 0 belong to the mask.
        box: (top, left, bottom, right) in frame pixels, inclusive.
        frame_size: (height, width) of the frame.
    """

    grid_mask: NDArray[np.float32]
    box: tuple[int, int, int, int]
    frame_size: tuple[int, int]

    @classmethod
    def of(cls, crop: ObjectCrop) -> Cut:
        """Keep what is needed once the crop's picture is in patches."""
        return cls(crop.grid_mask, crop.box, crop.frame_size)


def layout(cuts: Sequence[Cut], pictures: Sequence[Picture]) -> CellLayout:
    """Lay out the cells of some masks, given what their object crops became."""
    return cell_layout(
        [cut.grid_mask for cut in cuts],
        [picture.grid for picture in pictures],
        [cut.box for cut in cuts],
        [cut.frame_size for cut in cuts],
    )


@dataclass(eq=False)
class Sight:
    """Hold a frame, or a mask of one, that becomes tokens.

    Attributes:
        image: The frame's array.
        name: Its name in the cache.
        tokens: What it became; None before.
    """

    image: NDArray[np.uint8]
    name: Hashable
    tokens: Tokens | None = field(default=None, kw_only=True)

    @property
    def shape(self) -> tuple[Any, ...]:
        """Return what those of one pass must have in common."""
        return ()

    def unseen(self) -> list[Picture]:
        """Return the pictures that have to be encoded, its own last; none when it has tokens."""
        raise NotImplementedError


AnySight = TypeVar('AnySight', bound=Sight)


@dataclass(eq=False)
class Prepared(Generic[AnySight]):
    """Hold a request whose pictures are cut.

    Attributes:
        input_ids: (L,) int64 on the CPU, its prompt.
        sights: Whole frames that are read, then its masks in the order of the prompt.
        should_stop: Asked between tower passes.
        kept: Per whole frame, (tokens,) bool on the CPU: the tokens that are read.
    """

    input_ids: Tensor
    sights: tuple[AnySight, ...]
    should_stop: Callable[[], bool]
    kept: tuple[Tensor, ...] = ()


def as_binary(mask: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return a mask as uint8 of 0 and 1; no copy where there need be none."""
    if mask.dtype == np.bool_:
        mask = mask.view(np.uint8)
    elif mask.dtype != np.uint8 or mask.max(initial=0) > 1:
        mask = (mask != 0).astype(np.uint8)
    binary: NDArray[np.uint8] = np.ascontiguousarray(mask)
    return binary


def mask_digest(mask: NDArray[np.uint8]) -> bytes:
    """Return what tells a mask from any other of its frame: a digest of its bits.

    The mask's content is its revision: a mask that is given again is known, a corrected one is
    not. Pixels are read once and only those of its box are digested, 0.15 ms at 1280 x 720.
    """
    inside = mask.view(np.bool_)
    rows = np.flatnonzero(inside.any(axis=1))
    if not rows.size:
        return b''
    rows = rows[[0, -1]]
    columns = np.flatnonzero(inside[rows[0] : rows[1] + 1].any(axis=0))[[0, -1]]
    bits = np.packbits(inside[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1])
    digest = blake2b(bits.tobytes(), digest_size=16)
    digest.update(rows.tobytes() + columns.tobytes())
    return digest.digest()


def unseen(prepared: Iterable[Prepared[AnySight]]) -> list[AnySight]:
    """Return what has to be encoded, each once, pictures of a size side by side."""
    found = {
        sight: (sight.shape, pictures[-1].grid)
        for one in prepared
        for sight in one.sights
        if (pictures := sight.unseen())
    }
    return sorted(found, key=lambda sight: found[sight])


def first_pass(sights: Sequence[AnySight], max_patches: int) -> list[AnySight]:
    """Return those of some sights, in their order, that are encoded in one tower pass.

    Args:
        sights: At least one.
        max_patches: Patches of the pass, unless the first sight alone takes more.
    """
    pictures: set[Picture] = set()
    size = 0
    for place, sight in enumerate(sights):
        new = set(sight.unseen()) - pictures
        size += sum(len(picture.patches) for picture in new)
        if place and (size > max_patches or sight.shape != sights[0].shape):
            return list(sights[:place])
        pictures |= new
    return list(sights)
