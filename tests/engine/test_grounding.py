# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that GROUND queries are answered with words and evidence, or with why not."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.sampling import spread
from pixelrefer_ros.core.types import Box, ErrorCode, PixelReferError, Region, RegionKind, Task
from pixelrefer_ros.engine.desk import FOUND_MAX
from pixelrefer_ros.grounding.chain import GroundingChain
from tests.chat_doubles import ScriptedChatModel
from tests.doubles import TrackerScript
from tests.engine.finding import FRAMES, KEY, PROFILE, box_answer, box_of_red, frame_answer
from tests.engine.rig import ns, query
from tests.engine.street import BLUE_BOX, COLOURS, RED, Street, at_ns, at_s, red_box

if TYPE_CHECKING:
    from pixelrefer_ros.core.types import Answer, Query
    from pixelrefer_ros.engine import QueryHandle

class Scene(Street):
    """A street whose engine can be asked for things in words."""

    def __init__(self, *said: Any, **settings: Any) -> None:
        self.chat = ScriptedChatModel(said)
        super().__init__(
            grounder=GroundingChain(self.chat, PROFILE), **{'window_s': 1.0, **settings}
        )

    def ground(self, text: str = 'what moves?', **fields: Any) -> QueryHandle:
        return self.ask(text, task=Task.GROUND, **fields)

    def query(self, task: Task) -> Query:
        return query('what moves?', task=task)

    @property
    def answer(self) -> Answer:
        (answer,) = self.answers
        return answer


@pytest.fixture
def scene() -> Scene:
    """Return a street of 2 s, and a model that finds the red thing in the key frame."""
    one = Scene()
    one.film(range(FRAMES))
    one.chat.script = [frame_answer(2), box_of_red(KEY)]
    return one


def test_an_answer_has_words_and_evidence(scene: Scene) -> None:
    scene.ground(query_id='q7')
    scene.engine.run_until_idle()
    answer = scene.answer
    assert (answer.error_code, answer.error_msg) == (ErrorCode.OK, '')
    assert answer.text.startswith('describe found-q7')
    assert answer.region_ids == ('found-q7',)
    assert len(answer.frame_stamps_ns) == 5
    (evidence,) = answer.evidence
    assert evidence.stamp_ns == at_ns(KEY)
    assert evidence.box == red_box(KEY)
    assert evidence.reasoning == 'The red one moves.'
    assert evidence.score == pytest.approx(0.5)
    # followed both ways through the whole window, longer than that of descriptions
    assert evidence.track_stamps_ns == tuple(at_ns(i) for i in range(FRAMES))
    boxes = [masks.bounding_box(mask) for mask in evidence.track_masks if mask is not None]
    assert boxes == [red_box(i) for i in range(FRAMES)]
    assert evidence.mask == evidence.track_masks[KEY]
    assert evidence.thumbnail is not None
    assert evidence.thumbnail.dtype == np.uint8
    assert answer.stamp_ns == at_ns(FRAMES - 1)
    assert answer.age_s == 0
    assert answer.model == 'scripted-chat + scripted'
    assert answer.tokens_in > sum(len(call.pictures) for call in scene.chat.calls)
    assert not scene.problems


def test_a_window_between_two_images_means_the_one_before(scene: Scene) -> None:
    seen = range(FRAMES - 6, FRAMES)
    key = spread(seen, 5)[2]
    scene.chat.script = [frame_answer(2), box_of_red(key)]
    scene.film([FRAMES + 10])
    scene.ground(stamp_s=at_s(FRAMES + 9), window_s=0.5)
    scene.engine.run_until_idle()
    answer = scene.answer
    assert answer.error_code == ErrorCode.OK
    (evidence,) = answer.evidence
    assert evidence.stamp_ns == at_ns(key)
    assert evidence.track_stamps_ns == tuple(at_ns(i) for i in seen)
    assert (answer.window_start_ns, answer.window_end_ns) == (at_ns(seen[0]), at_ns(seen[-1]))


