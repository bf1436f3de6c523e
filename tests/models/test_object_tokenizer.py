# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test cells, positions and the batched clustering."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pixelrefer_ros.models.pixelrefer.object_tokenizer import (
    batches,
    cell_layout,
    cluster,
    even_starts,
    object_tokens,
    pack_to_mask_grids,
    pad_cells,
    permutation_starts,
)


def plain_kmeans(tokens: torch.Tensor, starts: torch.Tensor, iterations: int) -> torch.Tensor:
    """Cluster one mask cluster by cluster, in double precision."""
    tokens = tokens.double()
    centroids = tokens[starts].clone()
    previous = None
    for _ in range(iterations):
        if previous is not None and torch.allclose(previous, centroids, rtol=1e-5, atol=1e-6):
            break
        previous = centroids.clone()
        nearest = (tokens[:, None] - centroids[None]).square().sum(-1).argmin(1)
        for k in range(len(centroids)):
            if (nearest == k).any():
                centroids[k] = tokens[nearest == k].mean(0)
    return centroids


@pytest.mark.parametrize('iterations', [1, 3, 10])
def test_batched_clustering_is_that_of_each_mask_alone(iterations: int) -> None:
    torch.manual_seed(0)
    lengths = [9, 40, 17, 100]
    tokens = [torch.randn(length, 6) for length in lengths]
    padded, inside = pad_cells(torch.cat(tokens), lengths, range(4), 100)
    starts = permutation_starts([torch.randperm(n).tolist() for n in lengths], lengths, 8)
    found = cluster(padded, inside, starts, iterations)
    for row, alone in enumerate(tokens):
        expected = plain_kmeans(alone, starts[row], iterations)
        torch.testing.assert_close(found[row].double(), expected, rtol=1e-5, atol=1e-5)


def test_cluster_that_loses_its_cells_keeps_its_centroid() -> None:
    tokens = torch.tensor([[0.0], [0.0], [1.0], [5.0]])
    padded, inside = pad_cells(tokens, [4], [0], 4)
    found = cluster(padded, inside, torch.tensor([[0, 1, 3]]), 1)
    # both first centroids are equal: the lower one takes all, the other stays where it was
    assert found[0, :, 0].tolist() == pytest.approx([1 / 3, 0.0, 5.0])


def test_few_cells_are_kept_in_raster_order_and_padded_with_zeros() -> None:
    cells = torch.arange(5, dtype=torch.float32)[:, None].expand(5, 3) + 1
    tokens = object_tokens(cells, [2, 0, 3], 4, 3)
    assert tokens[:, :, 0].tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [3, 4, 5, 0]]


def test_as_many_cells_as_tokens_are_not_clustered() -> None:
    cells = torch.randn(4, 3)
    assert torch.equal(object_tokens(cells, [4], 4, 3)[0], cells)


def test_one_large_mask_does_not_pad_many_small_ones() -> None:
    lengths = [40, 3000, 33, 8, 120, 700, 0]
    groups = batches(lengths, 32)
    assert groups == [[1], [5], [4, 0, 2]]
    torch.manual_seed(1)
    cells = torch.randn(sum(lengths), 6)
    together = object_tokens(cells, lengths, 32, 3)
    for mask, own in enumerate(cells.split(lengths)):
        alone = object_tokens(own, [lengths[mask]], 32, 3)
        torch.testing.assert_close(together[mask], alone[0], rtol=1e-5, atol=1e-5)


def test_gradient_reaches_every_cell() -> None:
    cells = torch.randn(20, 3, requires_grad=True)
    object_tokens(cells, [3, 17], 4, 3).square().sum().backward()
    assert cells.grad is not None
    assert bool((cells.grad.abs().sum(1) > 0).all())


def test_even_starts_are_spread_and_distinct() -> None:
    starts = even_starts([9, 100], 8)
    assert starts[1].tolist() == [6, 18, 31, 43, 56, 68, 81, 93]
    assert len(set(starts[0].tolist())) == 8
    assert int(starts[0].max()) < 9


def test_positions_mix_the_axes_as_trained_weights_know_them() -> None:
    layout = cell_layout([np.ones((2, 4), np.float32)], [(2, 4)], [(10, 30, 20, 70)], [(50, 101)])
    positions = layout.positions.reshape(2, 4, 2).numpy()
    columns = (np.arange(4) / 4 * (20 - 10) + 10) / 100
    rows = (np.arange(2) / 2 * (70 - 30) + 30) / 49
    np.testing.assert_allclose(positions[..., 0], np.broadcast_to(columns, (2, 4)), rtol=1e-6)
    np.testing.assert_allclose(
        positions[..., 1], np.broadcast_to(rows[:, None], (2, 4)), rtol=1e-6
    )


def test_feature_map_of_another_size_is_resampled_with_its_positions() -> None:
    torch.manual_seed(0)
    mask = np.ones((3, 5), np.float32)
    box, size = (0, 8, 30, 40), (60, 80)
    layout = cell_layout([mask], [(6, 4)], [box], [size])
    fine = cell_layout([np.ones((6, 4), np.float32)], [(6, 4)], [box], [size])
    features = torch.randn(24, 7)
    linear = torch.nn.Linear(2, 7)

    found = pack_to_mask_grids([features], layout)[layout.cells] + linear(layout.positions)
    both = (features + linear(fine.positions)).t().reshape(1, 7, 6, 4)
    expected = functional.interpolate(both, size=(3, 5), mode='bilinear', align_corners=False)
    torch.testing.assert_close(found, expected[0].flatten(1).t(), rtol=1e-5, atol=1e-6)


def test_cells_follow_the_masks_through_the_packed_maps() -> None:
    first, second = np.zeros((2, 2), np.float32), np.zeros((3, 1), np.float32)
    first[1, 0] = 0.2
    second[2, 0] = 1
    layout = cell_layout([first, second], [(2, 2), (3, 1)], [(0, 0, 5, 5)] * 2, [(9, 9)] * 2)
    assert layout.cells.tolist() == [2, 6]
    assert layout.lengths == (1, 1)


def test_no_masks_make_an_empty_layout() -> None:
    layout = cell_layout([], [], [], [])
    assert layout.cells.shape == (0,)
    assert layout.positions.shape == (0, 2)
