# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what queries look at, in what order they run, and how each can end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import (
    Answer,
    Box,
    ErrorCode,
    PixelReferError,
    Task,
    Timings,
    Utterance,
)
from tests.doubles import make_frame
from tests.engine.rig import Rig, ns, query, region, seconds, span


def scene(**settings: Any) -> Rig:
    """Return a rig with a second of frames; 'cup' is seen in all, 'pen' in every other."""
    rig = Rig(**settings)
    rig.frames(span(10.0, 11.0))
    for i, stamp_s in enumerate(span(10.0, 11.0)):
        rig.region('cup', stamp_s)
        if i % 2 == 0:
            rig.region('pen', stamp_s)
    return rig


def test_an_answer_carries_its_evidence() -> None:
    rig = scene()
    rig.describer.script = ['it is red']
    answer = rig.answer('what is {cup}?', window_s=0.5)
    assert answer.error_code == ErrorCode.OK
    assert answer.text == 'it is red'
    assert answer.query_id == 'q'
    assert (answer.stamp_ns, answer.frame_id) == (ns(11.0), '_optical')
    assert (answer.window_start_ns, answer.window_end_ns) == (ns(10.5), ns(11.0))
    assert seconds(answer.frame_stamps_ns) == pytest.approx([10.5, 10.7, 10.8, 11.0])
    assert answer.region_ids == ('cup',)
    assert answer.confidence == pytest.approx(0.5)
    assert (answer.tokens_in, answer.tokens_out, answer.model) == (42, 4, 'scripted')
    (evidence,) = answer.evidence
    assert evidence.stamp_ns == ns(11.0)
    assert evidence.box == Box(4, 6, 8, 10)
    assert evidence.mask is not None
    assert masks.area(evidence.mask) == 80
    assert evidence.track_stamps_ns == answer.frame_stamps_ns
    assert len(evidence.track_masks) == 4


def test_regions_share_frames_and_point_into_them() -> None:
    rig = scene()
    rig.answer('compare {cup} and {pen}')
    (call,) = rig.describer.calls
    assert call.text == 'compare {cup} and {pen}'
    shown = {r.region_id: [call.stamps_ns[i] for i in r.frame_indices] for r in call.regions}
    assert list(shown) == ['cup', 'pen']
    assert seconds(shown['cup']) == pytest.approx([10.0, 10.3, 10.7, 11.0])
    assert seconds(shown['pen']) == pytest.approx([10.0, 10.4, 10.6, 11.0])
    assert set(call.stamps_ns) == {*shown['cup'], *shown['pen']}
    expected = np.zeros((24, 32), dtype=bool)
    expected[6:16, 4:12] = True
    np.testing.assert_array_equal(call.regions[0].masks[0], expected)


def test_a_region_prefers_the_frames_of_the_one_before() -> None:
    rig = scene()
    answer = rig.answer('compare {pen} and {cup}')
    assert seconds(answer.frame_stamps_ns) == pytest.approx([10.0, 10.4, 10.6, 11.0])


@pytest.mark.parametrize(
    ('fields', 'ids'),
    [
        ({}, ['cup', 'pen']),
        ({'text': 'where is {pen}?'}, ['pen']),
        ({'region_ids': ('pen', 'cup', 'pen')}, ['pen', 'cup']),
        ({'region_ids': ('pen',), 'text': 'is it left of {cup}?'}, ['pen', 'cup']),
        ({'regions': (region('new'),)}, ['new']),
        ({'region_ids': ('cup',), 'regions': (region('new'),)}, ['cup', 'new']),
    ],
)
def test_which_regions_a_query_means(fields: dict[str, Any], ids: list[str]) -> None:
    rig = scene()
    assert rig.answer(**fields).region_ids == tuple(ids)
    assert [r.region_id for r in rig.describer.calls[0].regions] == ids


def test_a_region_that_comes_with_a_query_stays_with_it() -> None:
    rig = scene()
    rig.answer(regions=(region('new', 10.2), region('new', 10.6)))
    assert seconds(rig.describer.calls[0].stamps_ns) == pytest.approx([10.2, 10.6])
    assert 'new' not in [r.region_id for r in rig.engine.list_regions()]


def test_a_known_region_given_again_alone_or_added_to() -> None:
    rig = Rig()
    rig.frames(span(10.0, 11.0))
    rig.region('cup', 10.5)
    rig.answer(regions=(region('cup', 10.9),))
    rig.answer(regions=(region('cup', 10.9),), region_ids=('cup',))
    assert [seconds(c.stamps_ns) for c in rig.describer.calls] == [
        pytest.approx([10.9]),
        pytest.approx([10.5, 10.9]),
    ]


