# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that a region given once is known in every frame it is in, and in no other."""

from __future__ import annotations

import pytest

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import (
    Box,
    ErrorCode,
    PixelReferError,
    Region,
    RegionKind,
    Track,
    TrackState,
)
from tests.doubles import Colour
from tests.engine.rig import ns, query
from tests.engine.street import BLUE, BLUE_BOX, GREY, RED, Street, at_ns, at_s, red_box, street

TRACKED, LOST = TrackState.TRACKED, TrackState.LOST


def absent(*frames: range) -> Street:
    """Return a street where the red thing is out of the picture for some frames."""

    def scene(i: int) -> dict[Colour, Box]:
        things = street(i)
        if any(i in some for some in frames):
            del things[RED]
        return things

    return Street(scene)


def test_a_region_given_once_is_seen_in_all_frames_from_then_on() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 15))
    assert rig.seen('red') == {i: red_box(i) for i in range(15)}
    assert rig.states('red') == {0: TrackState.NEW, **dict.fromkeys(range(1, 15), TRACKED)}


def test_and_back_to_the_start_of_the_window() -> None:
    rig = Street(window_s=2.0)
    rig.film(range(41))
    rig.point('red', 40)
    rig.engine.run_until_idle()
    assert rig.seen('red') == {i: red_box(i) for i in range(20, 41)}


def test_a_region_of_the_past_catches_up_and_is_followed_on() -> None:
    rig = Street(window_s=1.0)
    rig.film(range(31))
    rig.point('red', 15)
    rig.engine.run_until_idle()
    assert rig.seen('red') == {i: red_box(i) for i in range(5, 31)}
    rig.film([31, 32])
    assert rig.seen('red') == {i: red_box(i) for i in range(5, 33)}
    assert rig.states('red') == {30: TRACKED, 31: TRACKED, 32: TRACKED}


def test_frames_and_regions_that_wait_for_the_tracker_are_worked_off_in_order() -> None:
    rig = Street(window_s=1.0)
    rig.film(range(10), run=False)
    rig.point('red', 5)
    rig.film(range(10, 20), run=False)
    rig.point('blue', 19)
    rig.engine.run_until_idle()
    assert rig.seen('red') == {i: red_box(i) for i in range(20)}
    assert rig.seen('blue') == dict.fromkeys(range(9, 20), BLUE_BOX)
    # Given in a frame that was still to come, the red one needs nothing to catch up with.
    main = [stamp_ns for tracker, stamp_ns, _ in rig.script.steps if tracker == 1]
    assert main == [at_ns(i) for i in range(6, 20)]


def test_a_track_says_where_a_region_is() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0, label='a cart')
    rig.film([1])
    expected = Track(
        region_id='red',
        camera='',
        stamp_ns=at_ns(1),
        state=TRACKED,
        score=1.0,
        box=red_box(1),
        mask=masks.encode_box(red_box(1), 48, 64),
        last_seen_ns=at_ns(1),
        label='a cart',
    )
    assert rig.engine.tracks('') == (expected,)
    assert rig.tracks[-1] == (rig.engine.snapshot(''), (expected,))
    with pytest.raises(PixelReferError) as caught:
        rig.engine.tracks('nowhere')
    assert caught.value.code == ErrorCode.UNKNOWN_CAMERA


def test_every_kept_frame_comes_with_its_tracks_again_when_there_are_more() -> None:
    rig = Street()
    rig.film([0, 1])
    rig.point('red', 1)
    rig.engine.run_until_idle()
    rig.point('blue', 0)
    rig.film([2])
    assert [
        (frame.stamp_ns, [track.region_id for track in tracks]) for frame, tracks in rig.tracks
    ] == [
        (at_ns(0), []),
        (at_ns(1), []),
        (at_ns(1), ['red']),
        (at_ns(2), ['red']),
        (at_ns(2), ['red', 'blue']),
    ]


