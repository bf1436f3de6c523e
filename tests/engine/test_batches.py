# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check jobs that run together: each has its own words, its own end, and its own place."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pixelrefer_ros.core.types import Answer, ErrorCode, PixelReferError, Task, Utterance
from pixelrefer_ros.engine.errand import Errand
from tests.doubles import ScriptedDescriber
from tests.engine.rig import Rig, query, region, seconds, span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.describer import Request


def scene(*ids: str, **settings: Any) -> Rig:
    """Return a rig with a second of frames and regions, described when told to."""
    rig = Rig(describe_after_s=0.0, **settings)
    rig.frames(span(10.0, 11.0))
    for region_id in ids or ('cup', 'pen', 'box'):
        rig.region(region_id)
    return rig


def ask(rig: Rig, *names: str, **fields: Any) -> None:
    for name in names:
        rig.ask(name, query_id=name, region_ids=('cup',), **fields)


def ends(rig: Rig) -> dict[str, ErrorCode]:
    return {answer.query_id: answer.error_code for answer in rig.answers}


@pytest.mark.parametrize(
    ('max_batch', 'batches'), [(1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (8, [5])]
)
def test_what_waits_together_runs_together_in_line(max_batch: int, batches: list[int]) -> None:
    rig = scene('cup', max_batch=max_batch)
    ask(rig, 'a', 'b', 'c')
    ask(rig, 'first', priority=5)
    ask(rig, 'last', priority=0)
    assert rig.engine.run_until_idle() == 5
    assert rig.describer.batches == batches
    assert [call.text for call in rig.describer.calls] == ['first', 'a', 'b', 'c', 'last']
    assert ends(rig) == dict.fromkeys(['first', 'a', 'b', 'c', 'last'], ErrorCode.OK)
    assert rig.engine.stats().mean_batch == pytest.approx(5 / len(batches))


def test_in_lock_step_it_does_not_matter_how_much_there_is_to_see() -> None:
    rig = scene(*'abcd', max_batch=2)
    rig.ask('{a} {b} {c}?', query_id='many')
    rig.ask('{d}?', query_id='one')
    assert rig.engine.step() == 2
    assert rig.describer.batches == [2]


def test_descriptions_of_several_regions_run_together() -> None:
    rig = scene(describe_enabled=True)
    rig.frames([11.1])
    assert rig.engine.run_until_idle() == 3
    assert rig.describer.batches == [3]
    assert {d.region_id: d.text.split()[1] for d in rig.descriptions} == {
        'cup': 'cup', 'pen': 'pen', 'box': 'box'
    }


def test_a_description_of_several_regions_is_one_call_and_its_time_counts_once() -> None:
    rig = scene()
    rig.describer.script = ['red', 'a blue one', 'brown']
    told: list[tuple[str, str]] = []
    rig.engine.submit(
        query('', task=Task.DESCRIBE), on_progress=lambda *args: told.append(args[:2])
    )
    rig.engine.run_until_idle()
    assert rig.describer.batches == [3]
    (answer,) = rig.answers
    assert answer.text == 'cup: red\npen: a blue one\nbox: brown'
    assert (answer.tokens_in, answer.tokens_out) == (54, 8)
    assert answer.timings.language_s == pytest.approx(0.003)
    assert ('language', 'cup: red\npen: a blue') in told
    assert told[-2:] == [
        ('language', 'cup: red\npen: a blue one'),
        ('language', answer.text),
    ]
    stages = [stage for stage, _ in told]
    assert stages == sorted(stages, key=['queued', 'preprocess', 'vision', 'language'].index)


def test_more_regions_than_fit_are_asked_about_in_turn() -> None:
    rig = scene(max_batch=2)
    ask(rig, 'before', priority=2)
    rig.ask('', task=Task.DESCRIBE)
    ask(rig, 'after', priority=0)
    assert rig.engine.run_until_idle() == 3
    assert rig.describer.batches == [1, 2, 1, 1]
    answer = rig.answers[1]
    assert [line.split(':')[0] for line in answer.text.split('\n')] == ['cup', 'pen', 'box']
    assert answer.timings.language_s == pytest.approx(0.006)


def test_a_result_is_out_before_the_next_is_said() -> None:
    rig = scene('cup', describe_enabled=True)
    rig.engine.run_until_idle()
    rig.describer.calls.clear()
    said: list[int] = []

    def on_answer(_: Answer) -> None:
        said.append(len(rig.describer.calls))
        assert rig.engine.stats().busy

    for name in 'ab':
        rig.engine.submit(query(query_id=name), on_answer=on_answer)
    rig.engine.run_until_idle()
    assert rig.describer.batches[-1] == 2
    assert said == [1, 2]
    assert not rig.engine.stats().busy


def test_what_is_wrong_with_one_leaves_the_others_be() -> None:
    rig = scene('cup')
    ask(rig, 'a', 'bad', 'c')
    rig.ask(query_id='gone', stamp_s=11.4)  # its image never comes
    rig.describer.script = ['fine', PixelReferError(ErrorCode.BAD_REQUEST, 'no such name')]
    rig.engine.remove_regions()
    rig.clock.advance(1.0)
    rig.engine.run_until_idle()
    assert rig.describer.batches == [3]
    assert ends(rig) == {
        'a': ErrorCode.OK,
        'bad': ErrorCode.BAD_REQUEST,
        'c': ErrorCode.OK,
        'gone': ErrorCode.BAD_REQUEST,
    }


def test_when_the_model_breaks_what_was_said_stays_said() -> None:
    rig = scene('cup')
    ask(rig, 'a', 'b', 'c')
    rig.describer.script = ['fine', RuntimeError('bad shape')]
    rig.engine.step()
    assert ends(rig) == {
        'a': ErrorCode.OK, 'b': ErrorCode.MODEL_ERROR, 'c': ErrorCode.MODEL_ERROR
    }
    assert ['bad shape' in problem for problem in rig.problems] == [True, True]
    assert len(rig.describer.calls) == 2
    assert rig.engine.run_until_idle() == 0
    assert rig.answer().error_code == ErrorCode.OK


def test_what_cannot_be_asked_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Errand.request

    def request(errand: Errand, part: int) -> Request:
        asked = made(errand, part)
        if asked.text == 'bad' and part == 1:
            raise RuntimeError('no mask')
        return asked

    monkeypatch.setattr(Errand, 'request', request)
    rig = scene('cup', 'pen', max_batch=4)
    ask(rig, 'a')
    rig.ask('bad', query_id='bad', task=Task.DESCRIBE)
    ask(rig, 'c')
    rig.engine.run_until_idle()
    assert ends(rig) == {
        'a': ErrorCode.OK, 'bad': ErrorCode.MODEL_ERROR, 'c': ErrorCode.OK
    }
    assert rig.describer.batches == [2]
    (problem,) = rig.problems
    assert 'no mask' in problem


def test_when_one_region_fails_nothing_more_is_said_of_the_others() -> None:
    rig = scene()
    stops: list[bool] = []

    def say(requests: Sequence[Request], on_said: Callable[..., None]) -> None:
        def asks_on() -> list[bool]:
            return [one.should_stop is not None and one.should_stop() for one in requests]

        stops.extend(asks_on())
        on_said(0, PixelReferError(ErrorCode.BAD_REQUEST, 'too small'))
        stops.extend(asks_on())
        on_said(1, Utterance('red', 1, 1, 0.0))
        on_said(2, Utterance('red', 1, 1, 0.0))

    rig.describer.say = say  # type: ignore[method-assign]
    assert rig.answer('', task=Task.DESCRIBE).error_code == ErrorCode.BAD_REQUEST
    assert stops == [False] * 3 + [True] * 3


def test_a_description_that_is_told_twice_is_given_out_once() -> None:
    rig = scene('cup', describe_enabled=True)

    def say(requests: Sequence[Request], on_said: Callable[..., None]) -> None:
        on_said(0, Utterance('first', 1, 1, 0.0))
        on_said(0, Utterance('second', 1, 1, 0.0))

    rig.describer.say = say  # type: ignore[method-assign]
    rig.engine.run_until_idle()
    assert [one.text for one in rig.descriptions] == ['first']
    assert rig.problems == []


def test_of_several_regions_each_token_counts_the_same() -> None:
    rig = scene('cup', 'pen')

    def say(requests: Sequence[Request], on_said: Callable[..., None]) -> None:
        on_said(0, Utterance('red', 1, 1, -1.0))
        on_said(1, Utterance('a blue pen', 1, 3, -2.0))

    rig.describer.say = say  # type: ignore[method-assign]
    answer = rig.answer('', task=Task.DESCRIBE)
    assert answer.confidence == pytest.approx(math.exp(-7 / 4))


def test_those_that_wait_are_told_how_many_go_before_them() -> None:
    rig = scene('cup', max_batch=2)
    told: dict[str, list[int]] = {name: [] for name in 'abcd'}

    def listen(name: str) -> Callable[[str, str, int], None]:
        return lambda stage, _, ahead: told[name].append(ahead) if stage == 'queued' else None

    for name in 'abcd':
        rig.engine.submit(query(query_id=name), on_progress=listen(name))
    rig.engine.step()
    assert told == {'a': [0], 'b': [1], 'c': [2, 2], 'd': [3, 3]}
    rig.engine.step()
    assert told['d'] == [3, 3]


def test_each_has_its_own_cancel_and_deadline() -> None:
    rig = scene('cup')
    handles = {
        name: rig.ask(query_id=name, deadline_s=deadline_s)
        for name, deadline_s in (('soon', 1.0), ('late', 2.0), ('no', 3.0), ('yes', 4.0))
    }

    def on_token(said: str) -> None:
        if rig.answers and not said:
            rig.clock.now_s = 2.5
            handles['no'].cancel()

    rig.describer.on_token = on_token
    rig.engine.run_until_idle()
    assert rig.describer.batches == [4]
    assert ends(rig) == {
        'soon': ErrorCode.OK,
        'late': ErrorCode.TIMEOUT,
        'no': ErrorCode.CANCELED,
        'yes': ErrorCode.OK,
    }


def test_a_region_that_goes_meanwhile_is_not_heard_of_again() -> None:
    rig = scene(describe_enabled=True)
    rig.describer.on_token = lambda _: rig.engine.remove_regions(['pen'])
    rig.frames([11.1])
    rig.engine.run_until_idle()
    assert rig.describer.batches == [3]
    assert [d.region_id for d in rig.descriptions] == ['cup', 'box']
    assert rig.problems == []


def test_a_reset_ends_all_that_run() -> None:
    rig = scene(describe_enabled=True)
    rig.frames([11.1])
    ask(rig, 'a', 'b', priority=0)
    rig.describer.on_token = lambda _: rig.engine.reset(code=ErrorCode.CLOCK_JUMP)
    rig.engine.run_until_idle()
    assert ends(rig) == dict.fromkeys('ab', ErrorCode.CLOCK_JUMP)
    assert (rig.descriptions, rig.problems) == ([], [])


def test_an_interrupt_leaves_no_query_without_an_answer() -> None:
    rig = scene('cup')
    ask(rig, 'a', 'b', 'c')
    rig.describer.script = ['fine', KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        rig.engine.step()
    assert ends(rig) == {
        'a': ErrorCode.OK, 'b': ErrorCode.CANCELED, 'c': ErrorCode.CANCELED
    }
    assert rig.engine.run_until_idle() == 0


def test_the_order_in_which_words_come_is_the_describers() -> None:
    rig = scene('cup')
    ask(rig, 'a', 'b', 'c')

    def say(requests: Sequence[Request], on_said: Callable[..., None]) -> None:
        for place in (2, 0, 1, 0):  # one is told twice, which counts once
            on_said(place, Utterance(requests[place].text, 1, 1, -math.inf))

    rig.describer.say = say  # type: ignore[method-assign]
    rig.engine.run_until_idle()
    assert [answer.query_id for answer in rig.answers] == ['c', 'a', 'b']
    assert all(answer.text == answer.query_id for answer in rig.answers)


def whole(**settings: Any) -> Rig:
    """Return a rig whose model sees more than regions."""
    rig = Rig(describer=ScriptedDescriber(needs_regions=False), window_s=1.0, **settings)
    rig.frames(span(10.0, 12.0))
    return rig


def test_a_model_that_sees_more_than_regions_is_asked_about_the_whole_image() -> None:
    rig = whole()
    answer = rig.answer('what happens?')
    assert answer.error_code == ErrorCode.OK
    (call,) = rig.describer.calls
    assert call.regions == ()
    assert [s / 1e9 for s in call.stamps_ns] == pytest.approx([11.0, 11.3, 11.7, 12.0])
    assert answer.frame_stamps_ns == call.stamps_ns
    assert (answer.region_ids, answer.evidence) == ((), ())
    assert (answer.window_start_ns, answer.window_end_ns) == (11_000_000_000, 12_000_000_000)
    rig.answer('and then?', stamp_s=11.0, window_s=0.1)
    assert [s / 1e9 for s in rig.describer.calls[1].stamps_ns] == pytest.approx([10.9, 11.0])


def test_with_regions_it_is_asked_about_them() -> None:
    rig = whole()
    rig.region('cup')
    assert rig.answer('what happens?').region_ids == ('cup',)


def test_nothing_is_described_without_a_region() -> None:
    answer = whole().answer('', task=Task.DESCRIBE)
    assert answer.error_code == ErrorCode.BAD_REQUEST
    assert 'ask about the whole image' in answer.error_msg


def test_a_window_between_two_images_means_the_one_before() -> None:
    rig = whole()
    rig.frames([15.0])
    answer = rig.answer(stamp_s=14.9, window_s=0.5)
    assert answer.error_code == ErrorCode.OK
    assert seconds(answer.frame_stamps_ns) == pytest.approx([11.5, 11.7, 11.8, 12.0])
    assert seconds([answer.window_start_ns, answer.window_end_ns]) == [11.5, 12.0]


def test_a_question_without_camera_or_regions_is_about_the_first_that_has_images() -> None:
    rig = Rig(
        describer=ScriptedDescriber(needs_regions=False), cameras=('left', 'middle', 'right')
    )
    assert rig.answer().error_code == ErrorCode.NO_FRAMES
    rig.frames([10.0], 'right')
    assert (rig.answer().camera, rig.answers[-1].error_code) == ('right', ErrorCode.OK)
    rig.frames([10.0], 'middle')
    assert rig.answer().camera == 'middle'
    box = region('cup')  # as a region that is given, it is one of the first camera
    assert rig.answer(regions=(box,)).error_code == ErrorCode.NO_FRAMES
    rig.frames([10.0], 'left')
    assert rig.answer().camera == 'left'


def test_a_question_without_a_region_waits_for_its_image() -> None:
    rig = whole()
    rig.ask(stamp_s=12.3)
    assert rig.engine.run_until_idle() == 0
    rig.frames([12.3])
    assert rig.engine.run_until_idle() == 1
    assert rig.answers[0].stamp_ns == 12_300_000_000


def test_results_do_not_depend_on_what_runs_together() -> None:
    def play(max_batch: int) -> tuple[list[Any], list[Any]]:
        rig = scene(describe_enabled=True, max_batch=max_batch)
        rig.frames([11.1])
        ask(rig, 'a', 'b')
        rig.ask('', query_id='all', task=Task.DESCRIBE)
        rig.engine.run_until_idle()
        return (
            sorted((replace(one, timings=None) for one in rig.descriptions),  # type: ignore
                   key=lambda one: one.region_id),
            sorted((replace(one, timings=None) for one in rig.answers),  # type: ignore
                   key=lambda one: one.query_id),
        )

    assert play(1) == play(3) == play(64)


def test_frames_are_let_go_of_after_a_failure() -> None:
    rig = scene('cup', buffer_window_s=1.0)
    ask(rig, 'a', 'b')

    def say(requests: Sequence[Request], on_said: Callable[..., None]) -> None:
        raise RuntimeError('bad shape')

    rig.describer.say = say  # type: ignore[method-assign]
    first = weakref.ref(rig.engine.snapshot('').image)  # type: ignore[union-attr]
    gc.disable()
    try:
        rig.engine.run_until_idle()
        assert set(ends(rig).values()) == {ErrorCode.MODEL_ERROR}
        rig.engine.reset()
        assert first() is None
    finally:
        gc.enable()
