# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the two-turn chain: what it asks, what it makes of every answer, how it stops."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pixelrefer_ros.core.chat import Picture, Video
from pixelrefer_ros.core.types import Box, ErrorCode, Frame, PixelReferError
from pixelrefer_ros.grounding.chain import GroundingChain
from pixelrefer_ros.grounding.profiles import FramesAs, Profile, load_profile
from pixelrefer_ros.grounding.replies import Note
from pixelrefer_ros.grounding.results import Grounding, Stage, Status
from tests.chat_doubles import TOKENS_PER_PICTURE, ChatCall, ScriptedChatModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REVSEG = load_profile('revseg')
# Wide pictures, each of its own brightness.
WIDTH, HEIGHT = 64, 24
FRAMES = tuple(
    Frame('', 1_000_000_000 + i * 250_000_000, np.full((HEIGHT, WIDTH, 3), i * 5, np.uint8))
    for i in range(40)
)
TURN1 = ('<think>The cup moves first.</think> <answer> [{"frame_idx": 5, "object description": '
         '"the red cup"}] </answer>')  # fmt: skip
# Of 840x840: a quarter to three quarters of the width, an eighth to a half of the height.
TURN2 = '```json\n[{"bbox_2d": [210, 105, 630, 420], "label": "cup"}]\n```'
BOX = Box(16, 3, 32, 9)
BAD = '<think>Hm.</think><answer>the cup</answer>'
ABSENT = '<think>No cup.</think><answer>[]</answer>'


def ground(
    model: ScriptedChatModel,
    frames: Sequence[Frame] = FRAMES,
    *,
    profile: Profile = REVSEG,
    single_turn: bool = False,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[str, str], None] | None = None,
) -> Grounding:
    chain = GroundingChain(model, profile)
    if single_turn:
        chain = chain.at_once()
    found = chain.ground(frames, 'Which cup moved first?', should_stop=should_stop,
                         on_progress=on_progress)  # fmt: skip
    assert model.forgotten == 1
    assert not model.script
    return found


def test_two_turns_give_frame_box_and_description() -> None:
    model = ScriptedChatModel([TURN1, TURN2])
    found = ground(model)
    assert found.status == Status.OK
    # 16 of 40 frames over 39 gaps: the sixth is the one nearest to 5/15 of them.
    assert len(found.shown) == 16
    assert (found.shown[0], found.shown[5], found.shown[-1]) == (0, 13, 39)
    assert found.shown_stamps_ns == tuple(FRAMES[i].stamp_ns for i in found.shown)
    assert found.key_index == found.shown[5]
    assert found.key_stamp_ns == FRAMES[13].stamp_ns
    assert (found.box, found.description) == (BOX, 'the red cup')
    assert found.reasoning == 'The cup moves first.'
    assert found.raw_texts == (TURN1, TURN2)
    assert [said.stage for said in found.said] == [Stage.REASON, Stage.GROUND]
    assert not any(said.is_repair for said in found.said)


def test_the_first_turn_shows_the_frames_small_and_says_how_many() -> None:
    model = ScriptedChatModel([TURN1, TURN2])
    found = ground(model)
    first = model.calls[0]
    assert [turn.role for turn in first.turns] == ['system', 'user']
    (clip, prompt) = first.turns[1].parts
    assert isinstance(clip, Video)
    assert clip.fps == 2.0
    assert [image.shape for image in clip.images] == [(448, 448, 3)] * 16
    assert [int(image[0, 0, 0]) for image in clip.images] == [i * 5 for i in found.shown]
    assert isinstance(prompt, str)
    for words in ('lasts 8 seconds', '16 frames (fps=2)', '"Which cup moved first?"', '(0-15)',
                  '<answer> [] </answer>', '[{"frame_idx": 5,'):  # fmt: skip
        assert words in prompt
    assert first.decoding == REVSEG.turn1