def test_a_lost_region_is_seen_nowhere_until_it_is_back() -> None:
    rig = absent(range(5, 9))
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 9))
    assert set(rig.seen('red')) == set(range(5))
    lost = rig.engine.tracks('')[0]
    assert (lost.state, lost.mask, lost.box, lost.score) == (LOST, None, None, 0.0)
    assert lost.last_seen_ns == at_ns(4)
    answer = rig.answer(region_ids=('red',))
    assert set(answer.frame_stamps_ns) <= {at_ns(i) for i in range(5)}
    assert answer.evidence[0].stamp_ns == at_ns(4)
    assert set(rig.engine.regions_at('', at_ns(8), max_age_s=0.0)) == set()
    rig.film(range(9, 12))
    assert set(rig.seen('red')) == {*range(5), *range(9, 12)}
    assert rig.states('red')[9] == TrackState.REACQUIRED
    assert rig.states('red')[10] == TRACKED


def test_a_hidden_region_counts_while_enough_of_it_is_visible() -> None:
    def scene(i: int) -> dict[Colour, Box]:
        covers = {3: 5, 4: 7, 5: 2}.get(i, 0)  # of 9 rows
        box = Box(BLUE_BOX.x, BLUE_BOX.y, BLUE_BOX.width, covers)
        return {BLUE: BLUE_BOX, GREY: box} if covers else {BLUE: BLUE_BOX}

    rig = Street(scene)
    rig.film([0])
    rig.point('blue', 0)
    rig.film(range(1, 7))
    assert set(rig.seen('blue')) == {0, 1, 2, 3, 5, 6}
    states = rig.states('blue')
    assert [states[i] for i in (3, 4, 5)] == [
        TrackState.OCCLUDED,
        TrackState.OCCLUDED,
        TrackState.REACQUIRED,
    ]
    hidden = rig.track('blue')[4]
    assert hidden.mask is not None
    assert masks.area(hidden.mask) == 24
    assert hidden.last_seen_ns == at_ns(3)


def test_what_is_given_of_a_frame_stands_over_what_is_tracked() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    rig.film([1, 2])
    given = Box(red_box(1).x - 2, 7, 11, 12)
    rig.point('red', 1, given)
    rig.film([3])
    assert rig.seen('red') == {0: red_box(0), 1: given, 2: red_box(2), 3: red_box(3)}
    assert rig.engine.list_regions()[0].box == given


def test_a_region_given_elsewhere_corrects_the_track_both_ways() -> None:
    rig = Street(window_s=1.0)
    rig.film([0])
    rig.point('red', 0, BLUE_BOX)
    rig.film(range(1, 20))
    assert rig.seen('red') == dict.fromkeys(range(20), BLUE_BOX)
    rig.point('red', 15)
    rig.engine.run_until_idle()
    # Back as far as the window, forward to now; what was given stays.
    assert rig.seen('red') == {0: BLUE_BOX, **{i: red_box(i) for i in range(5, 20)}}
    rig.film([20])
    assert rig.engine.tracks('')[0].box == red_box(20)


def test_a_stream_of_boxes_that_agree_costs_nothing_in_the_past() -> None:
    rig = Street()
    for i in range(20):
        rig.film([i])
        rig.point('red', i)
        rig.engine.run_until_idle()
    assert {number for number, _, _ in rig.script.starts} == {1}
    assert len(rig.script.starts) == 20
    assert len(rig.script.steps) == 19
    assert set(rig.states('red').values()) == {TrackState.NEW, TRACKED}


def test_a_stream_that_lags_corrects_too() -> None:
    rig = Street()
    for i in range(30):
        rig.film([i])
        if i >= 3:
            rig.point('red', i - 3)
            rig.engine.run_until_idle()
    assert rig.seen('red') == {i: red_box(i) for i in range(30)}
    assert rig.engine.tracks('')[0].box == red_box(29)


def test_a_lost_region_that_is_given_again_is_back() -> None:
    rig = absent(range(5, 9))
    rig.film([0])
    rig.point('red', 0, BLUE_BOX)
    rig.scene = lambda i: {RED: red_box(i)}
    rig.film(range(1, 12))
    assert rig.engine.tracks('')[0].state == LOST
    rig.point('red', 10)
    rig.engine.run_until_idle()
    assert rig.engine.tracks('')[0].state == TrackState.REACQUIRED
    assert rig.engine.tracks('')[0].box == red_box(11)
    rig.film([12])
    assert rig.engine.tracks('')[0].state == TRACKED


