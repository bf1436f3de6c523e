# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that regions are followed where they go, and reported lost where they are gone."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from bench import _synthetic as synthetic
from pixelrefer_ros.core.types import (
    Box,
    ErrorCode,
    PixelReferError,
    Region,
    RegionKind,
    TrackState,
)
from pixelrefer_ros.tracking.anchored import AnchoredTracker
from tests.tracking.moving import (
    BLUE,
    GREEN,
    HEIGHT,
    RED,
    WIDTH,
    box_region,
    disc_mask,
    frame,
    ground,
    iou,
    mask_region,
    with_disc,
)

RADIUS = 14


def sliding(number: int) -> tuple[float, float]:
    return 40 + 6 * number, 70 + 3 * math.sin(number)


def slide(number: int, colour=RED):
    return with_disc(ground(), *sliding(number), RADIUS, colour)


def started(number: int = 0, rate_hz: float = 10.0) -> AnchoredTracker:
    tracker = AnchoredTracker()
    mask = disc_mask(*sliding(number), RADIUS)
    tracker.start(frame(slide(number), number, rate_hz), mask_region(mask))
    return tracker


def test_the_frame_a_region_is_given_in_is_new_with_the_mask_as_given() -> None:
    mask = disc_mask(60, 70, RADIUS)
    sighting = AnchoredTracker().start(
        frame(with_disc(ground(), 60, 70, RADIUS, RED), 0), mask_region(mask)
    )
    assert (sighting.region_id, sighting.state, sighting.score) == ('thing', TrackState.NEW, 1.0)
    np.testing.assert_array_equal(sighting.mask, mask)


@pytest.mark.parametrize('step', [1, -1])
def test_a_plain_disc_is_followed_forward_and_backward(step: int) -> None:
    order = list(range(0, 16))[::step]
    tracker = started(order[0])
    for number in order[1:]:
        (sighting,) = tracker.step(frame(slide(number), number))
        assert sighting.state == TrackState.TRACKED
        assert iou(sighting.mask, disc_mask(*sliding(number), RADIUS)) > 0.9
        assert sighting.score > 0.8


@pytest.mark.parametrize('distinct', [True, False])
def test_texture_is_followed_as_it_turns_grows_and_the_light_changes(distinct: bool) -> None:
    clip = synthetic.make(7, distinct=distinct, occluded=False, frames=40)
    small = [cv2.resize(i, (320, 240), interpolation=cv2.INTER_AREA) for i in clip.images]
    truths = [m[1::2, 1::2] for m in clip.masks]
    tracker = AnchoredTracker()
    tracker.start(frame(small[0], 0, 30.0), mask_region(truths[0]))
    overlaps = []
    for number in range(1, len(small)):
        (sighting,) = tracker.step(frame(small[number], number, 30.0))
        overlaps.append(iou(sighting.mask, truths[number]))
    assert np.mean(overlaps) > 0.95
    assert min(overlaps) > 0.9


def test_what_hides_a_region_is_not_of_its_mask_and_it_comes_back() -> None:
    tracker = AnchoredTracker()
    scene = with_disc(ground(), 100, 75, 22, RED)
    whole = disc_mask(100, 75, 22)
    tracker.start(frame(scene, 0), mask_region(whole))
    states = []
    for number, left in enumerate(range(20, 180, 10), 1):
        covered = scene.copy()
        covered[:, left : left + 34] = (60, 90, 140)
        seen = whole.copy()
        seen[:, left : left + 34] = False
        (sighting,) = tracker.step(frame(covered, number))
        states.append(sighting.state)
        if seen.sum() > 0.3 * whole.sum():
            assert iou(sighting.mask, seen) > 0.8
    assert TrackState.OCCLUDED in states
    assert states[-1] == TrackState.TRACKED
    assert TrackState.LOST not in states


@pytest.mark.parametrize('rate_hz', [10.0, 30.0])
def test_what_is_gone_is_lost_within_half_a_second_and_has_no_mask(rate_hz: float) -> None:
    tracker = started(0, rate_hz)
    last = 2
    for number in range(1, last + 1):
        tracker.step(frame(slide(number), number, rate_hz))
    frames = math.floor(0.5 * rate_hz)
    told = [tracker.step(frame(ground(), last + n, rate_hz))[0] for n in range(1, frames + 1)]
    assert told[-1].state == TrackState.LOST
    assert all(one.mask is None and one.score == 0 for one in told)
    assert {one.state for one in told} == {TrackState.OCCLUDED, TrackState.LOST}