def test_a_region_given_with_a_query_may_sit_on_the_frame_just_after_its_time() -> None:
    rig = Rig()
    rig.frames([10.0, 10.1])
    rig.region('cup', 10.1)
    answer = rig.answer(regions=(region('x', 10.07),), stamp_s=10.07)
    assert seconds(answer.frame_stamps_ns) == pytest.approx([10.1])
    both = rig.answer(regions=(region('cup', 10.0),), region_ids=('cup',), stamp_s=10.07)
    assert seconds(both.frame_stamps_ns) == pytest.approx([10.0])


def test_of_two_observations_of_a_frame_the_nearer_counts() -> None:
    rig = Rig()
    rig.frames([10.0, 10.1])
    rig.region('cup', 10.0)
    other = replace(region('cup', 10.03), box=Box(0, 0, 2, 2))
    answer = rig.answer(regions=(other,), region_ids=('cup',))
    assert answer.evidence[0].box == Box(4, 6, 8, 10)
    answer = rig.answer(regions=(replace(other, stamp_ns=ns(10.0)),), region_ids=('cup',))
    assert answer.evidence[0].box == Box(0, 0, 2, 2)


def test_as_of_a_time_in_the_past_nothing_later_is_looked_at() -> None:
    rig = scene()
    answer = rig.answer(stamp_s=10.55, region_ids=('cup',))
    assert seconds(answer.frame_stamps_ns) == pytest.approx([10.0, 10.2, 10.3, 10.5], abs=1e-6)
    assert answer.window_end_ns == ns(10.55)


def test_a_time_just_before_the_oldest_image_means_that_image() -> None:
    answer = scene().answer(stamp_s=9.96, region_ids=('cup',))
    assert seconds(answer.frame_stamps_ns) == pytest.approx([10.0])


def test_a_region_not_seen_in_the_window_is_shown_as_it_was_last_seen() -> None:
    rig = scene()
    rig.frames(span(11.1, 20.0))
    answer = rig.answer(region_ids=('pen',), window_s=0.4)
    assert answer.stamp_ns == ns(11.0)
    assert seconds(answer.frame_stamps_ns) == pytest.approx([10.6, 10.8, 11.0])
    assert answer.window_end_ns == ns(20.0)


def test_the_newest_frame_of_a_region_survives_thinning() -> None:
    rig = Rig(region_ttl_s=60.0)
    rig.frames(span(10.0, 10.3))
    rig.region('cup', 10.3)
    rig.frames(span(10.4, 50.0))
    assert seconds(rig.answer(region_ids=('cup',)).frame_stamps_ns) == pytest.approx([10.3])


@pytest.mark.parametrize(
    ('fields', 'code', 'words'),
    [
        ({'task': Task.GROUND}, ErrorCode.UNSUPPORTED, 'ask about a region'),
        ({'task': 9}, ErrorCode.BAD_REQUEST, 'none of DESCRIBE'),
        ({'text': ' '}, ErrorCode.BAD_REQUEST, 'needs text'),
        ({'region_ids': ('cat',)}, ErrorCode.UNKNOWN_REGION, "'cat' is not known; known are: cup"),
        ({'text': 'where is {cat}?'}, ErrorCode.UNKNOWN_REGION, "'cat'"),
        ({'camera': 'nowhere'}, ErrorCode.UNKNOWN_CAMERA, 'nowhere'),
        ({'stamp_s': 11.6}, ErrorCode.BAD_STAMP, '0.600 s after the newest'),
        ({'stamp_s': 9.9}, ErrorCode.BAD_STAMP, '0.100 s before the oldest'),
        ({'regions': (region('x', 5.0),)}, ErrorCode.BAD_STAMP, 'older than the buffer'),
        ({'regions': (region('x', 15.0),)}, ErrorCode.BAD_STAMP, 'ahead of the newest'),
        ({'regions': (region(''),)}, ErrorCode.BAD_REGION, 'region_id'),
        (
            {'regions': (replace(region('x'), box=None),)},
            ErrorCode.BAD_REGION,
            'needs a box',
        ),
        (
            {'regions': (region('x', 10.9),), 'stamp_s': 10.1},
            ErrorCode.BAD_STAMP,
            'after the time the question is about',
        ),
    ],
)
def test_requests_that_cannot_be_served(
    fields: dict[str, Any], code: ErrorCode, words: str
) -> None:
    rig = scene()
    answer = rig.answer(**fields)
    assert answer.error_code == code
    assert words in answer.error_msg
    assert answer.query_id == 'q'
    assert rig.describer.calls == []
    assert rig.engine.stats().jobs_failed == 1


