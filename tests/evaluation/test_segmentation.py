# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check J and F against cases that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelrefer_ros.evaluation.segmentation import (
    boundary,
    boundary_measure,
    region_similarity,
    score_masks,
)

EMPTY = np.zeros((60, 80), np.bool_)  # the diagonal is 100: the tolerance is one pixel


def block(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = EMPTY.copy()
    mask[top : top + height, left : left + width] = True
    return mask


def test_j_is_intersection_over_union() -> None:
    assert region_similarity(block(10, 10, 10, 10), block(10, 15, 10, 10)) == 50 / 150
    assert region_similarity(block(10, 10, 10, 10), block(30, 30, 10, 10)) == 0.0


def test_j_and_f_of_nothing() -> None:
    some = block(10, 10, 10, 10)
    for measure in (region_similarity, boundary_measure):
        assert measure(EMPTY, EMPTY) == 1.0
        assert measure(some, EMPTY) == 0.0
        assert measure(EMPTY, some) == 0.0
        assert measure(some, some) == 1.0


def test_the_boundary_of_a_block_is_one_pixel_wide_up_and_left_of_its_edges() -> None:
    edges = boundary(block(20, 30, 4, 6))
    wanted = np.zeros_like(EMPTY)
    wanted[19:24, 29:36] = True
    wanted[20:23, 30:35] = False
    np.testing.assert_array_equal(edges, wanted)


def test_the_border_of_the_image_is_no_boundary() -> None:
    assert not boundary(np.ones((5, 7), np.bool_)).any()
    edges = boundary(block(0, 0, 60, 10))
    assert edges[:, 9].all()
    assert edges.sum() == 60


def test_f_forgives_one_pixel_here_and_not_two() -> None:
    lines = [np.zeros((60, 80), np.bool_) for _ in range(3)]
    for mask, left in zip(lines, (40, 41, 42), strict=True):
        mask[:, :left] = True
    assert boundary_measure(lines[0], lines[1]) == 1.0
    assert boundary_measure(lines[0], lines[2]) == 0.0


def test_f_is_the_harmonic_mean_of_precision_and_recall() -> None:
    truth = EMPTY.copy()
    truth[:, :40] = True  # a boundary of 60 pixels
    found = EMPTY.copy()
    found[:30, :40] = True  # the upper half of it, and 40 that are too many
    # 30 + 40 boundary pixels, right are those within a pixel of column 39: 30 and the two last
    # of the lower edge, one of which is counted already.
    edges = boundary(found)
    near = np.zeros_like(edges)
    near[:, 38:41] = True
    precision = (edges & near).sum() / edges.sum()
    recall = 31 / 60  # rows 0 to 30
    wanted = 2 * precision * recall / (precision + recall)
    assert (edges & near).sum() == 31
    assert edges.sum() == 69
    assert boundary_measure(found, truth) == pytest.approx(wanted, abs=1e-12)


def test_means_are_over_all_frames_and_no_mask_is_an_empty_one() -> None:
    some = block(10, 10, 10, 10)
    scores = score_masks([(some, some), (None, some), (None, EMPTY), (some, EMPTY)])
    assert (scores.region, scores.boundary, scores.mean, scores.frames) == (0.5, 0.5, 0.5, 4)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match='compared'):
        region_similarity(EMPTY, EMPTY[:-1])
    with pytest.raises(ValueError, match='no frames'):
        score_masks([])


MASKS = hnp.arrays(np.bool_, st.tuples(st.just(12), st.just(17)))


@given(a=MASKS, b=MASKS)
def test_measures_are_symmetric_and_within_bounds(a: np.ndarray, b: np.ndarray) -> None:
    for measure in (region_similarity, boundary_measure):
        assert measure(a, b) == pytest.approx(measure(b, a))
        assert 0.0 <= measure(a, b) <= 1.0
        assert measure(a, a) == 1.0