def test_frames_without_stamps_are_counted() -> None:
    tracker = started()
    still = frame(ground(), 0)
    states = [tracker.step(still)[0].state for _ in range(16)]
    assert states[-1] == TrackState.LOST


@pytest.mark.parametrize('colour', [BLUE, GREEN, (235, 150, 30), (235, 235, 235)])
def test_another_thing_of_the_same_shape_is_not_taken_for_a_lost_one(
    colour: tuple[int, int, int]
) -> None:
    tracker = started()
    for number in range(1, 8):
        tracker.step(frame(ground(), number))
    for number in range(8, 14):
        other = with_disc(ground(), 120, 90, RADIUS, colour)
        (sighting,) = tracker.step(frame(other, number))
        assert sighting.state == TrackState.LOST
        assert sighting.mask is None


def test_a_look_alike_that_always_stood_there_is_not_taken_for_a_lost_one() -> None:
    table = with_disc(ground(), 160, 110, RADIUS, RED)
    tracker = AnchoredTracker()
    first = with_disc(table, 40, 40, RADIUS, RED)
    tracker.start(frame(first, 0), mask_region(disc_mask(40, 40, RADIUS)))
    for number in range(1, 10):
        (sighting,) = tracker.step(frame(table, number))
        assert sighting.mask is None
    assert sighting.state == TrackState.LOST


@pytest.mark.parametrize('place', [(45, 70), (150, 105)])
def test_a_lost_region_is_reacquired_where_it_returns(place: tuple[int, int]) -> None:
    tracker = started()
    for number in range(1, 8):
        tracker.step(frame(ground(), number))
    back = with_disc(ground(), *place, RADIUS, RED)
    (found,) = tracker.step(frame(back, 8))
    assert found.state == TrackState.REACQUIRED
    assert iou(found.mask, disc_mask(*place, RADIUS)) > 0.8
    (next_one,) = tracker.step(frame(back, 9))
    assert next_one.state == TrackState.TRACKED


def test_a_jump_across_the_frame_is_found_at_once() -> None:
    tracker = started()
    (sighting,) = tracker.step(frame(with_disc(ground(), 160, 30, RADIUS, RED), 1))
    assert sighting.state == TrackState.TRACKED
    assert iou(sighting.mask, disc_mask(160, 30, RADIUS)) > 0.8


def test_two_of_one_colour_that_pass_keep_their_names() -> None:
    def places(number: int) -> tuple[tuple[float, float], tuple[float, float]]:
        return (40 + 7.0 * number, 62), (160 - 7.0 * number, 92)

    tracker = AnchoredTracker()
    for number in range(17):
        a, b = places(number)
        picture = with_disc(with_disc(ground(), *a, RADIUS, RED), *b, RADIUS, RED)
        if number == 0:
            for region_id, place in (('a', a), ('b', b)):
                region = mask_region(disc_mask(*place, RADIUS), region_id)
                tracker.start(frame(picture, 0), region)
            continue
        for sighting, place in zip(tracker.step(frame(picture, number)), (a, b), strict=True):
            assert iou(sighting.mask, disc_mask(*place, RADIUS)) > 0.8


def test_frames_of_another_size_go_on() -> None:
    tracker = started()
    for number in range(1, 4):
        tracker.step(frame(slide(number), number))
    for number in range(4, 9):
        large = cv2.resize(slide(number), (WIDTH * 2, HEIGHT * 2), interpolation=cv2.INTER_LINEAR)
        truth = cv2.resize(
            disc_mask(*sliding(number), RADIUS).astype(np.uint8), (WIDTH * 2, HEIGHT * 2),
            interpolation=cv2.INTER_NEAREST,
        )  # fmt: skip
        (sighting,) = tracker.step(frame(large, number))
        assert sighting.mask is not None
        assert sighting.mask.shape == (HEIGHT * 2, WIDTH * 2)
        assert iou(sighting.mask, truth > 0) > 0.85


