# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn the cells under a mask into a fixed number of tokens (scale-adaptive object tokenizer).

All masks of a call are one batch: cells are gathered from packed feature maps, padded with
explicit lengths, and clustered together without a loop over masks or clusters. PixelRefer
paper, section on the scale-adaptive object tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

MAX_PADDING = 4
"""Masks clustered together have at most so many times the cells of the smallest."""


@dataclass(frozen=True)
class CellLayout:
    """Say which cells of the object crops belong to their masks, and where they lie.

    Attributes:
        feature_grids: Per mask, (rows, columns) of the crop's feature map.
        mask_grids: Per mask, (rows, columns) of the mask on the patch grid; feature maps of
            another size are resampled to it.
        lengths: Per mask, how many cells belong to it.
        cells: (sum of lengths,) int64, rows of the packed maps (mask grids, one after another).
        positions: (sum of lengths, 2) float32, normalised positions in the frame.
    """

    feature_grids: tuple[tuple[int, int], ...]
    mask_grids: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    cells: Tensor
    positions: Tensor

    def to(self, device: torch.device | str) -> CellLayout:
        """Return the same layout with its tensors on a device."""
        return replace(self, cells=self.cells.to(device), positions=self.positions.to(device))


def cell_layout(
    grid_masks: Sequence[NDArray[np.float32]],
    feature_grids: Sequence[tuple[int, int]],
    boxes: Sequence[tuple[int, int, int, int]],
    frame_sizes: Sequence[tuple[int, int]],
) -> CellLayout:
    """Lay out the cells of some masks.

    Args:
        grid_masks: Per mask, (rows, columns); cells above 0 belong to it.
        feature_grids: Per mask, (rows, columns) of its crop's feature map.
        boxes: Per mask, (top, left, bottom, right) of the crop in frame pixels, inclusive.
        frame_sizes: Per mask, (height, width) of its frame.

    Returns:
        The layout, on the CPU.
    """
    cells, positions, lengths = [np.zeros(0, np.int64)], [np.zeros((0, 2))], []
    offset = 0
    for mask, grid, box, size in zip(grid_masks, feature_grids, boxes, frame_sizes, strict=True):
        inside = np.flatnonzero(mask > 0)
        along_columns, along_rows = _positions(mask.shape, grid, box, size)
        rows, columns = np.divmod(inside, mask.shape[1])
        positions.append(np.stack([along_columns[columns], along_rows[rows]], axis=1))
        cells.append(inside + offset)
        lengths.append(len(inside))
        offset += mask.size
    return CellLayout(
        feature_grids=tuple((int(rows), int(columns)) for rows, columns in feature_grids),
        mask_grids=tuple((mask.shape[0], mask.shape[1]) for mask in grid_masks),
        lengths=tuple(lengths),
        cells=torch.from_numpy(np.concatenate(cells)),
        positions=torch.from_numpy(np.concatenate(positions).astype(np.float32)),
    )


