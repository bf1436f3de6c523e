# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check when regions are described, and what the model is shown of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pixelrefer_ros.core.types import Box, Description, ErrorCode, PixelReferError, Timings
from tests.doubles import ScriptedDescriber, make_frame
from tests.engine.rig import Rig, ns, region, seconds, span


def stream(rig: Rig, stamps_s: list[float], *ids: str) -> None:
    """Let frames come with regions in each, the model keeping up."""
    for stamp_s in stamps_s:
        rig.frames([stamp_s])
        for region_id in ids:
            rig.region(region_id, stamp_s)
        rig.engine.run_until_idle()


def test_a_region_given_once_is_described_once_after_it_was_watched() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=1.0, describe_period_s=2.0)
    rig.frames([10.0])
    rig.region('cup')
    rig.frames(span(10.1, 10.9))
    assert rig.engine.run_until_idle() == 0
    rig.frames([11.0])
    assert rig.engine.run_until_idle() == 1
    rig.frames(span(11.1, 30.0))
    assert rig.engine.run_until_idle() == 0
    (description,) = rig.descriptions
    assert description == Description(
        camera='',
        region_id='cup',
        label='label of cup',
        stamp_ns=ns(10.0),
        frame_id='_optical',
        text=f'describe cup in 1 frames until {ns(10.0)}',
        confidence=pytest.approx(0.5),
        box=Box(4, 6, 8, 10),
        frame_stamps_ns=(ns(10.0),),
        timings=Timings(0.0, 0.001, 0.002, 0.003, 0.0, 0.0),
        tokens_in=18,
        tokens_out=8,
        model='scripted',
    )


def test_it_is_described_at_once_when_it_need_not_be_watched() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=0.0)
    rig.frames([10.0])
    rig.region('cup')
    rig.region('a little ahead', 10.03)
    assert rig.engine.run_until_idle() == 2


def test_a_stream_is_described_every_period_over_its_window() -> None:
    rig = Rig(describe_enabled=True, window_s=2.0)
    stream(rig, span(10.0, 15.0), 'cup')
    assert [seconds(d.frame_stamps_ns) for d in rig.descriptions] == [
        pytest.approx([10.0, 10.3, 10.7, 11.0]),
        pytest.approx([11.0, 11.7, 12.3, 13.0]),
        pytest.approx([13.0, 13.7, 14.3, 15.0]),
    ]
    for description in rig.descriptions:
        assert description.stamp_ns == description.frame_stamps_ns[-1]


def test_a_description_uses_all_frames_there_are_up_to_the_models_wish() -> None:
    rig = Rig(describe_enabled=True, describer=ScriptedDescriber(frames_per_region=8))
    rig.frames(span(10.0, 10.9))
    for stamp_s in (10.0, 10.4, 10.9):
        rig.region('cup', stamp_s)
    rig.frames([11.0])
    rig.engine.run_until_idle()
    assert seconds(rig.descriptions[0].frame_stamps_ns) == pytest.approx([10.0, 10.4, 10.9])


def test_a_region_seen_long_ago_is_described_from_around_its_last_observations() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=8.0, window_s=2.0)
    rig.frames(span(10.0, 14.0))
    for stamp_s in (10.0, 12.5, 13.0, 14.0):
        rig.region('cup', stamp_s)
    rig.frames(span(14.1, 18.0))
    rig.engine.run_until_idle()
    assert seconds(rig.descriptions[0].frame_stamps_ns) == pytest.approx([12.5, 13.0, 14.0])


def test_no_period_describes_once_and_disabled_never() -> None:
    once = Rig(describe_enabled=True, describe_period_s=0.0)
    stream(once, span(10.0, 20.0), 'cup')
    assert len(once.descriptions) == 1
    never = Rig(describe_enabled=False)
    stream(never, span(10.0, 20.0), 'cup')
    assert never.descriptions == []


def test_the_newest_description_wins_over_one_that_waits() -> None:
    rig = Rig(describe_enabled=True)
    for stamp_s in span(10.0, 15.0):
        rig.frames([stamp_s])
        rig.region('cup', stamp_s)
    assert rig.engine.stats().queue_depth == 1
    assert rig.engine.run_until_idle() == 1
    assert rig.descriptions[0].stamp_ns == ns(15.0)
    assert rig.engine.stats().jobs_dropped == 2


def test_observations_that_came_before_it_ran_are_not_described_again() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=1.0, describe_period_s=2.0)
    rig.frames([10.0])
    rig.region('cup')
    rig.frames([11.0])
    rig.region('cup')
    assert rig.engine.run_until_idle() == 1
    rig.frames(span(11.1, 20.0))
    assert rig.engine.run_until_idle() == 0