def test_what_was_found_is_followed_on(scene: Scene) -> None:
    scene.ground(query_id='q')
    scene.engine.run_until_idle()
    scene.film(range(FRAMES, FRAMES + 5))
    (track,) = scene.engine.tracks('')
    assert (track.region_id, track.label) == ('found-q', 'a red thing')
    assert track.box == red_box(FRAMES + 4)
    scene.ask('what is {found-q}?')
    scene.engine.run_until_idle()
    assert scene.answers[-1].error_code == ErrorCode.OK


def test_it_is_found_alone_and_described_together_with_others(scene: Scene) -> None:
    scene.point('red', FRAMES - 1)
    scene.engine.step()
    scene.ask('before {red}', query_id='before')
    scene.ground(query_id='found')
    scene.ask('after {red}', query_id='after')
    calls: list[int] = []
    scene.chat.on_token = lambda _: calls.append(len(scene.describer.batches))
    scene.engine.run_until_idle()
    assert set(calls) == {1}  # the model that finds runs between the others
    assert scene.describer.batches == [1, 2]
    assert [answer.query_id for answer in scene.answers] == ['before', 'after', 'found']
    assert all(answer.error_code == ErrorCode.OK for answer in scene.answers)


def test_only_the_newest_finds_are_followed_on(scene: Scene) -> None:
    for number in range(FOUND_MAX + 3):
        scene.chat.script = [frame_answer(2), box_of_red(KEY)]
        scene.ground(query_id=f'q{number}')
        scene.engine.run_until_idle()
    assert all(answer.error_code == ErrorCode.OK for answer in scene.answers)
    known = [region.region_id for region in scene.engine.list_regions()]
    assert known == [f'found-q{number}' for number in range(3, FOUND_MAX + 3)]


def test_the_window_is_as_asked(scene: Scene) -> None:
    scene.chat.script = [frame_answer(4), box_of_red(15)]
    scene.ground(window_s=1.0, stamp_ns=at_ns(15))
    scene.engine.run_until_idle()
    answer = scene.answer
    assert answer.error_code == ErrorCode.OK
    assert (answer.window_start_ns, answer.window_end_ns) == (at_ns(5), at_ns(15))
    assert answer.frame_stamps_ns[0] == at_ns(5)
    assert answer.evidence[0].track_stamps_ns == tuple(at_ns(i) for i in range(5, 16))
    assert answer.age_s == pytest.approx((FRAMES - 1 - 15) / 10)


def test_the_outline_of_the_tracker_counts_more_than_the_box(scene: Scene) -> None:
    """The box of the model is a little too large; the tracker knows better."""
    true = red_box(KEY)
    large = Box(true.x - 1, true.y - 1, true.width + 2, true.height + 2)
    scene.chat.script[1] = box_answer(large)
    scene.ground()
    scene.engine.run_until_idle()
    (evidence,) = scene.answer.evidence
    assert evidence.box == large
    assert evidence.mask is not None
    assert masks.bounding_box(evidence.mask) == true


@pytest.mark.parametrize(
    ('said', 'words'),
    [
        (['I do not know.'], 'named no frame'),
        ([frame_answer(77)], 'was not shown'),
        ([frame_answer(2), 'There.'], 'gave no box'),
        ([frame_answer(2), '[{"bbox_2d": [5, 5, 5, 5]}]'], 'without area'),
        (['<think>Nothing moves.</think><answer>[]</answer>'], 'is not in the video'),
    ],
)
def test_what_is_not_found_is_said(scene: Scene, said: list[str], words: str) -> None:
    scene.chat.script = list(said)
    scene.ground('what fell?')
    scene.engine.run_until_idle()
    answer = scene.answer
    assert answer.error_code == ErrorCode.NOT_GROUNDED
    assert "'what fell?'" in answer.error_msg
    assert words in answer.error_msg
    assert not scene.describer.calls
    assert scene.engine.list_regions() == []
    scene.ask('what is it?', regions=(scene.region_of('red', 19, red_box(19)),))
    scene.engine.run_until_idle()
    assert scene.answers[-1].error_code == ErrorCode.OK


