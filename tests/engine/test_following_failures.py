# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that the engine lives on when a tracker does not, and that odd inputs do not break it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pixelrefer_ros.core.types import (
    Box,
    ErrorCode,
    Frame,
    Mask,
    PixelReferError,
    Region,
    RegionKind,
    TrackState,
)
from tests.doubles import TrackerScript
from tests.engine.street import BLUE_BOX, RED, Street, at_ns, red_box


def everywhere(count: int, *missing: int) -> dict[int, Box]:
    return {i: red_box(i) for i in range(count) if i not in missing}


def test_a_tracker_that_fails_on_a_frame_is_rebuilt_and_goes_on() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    rig.point('blue', 0)
    rig.script.fails_at = {at_ns(4)}
    rig.film(range(1, 10))
    assert rig.seen('red') == everywhere(10, 4)
    assert set(rig.seen('blue')) == set(range(10)) - {4}
    (problem,) = rig.problems
    assert "the tracker of camera '' failed" in problem
    assert 'lost its mind' in problem
    assert rig.states('red')[5] == TrackState.TRACKED
    assert 4 not in rig.states('red')


def test_a_tracker_that_fails_all_the_time_is_reported_once() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    rig.script.fails_at = {at_ns(i) for i in range(1, 40)}
    rig.film(range(1, 40))
    assert len(rig.problems) == 1
    assert len(rig.script.steps) == 39
    assert rig.engine.tracks('') == ()
    assert rig.answer('{red}?').error_code == ErrorCode.OK
    rig.film(range(40, 43))
    assert set(rig.seen('red')) == {0, 40, 41, 42}


def test_a_region_given_in_the_frame_that_failed_is_followed_from_the_next() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    rig.script.fails_at = {at_ns(1)}
    rig.film([1])
    rig.point('blue', 1)
    rig.film([2, 3])
    assert [track.region_id for track in rig.engine.tracks('')] == ['red', 'blue']
    assert rig.seen('red') == everywhere(4, 1)


def test_a_frame_that_fails_is_passed_over_when_a_region_catches_up_through_it() -> None:
    rig = Street()
    rig.film(range(10))
    rig.script.fails_at = {at_ns(7)}
    rig.point('red', 5)
    rig.engine.run_until_idle()
    assert 'forward in time failed' in rig.problems[0]
    rig.film([10, 11])
    assert rig.seen('red') == everywhere(12, 7)
    assert len(rig.problems) == 1


def test_a_failure_on_the_way_back_costs_the_past_only() -> None:
    rig = Street()
    rig.film(range(10))
    rig.script.fails_at = {at_ns(3)}
    rig.point('red', 9)
    rig.film([10])
    assert rig.seen('red') == {i: red_box(i) for i in range(4, 11)}
    assert 'back in time failed' in rig.problems[0]


@pytest.mark.parametrize('frame', [4, 5], ids=['in the past', 'now'])
@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (PixelReferError(ErrorCode.BAD_REGION, 'nothing to follow'), 'nothing to follow'),
        (RuntimeError('broken'), 'RuntimeError: broken'),
        (PixelReferError(ErrorCode.OUT_OF_MEMORY, 'too much'), 'too much'),
    ],
)
def test_a_region_that_cannot_be_started_does_not_stop_the_others(
    frame: int, error: Exception, words: str
) -> None:
    rig = Street()
    rig.film([0])
    rig.point('blue', 0)
    rig.film(range(1, 6))
    rig.script.fails_on = {'bad': error}
    outcomes = rig.engine.add_regions(
        [
            Region(name, RegionKind.BOX, stamp_ns=at_ns(frame), box=red_box(frame))
            for name in ('bad', 'red')
        ]
    )
    assert outcomes == [None, None]
    rig.film(range(6, 9))
    assert rig.seen('red') == everywhere(9)
    assert set(rig.seen('blue')) == set(range(9))
    assert set(rig.seen('bad')) == {frame}
    assert [track.region_id for track in rig.engine.tracks('')] == ['blue', 'red']
    assert "region 'bad' is not followed" in rig.problems[0]
    assert words in rig.problems[0]
    # Given again, it is tried again.
    rig.script.fails_on = {}
    rig.engine.add_regions([Region('bad', RegionKind.BOX, stamp_ns=at_ns(8), box=red_box(8))])
    rig.film([9])
    assert [track.region_id for track in rig.engine.tracks('')] == ['blue', 'bad', 'red']


def test_no_tracker_can_be_made() -> None:
    rig = Street()
    rig.script.makes = PixelReferError(ErrorCode.MODEL_ERROR, 'no weights')
    for i in range(20):
        rig.film([i])
        rig.point('red', i)
    rig.engine.run_until_idle()
    assert any("region 'red' is not followed: no weights" in text for text in rig.problems)
    assert len(rig.problems) <= 2
    assert set(rig.seen('red')) == set(range(20))
    assert rig.answer('{red}?').error_code == ErrorCode.OK