def test_a_region_that_goes_is_not_described() -> None:
    rig = Rig(describe_enabled=True, region_ttl_s=1.5)
    rig.frames([10.0])
    rig.region('removed')
    rig.region('expired')
    rig.frames([11.0])
    assert rig.engine.stats().queue_depth == 2
    assert rig.engine.remove_regions(['removed']) == ['removed']
    assert rig.engine.stats().queue_depth == 1
    rig.frames([12.0])
    rig.engine.run_until_idle()
    assert rig.describer.calls == []


def test_a_region_removed_while_it_is_described_is_not_heard_of_again() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=0.0)
    rig.describer.on_token = lambda _: rig.engine.remove_regions()
    rig.frames([10.0])
    rig.region('cup')
    rig.engine.run_until_idle()
    assert len(rig.describer.calls) == 1
    assert (rig.descriptions, rig.problems) == ([], [])


def test_a_region_that_comes_back_is_described_again() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=0.0)
    rig.frames([10.0])
    for _ in range(2):
        rig.region('cup')
        assert rig.engine.run_until_idle() == 1
        rig.engine.remove_regions()


class OutOfMemoryError(RuntimeError):
    """Look like torch's error of that name."""


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (ValueError('nonsense'), 'the model failed: ValueError: nonsense (at '),
        (OutOfMemoryError('2 GiB'), 'out of memory'),
        (PixelReferError(ErrorCode.MODEL_ERROR, 'no weights'), 'no weights'),
    ],
)
def test_a_failed_description_is_reported_and_the_rest_goes_on(
    error: Exception, words: str
) -> None:
    rig = Rig(describe_enabled=True, describe_after_s=0.0, max_batch=1)
    rig.describer.script = [error]
    rig.frames([10.0])
    rig.region('bad')
    rig.region('good')
    rig.engine.run_until_idle()
    assert [d.region_id for d in rig.descriptions] == ['good']
    (problem,) = rig.problems
    assert "describing region 'bad' failed" in problem
    assert words in problem
    assert rig.engine.stats().jobs_failed == 1


def test_a_description_gives_up_at_its_deadline() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=0.0, deadline_s=5.0)
    rig.describer.on_token = lambda _: rig.clock.advance(2.0)
    rig.frames([10.0])
    rig.region('cup')
    rig.engine.run_until_idle()
    assert rig.descriptions == []
    assert 'deadline' in rig.problems[0]


def test_a_description_that_found_the_queue_full_comes_later() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=0.0, queue_size=1)
    rig.frames([10.0])
    rig.region('a')
    rig.region('b')
    assert rig.engine.stats().jobs_dropped == 1
    rig.engine.run_until_idle()
    rig.frames([10.1])
    rig.engine.run_until_idle()
    assert [d.region_id for d in rig.descriptions] == ['a', 'b']


def test_a_description_that_gave_way_to_a_query_comes_later() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=0.0, queue_size=1)
    rig.frames([10.0])
    rig.region('a')
    rig.ask()
    rig.engine.run_until_idle()
    assert [call.kind for call in rig.describer.calls] == ['answer']
    rig.frames([10.1])
    rig.engine.run_until_idle()
    assert [d.region_id for d in rig.descriptions] == ['a']


@pytest.mark.parametrize(
    ('logprob', 'confidence'), [(math.log(0.9), 0.9), (0.1, 1.0), (math.nan, 0.0)]
)
def test_confidence_is_the_mean_token_probability(logprob: float, confidence: float) -> None:
    rig = Rig(
        describe_enabled=True,
        describe_after_s=0.0,
        describer=ScriptedDescriber(mean_logprob=logprob),
    )
    rig.frames([10.0])
    rig.region('cup')
    rig.engine.run_until_idle()
    assert rig.descriptions[0].confidence == pytest.approx(confidence)


def test_timings_come_from_the_clock_and_the_model() -> None:
    rig = Rig(describe_enabled=True, describe_after_s=0.0)
    rig.frames([10.0])
    rig.region('cup')
    rig.clock.advance(3.0)
    rig.describer.on_token = lambda _: rig.clock.advance(0.5)
    rig.engine.run_until_idle()
    words = len(rig.descriptions[0].text.split())
    expected = Timings(3.0, 0.001, 0.002, 0.003, 0.0, 3.0 + 0.5 * words)
    assert rig.descriptions[0].timings == expected
    assert rig.engine.stats().latency_p50_ms == pytest.approx(expected.total_s * 1e3)


