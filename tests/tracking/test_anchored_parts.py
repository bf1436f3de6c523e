# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what the anchored tracker is made of: maps, colours, points, alignment."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.tracking import colours, geometry, motion
from pixelrefer_ros.tracking.looks import Looks
from pixelrefer_ros.tracking.window import Window
from tests.tracking.moving import HEIGHT, RED, WIDTH, disc_mask, ground, with_disc

SMALL = st.floats(-50, 50)


@given(angle=st.floats(-3, 3), scale=st.floats(0.3, 3), x=SMALL, y=SMALL, u=SMALL, v=SMALL)
def test_a_map_and_its_inverse_undo_each_other(
    angle: float, scale: float, x: float, y: float, u: float, v: float
) -> None:
    there = geometry.compose(geometry.shift(x, y), geometry.turn(angle, scale, np.array([u, v])))
    assert geometry.scale_of(there) == pytest.approx(scale)
    point = np.array([u, y])
    back = geometry.apply(geometry.invert(there), geometry.apply(there, point))
    np.testing.assert_allclose(back, point, atol=1e-6)
    both = geometry.compose(geometry.invert(there), there)
    np.testing.assert_allclose(both, geometry.shift(0, 0), atol=1e-6)


def test_zoom_keeps_the_corners_of_pixels() -> None:
    """The top-left corner of the image is at -0.5, -0.5 in pixel centres, at any size."""
    corner = np.array([-0.5, -0.5])
    np.testing.assert_allclose(geometry.apply(geometry.zoom(3, 0.5), corner), corner)


def plain(rgb: tuple[int, int, int]) -> np.ndarray:
    picture = np.full((20, 20, 3), rgb, np.uint8)
    return colours.histogram(colours.bins_of(colours.to_lab(picture)))


def test_colours_overlap_with_themselves_and_not_with_others() -> None:
    red = plain(RED)
    assert colours.overlap(red, red) == pytest.approx(1.0, abs=1e-5)
    assert colours.overlap(red, plain((205, 45, 44))) > 0.85
    for other in ((235, 150, 30), (40, 60, 200), (150, 130, 105), (235, 235, 235)):
        assert colours.overlap(red, plain(other)) < 0.3


def test_odds_are_for_the_wanted_against_the_other_and_against_what_neither_has() -> None:
    odds = colours.log_odds(plain(RED), plain((150, 130, 105)))
    for rgb, sign in ((RED, 1), ((150, 130, 105), -1), ((40, 60, 200), -1)):
        numbers = colours.bins_of(colours.to_lab(np.full((1, 1, 3), rgb, np.uint8)))
        assert np.sign(odds[numbers[0, 0]]) == sign


def test_points_are_followed_and_those_that_do_not_come_back_are_told() -> None:
    before = cv2.cvtColor(ground(), cv2.COLOR_RGB2GRAY)
    now = np.roll(before, (2, 3), (0, 1))
    now[:40] = 128
    points = motion.corners_in(before, np.ones(before.shape, np.bool_), 80, np.zeros((0, 2)))
    assert len(points) > 30
    moved, good = motion.follow_points(before, now, points.copy(), points.copy())
    inner = (points[:, 1] > 60) & (points[:, 1] < HEIGHT - 20)
    inner &= (points[:, 0] > 20) & (points[:, 0] < WIDTH - 20)
    assert good[inner].mean() > 0.9
    np.testing.assert_allclose(np.median(moved[good & inner] - points[good & inner], 0), (3, 2),
                               atol=0.1)  # fmt: skip
    assert good[points[:, 1] < 25].mean() < 0.2


def test_no_points_are_followed_to_nowhere() -> None:
    none = np.zeros((0, 2), np.float32)
    picture = np.zeros((50, 50), np.uint8)
    moved, good = motion.follow_points(picture, picture, none, none)
    assert moved.shape == (0, 2)
    assert good.shape == (0,)


def test_dense_flow_gives_places_inside_and_where_they_went() -> None:
    before = cv2.cvtColor(ground(), cv2.COLOR_RGB2GRAY)
    now = np.roll(before, (0, 4), (0, 1))
    places, flown = motion.sample_flow(before, now, disc_mask(100, 70, 20), 20)
    assert len(places) > 20
    assert all(disc_mask(100, 70, 20)[round(y), round(x)] for x, y in places.tolist())
    np.testing.assert_allclose(np.median(flown - places, 0), (4, 0), atol=0.5)


def test_a_similarity_is_fitted_and_outliers_are_told() -> None:
    rng = np.random.default_rng(0)
    told = rng.uniform(0, 60, (40, 2)).astype(np.float32)
    true = geometry.turn(0.3, 1.2, np.array([30.0, 20.0]))
    seen = geometry.apply(true, told.astype(float)).astype(np.float32)
    seen[:10] += 25
    fitted = motion.fit_similarity(told, seen, 1.0)
    assert fitted is not None
    np.testing.assert_allclose(fitted[0], true, atol=1e-3)
    np.testing.assert_array_equal(fitted[1], np.arange(40) >= 10)
    assert motion.fit_similarity(told[:2], seen[:2], 1.0) is None


@pytest.mark.parametrize('shift', [(0.0, 0.0), (3.0, -2.0), (-4.0, 1.5)])
def test_a_pose_is_refined_to_where_the_outline_is(shift: tuple[float, float]) -> None:
    picture = with_disc(ground(), 90, 70, 16, RED)
    looks = Looks(picture, disc_mask(90, 70, 16))
    pose = looks.first_pose.copy()
    pose[:, 2] += shift
    window = Window.cut(picture, looks.window_box(pose))
    assert window is not None
    chance = colours.probability(looks.odds(window, pose))
    aligned = looks.align(window, chance, pose)
    np.testing.assert_allclose(looks.centre(aligned), (90, 70), atol=0.4)
    assert looks.match(window, chance, aligned).quality > 0.9
    assert geometry.scale_of(aligned) == pytest.approx(geometry.scale_of(pose), rel=0.06)