def test_the_second_turn_goes_on_with_the_key_frame_at_full_resolution() -> None:
    frames = [dataclasses.replace(f, image=np.random.default_rng(i).integers(
        0, 255, (900, 1000, 3), np.uint8)) for i, f in enumerate(FRAMES[:16])]  # fmt: skip
    model = ScriptedChatModel([TURN1, TURN2])
    ground(model, frames)
    first, second = model.calls
    assert second.turns[: len(first.turns)] == first.turns
    assert second.turns[len(first.turns)].parts == (TURN1,)
    (picture, prompt) = second.turns[-1].parts
    assert isinstance(picture, Picture)
    assert picture.image.shape == (840, 840, 3)
    # Enlarged from 448 it would have lost the noise.
    assert picture.image.std() > 40
    assert '"the red cup"' in str(prompt)
    assert second.decoding == REVSEG.turn2


def test_the_second_turn_is_cheaper_than_a_conversation_of_its_own() -> None:
    found = ground(ScriptedChatModel([TURN1, TURN2]))
    first, second = found.said
    assert first.tokens_reused == 0
    # All of the first turn and its answer, eight pairs of frames among them, is kept.
    assert second.tokens_reused > first.tokens_in >= 8 * TOKENS_PER_PICTURE
    # What is read in all is the second prompt without the first answer, which the model said.
    said = len(TURN1.split()) + 1
    assert found.tokens_in - found.tokens_reused == second.tokens_in - said
    assert found.tokens_out == len(TURN1.split()) + len(TURN2.split())


@pytest.mark.parametrize('shows_video', [True, False])
def test_frames_go_as_pictures_where_the_model_takes_no_clips(shows_video: bool) -> None:
    model = ScriptedChatModel([TURN1, TURN2], shows_video=shows_video)
    profile = dataclasses.replace(REVSEG, picture_label='Frame {index}:')
    assert ground(model, profile=profile).status == Status.OK
    parts = model.calls[0].turns[1].parts
    assert isinstance(parts[0], Video) == shows_video
    assert ('Frame 15:' in parts) == (not shows_video)


@pytest.mark.parametrize('count', [1, 2, 7, 16])
def test_fewer_frames_are_shown_once_each(count: int) -> None:
    answer = TURN1.replace('5', str(count - 1))
    model = ScriptedChatModel([answer, TURN2])
    found = ground(model, FRAMES[:count])
    assert found.status == Status.OK
    assert found.shown == tuple(range(count))
    assert found.key_index == count - 1
    assert len(model.calls[0].pictures) == count
    assert f'lasts {count / 2:g} seconds and is given as {count} frames' in model.calls[0].prompt
    assert f'(0-{count - 1})' in model.calls[0].prompt


@pytest.mark.parametrize(
    ('bad', 'status'),
    [
        (BAD, Status.TURN1_UNPARSABLE),
        ('', Status.TURN1_UNPARSABLE),
        (TURN1.replace('5', '16'), Status.FRAME_OUT_OF_RANGE),
        (TURN1.replace('5', '-2'), Status.FRAME_OUT_OF_RANGE),
    ],
)
def test_a_bad_first_turn_is_asked_again_once(bad: str, status: Status) -> None:
    found = ground(ScriptedChatModel([bad, TURN1, TURN2]))
    assert (found.status, found.box) == (Status.OK, BOX)
    assert [said.is_repair for said in found.said] == [False, True, False]

    failed = ground(ScriptedChatModel([bad, bad]))
    assert failed.status == status
    assert (failed.key_index, failed.key_stamp_ns, failed.box) == (None, None, None)
    assert failed.raw_texts == (bad, bad)


@pytest.mark.parametrize(
    ('bad', 'status'),
    [
        ('It is the red cup.', Status.TURN2_UNPARSABLE),
        ('[{"bbox_2d": [1, 2, 3], "label": "cup"}]', Status.TURN2_UNPARSABLE),
        ('[{"bbox_2d": [100, 200, 100, 300]}]', Status.DEGENERATE_BOX),
        # Two pixels of the picture shown, less than one of the original.
        ('[{"bbox_2d": [100, 200, 102, 300]}]', Status.DEGENERATE_BOX),
    ],
)
def test_a_bad_second_turn_is_asked_again_once(bad: str, status: Status) -> None:
    found = ground(ScriptedChatModel([TURN1, bad, TURN2]))
    assert (found.status, found.box) == (Status.OK, BOX)
    assert [said.stage for said in found.said] == [Stage.REASON, Stage.GROUND, Stage.GROUND]

    failed = ground(ScriptedChatModel([TURN1, bad, bad]))
    assert failed.status == status
    assert (failed.key_index, failed.description) == (13, 'the red cup')
    assert failed.box is None


