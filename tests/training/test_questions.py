# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the questions, their answers and their scoring."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='needs the extra [sim]')

from pixelrefer_ros.simulation.clips import Clip, ThingFacts
from pixelrefer_ros.training.questions import ONE_KINDS, PAIR_KINDS, Question, ask_of, verdict_in
from pixelrefer_ros.training.wordings import WORDINGS, word


def thing(colour='red', shape='ball', size='small', motion='rolling', x=0.2, distance=0.8,
          neighbour=-1):
    return ThingFacts(
        colour, shape, size, motion, (True,) * 4,
        np.tile(np.array([x, 0.5], np.float32), (4, 1)), np.full(4, distance, np.float32),
        neighbour)


@pytest.fixture
def clip():
    things = (thing(neighbour=1), thing('blue', 'mug', 'large', 'still', 0.7, 0.9, -2))
    return Clip(np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 8, 8), np.uint8),
                np.arange(4, dtype=np.float32), things)


ALL = (0, 1, 2, 3)


def draw(clip, kind, regions=(0,), frames=None, held_out=False, count=40):
    frames = frames or (ALL,) * len(regions)
    rng = np.random.default_rng(1)
    asked = [ask_of(clip, regions, frames, kind, rng, held_out=held_out) for _ in range(count)]
    return [q for q in asked if q is not None]


@pytest.mark.parametrize('kind', ONE_KINDS)
def test_right_answers_are_scored_right_and_wrong_ones_wrong(clip, kind):
    for question in draw(clip, kind):
        assert verdict_in(question, question.answer), question
        assert not verdict_in(question, 'An orange cylinder, maybe.'), question


def test_answers_state_the_facts(clip):
    assert {q.answer for q in draw(clip, 'colour')} == {'It is red.'}
    assert {q.answer for q in draw(clip, 'moving')} == {'It is rolling, so yes.'}
    assert {q.answer for q in draw(clip, 'moving', (1,))} == {'It is still, so no.'}
    assert {q.answer for q in draw(clip, 'describe')} == {'A small red ball, rolling.'}
    assert {q.answer for q in draw(clip, 'neighbour')} == {'A blue mug is next to it.'}
    assert draw(clip, 'neighbour', (1,)) == []


def test_attribute_questions_are_half_yes_half_no(clip):
    cases = [q.case for q in draw(clip, 'attribute', count=400)]
    assert 0.4 < cases.count('yes') / len(cases) < 0.6
    for question in draw(clip, 'attribute', count=100):
        truthful = any(w in question.text.lower() for w in ('red', 'ball', 'small', 'rolling'))
        assert truthful == (question.verdict == 'yes')


@pytest.mark.parametrize('kind', PAIR_KINDS)
def test_comparisons_follow_from_the_facts(clip, kind):
    for question in draw(clip, kind, (0, 1)):
        assert verdict_in(question, question.answer)
        first = '<object0>' if (question.text.index('<object0>')
                                < question.text.index('<object1>')) else '<object1>'
        if kind == 'closer':
            assert question.verdict == '<object0>'
            stated = [float(word) for word in question.answer.split() if word[0].isdigit()]
            assert (stated[0] < stated[1]) == (first == '<object0>')
        elif kind == 'is_side':
            side = 'left' if first == '<object0>' else 'right'
            asked = 'left' if ' left' in question.text else 'right'
            assert question.verdict == ('yes' if side == asked else 'no')


def test_one_picture_tells_no_motion(clip):
    for kind in ('motion', 'moving'):
        assert {q.answer for q in draw(clip, kind, frames=((3,),))} == {"I can't tell."}
    assert {q.answer for q in draw(clip, 'describe', frames=((3,),))} == {'A small red ball.'}


@pytest.mark.parametrize('kind', sorted(WORDINGS))
def test_held_out_wordings_never_occur_in_training(kind):
    """What matters is the wording; names, spelling and capitals vary in both."""
    def wordings(held_out, seed, count):
        rng = np.random.default_rng(seed)
        texts = {word(kind, rng, held_out=held_out, two=True, value='red') for _ in range(count)}
        texts = {t.lower().replace('color', 'colour').replace('neighbor', 'neighbour')
                 for t in texts}
        return {' '.join(re.findall(r"[a-z0-9<>']+", t)) for t in texts}

    seen, unseen = wordings(False, 0, 3000), wordings(True, 1, 300)
    assert not seen & unseen
    assert len(unseen) > 8


def test_yes_and_no_count_only_as_the_last_word():
    question = Question('moving', 'no', 'Is it moving?', 'It is still, so no.', 'no')
    assert verdict_in(question, 'It is rolling, so no.')
    assert not verdict_in(question, 'It is no ball, so yes.')
    assert not verdict_in(question, '')