def test_what_is_not_found_says_what_was_looked_at(scene: Scene) -> None:
    scene.chat.script = ['<think>I see no cup.</think><answer>[]</answer>']
    scene.ground('which cup?')
    scene.engine.run_until_idle()
    answer = scene.answer
    assert len(answer.frame_stamps_ns) == 5
    assert answer.stamp_ns == at_ns(FRAMES - 1)
    assert (answer.window_end_ns, answer.model) == (at_ns(FRAMES - 1), 'scripted-chat')
    assert answer.tokens_in > 0 < answer.tokens_out
    assert 'I see no cup.' in answer.error_msg
    assert not scene.problems  # the model did what it was asked
    scene.chat.script = ['Well.']
    scene.ground('which cup?')
    scene.engine.run_until_idle()
    assert 'Well.' in scene.problems[0]


def test_a_target_that_leaves_does_not_make_the_answer_old() -> None:
    one = Scene()
    street = one.scene
    one.scene = lambda i: {c: b for c, b in street(i).items() if i < 12 or c != RED}
    one.film(range(FRAMES))
    one.chat.script = [frame_answer(2), box_of_red(KEY)]
    one.ground()
    one.engine.run_until_idle()
    assert one.answer.evidence[0].track_stamps_ns[-1] == at_ns(11)
    assert (one.answer.stamp_ns, one.answer.age_s) == (at_ns(FRAMES - 1), 0)


def test_an_id_that_comes_again_means_something_new(scene: Scene) -> None:
    for box in (red_box(KEY), BLUE_BOX):
        scene.chat.script = [frame_answer(2), box_answer(box)]
        scene.ground(query_id='q')
        scene.engine.run_until_idle()
    scene.film([FRAMES])
    (track,) = scene.engine.tracks('')
    assert (track.region_id, track.box) == ('found-q', BLUE_BOX)
    boxes = {masks.bounding_box(mask) for mask in scene.answers[1].evidence[0].track_masks if mask}
    assert boxes == {BLUE_BOX}


def test_a_full_store_costs_the_following_on_and_not_the_evidence() -> None:
    one = Scene(max_regions=2)
    one.film(range(FRAMES))
    for name, colour in (('one', 'red'), ('two', 'blue')):
        given = one.region_of(name, FRAMES - 1, one.scene(FRAMES - 1)[COLOURS[colour]])
        assert one.engine.add_regions([given]) == [None]
    one.chat.script = [frame_answer(2), box_of_red(KEY)]
    one.ground(query_id='q')
    one.engine.run_until_idle()
    assert one.answer.error_code == ErrorCode.OK
    assert len(one.answer.evidence[0].track_stamps_ns) == FRAMES


def test_a_full_queue_does_not_cost_what_was_found() -> None:
    one = Scene(queue_size=2)
    one.film(range(FRAMES))
    one.chat.script = [frame_answer(2), box_of_red(KEY)]
    one.ground(query_id='q')
    asked = iter(range(2))

    def crowd(said: str) -> None:
        if len(one.chat.calls) == 2 and (number := next(asked, None)) is not None:
            region = one.region_of('red', FRAMES - 1, red_box(FRAMES - 1))
            one.ask('what?', query_id=f'r{number}', regions=(region,))

    one.chat.on_token = crowd
    one.engine.run_until_idle()
    answers = {answer.query_id: answer for answer in one.answers}
    assert all(answer.error_code == ErrorCode.OK for answer in answers.values())
    assert len(answers['q'].evidence[0].track_stamps_ns) == FRAMES


def test_a_region_that_waits_for_its_image_does_not_hold_it_up(scene: Scene) -> None:
    ahead = scene.region_of('ahead', FRAMES + 2, red_box(0))
    assert scene.engine.add_regions([ahead]) == [None]
    scene.ground()
    scene.engine.run_until_idle()
    assert scene.answer.error_code == ErrorCode.OK


def test_a_find_of_an_old_image_lives_as_long_as_others() -> None:
    one = Scene(region_ttl_s=1.0)
    one.film(range(FRAMES))
    one.chat.script = [frame_answer(0), box_of_red(0)]
    one.ground(query_id='q')
    one.engine.run_until_idle()
    one.film(range(FRAMES, FRAMES + 3))
    assert [region.region_id for region in one.engine.list_regions()] == ['found-q']


