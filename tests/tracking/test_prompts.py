# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that boxes and points become the outlines of what they mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrefer_ros.core.types import Box, ErrorCode, PixelReferError, Region, RegionKind
from pixelrefer_ros.tracking.prompts import prompt_mask
from tests.tracking.moving import (
    BLUE,
    HEIGHT,
    RED,
    WIDTH,
    box_region,
    disc_mask,
    ground,
    iou,
    mask_region,
    with_disc,
)

SCENE = with_disc(with_disc(ground(), 70, 80, 20, RED), 150, 60, 16, BLUE)


def points(*places: tuple[float, float, int]) -> Region:
    return Region(
        'thing', RegionKind.POINTS, points=tuple((x, y) for x, y, _ in places),
        point_labels=tuple(label for *_, label in places),
    )  # fmt: skip


@pytest.mark.parametrize('slack', [0, 3, 6])
def test_a_box_becomes_the_outline_of_what_is_in_it(slack: int) -> None:
    side = 41 + 2 * slack
    mask = prompt_mask(box_region(Box(50 - slack, 60 - slack, side, side)), SCENE)
    assert iou(mask, disc_mask(70, 80, 20)) > 0.93


def test_the_same_box_gives_the_same_mask() -> None:
    region = box_region(Box(48, 58, 45, 45))
    np.testing.assert_array_equal(prompt_mask(region, SCENE), prompt_mask(region, SCENE))


def test_a_box_on_nothing_is_the_filled_box() -> None:
    flat = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    mask = prompt_mask(box_region(Box(20, 30, 40, 25)), flat)
    wanted = np.zeros((HEIGHT, WIDTH), np.bool_)
    wanted[30:55, 20:60] = True
    np.testing.assert_array_equal(mask, wanted)


def test_a_box_over_the_border_keeps_to_the_image() -> None:
    scene = with_disc(ground(), 0, 80, 20, RED)
    mask = prompt_mask(box_region(Box(-25, 57, 48, 46)), scene)
    assert iou(mask, disc_mask(0, 80, 20)) > 0.85


def test_the_whole_image_is_itself() -> None:
    assert prompt_mask(box_region(Box(0, 0, WIDTH, HEIGHT)), SCENE).all()


def test_a_point_becomes_the_thing_it_is_on() -> None:
    assert iou(prompt_mask(points((70, 80, 1)), SCENE), disc_mask(70, 80, 20)) > 0.85


def test_a_point_off_the_thing_cuts_it_out() -> None:
    both = with_disc(with_disc(ground(), 70, 80, 18, RED), 104, 80, 18, RED)
    whole = prompt_mask(points((70, 80, 1), (104, 80, 1)), both)
    cut = prompt_mask(points((70, 80, 1), (104, 80, 0)), both)
    right = disc_mask(104, 80, 16)
    assert (whole & right).sum() > 0.9 * right.sum()
    assert not (cut & right).any()
    assert cut[80, 70]


def test_a_mask_is_taken_as_it_is() -> None:
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.5
    np.testing.assert_array_equal(prompt_mask(mask_region(mask), SCENE), mask)


@pytest.mark.parametrize(
    'region',
    [
        mask_region(np.zeros((HEIGHT, WIDTH), np.bool_)),
        mask_region(np.ones((HEIGHT, WIDTH + 1), np.bool_)),
        box_region(Box(-50, 0, 20, 20)),
        box_region(Box(5, 5, 0, 20)),
        points((30, 30, 0)),
        points((-500, -500, 1)),
    ],
    ids=['empty', 'other size', 'outside', 'no width', 'negative', 'points outside'],
)
def test_what_says_nothing_is_refused(region: Region) -> None:
    with pytest.raises(PixelReferError) as caught:
        prompt_mask(region, SCENE)
    assert caught.value.code == ErrorCode.BAD_REGION


@settings(max_examples=25, deadline=None)
@given(
    x=st.integers(-20, WIDTH - 2), y=st.integers(-20, HEIGHT - 2),
    width=st.integers(22, 90), height=st.integers(22, 90),
)  # fmt: skip
def test_the_outline_is_never_empty_and_keeps_to_the_box(
    x: int, y: int, width: int, height: int
) -> None:
    mask = prompt_mask(box_region(Box(x, y, width, height)), SCENE)
    assert mask.shape == (HEIGHT, WIDTH)
    assert mask.any()
    outside = mask.copy()
    outside[max(y, 0) : y + height, max(x, 0) : x + width] = False
    assert not outside.any()