def test_a_region_a_little_ahead_is_followed_from_its_own_image() -> None:
    rig = Street(stamp_tolerance_s=0.1)
    rig.film(range(10))
    ahead = rig.region_of('red', 10, red_box(10))
    assert rig.engine.add_regions([ahead]) == [None]
    rig.engine.add_frame(rig.picture(10))
    rig.engine.run_until_idle()
    assert rig.seen('red') == {i: red_box(i) for i in range(11)}
    assert rig.script.starts[0][1:] == (at_ns(10), 'red')


def test_a_new_label_shows_in_the_track() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0, label='a thing')
    rig.film([1])
    rig.point('red', 1, label='a cart')
    rig.film([2])
    assert rig.engine.tracks('')[0].label == 'a cart'


def test_older_observations_fill_in_around_them() -> None:
    rig = Street(window_s=1.0)
    rig.film(range(41))
    rig.point('red', 40)
    rig.engine.run_until_idle()
    assert set(rig.seen('red')) == set(range(30, 41))
    rig.point('red', 15)
    rig.engine.run_until_idle()
    assert rig.seen('red') == {i: red_box(i) for i in range(5, 41)}
    assert rig.engine.tracks('')[0].stamp_ns == at_ns(40)


def test_a_region_that_is_not_seen_for_its_time_is_forgotten() -> None:
    rig = absent(range(20, 100))
    rig.film([0])
    rig.point('red', 0, ttl_s=1.0)
    rig.point('blue', 0, ttl_s=1.0)
    rig.film(range(1, 30))
    assert [r.region_id for r in rig.engine.list_regions()] == ['red', 'blue']
    rig.film([30])
    assert [r.region_id for r in rig.engine.list_regions()] == ['blue']
    assert [track.region_id for track in rig.engine.tracks('')] == ['blue']
    rig.film([31])
    assert rig.script.steps[-1][2] == ('blue',)


def test_regions_come_and_go_without_disturbing_the_others() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    rig.film([1, 2])
    rig.point('blue', 2)
    rig.film([3])
    assert rig.engine.remove_regions(['red']) == ['red']
    assert [track.region_id for track in rig.engine.tracks('')] == ['blue']
    rig.film([4, 5])
    assert rig.script.steps[-1][2] == ('blue',)
    assert rig.engine.remove_regions() == ['blue']
    before = len(rig.script.steps)
    rig.film([6, 7])
    assert len(rig.script.steps) == before
    rig.point('blue', 7)
    rig.film([8])
    assert rig.engine.tracks('')[0].box == BLUE_BOX


def test_a_region_removed_while_it_is_caught_up_with_leaves_nothing_behind() -> None:
    rig = Street()
    rig.film(range(30))
    rig.point('red', 5)
    assert rig.follower.work(live=False)
    assert rig.script.steps[-1][1] < at_ns(10)
    rig.engine.remove_regions(['red'])
    rig.point('red', 25, BLUE_BOX)
    rig.engine.run_until_idle()
    # The second of that name is another thing.
    assert rig.seen('red') == dict.fromkeys(range(5, 30), BLUE_BOX)
    assert rig.engine.tracks('')[0].box == BLUE_BOX


def test_a_jump_of_the_clock_while_it_is_caught_up_with_leaves_nothing_behind() -> None:
    rig = Street()
    rig.film(range(30))
    rig.point('red', 5)
    assert rig.follower.work(live=False)
    rig.film(range(3))
    assert rig.engine.stats().cameras[''].clock_jumps == 1
    assert rig.engine.list_regions() == []
    assert rig.engine.tracks('') == ()
    rig.point('red', 2, BLUE_BOX)
    rig.film(range(3, 9))
    assert rig.seen('red') == dict.fromkeys(range(9), BLUE_BOX)