def test_a_region_given_in_a_frame_of_another_size_goes_on_beside_the_others() -> None:
    tracker = started()
    large = cv2.resize(slide(0), (WIDTH * 2, HEIGHT * 2), interpolation=cv2.INTER_LINEAR)
    tracker.start(frame(large, 1), box_region(Box(200, 200, 60, 60), 'other'))
    sightings = tracker.step(frame(large, 2))
    assert [one.region_id for one in sightings] == ['thing', 'other']
    assert sightings[0].state == TrackState.TRACKED


def test_the_same_frames_give_the_same_sightings() -> None:
    def told() -> list[tuple[float, bytes]]:
        tracker = started()
        sightings = [tracker.step(frame(slide(n), n))[0] for n in range(1, 8)]
        return [(one.score, np.asarray(one.mask).tobytes()) for one in sightings]

    assert told() == told()


def test_regions_come_and_go_without_disturbing_another() -> None:
    alone, among = started(), started()
    for number in range(1, 10):
        now = frame(slide(number), number)
        (wanted,) = alone.step(now)
        sightings = {one.region_id: one for one in among.step(now)}
        assert sightings['thing'].state == wanted.state
        assert iou(sightings['thing'].mask, np.asarray(wanted.mask)) > 0.97
        if number == 3:
            among.start(now, box_region(Box(130, 100, 30, 30), 'patch'))
            assert among.region_ids == ('thing', 'patch')
        if number == 6:
            among.remove('patch')
            among.remove('patch')
            assert among.region_ids == ('thing',)


def test_a_fork_follows_past_frames_and_its_region_is_adopted() -> None:
    tracker = AnchoredTracker()
    for number in range(6):
        assert tracker.step(frame(slide(number), number)) == []
    fork = tracker.fork()
    assert fork.region_ids == ()
    fork.start(frame(slide(0), 0), mask_region(disc_mask(*sliding(0), RADIUS)))
    for number in range(1, 6):
        fork.step(frame(slide(number), number))
    tracker.adopt(fork, 'thing', frame(slide(5), 5))
    assert tracker.region_ids == ('thing',)
    for number in range(6, 10):
        (sighting,) = tracker.step(frame(slide(number), number))
        assert sighting.state == TrackState.TRACKED
        assert iou(sighting.mask, disc_mask(*sliding(number), RADIUS)) > 0.9


def test_only_what_a_fork_follows_can_be_adopted() -> None:
    tracker = AnchoredTracker()
    with pytest.raises(ValueError, match='thing'):
        tracker.adopt(tracker.fork(), 'thing', frame(ground(), 0))