def test_a_mask_of_the_wrong_size_is_a_failure_of_the_tracker() -> None:
    rig = Street()
    rig.script.spoils = lambda one: replace(one, mask=np.ones((3, 3), dtype=bool))
    rig.film([0])
    rig.point('red', 0)
    rig.film([1, 2])
    assert 'a mask of shape (3, 3) in an image of 64x48' in rig.problems[0]
    assert set(rig.seen('red')) == {0}


def test_a_listener_that_raises_is_reported_and_the_rest_goes_on() -> None:
    rig = Street()

    def fail(*_: object) -> None:
        raise ValueError('not today')

    rig.on_tracks = fail
    rig.film([0])
    rig.point('red', 0)
    rig.film([1])
    assert rig.seen('red') == everywhere(2)
    assert all("on_tracks raised ValueError('not today')" in text for text in rig.problems)


def test_the_resolution_changes_while_a_region_is_followed() -> None:
    rig = Street()

    def film(i: int, scale: int) -> None:
        image = np.zeros((48 * scale, 64 * scale, 3), dtype=np.uint8)
        box = red_box(i)
        image[
            box.y * scale : (box.y + box.height) * scale,
            box.x * scale : (box.x + box.width) * scale,
        ] = RED
        rig.engine.add_frame(Frame('', at_ns(i), image))
        rig.engine.run_until_idle()

    film(0, 1)
    rig.point('red', 0)
    for i in range(1, 4):
        film(i, 1)
    for i in range(4, 8):
        film(i, 2)
    box = red_box(5)
    assert rig.seen('red')[5] == Box(box.x * 2, box.y * 2, box.width * 2, box.height * 2)
    assert rig.answer('{red}?').error_code == ErrorCode.OK
    # Given in the small frames, caught up with through the large ones, and back.
    rig.point('late', 3, red_box(3))
    rig.engine.run_until_idle()
    assert {i: b.width for i, b in rig.seen('late').items()} == {
        i: 8 if i < 4 else 16 for i in range(8)
    }
    # A mask has the size of its image.
    small = Region('m', RegionKind.MASK, stamp_ns=at_ns(7), mask=Mask(48, 64, (0, 48 * 64)))
    (refused,) = rig.engine.add_regions([small])
    assert refused is not None
    assert refused.code == ErrorCode.BAD_REGION
    assert rig.problems == []


def test_a_region_whose_image_goes_before_the_tracker_comes_to_it_is_reported() -> None:
    rig = Street(buffer_window_s=1.0, buffer_full_rate_s=1.0)
    rig.film([0], run=False)
    rig.point('red', 0)
    rig.film(range(1, 60), run=False)
    rig.engine.run_until_idle()
    assert rig.problems == ["region 'red' is not followed: its image has left the buffer"]


def test_prompts_are_bounded_while_nobody_works() -> None:
    rig = Street(buffer_full_rate_s=60.0)
    rig.film(range(60), run=False)
    for name in range(30):
        for i in range(60):
            rig.point(f'r{name}', i, BLUE_BOX)
    assert len(rig.follower._ledger.prompts) == 1024


def test_regions_of_many_kinds_are_followed() -> None:
    rig = Street()
    rig.film([0])
    box = red_box(0)
    outcomes = rig.engine.add_regions(
        [
            Region('point', RegionKind.POINTS, points=((box.x + 4.0, box.y + 5.0),)),
            Region('off', RegionKind.POINTS, points=((1.0, 1.0),), point_labels=(0,)),
            Region('outside', RegionKind.BOX, box=Box(500, 500, 9, 9)),
            Region('empty', RegionKind.MASK, mask=Mask(48, 64, (48 * 64,))),
            Region('background', RegionKind.BOX, box=Box(0, 0, 2, 2)),
        ]
    )
    assert [one and one.code for one in outcomes] == [
        None,
        ErrorCode.BAD_REGION,
        ErrorCode.BAD_REGION,
        ErrorCode.BAD_REGION,
        None,
    ]
    rig.film([1])
    assert rig.engine.tracks('')[0].box == red_box(1)
    assert len(rig.engine.tracks('')) == 1
    (problem,) = rig.problems
    assert "region 'background' is not followed: there is nothing but background" in problem


def test_without_a_tracker_nothing_is_followed() -> None:
    rig = Street()
    rig.engine = type(rig.engine)(
        rig.describer,
        rig.engine._config,
        on_description=rig.descriptions.append,
        on_answer=rig.answers.append,
        on_tracks=rig._take_tracks,
        clock=rig.clock,
    )
    rig.film([0])
    rig.point('red', 0)
    rig.film([1, 2])
    assert set(rig.seen('red')) == {0}
    assert (rig.engine.tracks(''), rig.tracks) == ((), [])
    assert rig.engine.stats().cameras[''].tracking_lag_frames == 0


def test_the_double_checks_its_caller() -> None:
    script = TrackerScript()
    rig = Street(tracker=script)
    tracker, fork = script.make(), script.make().fork()
    region = Region('red', RegionKind.BOX, box=red_box(0))
    tracker.start(rig.picture(0), region)
    with pytest.raises(AssertionError, match='the last step'):
        tracker.start(rig.picture(1), region)
    fork.start(rig.picture(1), region)
    with pytest.raises(AssertionError, match='both'):
        tracker.adopt(fork, 'red', rig.picture(0))
