# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check run lengths against pictures drawn the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Box, ErrorCode, Mask, PixelReferError

pictures = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def slow_counts(picture: np.ndarray) -> tuple[int, ...]:
    counts, value = [0], False
    for pixel in picture.flatten(order='F'):
        if bool(pixel) != value:
            counts.append(0)
            value = bool(pixel)
        counts[-1] += 1
    return tuple(counts)


@given(pictures)
def test_encode_counts_down_the_columns_background_first(picture: np.ndarray) -> None:
    assert masks.encode(picture) == Mask(*picture.shape, slow_counts(picture))


@given(pictures)
def test_runs_are_those_of_the_mask_with_the_box_around_it(picture: np.ndarray) -> None:
    runs, box = masks.runs(picture)
    mask = masks.encode(picture)
    assert runs.dtype == np.uint32
    assert tuple(runs.tolist()) == mask.counts
    assert box == masks.bounding_box(mask)


@given(pictures)
def test_decode_undoes_encode(picture: np.ndarray) -> None:
    back = masks.decode(masks.encode(picture))
    assert back.dtype == np.bool_
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, picture)


@given(pictures)
def test_area_emptiness_and_box_are_those_of_the_picture(picture: np.ndarray) -> None:
    mask = masks.encode(picture)
    rows, columns = np.nonzero(picture)
    assert masks.area(mask) == len(rows)
    assert masks.is_empty(mask) == (len(rows) == 0)
    if len(rows):
        left, top = int(columns.min()), int(rows.min())
        expected = Box(left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1)
        assert masks.bounding_box(mask) == expected
    else:
        assert masks.bounding_box(mask) is None


@given(st.data(), st.integers(1, 12), st.integers(1, 12))
def test_a_filled_box_needs_no_drawing(data: st.DataObject, height: int, width: int) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    picture = np.zeros((height, width), dtype=bool)
    picture[box.y : box.y + box.height, box.x : box.x + box.width] = True
    assert masks.encode_box(box, height, width) == masks.encode(picture)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=10))
def test_runs_of_no_length_inside_are_understood(counts: list[int]) -> None:
    mask = Mask(1, sum(counts), tuple(counts))
    picture = masks.decode(mask)
    assert masks.area(mask) == picture.sum()
    assert masks.bounding_box(mask) == masks.bounding_box(masks.encode(picture))


def test_encode_takes_numbers_as_masks() -> None:
    assert masks.encode(np.array([[0, 255], [0, 1]], dtype=np.uint8)) == Mask(2, 2, (2, 2))


def test_no_mask_is_an_empty_mask() -> None:
    nothing = Mask(0, 0, ())
    masks.validate(nothing)
    assert masks.is_empty(nothing)
    assert masks.decode(nothing).shape == (0, 0)
    assert masks.encode(np.zeros((0, 0), dtype=bool)) == nothing


@pytest.mark.parametrize(
    ('mask', 'words'),
    [
        (Mask(2, 3, (5,)), 'add up to 6; these add up to 5'),
        (Mask(2, 3, (3, 4)), 'add up to 6'),
        (Mask(2, 3, (7, -1)), 'negative'),
        (Mask(-2, -3, (6,)), 'cannot be'),
    ],
)
def test_run_lengths_that_do_not_fit_are_refused(mask: Mask, words: str) -> None:
    with pytest.raises(PixelReferError, match=words) as caught:
        masks.decode(mask)
    assert caught.value.code == ErrorCode.BAD_REGION


def test_a_picture_in_colour_is_no_mask() -> None:
    with pytest.raises(PixelReferError, match='two dimensions'):
        masks.encode(np.zeros((2, 2, 3), dtype=bool))