def _positions(
    mask_grid: tuple[int, ...],
    feature_grid: tuple[int, int],
    box: tuple[int, int, int, int],
    size: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the position of each column and of each row of a mask grid.

    Columns run over the box's vertical extent and rows over its horizontal one: trained weights
    know positions with the axes mixed up like this. When the feature map has another size, the
    positions are interpolated as the features are.
    """
    top, left, bottom, right = box
    height, width = size
    rows, columns = feature_grid
    along_columns = (np.arange(columns) / columns * (bottom - top) + top) / max(width - 1, 1)
    along_rows = (np.arange(rows) / rows * (right - left) + left) / max(height - 1, 1)
    return _resample(along_columns, mask_grid[1]), _resample(along_rows, mask_grid[0])


def _resample(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Interpolate values linearly to another count, half-pixel centres, clamped at the ends."""
    if len(values) == count:
        return values
    centres = (np.arange(count) + 0.5) * len(values) / count - 0.5
    return np.interp(centres, np.arange(len(values)), values)


def pack_to_mask_grids(features: Sequence[Tensor], layout: CellLayout) -> Tensor:
    """Concatenate feature maps, those of another size than their mask grid resampled to it.

    Args:
        features: Per mask, (rows * columns, V) in raster order.
        layout: Says both grids.

    Returns:
        (total cells of the mask grids, V).
    """
    packed = []
    for feature, grid, target in zip(
        features, layout.feature_grids, layout.mask_grids, strict=True
    ):
        if grid != target:
            picture = feature.t().reshape(1, -1, *grid)
            resized = functional.interpolate(
                picture.float(), size=target, mode='bilinear', align_corners=False
            )
            feature = resized.to(feature.dtype).flatten(2)[0].t()
        packed.append(feature)
    return torch.cat(packed)


def locate(features: Sequence[Tensor], layout: CellLayout, positions_in: nn.Linear) -> Tensor:
    """Return the masks' cells with their position added, packed.

    Args:
        features: Per mask, (cells of its feature map, V).
        layout: Says which of them belong to the masks, and where they lie.
        positions_in: Turns a position into (V,).

    Returns:
        (T, V), masks one after another.
    """
    packed = pack_to_mask_grids(features, layout)
    positions = layout.positions.to(device=packed.device, dtype=positions_in.weight.dtype)
    return packed[layout.cells.to(packed.device)] + positions_in(positions)


def pad_cells(
    cells: Tensor, lengths: Sequence[int], masks: Sequence[int], width: int
) -> tuple[Tensor, Tensor]:
    """Spread packed cells of some masks over a padded batch.

    Args:
        cells: (T, V).
        lengths: Per mask, its share of T.
        masks: Which masks, N of them.
        width: Cells of each at most, W; what a mask has beyond them is left out.

    Returns:
        (N, W, V) with zeros past each length; (N, W) bool, True on cells.
    """
    counts = torch.tensor(lengths, dtype=torch.int64)
    starts = torch.cumsum(counts, dim=0) - counts
    steps = torch.arange(width)
    chosen = list(masks)
    inside = steps[None, :] < counts[chosen, None]
    index = torch.where(inside, starts[chosen, None] + steps[None, :], len(cells))
    zero = cells.new_zeros(1, cells.shape[1])
    return torch.cat([cells, zero])[index.to(cells.device)], inside.to(cells.device)


def even_starts(lengths: Sequence[int], clusters: int) -> Tensor:
    """Pick evenly spaced cells in raster order as the first centroids.

    Returns:
        (M, clusters) int64; meaningful for masks with more cells than clusters.
    """
    steps = torch.arange(clusters)
    counts = torch.tensor(lengths)
    return ((2 * steps[None, :] + 1) * counts[:, None]) // (2 * clusters)


def permutation_starts(
    permutations: Sequence[Sequence[int] | None], lengths: Sequence[int], clusters: int
) -> Tensor:
    """Pick the first cells of given permutations as the first centroids.

    Args:
        permutations: Per mask, a permutation of its cells; None where it is not clustered.
        lengths: Per mask, its number of cells.
        clusters: How many to pick.

    Returns:
        (M, clusters) int64.
    """
    starts = even_starts(lengths, clusters)
    for row, permutation in enumerate(permutations):
        if permutation is not None:
            starts[row] = torch.as_tensor(permutation)[:clusters]
    return starts


def cluster(cells: Tensor, inside: Tensor, starts: Tensor, iterations: int) -> Tensor:
    """Cluster the cells of each mask by k-means, all masks at once, in fp32.

    A mask stops moving when its centroids did not change in the last round; a cluster that lost
    all cells keeps its centroid. Gradients flow through the means.

    Args:
        cells: (M, L, V), padded.
        inside: (M, L) bool, True on cells.
        starts: (M, K) int64, cells that are the first centroids.
        iterations: At most this many rounds.

    Returns:
        (M, K, V) float32, centroids in the order of their starts.
    """
    with torch.autocast(cells.device.type, enabled=False):
        cells = cells.float()
        batch = torch.arange(len(cells), device=cells.device)[:, None]
        centroids = cells[batch, starts]
        weights = inside[..., None].float()
        # distances do not depend on the origin; near the cells' mean they round least
        origin = cells.sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=1)
        centred = (cells - origin).detach()
        ids = torch.arange(starts.shape[1], device=cells.device)
        settled = torch.zeros(len(cells), 1, 1, dtype=torch.bool, device=cells.device)
        for _ in range(iterations):
            around = (centroids - origin).detach()
            distance = around.square().sum(-1)[:, None, :] - 2 * centred @ around.mT
            nearest = distance.argmin(dim=-1)
            members = (nearest[..., None] == ids).float() * weights
            counts = members.sum(dim=1)[..., None]
            means = members.mT @ cells / counts.clamp(min=1)
            moved = torch.where(settled | (counts == 0), centroids, means)
            close = torch.isclose(centroids, moved, rtol=1e-5, atol=1e-6)
            settled = settled | close.all(dim=-1).all(dim=-1)[:, None, None]
            centroids = moved
        return centroids


def object_tokens(
    cells: Tensor,
    lengths: Sequence[int],
    count: int,
    iterations: int,
    starts: Tensor | None = None,
) -> Tensor:
    """Make exactly ``count`` tokens of each mask's cells.

    More cells than that are clustered, fewer are padded with zero rows.

    Args:
        cells: (T, V), position added, packed.
        lengths: Per mask, its share of T.
        count: Tokens per mask.
        iterations: At most this many rounds of clustering.
        starts: (M, count) first centroids; evenly spaced cells when None.

    Returns:
        (M, count, V) of the cells' dtype.
    """
    tokens, _ = pad_cells(cells, lengths, range(len(lengths)), count)
    if starts is None:
        starts = even_starts(lengths, count)
    for group in batches(lengths, count):
        few, inside = pad_cells(cells, lengths, group, lengths[group[0]])
        centroids = cluster(few, inside, starts[group].to(cells.device), iterations)
        rows = torch.tensor(group, device=cells.device)
        tokens = tokens.index_copy(0, rows, centroids.to(tokens.dtype))
    return tokens


def batches(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Share masks out that are clustered together, so that one large mask does not pad them all.

    Args:
        lengths: Per mask, its number of cells.
        count: Masks with no more cells are not clustered.

    Returns:
        Batches of masks, longest first; no mask is padded to more than ``MAX_PADDING`` times
        its cells. Crops are scaled to about equally many cells: mostly there is one batch.
    """
    many = [mask for mask, length in enumerate(lengths) if length > count]
    groups: list[list[int]] = []
    for mask in sorted(many, key=lambda mask: -lengths[mask]):
        if groups and lengths[groups[-1][0]] <= MAX_PADDING * lengths[mask]:
            groups[-1].append(mask)
        else:
            groups.append([mask])
    return groups