def test_sixty_four_regions_at_once() -> None:
    colours = np.random.default_rng(1).integers(0, 255, (64, 3))
    centres = [(16 + 24 * (n % 8), 12 + 18 * (n // 8)) for n in range(64)]

    def picture(shift: int) -> np.ndarray:
        image = ground()
        for (x, y), colour in zip(centres, colours, strict=True):
            image[disc_mask(x + shift, y, 6)] = colour
        return image

    tracker = AnchoredTracker()
    for number, (x, y) in enumerate(centres):
        tracker.start(frame(picture(0), 0), mask_region(disc_mask(x, y, 6), str(number)))
    for shift in (1, 2):
        sightings = tracker.step(frame(picture(shift), shift))
    assert [one.region_id for one in sightings] == [str(n) for n in range(64)]
    right = [
        iou(one.mask, disc_mask(x + 2, y, 6)) > 0.6
        for one, (x, y) in zip(sightings, centres, strict=True)
    ]
    assert sum(right) > 55  # some have the colour of the table


def test_many_lost_regions_are_all_found_again() -> None:
    places = [(30 + 35 * (n % 5), 40 + 60 * (n // 5)) for n in range(10)]
    colours = [RED, BLUE, GREEN, (235, 150, 30), (150, 50, 170), (30, 30, 30), (235, 235, 235),
               (240, 220, 40), (40, 180, 190), (240, 130, 190)]  # fmt: skip
    full = ground()
    for place, colour in zip(places, colours, strict=True):
        full = with_disc(full, *place, 11, colour)
    tracker = AnchoredTracker()
    for number, place in enumerate(places):
        tracker.start(frame(full, 0), mask_region(disc_mask(*place, 11), str(number)))
    for number in range(1, 7):
        tracker.step(frame(ground(), number))
    moved = np.roll(full, (12, 14), (0, 1))
    for number in range(7, 12):
        sightings = tracker.step(frame(moved, number))
    for sighting, (x, y) in zip(sightings, places, strict=True):
        assert iou(sighting.mask, disc_mask(x + 14, y + 12, 11)) > 0.75


def test_a_thing_and_a_part_of_it_are_both_followed() -> None:
    def truths(number: int) -> tuple[np.ndarray, np.ndarray]:
        whole = disc_mask(60 + 5 * number, 75, 26)
        return whole, whole & (np.arange(HEIGHT)[:, None] < 75)

    def picture(number: int) -> np.ndarray:
        whole, part = truths(number)
        drawn = ground()
        drawn[whole] = BLUE
        drawn[part] = (90, 110, 220)
        return drawn

    tracker = AnchoredTracker()
    for region_id, mask in zip(('whole', 'part'), truths(0), strict=True):
        tracker.start(frame(picture(0), 0), mask_region(mask, region_id))
    for number in range(1, 10):
        sightings = tracker.step(frame(picture(number), number))
    for sighting, truth in zip(sightings, truths(9), strict=True):
        assert iou(sighting.mask, truth) > 0.85


def box_of(number: int, away: int = 0) -> Box:
    x, y = sliding(number)
    return Box(round(x) - RADIUS + away, round(y) - RADIUS, 2 * RADIUS + 1, 2 * RADIUS + 1)


def test_a_detector_box_each_frame_corrects_the_track() -> None:
    tracker = started()
    jitter = (2, -2, 1, 0, -1)
    for number in range(1, 10):
        now = frame(slide(number), number)
        tracker.step(now)
        sighting = tracker.start(now, box_region(box_of(number, jitter[number % 5])))
        assert sighting.state == TrackState.TRACKED
        assert iou(sighting.mask, disc_mask(*sliding(number), RADIUS)) > 0.85
    assert tracker.region_ids == ('thing',)


def test_a_box_on_a_lost_region_reacquires_it() -> None:
    tracker = started()
    for number in range(1, 8):
        tracker.step(frame(ground(), number))
    now = frame(slide(8), 8)
    assert tracker.start(now, box_region(box_of(8))).state == TrackState.REACQUIRED
    (sighting,) = tracker.step(frame(slide(9), 9))
    assert sighting.state == TrackState.TRACKED
    assert iou(sighting.mask, disc_mask(*sliding(9), RADIUS)) > 0.85


def test_a_box_on_something_else_moves_the_region_there() -> None:
    tracker = started()
    picture = with_disc(slide(1), 150, 110, 20, BLUE)
    now = frame(picture, 1)
    tracker.step(now)
    sighting = tracker.start(now, box_region(Box(128, 88, 44, 44)))
    assert sighting.state == TrackState.TRACKED
    assert iou(sighting.mask, disc_mask(150, 110, 20)) > 0.85
    (after,) = tracker.step(frame(picture, 2))
    assert iou(after.mask, disc_mask(150, 110, 20)) > 0.85


@pytest.mark.parametrize(
    'region',
    [
        mask_region(np.zeros((HEIGHT, WIDTH), np.bool_)),
        box_region(Box(WIDTH + 5, 10, 20, 20)),
        Region('thing', RegionKind.POINTS, points=((30.0, 30.0),), point_labels=(0,)),
    ],
    ids=['empty mask', 'box outside', 'only negative points'],
)
def test_a_prompt_that_says_nothing_is_refused_and_the_track_goes_on(region: Region) -> None:
    tracker = started()
    with pytest.raises(PixelReferError) as caught:
        tracker.start(frame(slide(0), 0), region)
    assert caught.value.code == ErrorCode.BAD_REGION
    (sighting,) = tracker.step(frame(slide(1), 1))
    assert sighting.state == TrackState.TRACKED


def test_tiny_and_whole_frame_regions_do_no_harm() -> None:
    tracker = AnchoredTracker()
    spot = np.zeros((HEIGHT, WIDTH), np.bool_)
    spot[0, 0] = True
    tracker.start(frame(ground(), 0), mask_region(spot, 'spot'))
    tracker.start(frame(ground(), 0), mask_region(np.ones_like(spot), 'all'))
    for number in range(1, 4):
        sightings = tracker.step(frame(ground(), number))
    assert [one.region_id for one in sightings] == ['spot', 'all']
    assert all(0 <= one.score <= 1 for one in sightings)