@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        (BAD, 'could not be read'),
        ('<answer>{"frame_idx": 3}</answer>', 'has no description'),
        ('<answer>{"description": "cup"}</answer>', 'has no frame number'),
        (TURN1.replace('5', '20'), 'There is no frame 20: the frames are numbered 0 to 15'),
        ('<think>' + 'so ' * 2000, 'cut off because it was too long'),
    ],
)
def test_the_repair_says_what_was_wrong_in_the_same_conversation(bad: str, words: str) -> None:
    model = ScriptedChatModel([bad, TURN1, TURN2])
    ground(model)
    first, repair, second = model.calls
    assert repair.turns[: len(first.turns)] == first.turns
    assert repair.turns[-1].parts == (repair.prompt,)
    assert words in repair.prompt
    assert '(0-15)' in repair.prompt or '0-15' in repair.prompt
    assert second.turns[: len(repair.turns)] == repair.turns


def test_both_turns_have_a_repair_of_their_own() -> None:
    found = ground(ScriptedChatModel([BAD, TURN1, 'No.', TURN2]))
    assert found.status == Status.OK
    assert [said.is_repair for said in found.said] == [False, True, False, True]
    assert found.reasoning == 'Hm.\nThe cup moves first.'


def test_a_profile_without_repairs_asks_once() -> None:
    prompts = dataclasses.replace(REVSEG.prompts, turn1_repair='', turn2_repair='')
    profile = dataclasses.replace(REVSEG, prompts=prompts)
    assert ground(ScriptedChatModel([BAD]), profile=profile).status == Status.TURN1_UNPARSABLE
    found = ground(ScriptedChatModel([TURN1, 'No.']), profile=profile)
    assert found.status == Status.TURN2_UNPARSABLE


@pytest.mark.parametrize('script', [[ABSENT], [BAD, ABSENT]])
def test_an_absent_target_is_not_asked_for_again(script: list[str]) -> None:
    found = ground(ScriptedChatModel(script))
    assert (found.status, found.key_index, found.box) == (Status.NOT_PRESENT, None, None)
    assert found.reasoning.endswith('No cup.')


def test_a_target_may_turn_out_absent_in_the_key_frame() -> None:
    found = ground(ScriptedChatModel([TURN1, '<think>Only a bowl.</think>[]']))
    assert (found.status, found.key_index, found.box) == (Status.NOT_PRESENT, 13, None)
    assert found.reasoning == 'The cup moves first.\nOnly a bowl.'


@pytest.mark.parametrize(('stage', 'words'), [('reason', 4), ('ground', 2)])
def test_a_stop_reaches_the_next_token_of_either_turn(stage: str, words: int) -> None:
    heard: list[tuple[str, str]] = []
    model = ScriptedChatModel([TURN1, TURN2])
    chain = GroundingChain(model, REVSEG)
    found = chain.ground(
        FRAMES, 'Which?',
        should_stop=lambda: bool(heard) and heard[-1][0] == stage
        and len(heard[-1][1].split()) >= words,
        on_progress=lambda stage, text: heard.append((stage, text)),
    )  # fmt: skip
    assert found.status == Status.STOPPED
    assert found.box is None
    assert len(found.said[-1].text.split()) == words
    assert not found.said[-1].complete
    assert len(model.calls) == (1 if stage == 'reason' else 2)
    assert (found.key_index is None) == (stage == 'reason')
    assert model.forgotten == 1


def test_a_stop_before_the_first_turn_asks_nothing() -> None:
    model = ScriptedChatModel([])
    assert ground(model, should_stop=lambda: True).status == Status.STOPPED
    assert not model.calls