@pytest.mark.parametrize(
    ('error', 'code'),
    [
        (PixelReferError(ErrorCode.MODEL_ERROR, 'the server is away'), ErrorCode.MODEL_ERROR),
        (PixelReferError(ErrorCode.OUT_OF_MEMORY, 'too much'), ErrorCode.OUT_OF_MEMORY),
        (RuntimeError('broken'), ErrorCode.MODEL_ERROR),
    ],
)
@pytest.mark.parametrize('turn', [0, 1])
def test_a_model_that_fails(scene: Scene, error: Exception, code: ErrorCode, turn: int) -> None:
    scene.chat.script[turn] = error
    scene.ground()
    scene.engine.run_until_idle()
    assert scene.answer.error_code == code
    assert scene.problems
    assert scene.chat.forgotten == 1


def test_an_engine_without_a_grounder_says_what_it_needs() -> None:
    one = Street()
    one.film([0])
    one.ask('what moves?', task=Task.GROUND)
    (answer,) = one.answers
    assert answer.error_code == ErrorCode.UNSUPPORTED
    assert 'grounding.model' in answer.error_msg


@pytest.mark.parametrize(
    'fields',
    [
        {'text': '  '},
        {'region_ids': ('a',)},
        {'regions': (Region('a', RegionKind.BOX, box=Box(1, 1, 4, 4)),)},
    ],
)
def test_a_bad_request_is_refused_at_once(scene: Scene, fields: dict[str, Any]) -> None:
    scene.ground(**fields)
    assert scene.answer.error_code == ErrorCode.BAD_REQUEST
    assert not scene.chat.calls


def test_before_any_image() -> None:
    one = Scene()
    one.ground()
    one.engine.run_until_idle()
    assert one.answer.error_code == ErrorCode.NO_FRAMES


def test_a_key_frame_that_has_left_the_buffer_is_described_by_itself() -> None:
    one = Scene(buffer_window_s=1.0, buffer_full_rate_s=1.0)
    one.film(range(11))
    one.chat.script = [frame_answer(0), box_of_red(0)]
    one.chat.on_token = lambda _: one.film_later()  # type: ignore[attr-defined]
    coming = iter(range(11, 40))
    held_mib = [0.0]

    def film_later() -> None:
        one.film([i for i in [next(coming, None)] if i], run=False)
        held_mib.append(one.engine.stats().cameras[''].held_mib)

    one.film_later = film_later  # type: ignore[attr-defined]
    one.ground()
    one.engine.run_until_idle()
    frames_held = held_mib[-1] * 2**20 / one.picture(0).image.nbytes
    assert frames_held == pytest.approx(11)  # its whole window has left the buffer
    gc.collect()
    assert one.engine.stats().cameras[''].held_mib == 0
    answer = one.answer
    assert answer.error_code == ErrorCode.OK
    assert answer.evidence[0].track_stamps_ns == (at_ns(0),)
    assert answer.age_s > 1
    assert any('is not followed' in problem for problem in one.problems)


def test_a_model_that_takes_long_does_not_cost_the_track_its_frames() -> None:
    one = Scene(buffer_window_s=30.0, buffer_full_rate_s=1.0)
    one.film(range(11))
    one.chat.script = [frame_answer(2), box_of_red(5)]
    coming = iter(range(11, 100))
    one.chat.on_token = lambda _: one.film([next(coming)], run=False)
    one.ground()
    one.engine.run_until_idle()
    assert next(coming) > 25  # the window is older than what is kept whole
    (evidence,) = one.answer.evidence
    assert evidence.track_stamps_ns == tuple(at_ns(i) for i in range(11))
    assert one.answer.age_s > 1
    # once it is answered nothing is spared any more
    gc.collect()
    assert not any(spared() for spared in one.engine._cameras.find('')._spared)


def test_progress_tells_the_stages(scene: Scene) -> None:
    told: list[tuple[str, str]] = []
    scene.engine.submit(
        scene.query(Task.GROUND),
        on_progress=lambda stage, text, _: told.append((stage, text)),
    )
    scene.engine.run_until_idle()
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages[:3] == ['queued', 'reason', 'ground']
    assert stages.index('track') > stages.index('ground')
    assert stages[-1] == 'language'
    followed = [text for stage, text in told if stage == 'track']
    assert followed[0] == 'a red thing'
    counts = [int(text.split()[5]) for text in followed[1:]]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    assert 1 < counts[-1] <= FRAMES


