# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that what the embedded grounding model is to say can be said, and is understood."""

from __future__ import annotations

import numpy as np
import pytest

from pixelrefer_ros.grounding.boxes import Coordinates, place_box
from pixelrefer_ros.grounding.parsing import KeyFrame, NotPresent, SaidBox, parse_box
from pixelrefer_ros.grounding.parsing import parse_key_frame as parse
from pixelrefer_ros.simulation.reasoning_questions import questions
from pixelrefer_ros.training.grounding_config import KEY_SIZE
from pixelrefer_ros.training.grounding_words import (
    box_answer,
    build_tokenizer,
    key_frame_answer,
    misnamed,
    spoken_box,
)
from tests.training.grounding_clips import SIZE, story_clip


@pytest.fixture(scope='module')
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope='module')
def asked():
    rng = np.random.default_rng(5)
    return [q for seed in range(70) for q in questions(story_clip(seed), rng)]


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)['input_ids']


def said(tokenizer, text):
    """Return a text as it comes out of the model."""
    return tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=True,
                            clean_up_tokenization_spaces=False)


def test_every_word_of_questions_and_answers_is_known(tokenizer, asked) -> None:
    assert len({q.kind for q in asked}) == 10
    for question in asked:
        answer = key_frame_answer(question.reasoning, question.key, question.description)
        for text in (question.text, answer):
            words = tokenizer.convert_ids_to_tokens(ids_of(tokenizer, text))
            assert '<unk>' not in words, text


def test_answers_read_the_same_after_decoding(tokenizer, asked) -> None:
    for question in asked:
        text = key_frame_answer(question.reasoning, question.key, question.description)
        out = said(tokenizer, text)
        assert ids_of(tokenizer, out) == ids_of(tokenizer, text)
        answer = parse(out)
        assert answer.reasoning == question.reasoning.lower()
        if question.target is None:
            assert isinstance(answer, NotPresent)
        else:
            assert isinstance(answer, KeyFrame)
            assert (answer.index, answer.description) == (question.key, question.description)


def test_boxes_are_said_in_numbers_of_one_token(tokenizer) -> None:
    text = box_answer((12, 104, 200, 224))
    assert len(ids_of(tokenizer, text)) == 9
    answer = parse_box(said(tokenizer, text))
    assert isinstance(answer, SaidBox)
    assert answer.corners == (12, 104, 200, 224)


def test_frame_and_box_can_be_said_at_once(tokenizer) -> None:
    out = said(tokenizer, key_frame_answer('It stays.', 4, 'the red ball', (2, 4, 60, 80)))
    assert parse(out).index == 4
    assert parse_box(out).corners == (2, 4, 60, 80)


def test_spoken_boxes_lose_little() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        x, y = rng.integers(0, 340), rng.integers(0, 250)
        box = (x, y, x + rng.integers(16, 40), y + rng.integers(16, 36))
        corners = spoken_box(box, KEY_SIZE, SIZE)
        back, notes = place_box(corners, Coordinates.ABSOLUTE, KEY_SIZE, SIZE)
        assert back is not None
        assert not notes
        assert np.abs(np.array([back.x, back.y, back.x + back.width, back.y + back.height])
                      - box).max() <= 2


def test_a_misnamed_thing_is_still_the_one_that_fits_best() -> None:
    rng, changed = np.random.default_rng(0), 0
    for seed in range(12):
        clip = story_clip(seed)
        for thing, actor in enumerate(clip.actors):
            name = f'the {actor.size} {actor.colour} {actor.shape} on the left'
            said = misnamed(clip, thing, name, rng)
            assert said.endswith(' on the left')
            words = said.split()[1:4]
            fits = [sum(a == b for a, b in zip(other.look, words, strict=True))
                    for other in clip.actors]
            if said != name:
                changed += 1
                assert fits[thing] == 2
                assert sum(fit >= 2 for fit in fits) == 1
    assert changed > 5


def test_capitals_do_not_count(tokenizer) -> None:
    assert ids_of(tokenizer, 'Which RED Ball fell?') == ids_of(tokenizer, 'which red ball fell?')


def test_users_cannot_write_special_tokens(tokenizer) -> None:
    turn = [{'role': 'user', 'content': [{'type': 'text', 'text': 'the <|image_pad|> ball'}]}]
    ids = tokenizer.apply_chat_template(turn, tokenize=True, return_dict=True,
                                        sanitize_control_tokens=True)['input_ids']
    assert tokenizer.convert_tokens_to_ids('<|image_pad|>') not in ids
