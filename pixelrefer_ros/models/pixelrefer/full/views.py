# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold what is seen of requests, and share it out to passes of the tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.crops import ObjectCrop
    from pixelrefer_ros.models.pixelrefer.sights import Picture


@dataclass(eq=False)
class View:
    """Hold a whole frame or a mask of one.

    Attributes:
        image: The frame's array.
        name: Its name in the cache.
        length: How many tokens it has.
        merge: Side in patches of the square one token of a whole frame stands for.
        crop: Where a mask was cut, and which cells belong to it; None for a whole frame.
        picture: What to encode; None when that is done.
        tokens: (length, D); None before.
    """

    image: NDArray[np.uint8]
    name: Hashable
    length: int
    merge: int = 1
    crop: ObjectCrop | None = None
    picture: Picture | None = None
    tokens: Tensor | None = None


@dataclass(eq=False)
class Prepared:
    """Hold a request whose pictures are cut.

    Attributes:
        input_ids: (L,) int64 on the CPU, its prompt.
        frames: Its whole frames.
        kept: Per frame, (length,) bool on the CPU: the tokens that are read.
        regions: A mask for each of its regions.
        should_stop: Asked between tower passes.
    """

    input_ids: Tensor
    frames: tuple[View, ...]
    kept: tuple[Tensor, ...]
    regions: tuple[View, ...]
    should_stop: Callable[[], bool]


def unseen(prepared: Iterable[Prepared]) -> list[View]:
    """Return what has to be encoded, each once, pictures of a size side by side."""
    found = {
        view: view.picture.grid
        for one in prepared
        for view in (*one.frames, *one.regions)
        if view.picture is not None
    }
    return sorted(found, key=lambda view: found[view])


def first_pass(views: Sequence[View], max_patches: int) -> list[View]:
    """Return the first views of some that are encoded in one tower pass; at least one."""
    size = 0
    for place, view in enumerate(views):
        size += len(view.picture.patches) if view.picture is not None else 0
        if place and size > max_patches:
            return list(views[:place])
    return list(views)