def test_without_frames_and_without_regions() -> None:
    rig = Rig()
    assert rig.answer().error_code == ErrorCode.NO_FRAMES
    rig.frames([10.0])
    answer = rig.answer()
    assert answer.error_code == ErrorCode.BAD_REQUEST
    assert 'send a region with the question' in answer.error_msg


def test_a_region_whose_images_have_left_the_buffer() -> None:
    rig = Rig(buffer_window_s=2.0, region_ttl_s=100.0)
    rig.frames([10.0])
    rig.region('cup')
    rig.frames(span(10.1, 20.0))
    answer = rig.answer(region_ids=('cup',))
    assert answer.error_code == ErrorCode.NO_FRAMES
    assert "'cup' have left the buffer" in answer.error_msg


def test_describing_several_regions_says_which_is_which() -> None:
    rig = scene()
    rig.describer.script = ['red', 'blue']
    answer = rig.answer('briefly {pen} {cup}', task=Task.DESCRIBE)
    assert answer.text == 'pen: red\ncup: blue'
    assert [call.text for call in rig.describer.calls] == ['briefly it it', 'briefly it it']
    assert answer.tokens_out == 4
    one = rig.answer('{cup}', task=Task.DESCRIBE)
    assert one.text.startswith('describe cup')
    assert rig.describer.calls[-1].text == ''
    assert rig.answer('', task=Task.DESCRIBE).region_ids == ('cup', 'pen')


def test_a_query_ahead_waits_for_its_image() -> None:
    rig = scene()
    handle = rig.ask(stamp_s=11.2, region_ids=('cup',))
    assert rig.engine.run_until_idle() == 0
    rig.frames([11.1])
    assert rig.engine.run_until_idle() == 0
    rig.frames([11.25])
    assert rig.engine.run_until_idle() == 1
    assert handle.done
    assert rig.answers[0].window_end_ns == ns(11.2)


def test_a_query_about_a_region_that_waits_for_its_image_waits_too() -> None:
    rig = scene()
    rig.region('new', 11.3)
    rig.ask(region_ids=('new',))
    rig.ask(regions=(region('own', 11.3),))
    assert rig.engine.run_until_idle() == 0
    rig.frames([11.3])
    assert rig.engine.run_until_idle() == 2
    assert [a.frame_stamps_ns for a in rig.answers] == [(ns(11.3),), (ns(11.3),)]


def test_a_query_about_everything_waits_for_the_first_region() -> None:
    rig = Rig()
    rig.frames([10.0])
    rig.region('new', 10.2)
    rig.ask()
    assert rig.engine.run_until_idle() == 0
    rig.frames([10.2])
    assert rig.engine.run_until_idle() == 1
    assert rig.answers[0].region_ids == ('new',)


def test_a_query_makes_do_when_the_camera_stands_still() -> None:
    rig = scene(pending_s=0.5)
    rig.ask(stamp_s=11.2, region_ids=('cup',))
    rig.ask(regions=(region('own', 11.3),), query_id='hopeless')
    rig.clock.advance(0.4)
    assert rig.engine.run_until_idle() == 0
    rig.clock.advance(0.2)
    assert rig.engine.run_until_idle() == 2
    answers = {answer.query_id: answer for answer in rig.answers}
    assert answers['q'].error_code == ErrorCode.OK
    assert answers['q'].stamp_ns == ns(11.0)
    assert answers['hopeless'].error_code == ErrorCode.BAD_STAMP


def test_a_wait_ends_by_the_deadline() -> None:
    rig = scene(pending_s=5.0)
    rig.ask(stamp_s=12.0, deadline_s=1.0)
    rig.clock.advance(1.0)
    assert rig.engine.run_until_idle() == 0
    assert [a.error_code for a in rig.answers] == [ErrorCode.TIMEOUT]


def test_a_waiting_query_whose_image_shows_it_wrong_ends_with_the_reason() -> None:
    rig = scene()
    rig.ask(stamp_s=11.2, region_ids=('cat',))
    rig.frames([11.2])
    assert [a.error_code for a in rig.answers] == [ErrorCode.UNKNOWN_REGION]
    assert rig.engine.run_until_idle() == 0