def test_a_jump_in_the_middle_of_a_step_leaves_nothing_behind() -> None:
    rig = Street()
    rig.film([20])
    rig.point('red', 20)
    rig.film(range(21, 25))


    def jump(stamp_ns: int) -> None:
        rig.script.on_step = None
        rig.engine.reset()
        rig.engine.add_frame(rig.picture(0))
        rig.point('red', 0, BLUE_BOX)

    rig.script.on_step = jump
    rig.film([25])
    assert rig.seen('red') == {0: BLUE_BOX}
    assert rig.engine.tracks('')[0].stamp_ns == at_ns(0)
    rig.film([1, 2])
    assert rig.seen('red') == dict.fromkeys(range(3), BLUE_BOX)
    assert rig.problems == []


def test_a_region_that_goes_and_comes_in_the_middle_of_a_step_begins_anew() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 5))

    def swap(stamp_ns: int) -> None:
        rig.script.on_step = None
        rig.engine.remove_regions(['red'])
        rig.point('red', 6, BLUE_BOX)

    rig.script.on_step = swap
    rig.film(range(5, 8), run=False)
    rig.engine.run_until_idle()
    assert rig.seen('red') == dict.fromkeys(range(8), BLUE_BOX)
    assert 5 not in rig.states('red')
    assert rig.engine.tracks('')[0].box == BLUE_BOX


def test_a_newer_observation_overtakes_one_that_is_being_caught_up_with() -> None:
    rig = Street(window_s=1.0)
    rig.film(range(30))
    rig.point('red', 5, BLUE_BOX)
    assert rig.follower.work(live=False)
    rig.point('red', 29)
    rig.film([30, 31])
    assert rig.engine.tracks('')[0].box == red_box(31)
    assert {i: box for i, box in rig.seen('red').items() if i > 18} == {
        i: red_box(i) for i in range(19, 32)
    }


def run_twice(**settings: float) -> tuple[Street, Street]:
    rigs = []
    for _ in range(2):
        rig = absent(range(20, 26))
        rig.__init__(rig.scene, describe_enabled=True, record_timings=False)  # type: ignore[misc]
        for i in range(60):
            rig.clock.now_s = at_s(i)
            rig.film([i])
            if i == 10:
                rig.point('red', 4)
            if i % 7 == 0:
                rig.point('blue', i)
            if i % 9 == 5:
                rig.ask('{blue}?', query_id=str(i), stamp_s=at_s(i - 2))
            rig.engine.run_until_idle()
        rigs.append(rig)
    return rigs[0], rigs[1]


def test_equal_inputs_and_steps_give_equal_results() -> None:
    first, second = run_twice()
    assert len(first.descriptions) > 4
    assert len(first.answers) > 4
    assert first.descriptions == second.descriptions
    assert first.answers == second.answers
    assert [tracks for _, tracks in first.tracks] == [tracks for _, tracks in second.tracks]
    assert first.script.steps == second.script.steps


def test_what_is_remembered_is_bounded_by_the_buffer() -> None:
    rig = Street(buffer_window_s=2.0, buffer_full_rate_s=1.0, region_ttl_s=0.5)
    store = rig.engine._cameras.find('').store
    for i in range(200):
        rig.film([i])
        if i % 5 == 0:
            rig.point('red', i)
            rig.point('blue', i)
        if i % 20 == 19:
            rig.engine.remove_regions(['red'])
        kept = rig.engine.stats().cameras[''].buffer_frames
        for name in store.ids():
            assert len(store.observations(name)) <= kept
    follower, ledger = rig.follower, rig.follower._ledger
    assert (ledger.prompts, ledger.pursuits, follower._orphans) == ({}, [], {})
    assert set(follower._followed) <= {'red', 'blue'}


def test_stats_tell_how_the_tracker_does() -> None:
    rig = Street()
    rig.film(range(5))
    rig.point('red', 2)
    rig.film(range(5, 9))
    stats = rig.engine.stats().cameras['']
    assert (stats.frames_tracked, stats.tracking_lag_frames) == (3, 0)
    assert stats.tracking_ms_p50 > 0
    rig.film(range(9, 12), run=False)
    assert rig.engine.stats().cameras[''].tracking_lag_frames == 3


