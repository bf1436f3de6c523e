# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check how boxes, points and masks become masks, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.regions import observe, region_mask
from pixelrefer_ros.core.types import (
    Box,
    ErrorCode,
    Frame,
    Mask,
    PixelReferError,
    Region,
    RegionKind,
)

HEIGHT, WIDTH = 50, 80


def box(x: int, y: int, width: int, height: int) -> Region:
    return Region('cup', RegionKind.BOX, box=Box(x, y, width, height))


def points(*xy: tuple[float, float], labels: tuple[int, ...] = ()) -> Region:
    return Region('cup', RegionKind.POINTS, points=xy, point_labels=labels)


def given_mask(mask: Mask | None) -> Region:
    return Region('cup', RegionKind.MASK, mask=mask)


@given(
    st.integers(-20, 100), st.integers(-20, 100), st.integers(-5, 120), st.integers(-5, 120)
)
def test_a_box_is_filled_and_clipped_or_refused(x: int, y: int, width: int, height: int) -> None:
    picture = np.zeros((HEIGHT, WIDTH), dtype=bool)
    if width > 0 and height > 0:
        picture[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = True
    if picture.any():
        assert region_mask(box(x, y, width, height), HEIGHT, WIDTH) == masks.encode(picture)
    else:
        with pytest.raises(PixelReferError, match='empty|outside the image') as caught:
            region_mask(box(x, y, width, height), HEIGHT, WIDTH)
        assert caught.value.code == ErrorCode.BAD_REGION


def test_a_point_is_a_disc_of_four_percent_of_the_short_side() -> None:
    picture = masks.decode(region_mask(points((40.0, 25.0)), 1000, 1500))
    rows, columns = np.nonzero(picture)
    distance = np.hypot(rows + 0.5 - 25, columns + 0.5 - 40)
    assert distance.max() <= 40
    clipped_disc = sum(
        math.hypot(row + 0.5 - 25, column + 0.5 - 40) <= 40
        for row in range(70)
        for column in range(90)
    )
    assert picture.sum() == clipped_disc


def test_points_off_the_object_are_cut_out_whatever_their_order() -> None:
    one = masks.decode(region_mask(points((20, 20), (21, 20), labels=(1, 0)), HEIGHT, WIDTH))
    other = masks.decode(region_mask(points((21, 20), (20, 20), labels=(0, 1)), HEIGHT, WIDTH))
    np.testing.assert_array_equal(one, other)
    whole = masks.decode(region_mask(points((20, 20)), HEIGHT, WIDTH))
    off = masks.decode(region_mask(points((21, 20)), HEIGHT, WIDTH))
    np.testing.assert_array_equal(one, whole & ~off)


def test_a_point_on_a_tiny_image_still_has_a_pixel() -> None:
    assert masks.area(region_mask(points((0.0, 0.0)), 1, 1)) == 1


def test_a_mask_is_taken_as_it_is() -> None:
    mask = Mask(HEIGHT, WIDTH, (7, 5, HEIGHT * WIDTH - 12))
    assert region_mask(given_mask(mask), HEIGHT, WIDTH) == mask


@pytest.mark.parametrize(
    ('region', 'words'),
    [
        (Region('cup', RegionKind.BOX), 'needs a box'),
        (box(0, 0, 0, 5), '0x5 pixels is empty'),
        (box(80, 0, 5, 5), 'outside the image of 80x50'),
        (Region('cup', RegionKind.POINTS), 'at least one point with label 1'),
        (points((1, 1), labels=(0,)), 'at least one point with label 1'),
        (points((1, 1), labels=(1, 0)), '1 points need as many labels'),
        (points((1, 1), labels=(2,)), r'1 \(on the object\) or 0'),
        (points((math.nan, 1)), 'not finite'),
        (points((math.inf, 1)), 'not finite'),
        (points((500, 500)), 'outside the image of 80x50'),
        (points((-1e30, 1e30)), 'outside the image of 80x50'),
        (points((9, 9), (9, 9), labels=(1, 0)), 'cover those with label 1'),
        (given_mask(None), 'needs a mask'),
        (given_mask(Mask(0, 0, ())), '0x0 pixels, the image 80x50'),
        (given_mask(Mask(80, 50, (0, 4000))), 'in the size of the image'),
        (given_mask(Mask(50, 80, (4000,))), 'its mask is empty'),
        (given_mask(Mask(50, 80, (0, 3999))), 'add up to 3999'),
        (Region('cup', 9), 'none of BOX, POINTS, MASK'),  # type: ignore[arg-type]
    ],
)
def test_bad_regions_are_refused_by_name(region: Region, words: str) -> None:
    with pytest.raises(PixelReferError, match=words) as caught:
        region_mask(region, HEIGHT, WIDTH)
    assert caught.value.code == ErrorCode.BAD_REGION
    assert "'cup'" in str(caught.value)


def test_an_observation_holds_the_mask_its_box_and_both_stamps() -> None:
    frame = Frame('', 1000, np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    region = Region('cup', RegionKind.BOX, stamp_ns=980, box=Box(-5, 10, 15, 60))
    seen = observe(region, frame)
    assert seen.box == Box(0, 10, 10, 40)
    assert seen.mask == region_mask(region, HEIGHT, WIDTH)
    assert (seen.stamp_ns, seen.given_ns, seen.offset_ns) == (1000, 980, 20)
