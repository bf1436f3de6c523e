# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Score answers whose scores are known: from the truth, shifted, refused, failed."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='needs the extra [sim]')

from pixelrefer_ros.core.types import PixelReferError
from pixelrefer_ros.evaluation.grounding import (
    GROUNDED,
    NOT_PRESENT,
    ChainAnswers,
    Grounding,
)
from pixelrefer_ros.evaluation.reasoning import (
    box_iou,
    compare,
    evaluate,
    examples,
    frames_of,
    table,
    temporal_score,
)
from pixelrefer_ros.grounding.load import load_grounder
from pixelrefer_ros.models.chat.settings import ChatSettings
from pixelrefer_ros.simulation.reasoning_clips import Actor, ReasoningClip, measure
from pixelrefer_ros.simulation.reasoning_questions import ReasoningQuestion
from tests.rendering import needs_rendering

if TYPE_CHECKING:
    from collections.abc import Callable

H, W = 40, 60


def drawn(kind: str = 'fell', target: int | None = 0) -> tuple[ReasoningClip, ReasoningQuestion]:
    """Return four frames with a thing that grows, then is gone: boxes of 4, 6, 8 and 0 pixels."""
    numbers = np.zeros((4, H, W), np.uint8)
    for i, side in enumerate((4, 6, 8)):
        numbers[i, 10 : 10 + side, 20 : 20 + side] = 1
    numbers[:, 30:36, 40:46] = 2
    areas, boxes = measure(numbers, 2)
    x = np.zeros(4, np.float32)
    actors = tuple(Actor('red', 'ball', 'small', 'fall', 1, 3, (True,) * 4, x) for _ in range(2))
    images = np.zeros((4, H, W, 3), np.uint8)
    clip = ReasoningClip(0, kind, target is None, images, numbers,
                         np.arange(4, dtype=np.float32) / 2, (0, 1, 2, 3), actors, (), areas,
                         boxes)
    return clip, ReasoningQuestion(kind, f'what {kind}?', target, '', '', 2)


def truth(clip: ReasoningClip, target: int) -> Grounding:
    return Grounding(GROUNDED, 2, tuple(clip.boxes[2, target].tolist()),
                     [clip.mask(i, target) for i in range(len(clip.images))])


def always(answer: Grounding) -> Callable[..., Grounding]:
    return lambda frames, question: answer


def test_the_truth_scores_one() -> None:
    clip, question = drawn()
    scores = evaluate([(clip, question)], always(truth(clip, 0))).scores
    assert (scores.key_frame, scores.temporal, scores.box) == (1, 1, 1)
    assert (scores.region, scores.boundary, scores.j_and_f) == (1, 1, 1)
    assert (scores.false_refusals, scores.failures, scores.asked, scores.absent) == (0, 0, 1, 0)
    assert math.isnan(scores.refusals)


def test_the_temporal_score_places_the_box_between_smallest_and_largest() -> None:
    clip, question = drawn()
    for key, wanted in ((0, 16 / 64), (1, 36 / 64), (2, 1.0), (3, 0.0)):
        scores = evaluate([(clip, question)], always(Grounding(GROUNDED, key))).scores
        assert scores.temporal == pytest.approx(wanted)
        assert scores.key_frame == float(key < 3)


def test_equal_boxes_score_one_where_visible() -> None:
    same = np.array([25, 25, 25])
    assert temporal_score(same, 25, True) == 1.0
    assert temporal_score(same, 25, False) == 0.0
    assert temporal_score(np.array([10, 20]), 30, True) == 1.0  # a frame that was not sampled


def test_the_box_counts_above_half_only() -> None:
    clip, question = drawn()
    # The truth is 8 x 8; a box of its upper half has IoU 0.5 exactly, one row more passes.
    for box, wanted in (((20, 10, 28, 14), 0.0), ((20, 10, 28, 15), 1.0), ((0, 0, 5, 5), 0.0)):
        scores = evaluate([(clip, question)], always(Grounding(GROUNDED, 2, box))).scores
        assert scores.box == wanted
    gone = evaluate([(clip, question)], always(Grounding(GROUNDED, 3, (20, 10, 28, 18)))).scores
    assert gone.box == 0.0


def test_box_iou_of_boxes_apart_and_the_same() -> None:
    assert box_iou((0, 0, 4, 4), (4, 0, 8, 4)) == 0.0
    assert box_iou((0, 0, 4, 4), (0, 0, 4, 4)) == 1.0
    assert box_iou((0, 0, 4, 2), (0, 0, 2, 4)) == pytest.approx(4 / 12)


def test_j_is_the_mean_over_all_frames() -> None:
    clip, question = drawn()
    masks = [clip.mask(0, 0), None, clip.mask(2, 0), None]
    scores = evaluate([(clip, question)], always(Grounding(GROUNDED, 2, None, masks))).scores
    assert scores.region == 3 / 4  # the second is missed, the last is rightly empty
    assert scores.j_and_f == (scores.region + scores.boundary) / 2


def test_without_a_tracker_j_and_f_are_not_given() -> None:
    clip, question = drawn()
    scores = evaluate([(clip, question)], always(Grounding(GROUNDED, 2))).scores
    assert math.isnan(scores.region)
    assert math.isnan(scores.j_and_f)


def test_absent_targets_must_be_refused_in_so_many_words() -> None:
    clips = [drawn('fell', None)] * 4
    answers = iter([Grounding(NOT_PRESENT), Grounding(NOT_PRESENT), Grounding(GROUNDED, 0),
                    Grounding('box not understood')])
    result = evaluate(clips, lambda frames, question: next(answers))
    assert (result.scores.absent, result.scores.asked) == (4, 0)
    assert result.scores.refusals == 0.5
    assert result.scores.failures == 0.25
    assert math.isnan(result.scores.key_frame)
    assert result.statuses == {NOT_PRESENT: 2, GROUNDED: 1, 'box not understood': 1}