def test_a_query_waits_for_the_tracker_and_keeps_its_time() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 11), run=False)
    handle = rig.ask('{red}?')
    assert not handle.done
    rig.film([11], run=False)
    rig.engine.run_until_idle()
    assert handle.done
    assert rig.answers[0].window_end_ns == at_ns(10)
    assert rig.answers[0].evidence[0].box == red_box(10)


def test_a_query_about_a_time_before_the_region_was_given_is_answered() -> None:
    rig = Street()
    rig.film(range(20))
    rig.point('red', 15)
    answer = rig.answer('{red}?', stamp_s=at_s(8))
    assert answer.error_code == ErrorCode.OK
    assert answer.evidence[0].box == red_box(8)
    early = Street(window_s=0.5)
    early.film(range(20))
    early.point('red', 15)
    assert early.answer('{red}?', stamp_s=at_s(8)).error_code == ErrorCode.BAD_STAMP


def test_what_cannot_be_answered_is_said_at_once() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    rig.film(range(1, 5), run=False)
    handle = rig.engine.submit(query('{cat}?'))
    assert handle.done
    assert rig.answers[0].error_code == ErrorCode.UNKNOWN_REGION


def test_the_evidence_of_a_tracked_region_has_the_score_of_the_tracker() -> None:
    rig = Street()
    rig.film([0])
    rig.point('blue', 0)
    rig.scene = lambda i: {BLUE: Box(40, 30, 12, 6)}
    rig.film([1])
    (evidence,) = rig.answer('{blue}?', window_s=0.01).evidence
    assert evidence.score == pytest.approx(72 / 108)


def test_the_time_of_tracking_is_told() -> None:
    rig = Street()
    rig.film([0])
    rig.point('red', 0)
    assert rig.answer('{red}?').timings.tracking_s == 0.0
    rig.film([1, 2])
    assert rig.answer('{red}?').timings.tracking_s > 0.0


def test_64_regions_at_once() -> None:
    colours = [(9 + 3 * i, 5, 7) for i in range(64)]
    boxes = [Box(8 * (i % 8), 6 * (i // 8), 6, 5) for i in range(64)]
    rig = Street(lambda _: dict(zip(colours, boxes, strict=True)), window_s=0.5)
    rig.film(range(10))
    outcomes = rig.engine.add_regions(
        [
            Region(f'r{i}', RegionKind.BOX, stamp_ns=at_ns(7 if i % 2 else 9), box=box)
            for i, box in enumerate(boxes)
        ]
    )
    assert outcomes == [None] * 64
    rig.film([10])
    for i, box in enumerate(boxes):
        first = 2 if i % 2 else 4
        assert rig.seen(f'r{i}') == dict.fromkeys(range(first, 11), box)
    assert len(rig.engine.tracks('')) == 64
    (refused,) = rig.engine.add_regions(
        [Region('one more', RegionKind.BOX, stamp_ns=at_ns(5), box=boxes[0])]
    )
    assert refused is not None
    assert refused.code == ErrorCode.QUEUE_FULL


def test_a_region_for_a_frame_that_has_left_the_buffer_is_refused() -> None:
    rig = Street(buffer_window_s=1.0, buffer_full_rate_s=1.0)
    rig.film(range(30))
    (refused,) = rig.engine.add_regions(
        [Region('late', RegionKind.BOX, stamp_ns=at_ns(5), box=red_box(5))]
    )
    assert refused is not None
    assert refused.code == ErrorCode.BAD_STAMP


def test_cameras_are_followed_apart() -> None:
    rig = Street(cameras=('left', 'right'))
    for i in range(4):
        rig.engine.add_frame(rig.picture(i, 'left'))
        rig.engine.add_frame(rig.picture(i + 30, 'right'))
        if i == 0:
            for camera, frame in (('left', 0), ('right', 30)):
                rig.engine.add_regions(
                    [
                        Region(
                            'red',
                            RegionKind.BOX,
                            camera=camera,
                            stamp_ns=at_ns(frame),
                            box=red_box(frame),
                        )
                    ]
                )
        rig.engine.run_until_idle()
    assert rig.engine.tracks('left')[0].box == red_box(3)
    assert rig.engine.tracks('right')[0].box == red_box(33)
    assert ns(13.3) == rig.engine.tracks('right')[0].stamp_ns
