# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Answer questions about a little scene with a scripted model and the real tracker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pixelrefer_ros.core.types import Box, ErrorCode, Frame, PixelReferError
from pixelrefer_ros.evaluation.grounding import GROUNDED, NOT_PRESENT, ChainAnswers, follow
from pixelrefer_ros.grounding.pictures import choose_frames
from pixelrefer_ros.tracking.anchored import AnchoredTracker
from tests.bags.finding import ABSENT, box_line, chain, frame_line, square
from tests.scenes import HEIGHT, WIDTH, overlap, scene, truth

STEPS, KEY = 12, 6
HIDDEN = (0, 1, 10, 11)
FRAMES = [Frame('', step * 100_000_000, scene(step, visible=step not in HIDDEN))
          for step in range(STEPS)]


def test_a_thing_is_followed_both_ways_from_its_key_frame():
    found = follow(AnchoredTracker(), FRAMES, KEY, square(KEY))
    assert len(found) == STEPS
    for step, mask in enumerate(found):
        if step in HIDDEN:
            assert mask is None, step
        else:
            assert mask.dtype == np.bool_
            assert overlap(mask, truth(step)) > 0.9, step


@pytest.mark.parametrize('key', [2, 9])
def test_the_key_frame_may_be_at_either_end(key):
    found = follow(AnchoredTracker(), FRAMES[2:10], key - 2, square(key))
    assert [overlap(mask, truth(step)) > 0.9 for step, mask in enumerate(found, 2)] == [True] * 8


class Blind(AnchoredTracker):
    """Finds nothing to follow in any box."""

    code = ErrorCode.BAD_REGION

    def start(self, frame, region):
        raise PixelReferError(self.code, 'there is nothing')


def test_a_box_with_nothing_to_follow_stands_for_itself():
    found = follow(Blind(), FRAMES, KEY, Box(3, 4, 5, 6))
    assert [step for step, mask in enumerate(found) if mask is not None] == [KEY]
    assert found[KEY].shape == (HEIGHT, WIDTH)
    assert found[KEY][4:10, 3:8].all()
    assert found[KEY].sum() == 30


def test_a_tracker_that_fails_is_heard():
    tracker = Blind()
    tracker.code = ErrorCode.MODEL_ERROR
    with pytest.raises(PixelReferError, match='nothing'):
        follow(tracker, FRAMES, KEY, square(KEY))


def test_answers_have_key_frame_box_and_masks():
    answers = ChainAnswers(chain(frame_line(KEY), box_line(square(KEY))), AnchoredTracker)
    answer = answers(FRAMES, 'which one moves?')
    x, y, side = square(KEY).x, square(KEY).y, square(KEY).width
    assert (answer.status, answer.key) == (GROUNDED, KEY)
    assert answer.box == (x, y, x + side, y + side)
    assert overlap(answer.masks[KEY], truth(KEY)) > 0.9
    # the second turn goes on from the first
    assert 0 < answers.tokens.reused < answers.tokens.prompted
    assert answers.tokens.said > 0
    assert set(answers.tokens.as_dict()) == {'prompted', 'reused', 'said'}


def test_without_a_tracker_there_are_no_masks():
    answer = ChainAnswers(chain(frame_line(KEY), box_line(square(KEY))))(FRAMES, 'which?')
    assert (answer.status, answer.masks) == (GROUNDED, None)


def test_refusals_and_failures_are_told_apart():
    answers = ChainAnswers(chain(ABSENT, 'I see.', frame_line(99), frame_line(2), 'There.'))
    statuses = [answers(FRAMES, 'which?') for _ in range(4)]
    assert [one.status for one in statuses] == [
        NOT_PRESENT, 'turn1_unparsable', 'frame_out_of_range', 'turn2_unparsable']
    assert [one.key for one in statuses] == [None, None, None, 2]
    assert all(one.box is None and one.masks is None for one in statuses)


def test_key_frames_count_among_the_frames_given():
    many = [replace(FRAMES[0], stamp_ns=step) for step in range(61)]
    answer = ChainAnswers(chain(frame_line(7), box_line(square(0))))(many, 'which?')
    assert answer.key == 28  # every fourth is shown


@pytest.mark.parametrize('span_s', [4.0, 6.710031986236572, 7.93])
def test_the_frames_shown_are_those_that_questions_are_made_of(span_s):
    """However many lie between them, and though their times are rounded."""
    pytest.importorskip('mujoco', reason='needs the extra [sim]')
    from pixelrefer_ros.evaluation.reasoning import BETWEEN
    from pixelrefer_ros.simulation.reasoning import FRAMES as SAMPLED

    step = BETWEEN + 1
    times_s = np.linspace(0, span_s, (SAMPLED - 1) * step + 1).astype(np.float32)
    frames = [Frame('', round(float(t) * 1e9), FRAMES[0].image) for t in times_s]
    assert choose_frames(frames, SAMPLED) == tuple(range(0, len(frames), step))