def test_what_a_query_looks_at_is_settled_when_it_is_asked() -> None:
    rig = scene()
    rig.ask(region_ids=('cup',))
    rig.frames(span(11.1, 12.0))
    rig.region('cup', 12.0)
    rig.engine.remove_regions()
    rig.engine.run_until_idle()
    assert rig.answers[0].stamp_ns == ns(11.0)


def test_queries_run_by_priority_and_deadline_before_descriptions() -> None:
    rig = scene(describe_enabled=True, describe_after_s=0.0)
    rig.engine.run_until_idle()
    rig.describer.calls.clear()
    rig.frames(span(11.1, 14.0))
    rig.region('cup', 14.0)
    for name, fields in {
        'slow': {'deadline_s': 9.0},
        'soon': {'deadline_s': 3.0},
        'zero': {'priority': 0},
        'top': {'priority': 5},
    }.items():
        rig.ask(name, **fields)
    rig.engine.run_until_idle()
    assert [c.text for c in rig.describer.calls] == ['top', 'soon', 'slow', 'zero', '']


def test_a_full_queue_refuses_queries() -> None:
    rig = scene(queue_size=2)
    for name in 'abc':
        rig.ask(query_id=name)
    assert [(a.query_id, a.error_code) for a in rig.answers] == [('c', ErrorCode.QUEUE_FULL)]
    rig.engine.run_until_idle()
    assert [a.query_id for a in rig.answers] == ['c', 'a', 'b']


def test_deadlines_end_queries_that_wait_and_queries_that_run() -> None:
    rig = scene(max_batch=1)
    rig.describer.on_token = lambda _: rig.clock.advance(1.0)
    rig.ask(query_id='runs', deadline_s=3.0, priority=2)
    rig.ask(query_id='waits', deadline_s=2.0)
    rig.engine.run_until_idle()
    assert [(a.query_id, a.error_code) for a in rig.answers] == [
        ('waits', ErrorCode.TIMEOUT),
        ('runs', ErrorCode.TIMEOUT),
    ]


def test_words_that_were_complete_in_time_count() -> None:
    rig = scene()
    rig.describer.script = ['one']
    rig.engine.submit(
        query(deadline_s=3.0),
        on_progress=lambda stage, text, _: rig.clock.advance(5.0 if text else 0.0),
    )
    rig.engine.run_until_idle()
    assert rig.answers[0].error_code == ErrorCode.OK


def test_cancel_while_it_waits_while_it_runs_and_afterwards() -> None:
    rig = scene()
    runs = rig.ask(query_id='runs')
    waits = rig.ask(query_id='waits')
    waits.cancel()
    assert waits.done
    assert [a.query_id for a in rig.answers] == ['waits']
    rig.describer.on_token = lambda _: runs.cancel()
    rig.engine.run_until_idle()
    runs.cancel()
    waits.cancel()
    assert [(a.query_id, a.error_code) for a in rig.answers] == [
        ('waits', ErrorCode.CANCELED),
        ('runs', ErrorCode.CANCELED),
    ]


def test_a_canceled_query_has_no_answer_even_from_a_model_that_does_not_listen() -> None:
    rig = scene()
    rig.describer.deaf = True
    handle = rig.ask()
    rig.describer.on_token = lambda _: handle.cancel()
    rig.engine.run_until_idle()
    assert [a.error_code for a in rig.answers] == [ErrorCode.CANCELED]


def test_cancel_between_the_regions_of_a_description() -> None:
    rig = scene(max_batch=1)
    handle = rig.ask('', task=Task.DESCRIBE)
    rig.describer.on_token = lambda said: handle.cancel() if 'until' in said else None
    rig.engine.run_until_idle()
    assert len(rig.describer.calls) == 1
    assert [a.error_code for a in rig.answers] == [ErrorCode.CANCELED]


def test_a_deadline_between_the_regions_of_a_description() -> None:
    rig = scene(max_batch=1)
    rig.describer.script = ['red', 'blue']
    rig.engine.submit(
        query('', task=Task.DESCRIBE, deadline_s=3.0),
        on_progress=lambda _, text, __: rig.clock.advance(5.0 if text else 0.0),
    )
    rig.engine.run_until_idle()
    assert len(rig.describer.calls) == 1
    assert [a.error_code for a in rig.answers] == [ErrorCode.TIMEOUT]


def test_a_model_that_fails_because_it_was_canceled_is_no_fault() -> None:
    rig = scene()
    handle = rig.ask()

    def cancel_and_fail(_: str) -> None:
        handle.cancel()
        raise ValueError('torn down')

    rig.describer.on_token = cancel_and_fail
    rig.engine.run_until_idle()
    assert [a.error_code for a in rig.answers] == [ErrorCode.CANCELED]
    assert rig.problems == []


