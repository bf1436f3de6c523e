# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Leave out what did not change from one frame of a video to the next (token compression)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MIN_CHANGE = 0.1
"""Least mean change of a token's pixels that is new, in units of half a grey level."""


def changed(before: Tensor, after: Tensor, grid: tuple[int, int], merge: int) -> Tensor:
    """Say which tokens of a frame show something new.

    Args:
        before: (rows * columns, 588) uint8 patches of the frame before, in raster order.
        after: The same of the frame at hand.
        grid: (rows, columns) of both, multiples of ``merge``.
        merge: Side in patches of the square one token stands for.

    Returns:
        (rows / merge * columns / merge,) bool; at least one is True, as every frame keeps a
        token.
    """
    rows, columns = grid
    change = (after.short() - before.short()).abs().sum(dim=1, dtype=torch.int64)
    squares = change.view(rows // merge, merge, columns // merge, merge).sum(dim=(1, 3)).flatten()
    # in whole numbers, so that no rounding decides; the tower's pixels, -1 to 1, times 255 are
    # two to the grey level
    new = 2 * squares > MIN_CHANGE * merge * merge * after.shape[1]
    if not new.any():
        new[0] = True
    return new


def kept_tokens(
    patches: Sequence[Tensor], grids: Sequence[tuple[int, int]], merge: int, *, prune: bool
) -> tuple[Tensor, ...]:
    """Say which tokens of each frame the language model reads.

    Args:
        patches: Per frame, as in ``changed``.
        grids: Per frame, (rows, columns).
        merge: As in ``changed``.
        prune: Whether frames are a video of which only what changes is read. The first frame,
            and one of another size than the frame before, is read whole in any case.
    """
    kept = []
    for place, grid in enumerate(grids):
        if prune and place and grids[place - 1] == grid:
            kept.append(changed(patches[place - 1], patches[place], grid, merge))
        else:
            kept.append(torch.ones(grid[0] * grid[1] // (merge * merge), dtype=torch.bool))
    return tuple(kept)
