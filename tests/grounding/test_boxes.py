# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check how boxes come back to pixels of the original image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.core.types import Box
from pixelrefer_ros.grounding.boxes import MIN_SIDE, Coordinates, place_box
from pixelrefer_ros.grounding.parsing import Corners
from pixelrefer_ros.grounding.replies import Note

ABSOLUTE, RELATIVE = Coordinates.ABSOLUTE, Coordinates.RELATIVE_1000


@pytest.mark.parametrize(
    ('corners', 'coordinates', 'shown', 'size', 'box'),
    [
        # A 1280x720 image squeezed into 840x840: x by 1280/840, y by 720/840.
        ((105, 210, 420, 630), ABSOLUTE, (840, 840), (1280, 720), Box(160, 180, 480, 360)),
        # The box printed in figure 2 of the paper: 39 * 1280/840 = 59.4, 608 -> 926.5;
        # 289 * 720/840 = 247.7, 773 -> 662.6.
        ((39, 289, 608, 773), ABSOLUTE, (840, 840), (1280, 720), Box(59, 248, 867, 415)),
        ((250, 500, 750, 1000), RELATIVE, (832, 832), (640, 480), Box(160, 240, 320, 240)),
        ((0, 0, 224, 168), ABSOLUTE, (224, 168), (320, 240), Box(0, 0, 320, 240)),
        ((0.4, 0.6, 10.4, 10.6), ABSOLUTE, (100, 100), (100, 100), Box(0, 1, 10, 10)),
    ],
)
def test_each_axis_is_scaled_on_its_own(
    corners: Corners,
    coordinates: Coordinates,
    shown: tuple[int, int],
    size: tuple[int, int],
    box: Box,
) -> None:
    assert place_box(corners, coordinates, shown, size) == (box, ())


def test_swapped_corners_are_sorted_and_noted() -> None:
    upright, _ = place_box((10, 20, 50, 60), ABSOLUTE, (100, 100), (200, 100))
    for corners in ((50, 20, 10, 60), (10, 60, 50, 20), (50, 60, 10, 20)):
        assert place_box(corners, ABSOLUTE, (100, 100), (200, 100)) == (upright, (Note.SWAPPED,))


def test_what_lies_outside_is_clipped_and_noted() -> None:
    found = place_box((-20, -1, 50, 60), ABSOLUTE, (100, 100), (100, 100))
    assert found == (Box(0, 0, 50, 60), (Note.CLIPPED,))
    found = place_box((500, 500, 1100, 990), RELATIVE, (832, 832), (100, 100))
    assert found == (Box(50, 50, 50, 49), (Note.CLIPPED,))


def test_thousandths_are_told_from_pixels_that_cannot_be() -> None:
    found = place_box((100, 200, 950, 600), ABSOLUTE, (840, 840), (1000, 500))
    assert found == (Box(100, 100, 850, 200), (Note.RELATIVE,))
    # A pixel or two beyond the edge are still pixels, and beyond a thousand nothing else is left.
    found = place_box((100, 210, 845, 630), ABSOLUTE, (840, 840), (840, 840))
    assert found == (Box(100, 210, 740, 420), (Note.CLIPPED,))
    found = place_box((100, 210, 1200, 630), ABSOLUTE, (840, 840), (840, 840))
    assert found == (Box(100, 210, 740, 420), (Note.CLIPPED,))


@pytest.mark.parametrize('corners', [(10, 10, 10, 50), (10, 10, 50, 11), (2000, 10, 3000, 50),
                                     (-50, -50, -1, -1), (0, 0, 0, 0)])  # fmt: skip
def test_a_box_without_area_in_the_image_is_none(corners: Corners) -> None:
    box, _ = place_box(corners, ABSOLUTE, (100, 100), (100, 100))
    assert box is None


def test_the_smallest_side_is_counted_in_original_pixels() -> None:
    assert place_box((10, 10, 14, 14), ABSOLUTE, (400, 400), (100, 100))[0] is None
    found, _ = place_box((10, 10, 18, 18), ABSOLUTE, (400, 400), (100, 100))
    assert found == Box(3, 3, 2, 2)


@given(
    st.tuples(*[st.floats(-2000, 2000)] * 4), st.sampled_from(Coordinates),
    st.tuples(*[st.integers(28, 900)] * 2), st.tuples(*[st.integers(2, 4000)] * 2),
)  # fmt: skip
def test_a_box_lies_in_the_image(
    corners: Corners, coordinates: Coordinates, shown: tuple[int, int], size: tuple[int, int]
) -> None:
    box, _ = place_box(corners, coordinates, shown, size)
    if box is not None:
        assert box.x >= 0
        assert box.y >= 0
        assert MIN_SIDE <= box.width <= size[0] - box.x
        assert MIN_SIDE <= box.height <= size[1] - box.y


@given(st.data(), st.tuples(*[st.integers(10, 2000)] * 2), st.sampled_from(Coordinates))
def test_a_true_box_survives_the_way_there_and_back(
    data: st.DataObject, size: tuple[int, int], coordinates: Coordinates
) -> None:
    width, height = size
    left = data.draw(st.integers(0, width - 4))
    top = data.draw(st.integers(0, height - 4))
    box = Box(left, top, data.draw(st.integers(4, width - left)),
              data.draw(st.integers(4, height - top)))  # fmt: skip
    shown = (840, 616)
    unit = shown if coordinates == ABSOLUTE else (1000, 1000)
    x_scale, y_scale = unit[0] / width, unit[1] / height
    corners = (left * x_scale, top * y_scale,
               (left + box.width) * x_scale, (top + box.height) * y_scale)  # fmt: skip
    assert place_box(corners, coordinates, shown, size)[0] == box