def test_cameras_keep_their_regions_apart() -> None:
    rig = Rig(cameras=('left', 'right'), describe_enabled=True, describe_after_s=0.0)
    rig.frames([10.0], 'left')
    rig.frames([20.0], 'right')
    rig.region('cup', camera='left')
    rig.region('cup', camera='right')
    rig.engine.run_until_idle()
    assert [(d.camera, d.stamp_ns) for d in rig.descriptions] == [
        ('left', ns(10.0)),
        ('right', ns(20.0)),
    ]


def play(offer_all: bool) -> Rig:
    rig = Rig(describe_enabled=True, keep_rate_hz=7.0, record_timings=False)
    for i in range(300):
        stamp_s = 10 + i / 30
        rig.clock.now_s = stamp_s
        if offer_all or rig.engine.wants('', ns(stamp_s)):
            rig.frames([stamp_s])
        if i % 4 == 0:
            rig.engine.add_regions([region('a', stamp_s), region('b', stamp_s - 0.02)])
        if i % 50 == 49:
            rig.ask('is {a} left of {b}?', query_id=str(i), stamp_s=stamp_s)
        rig.engine.run_until_idle()
    return rig


def test_replays_are_equal_whether_or_not_refused_frames_are_offered() -> None:
    first, second = play(offer_all=True), play(offer_all=False)
    assert len(first.descriptions) > 6
    assert len(first.answers) == 6
    assert first.descriptions == second.descriptions
    assert first.answers == second.answers
    assert first.descriptions[0].timings == Timings()


def test_masks_for_drawing_are_the_last_ones_seen_by_then() -> None:
    rig = Rig()
    rig.frames(span(10.0, 11.0))
    rig.region('old', 10.1)
    rig.region('cup', 10.8)
    assert set(rig.engine.regions_at('', ns(11.0))) == {'cup'}
    assert set(rig.engine.regions_at('', ns(10.79))) == set()
    assert set(rig.engine.regions_at('', ns(11.0), max_age_s=2.0)) == {'old', 'cup'}
    assert rig.engine.regions_at('', ns(11.0))['cup'].height == 24
    newest = rig.engine.snapshot('')
    assert newest is not None
    assert newest.stamp_ns == ns(11.0)


def test_regions_are_listed_as_they_were_given() -> None:
    rig = Rig(cameras=('left', 'right'))
    rig.frames([10.0], 'left')
    rig.frames([10.0], 'right')
    rig.region('a')
    rig.region('b', camera='right')
    given = replace(region('a'), camera='left', stamp_ns=ns(10.0))
    assert rig.engine.list_regions('left') == [given]
    assert [r.region_id for r in rig.engine.list_regions()] == ['a', 'b']
    assert rig.engine.remove_regions(['a', 'b'], camera='right') == ['b']
    assert rig.engine.remove_regions() == ['a']


def test_each_region_of_a_batch_has_its_own_outcome() -> None:
    rig = Rig(max_regions=2)
    rig.frames([10.0])
    outcomes = rig.engine.add_regions(
        [
            region('good'),
            replace(region('outside'), box=Box(100, 100, 5, 5)),
            region('elsewhere', camera='nowhere'),
            region('late', 9.0),
            region('also good'),
            region('too many'),
        ]
    )
    assert [o and o.code for o in outcomes] == [
        None,
        ErrorCode.BAD_REGION,
        ErrorCode.UNKNOWN_CAMERA,
        ErrorCode.BAD_STAMP,
        None,
        ErrorCode.QUEUE_FULL,
    ]
    rig.frames([11.0])
    rig.region('newer')
    assert "region 'good' was forgotten to make room for 'newer'" in rig.problems[0]


def test_frames_are_counted_and_bad_ones_refused() -> None:
    rig = Rig(keep_rate_hz=10.0)
    kept = [rig.engine.add_frame(make_frame(s)) for s in (10.0, 10.0, 10.03, 10.1)]
    assert kept == [True, False, False, True]
    with pytest.raises(PixelReferError) as caught:
        rig.engine.add_frame(make_frame(10.2, 'nowhere'))
    assert caught.value.code == ErrorCode.UNKNOWN_CAMERA
    grey = make_frame(10.2)
    with pytest.raises(PixelReferError, match='uint8 picture') as caught:
        rig.engine.add_frame(replace(grey, image=grey.image[..., 0]))
    assert caught.value.code == ErrorCode.BAD_REQUEST
    stats = rig.engine.stats().cameras['']
    assert (stats.frames_in, stats.frames_kept, stats.frames_dropped) == (4, 2, 2)
    assert stats.newest_stamp_ns == ns(10.1)
    assert stats.buffer_frames == 2
    assert stats.buffer_mib == pytest.approx(2 * 24 * 32 * 3 / 2**20)