class OutOfMemoryError(RuntimeError):
    """Look like torch's error of that name."""


@pytest.mark.parametrize(
    ('error', 'code', 'words'),
    [
        (RuntimeError('bad shape'), ErrorCode.MODEL_ERROR, 'RuntimeError: bad shape'),
        (OutOfMemoryError('tried'), ErrorCode.OUT_OF_MEMORY, 'fewer regions'),
        (RuntimeError('CUDA out of memory.'), ErrorCode.OUT_OF_MEMORY, 'fewer regions'),
        (MemoryError(), ErrorCode.OUT_OF_MEMORY, 'fewer regions'),
        (PixelReferError(ErrorCode.BAD_REQUEST, 'no such name'), ErrorCode.BAD_REQUEST, 'no such'),
        (StopIteration(), ErrorCode.MODEL_ERROR, 'StopIteration'),
    ],
)
def test_whatever_the_model_raises_is_an_answer(
    error: Exception, code: ErrorCode, words: str
) -> None:
    rig = scene()
    rig.describer.script = [error]
    answer = rig.answer()
    assert answer.error_code == code
    assert words in answer.error_msg
    assert len(rig.problems) == (code != ErrorCode.BAD_REQUEST)
    assert rig.answer().error_code == ErrorCode.OK


def test_an_interrupt_goes_through_and_the_query_is_answered() -> None:
    rig = scene()
    rig.describer.script = [KeyboardInterrupt()]
    rig.ask()
    with pytest.raises(KeyboardInterrupt):
        rig.engine.step()
    assert [a.error_code for a in rig.answers] == [ErrorCode.CANCELED]
    assert rig.answer().error_code == ErrorCode.OK


def test_nonsense_from_the_model_is_an_answer() -> None:
    rig = scene()
    gave_up = Utterance('', 1, 0, 0.0, canceled=True)
    for said, words in ((None, 'AttributeError'), (gave_up, 'stopped by itself')):
        rig.describer.say = lambda _, on_said, said=said: on_said(0, said)
        answer = rig.answer()
        assert answer.error_code == ErrorCode.MODEL_ERROR
        assert words in answer.error_msg
    rig.describer.say = lambda *_: None
    assert 'said nothing' in rig.answer().error_msg


def test_callbacks_that_raise_are_reported() -> None:
    rig = scene(describe_enabled=True, describe_after_s=0.0)

    def bad(*_: object) -> None:
        raise ValueError('from the callback')

    rig.engine._outbox._on_description = bad
    handle = rig.engine.submit(query(), on_answer=bad, on_progress=bad)
    rig.engine.run_until_idle()
    assert handle.done
    assert {p.split(' raised')[0] for p in rig.problems} == {
        'on_answer',
        'on_progress',
        'on_description',
    }
    rig.engine._outbox._on_problem = bad
    assert rig.answer().error_code == ErrorCode.OK


def test_progress_tells_position_stage_and_words() -> None:
    rig = scene(max_batch=1)
    rig.describer.script = ['first', 'a b']
    told: list[tuple[str, str, int]] = []
    rig.ask()
    rig.engine.submit(query(), on_progress=lambda *args: told.append(args))
    rig.engine.run_until_idle()
    assert told == [
        ('queued', '', 1),
        ('queued', '', 1),
        ('preprocess', '', 0),
        ('vision', '', 0),
        ('language', 'a', 0),
        ('language', 'a b', 0),
    ]


def test_a_query_that_waits_for_its_image_is_not_ahead_of_others() -> None:
    rig = scene(max_batch=1)
    positions: list[int] = []
    held = rig.ask(query_id='held', priority=1, stamp_s=11.4)
    rig.ask(query_id='first')
    rig.engine.submit(query(), on_progress=lambda _, __, position: positions.append(position))
    rig.engine.step()
    assert positions == [1, 1]
    rig.engine.run_until_idle()
    assert not held.done


def test_an_answer_goes_where_it_was_asked_for() -> None:
    rig = scene()
    own: list[Answer] = []
    rig.engine.submit(query(query_id='own'), on_answer=own.append)
    rig.ask(query_id='common')
    rig.engine.run_until_idle()
    assert [a.query_id for a in own] == ['own']
    assert [a.query_id for a in rig.answers] == ['common']