@pytest.mark.parametrize('single_turn', [False, True])
def test_a_stop_while_the_frames_are_resized(
    single_turn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[int, int]] = []

    def note(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        done.append(size)
        return image

    monkeypatch.setattr('pixelrefer_ros.grounding.chain.resize', note)
    model = ScriptedChatModel([])
    found = ground(model, single_turn=single_turn, should_stop=lambda: len(done) == 3)
    assert found.status == Status.STOPPED
    assert len(found.shown) == 16
    assert len(done) == 3
    assert not model.calls


def test_a_stop_between_the_turns_is_remembered() -> None:
    asked = 0

    def once() -> bool:
        nonlocal asked
        asked += 1
        # after the frames and the last token of the first turn
        return asked == 16 + len(TURN1.split()) + 2

    model = ScriptedChatModel([TURN1])
    found = ground(model, should_stop=once)
    assert found.status == Status.STOPPED
    assert found.said[0].complete


def test_a_stop_during_a_repair_ends_it() -> None:
    stop = False

    def answer(_: ChatCall) -> str:
        nonlocal stop
        stop = True
        return TURN1

    found = ground(ScriptedChatModel([BAD, answer]), should_stop=lambda: stop)
    assert found.status == Status.STOPPED
    assert found.raw_texts == (BAD, '')


def test_progress_tells_stage_and_text_so_far() -> None:
    heard: list[tuple[str, str]] = []
    ground(ScriptedChatModel([TURN1, TURN2]),
           on_progress=lambda stage, text: heard.append((stage, text)))  # fmt: skip
    assert heard[0] == ('reason', '')
    assert ('reason', TURN1) in heard
    assert heard[heard.index(('reason', TURN1)) + 1] == ('ground', '')
    assert heard[-1] == ('ground', TURN2)
    stages = [stage for stage, _ in heard]
    assert stages == sorted(stages, reverse=True)


def test_relative_coordinates_are_taken_as_the_profile_says() -> None:
    model = ScriptedChatModel([TURN1, '[{"bbox_2d": [250, 125, 750, 500]}]'])
    found = ground(model, profile=load_profile('qwen3-vl'))
    assert (found.status, found.box) == (Status.OK, BOX)
    assert model.calls[1].pictures[0].shape == (832, 832, 3)
    assert [turn.role for turn in model.calls[0].turns] == ['user']


def test_irregularities_are_told_of_the_answers_used() -> None:
    answer = '[{"bbox_2d": [950, 420, 210, 105]}, {"bbox_2d": [1, 2, 3, 4]}]'
    found = ground(ScriptedChatModel([TURN1, answer]))
    assert found.status == Status.OK
    assert {Note.SWAPPED, Note.RELATIVE, Note.SEVERAL} <= set(found.notes)
    clean = ground(ScriptedChatModel(['[{"frame_idx": 1, "description', TURN1, TURN2]))
    assert Note.CUT_OFF not in clean.notes


def single_answer(index: int = 5) -> str:
    return (
        '<think>The cup moves first.</think><answer>[{"frame_idx": ' + str(index)
        + ', "object description": "the red cup", "bbox_2d": [112, 56, 336, 224]}]</answer>'
    )  # fmt: skip


def test_a_single_turn_gives_frame_and_box_at_once() -> None:
    model = ScriptedChatModel([single_answer()])
    found = ground(model, single_turn=True)
    assert found.status == Status.OK
    # Its box is in pixels of the small frames.
    assert (found.key_index, found.box, found.description) == (13, BOX, 'the red cup')
    assert found.reasoning == 'The cup moves first.'
    assert '448x448 pixels' in model.calls[0].prompt
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    ('bad', 'status'),
    [
        (BAD, Status.TURN1_UNPARSABLE),
        (single_answer(16), Status.FRAME_OUT_OF_RANGE),
        (TURN1, Status.TURN2_UNPARSABLE),
        (single_answer().replace('336', '113'), Status.DEGENERATE_BOX),
    ],
)
def test_a_bad_single_turn_is_asked_again_once(bad: str, status: Status) -> None:
    found = ground(ScriptedChatModel([bad, single_answer()]), single_turn=True)
    assert (found.status, found.box) == (Status.OK, BOX)
    assert ground(ScriptedChatModel([bad, bad]), single_turn=True).status == status
    refused = ground(ScriptedChatModel([bad, ABSENT]), single_turn=True)
    assert (refused.status, refused.key_index) == (Status.NOT_PRESENT, None)


