# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test which tokens of a video are left out."""

from __future__ import annotations

import numpy as np
import torch

from pixelrefer_ros.models.pixelrefer.full.pruning import changed, kept_tokens

GRID = (4, 6)


def patches(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(1, 255, (24, 588), np.uint8))


def by_the_paper(before: torch.Tensor, after: torch.Tensor) -> list[bool]:
    """Work the rule out in floats, square by square."""
    pixels = [(frame.double() / 255 - 0.5) / 0.5 for frame in (before, after)]
    kept = []
    for row in range(2):
        for column in range(3):
            members = [
                (2 * row + y) * 6 + 2 * column + x for y in range(2) for x in range(2)
            ]  # fmt: skip
            change = (pixels[1][members] - pixels[0][members]).abs().mean() * 255
            kept.append(bool(change > 0.1))
    return kept


def test_only_squares_that_change_enough_are_kept() -> None:
    before = patches(0)
    after = before.clone()
    after[0, :117] += 1  # too little by one grey level of one pixel
    after[3, :60] += 1
    after[8, :58] += 1  # the same square: just enough
    after[12:14] = 255 - after[12:14]
    expected = [False, True, False, True, False, False]
    assert by_the_paper(before, after) == expected
    assert changed(before, after, GRID, 2).tolist() == expected


def test_random_changes_follow_the_paper() -> None:
    rng = np.random.default_rng(3)
    before = patches(1)
    for count in (60, 110, 125, 400):
        after = before.clone()
        for row in range(24):
            after[row, rng.permutation(588)[: rng.integers(count // 4 + 1)]] -= 1
        expected = by_the_paper(before, after)
        expected[0] = expected[0] or not any(expected)
        assert changed(before, after, GRID, 2).tolist() == expected


def test_frame_like_the_one_before_keeps_its_first_token() -> None:
    assert changed(patches(0), patches(0), GRID, 2).tolist() == [True] + [False] * 5


def test_frames_are_compared_with_the_one_before() -> None:
    still, other = patches(0), patches(1)
    kept = kept_tokens([still, other, other, still], [GRID] * 4, 2, prune=True)
    assert [int(which.sum()) for which in kept] == [6, 6, 1, 6]


def test_pictures_and_frames_of_another_size_are_kept_whole() -> None:
    same = [patches(0), patches(0)]
    assert all(which.all() for which in kept_tokens(same, [GRID] * 2, 2, prune=False))
    kept = kept_tokens([*same, patches(0)], [GRID, (6, 4), (6, 4)], 2, prune=True)
    assert [int(which.sum()) for which in kept] == [6, 6, 1]