def test_the_camera_is_that_of_the_regions() -> None:
    rig = Rig(cameras=('left', 'right'))
    for camera in ('left', 'right'):
        rig.frames([10.0], camera)
    rig.region('l', camera='left')
    rig.region('r', camera='right')
    assert rig.answer(region_ids=('r',)).camera == 'right'
    assert rig.answer('what is {r}?').camera == 'right'
    assert rig.answer().camera == 'left'
    assert rig.answer(camera='right').region_ids == ('r',)
    assert rig.answer(regions=(region('x', camera='right'),)).camera == 'right'
    mixed = rig.answer(camera='left', regions=(region('x', camera='right'),))
    assert mixed.error_code == ErrorCode.BAD_REQUEST
    assert rig.answer(region_ids=('l', 'r')).error_code == ErrorCode.UNKNOWN_REGION


def test_time_going_back_ends_what_is_open_on_that_camera_only() -> None:
    rig = Rig(cameras=('left', 'right'), describe_enabled=True, describe_after_s=0.0)
    for camera in ('left', 'right'):
        rig.frames([10.0, 10.1], camera)
        rig.region('cup', camera=camera)
    rig.ask(query_id='left', camera='left')
    rig.ask(query_id='ahead', camera='left', stamp_s=10.3)
    rig.ask(query_id='right', camera='right')
    rig.frames([5.0], 'left')
    assert [(a.query_id, a.error_code) for a in rig.answers] == [
        ('left', ErrorCode.CLOCK_JUMP),
        ('ahead', ErrorCode.CLOCK_JUMP),
    ]
    assert "'left' jumped back" in rig.problems[0]
    assert [(r.camera, r.region_id) for r in rig.engine.list_regions()] == [('right', 'cup')]
    rig.engine.run_until_idle()
    assert rig.answers[-1].query_id == 'right'
    assert [d.camera for d in rig.descriptions] == ['right']
    assert rig.engine.stats().cameras['left'].clock_jumps == 1
    newest = rig.engine.snapshot('left')
    assert newest is not None
    assert newest.stamp_ns == ns(5.0)


def test_the_door_starts_anew_when_time_goes_back() -> None:
    rig = Rig(keep_rate_hz=10.0)
    rig.frames(span(10.0, 10.5))
    assert [rig.engine.add_frame(make_frame(s)) for s in (5.0, 5.1, 5.2)] == [True] * 3


def test_time_going_back_while_a_query_runs() -> None:
    rig = scene(describe_enabled=True, describe_after_s=0.0)
    rig.ask()
    rig.describer.on_token = lambda _: rig.frames([3.0])
    rig.engine.run_until_idle()
    assert [a.error_code for a in rig.answers] == [ErrorCode.CLOCK_JUMP]
    assert rig.descriptions == []


def test_a_reset_says_what_it_is_told_to() -> None:
    rig = scene()
    rig.ask()
    rig.engine.reset(code=ErrorCode.NOT_ACTIVE, message='going to sleep')
    assert (rig.answers[0].error_code, rig.answers[0].error_msg) == (
        ErrorCode.NOT_ACTIVE,
        'going to sleep',
    )
    assert rig.engine.snapshot('') is None
    assert rig.engine.list_regions() == []


def test_timings_are_left_out_when_told_so() -> None:
    rig = scene(record_timings=False)
    rig.ask()
    rig.clock.advance(2.0)
    rig.engine.run_until_idle()
    assert rig.answers[0].timings == Timings()
    assert rig.engine.stats().latency_p95_ms == pytest.approx(2000)


def test_stats_show_the_queue() -> None:
    rig = scene()
    rig.ask()
    rig.clock.advance(1.5)
    rig.ask()
    stats = rig.engine.stats()
    assert (stats.queue_depth, stats.oldest_wait_s, stats.busy) == (2, 1.5, False)
    rig.engine.run_until_idle()
    stats = rig.engine.stats()
    assert (stats.queue_depth, stats.oldest_wait_s, stats.jobs_done) == (0, 0.0, 2)


def test_a_frame_that_is_a_little_late_is_passed_over_and_nothing_is_forgotten() -> None:
    rig = Rig()
    rig.frames([10.0, 10.1, 10.2])
    rig.region('cup')
    rig.frames([10.17])
    assert rig.engine.stats().cameras[''].clock_jumps == 0
    assert [r.region_id for r in rig.engine.list_regions()] == ['cup']
    newest = rig.engine.snapshot('')
    assert newest is not None
    assert newest.stamp_ns == 10_200_000_000