def test_the_log_probability_is_the_mean_over_all_tokens() -> None:
    assert ground(ScriptedChatModel([TURN1, TURN2], log_prob=-0.25)).log_prob == -0.25
    assert math.isnan(ground(ScriptedChatModel([TURN1, TURN2], log_prob=math.nan)).log_prob)
    assert math.isnan(ground(ScriptedChatModel([]), should_stop=lambda: True).log_prob)


def test_seconds_are_told_stage_by_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((1.0, 3.0, 10.0, 14.0, 20.0, 28.0))
    monkeypatch.setattr('time.perf_counter', lambda: next(clock))
    found = ground(ScriptedChatModel([BAD, TURN1, TURN2]))
    assert (found.seconds(Stage.REASON), found.seconds(Stage.GROUND)) == (6.0, 8.0)


def test_what_the_model_said_is_logged_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        ground(ScriptedChatModel([TURN1, TURN2]))
        ground(ScriptedChatModel([ABSENT]))
        assert not caplog.records
        ground(ScriptedChatModel(['my first try', 'my second try']))
    record = caplog.records[-1]
    for words in ('my first try', 'my second try', 'turn1_unparsable', 'Which cup moved first?'):
        assert words in record.getMessage()


def test_an_error_of_the_model_passes_and_the_conversation_is_forgotten() -> None:
    model = ScriptedChatModel([TURN1, PixelReferError(ErrorCode.MODEL_ERROR, 'it is away')])
    with pytest.raises(PixelReferError, match='it is away'):
        GroundingChain(model, REVSEG).ground(FRAMES, 'Which?')
    assert model.forgotten == 1


def test_a_question_is_put_in_as_it_is() -> None:
    model = ScriptedChatModel([ABSENT])
    GroundingChain(model, REVSEG).ground(FRAMES, ' the {fps} {description} [] ')
    assert '"the {fps} {description} []"' in model.calls[0].prompt


def test_what_cannot_be_asked_is_refused() -> None:
    chain = GroundingChain(ScriptedChatModel([]), REVSEG)
    with pytest.raises(PixelReferError, match='no frames') as caught:
        chain.ground([], 'Which?')
    assert caught.value.code == ErrorCode.NO_FRAMES
    with pytest.raises(PixelReferError, match='question is empty') as caught:
        chain.ground(FRAMES, ' ')
    assert caught.value.code == ErrorCode.BAD_REQUEST


def test_what_a_model_or_profile_cannot_do_is_refused_at_once() -> None:
    model = ScriptedChatModel([], shows_video=False)
    video = dataclasses.replace(REVSEG, frames_as=FramesAs.VIDEO)
    with pytest.raises(PixelReferError, match='frames_as to auto') as caught:
        GroundingChain(model, video)
    assert caught.value.code == ErrorCode.UNSUPPORTED
    prompts = dataclasses.replace(REVSEG.prompts, single='')
    two_turns = dataclasses.replace(REVSEG, prompts=prompts)
    with pytest.raises(PixelReferError, match='no prompts.single'):
        GroundingChain(model, two_turns, single_turn=True)
    model.picture_multiple = 32
    with pytest.raises(PixelReferError, match='multiples of 28.*sees multiples of 32') as caught:
        GroundingChain(model, REVSEG)
    assert caught.value.code == ErrorCode.BAD_REQUEST


def test_the_embedded_profile_asks_in_few_words() -> None:
    tabletop = load_profile('tabletop')
    (width, height), (key_width, key_height) = tabletop.frame_size, tabletop.key_size
    x, y = key_width / 64, key_height / 24
    corners = [BOX.x * x, BOX.y * y, (BOX.x + BOX.width) * x, (BOX.y + BOX.height) * y]
    model = ScriptedChatModel([TURN1, json.dumps([{'bbox_2d': corners}])])
    found = ground(model, profile=tabletop)
    assert (found.status, found.box) == (Status.OK, BOX)
    assert model.calls[0].prompt == '16 frames. Find: Which cup moved first?'
    assert model.calls[1].prompt == 'Box: the red cup'
    assert {image.shape for image in model.calls[0].pictures} == {(height, width, 3)}
    assert model.calls[1].pictures[0].shape == (key_height, key_width, 3)
    refused = ground(ScriptedChatModel([ABSENT]), profile=tabletop)
    assert refused.status == Status.NOT_PRESENT