@pytest.mark.parametrize('turn', [1, 2])
def test_cancel_ends_either_turn_at_the_next_token(scene: Scene, turn: int) -> None:
    handles: list[QueryHandle] = []

    def cancel(said: str) -> None:
        if len(scene.chat.calls) == turn and said:
            handles[0].cancel()

    scene.chat.on_token = cancel
    handles.append(scene.ground())
    scene.engine.run_until_idle()
    assert scene.answer.error_code == ErrorCode.CANCELED
    assert len(scene.chat.calls) == turn
    assert scene.engine.list_regions() == []


def test_cancel_while_it_is_followed() -> None:
    """Live: the tracker is held up, the query waits for it, and is canceled."""
    script = TrackerScript()
    one = Scene(tracker=script)
    one.film(range(FRAMES))
    one.chat.script = [frame_answer(2), box_of_red(KEY)]
    script.gate = threading.Event()
    one.engine.start()
    try:
        handle = one.ground(query_id='q')
        while one.engine.list_regions() == []:
            assert not handle.wait(0.01)
        handle.cancel()
        assert handle.wait(10.0)
        assert one.answer.error_code == ErrorCode.CANCELED
        one.engine.remove_regions()
    finally:
        steps = len(script.steps)
        script.gate.set()
        one.engine.stop()
    # the cancel reaches the tracker: nothing is followed for it any more
    assert len(script.steps) <= steps + 1


def test_what_is_being_followed_is_in_nobodys_way() -> None:
    """Live: the tracker is held up, and the describer is free for other questions."""
    script = TrackerScript()
    one = Scene(tracker=script, queue_size=1)
    one.film(range(FRAMES))
    one.point('red', FRAMES - 1)
    one.engine.run_until_idle()
    one.chat.script = [frame_answer(2), box_of_red(KEY)]
    script.gate = threading.Event()
    positions: list[int] = []
    one.engine.start()
    try:
        found = one.ground(query_id='q')
        while len(one.engine.list_regions()) < 2:
            assert not found.wait(0.01)
        asked = one.engine.submit(
            query('what is {red}?', query_id='near'),
            on_progress=lambda _, __, position: positions.append(position),
        )
        assert asked.wait(10.0)
        assert not found.done
    finally:
        script.gate.set()
        assert found.wait(10.0)
        one.engine.stop()
    assert [answer.query_id for answer in one.answers] == ['near', 'q']
    assert {answer.error_code for answer in one.answers} == {ErrorCode.OK}
    assert set(positions) == {0}


def test_the_deadline_counts_for_all_of_it(scene: Scene) -> None:
    scene.chat.on_token = lambda said: scene.clock.advance(1.0)
    scene.ground(deadline_s=3.0)
    scene.engine.run_until_idle()
    assert scene.answer.error_code == ErrorCode.TIMEOUT


def test_a_jump_of_the_clock_ends_it(scene: Scene) -> None:
    def jump(said: str) -> None:
        if len(scene.chat.calls) == 2 and not said:
            scene.engine.add_frame(replace(scene.picture(0), stamp_ns=ns(1)))

    scene.chat.on_token = jump
    scene.ground()
    scene.engine.run_until_idle()
    assert scene.answer.error_code == ErrorCode.CLOCK_JUMP
    assert scene.engine.list_regions() == []


def test_a_region_question_of_higher_priority_goes_first(scene: Scene) -> None:
    scene.point('red', 19)
    scene.ground(query_id='words', priority=1)
    scene.ask('what is {red}?', query_id='region', priority=5)
    scene.engine.run_until_idle()
    assert [answer.query_id for answer in scene.answers] == ['region', 'words']


def test_equal_runs_give_equal_answers() -> None:
    answers = []
    for _ in range(2):
        one = Scene(record_timings=False)
        one.film(range(FRAMES))
        one.chat.script = [frame_answer(2), box_of_red(KEY)]
        one.ground()
        one.engine.run_until_idle()
        answers.append(replace(one.answer, evidence=()))
        evidence = one.answer.evidence[0]
        answers.append(replace(evidence, thumbnail=None))
    assert answers[:2] == answers[2:]