def test_false_refusals_and_failures_score_nothing() -> None:
    clip, question = drawn()
    # What comes with a refusal or a failure does not count.
    wrong = truth(clip, 0)
    for status, refused in ((NOT_PRESENT, 1.0), ('frame out of range', 0.0)):
        answer = Grounding(status, wrong.key, wrong.box, wrong.masks)
        scores = evaluate([(clip, question)], always(answer)).scores
        assert (scores.key_frame, scores.temporal, scores.box) == (0, 0, 0)
        assert scores.region == 1 / 4  # the frame in which it is gone
        assert (scores.false_refusals, scores.failures) == (refused, 1 - refused)


def test_kinds_are_scored_apart() -> None:
    clips = [drawn('hit'), drawn('fell'), drawn('hit', None)]

    def ground(frames, question):
        return truth(clips[0][0], 0) if 'hit' in question else Grounding(NOT_PRESENT)

    result = evaluate(clips, ground)
    assert list(result.kinds) == ['fell', 'hit']
    assert result.kinds['hit'].key_frame == 1
    assert result.kinds['fell'].key_frame == 0
    assert result.kinds['hit'].refusals == 0
    assert result.scores.key_frame == 0.5


def test_results_are_written_and_shown() -> None:
    clip, question = drawn()
    result = evaluate([(clip, question)], always(Grounding(GROUNDED, 2)))
    written = json.loads(json.dumps(result.as_dict()))
    assert written['key_frame'] == 1.0
    assert written['j_and_f'] is None
    assert written['kinds']['fell']['temporal'] == 1.0
    made = table(result)
    assert made.row_count == 2
    assert list(made.columns[0].cells) == ['fell', 'all']
    assert list(made.columns[2].cells) == ['100.0', '100.0']
    assert list(made.columns[7].cells) == ['-', '-']


def test_several_answer_about_each_clip_once() -> None:
    clips = iter([drawn('fell'), drawn('hit', None)])
    asked = []

    def knowing(frames, question):
        asked.append(question)
        return Grounding(NOT_PRESENT) if 'hit' in question else Grounding(GROUNDED, 2)

    results = compare(clips, {'knowing': knowing, 'mute': always(Grounding('mute'))})
    assert asked == ['what fell?', 'what hit?']
    assert list(results) == ['knowing', 'mute']
    assert (results['knowing'].scores.key_frame, results['knowing'].scores.refusals) == (1, 1)
    assert results['mute'].statuses == {'mute': 2}
    assert results['mute'].scores.failures == 1


def test_answers_that_do_not_fit_are_refused() -> None:
    clip, question = drawn()
    for answer, words in ((Grounding(GROUNDED, 4), 'none of the 4 frames'),
                          (Grounding(GROUNDED, 0, None, [None]), '1 masks do not fit')):
        with pytest.raises(PixelReferError, match=words):
            evaluate([(clip, question)], always(answer))
    with pytest.raises(PixelReferError, match='no clips'):
        evaluate([], always(Grounding(NOT_PRESENT)))


def test_frames_are_stamped_from_zero() -> None:
    clip, _ = drawn()
    frames = frames_of(clip)
    assert [f.stamp_ns for f in frames] == [0, 500_000_000, 1_000_000_000, 1_500_000_000]
    assert frames[1].image is not None
    assert frames[1].image.shape == (H, W, 3)


@needs_rendering
@pytest.mark.sim
def test_the_packaged_model_is_right_more_often_than_not() -> None:
    try:
        chain = load_grounder(ChatSettings(model='tabletop', device='cpu'))
    except PixelReferError as error:
        pytest.skip(str(error))
    result = evaluate(examples(6), ChainAnswers(chain))
    assert result.scores.failures == 0
    assert result.scores.key_frame >= 0.8
    assert result.scores.box >= 0.6


@needs_rendering
@pytest.mark.sim
def test_a_perfect_answer_to_rendered_clips_scores_one() -> None:
    """Show the clips of a run to one that knows them, and to one that takes another thing."""
    clips = list(examples(2, size=(192, 144)))
    assert [c.kind for c, _ in clips] == ['fell', 'first']
    for (clip, asked), (same, again) in zip(
            clips, examples(2, size=(192, 144), ahead=True), strict=True):
        assert asked == again
        np.testing.assert_array_equal(clip.images, same.images)
    by_text = {q.text: (c, q) for c, q in clips}

    def knowing(frames, text):
        clip, question = by_text[text]
        boxes = clip.boxes[list(clip.sampled), question.target]
        sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        key = clip.sampled[int(np.argmax(sizes))]
        return Grounding(GROUNDED, key, tuple(clip.boxes[key, question.target].tolist()),
                         [clip.mask(i, question.target) for i in range(len(frames))])

    def mistaken(frames, text):
        clip, question = by_text[text]
        other = (question.target + 1) % len(clip.actors)
        key = int(np.argmax(clip.areas[:, other]))
        return Grounding(GROUNDED, key, tuple(clip.boxes[key, other].tolist()),
                         [clip.mask(i, other) for i in range(len(frames))])

    right, wrong = (evaluate(clips, g).scores for g in (knowing, mistaken))
    assert (right.key_frame, right.temporal, right.box, right.j_and_f) == (1, 1, 1, 1)
    assert wrong.box == 0
    assert wrong.j_and_f < 0.4
