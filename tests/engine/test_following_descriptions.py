# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check when followed regions are described, and that they are shown at their best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pixelrefer_ros.core.types import Box, ErrorCode, TrackState
from tests.doubles import Colour, ScriptedDescriber
from tests.engine.street import BLUE, BLUE_BOX, GREY, RED, Street, at_ns, number, red_box


def shown(rig: Street, call: int = -1) -> list[int]:
    """Return the frames the model was shown."""
    return [number(stamp_ns) for stamp_ns in rig.describer.calls[call].stamps_ns]


def still(_: int) -> dict[Colour, Box]:
    return {RED: red_box(0), BLUE: BLUE_BOX}


def test_a_region_given_once_is_described_every_period_over_its_window() -> None:
    rig = Street(still, describe_enabled=True, describe_after_s=1.0, describe_period_s=2.0)
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 52))
    assert [
        [number(stamp_ns) for stamp_ns in one.frame_stamps_ns] for one in rig.descriptions
    ] == [[0, 3, 7, 10], [10, 17, 23, 30], [30, 37, 43, 50]]
    assert rig.problems == []


def test_the_masks_the_model_sees_are_those_of_the_track() -> None:
    rig = Street(describe_enabled=True)
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 11))
    (call,) = rig.describer.calls
    for index, mask in zip(call.regions[0].frame_indices, call.regions[0].masks, strict=True):
        red = (call.frames[index].image == RED).all(axis=2)
        np.testing.assert_array_equal(mask, red)


def test_frames_that_show_it_hidden_or_small_are_left_out() -> None:
    def scene(i: int) -> dict[Colour, Box]:
        if 12 <= i < 18:  # most of it behind something
            return {BLUE: BLUE_BOX, GREY: Box(BLUE_BOX.x, BLUE_BOX.y, 8, 9)}
        if i < 8:  # far away
            return {BLUE: Box(BLUE_BOX.x, BLUE_BOX.y, 6, 5)}
        return {BLUE: BLUE_BOX}

    rig = Street(scene, describer=ScriptedDescriber(frames_per_region=32))
    rig.film([0])
    rig.point('blue', 0)
    rig.film(range(1, 21))
    assert set(rig.seen('blue')) == set(range(21))
    assert rig.answer('{blue}?').error_code == ErrorCode.OK
    assert shown(rig) == [8, 9, 10, 11, 18, 19, 20]


def test_a_region_that_is_hardly_visible_at_all_is_shown_all_the_same() -> None:
    def scene(i: int) -> dict[Colour, Box]:
        return {BLUE: BLUE_BOX, GREY: Box(BLUE_BOX.x, BLUE_BOX.y, 7 if i else 0, 9)}

    rig = Street(scene, window_s=0.5)
    rig.film([0])
    rig.point('blue', 0)
    rig.film(range(1, 10))
    answer = rig.answer('{blue}?')
    assert answer.error_code == ErrorCode.OK
    assert shown(rig)[-1] == 9
    assert answer.evidence[0].score == pytest.approx(5 / 12)


@pytest.mark.parametrize(
    'change', [{'score': 0.4}, {'state': TrackState.OCCLUDED}], ids=['unsure', 'occluded']
)
def test_frames_the_tracker_is_unsure_of_are_left_out(change: dict[str, Any]) -> None:
    rig = Street(still, describer=ScriptedDescriber(frames_per_region=32))
    rig.film([0])
    rig.point('blue', 0)
    rig.film(range(1, 5))
    rig.script.spoils = lambda one: replace(one, **change)
    rig.film(range(5, 8))
    rig.script.spoils = None
    rig.film(range(8, 10))
    assert set(rig.seen('blue')) == set(range(10))
    rig.answer('{blue}?')
    assert shown(rig) == [0, 1, 2, 3, 4, 8, 9]


def test_given_observations_alone_are_all_shown() -> None:
    rig = Street()
    rig.film(range(3), run=False)
    for i, width in enumerate((2, 40, 40)):
        rig.point('red', i, Box(2, 8, width, 10))
    rig.script.makes = RuntimeError('nothing is tracked')
    rig.answer('{red}?')
    assert shown(rig) == [0, 1, 2]


def test_a_region_that_comes_back_is_described_before_its_period_is_over() -> None:
    def scene(i: int) -> dict[Colour, Box]:
        return {} if 20 <= i < 40 else {RED: red_box(0)}

    rig = Street(scene, describe_enabled=True, describe_after_s=1.0, describe_period_s=20.0)
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 60))
    assert [number(one.stamp_ns) for one in rig.descriptions] == [10, 40]
    assert shown(rig) == [40]


def test_a_region_that_begins_to_move_is_described_and_when_it_stops() -> None:
    def scene(i: int) -> dict[Colour, Box]:
        return {RED: Box(2 + min(max(0, i - 20), 20), 8, 8, 10)}

    rig = Street(scene, describe_enabled=True, describe_after_s=1.0, describe_period_s=60.0)
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 80))
    first, begins, stops = (number(one.stamp_ns) for one in rig.descriptions)
    assert first == 10
    assert 20 < begins < 28
    assert 40 < stops < 48


def test_what_is_described_once_or_is_still_watched_is_not_hastened() -> None:
    def scene(i: int) -> dict[Colour, Box]:
        return {} if i % 20 in (5, 6) else {RED: red_box(0)}

    rig = Street(scene, describe_enabled=True, describe_after_s=1.5, describe_period_s=0.0)
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 60))
    assert [number(one.stamp_ns) for one in rig.descriptions] == [15]


def test_a_lost_region_is_not_described_over_and_over() -> None:
    def scene(i: int) -> dict[Colour, Box]:
        return {} if i >= 12 else {RED: red_box(0)}

    rig = Street(scene, describe_enabled=True, describe_after_s=1.0, describe_period_s=1.0)
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 60))
    assert [number(one.stamp_ns) for one in rig.descriptions] == [10, 11]
    assert rig.descriptions[-1].stamp_ns == at_ns(11)
