# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Score expressions whose scores are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from pixelrefer_ros.core.types import PixelReferError
from pixelrefer_ros.evaluation.datasets import Sample
from pixelrefer_ros.evaluation.expressions import Film, evaluate, table
from pixelrefer_ros.evaluation.grounding import GROUNDED, NOT_PRESENT, Grounding

H, W = 20, 30


def block(left, width=6):
    mask = np.zeros((H, W), np.bool_)
    mask[4:12, left:left + width] = True
    return mask


NOTHING = np.zeros((H, W), np.bool_)
TRUTHS = [block(2), None, block(6), NOTHING]
"""Of four frames; the second is not annotated, in the last it is gone."""


def sample(text='the cow', kind='', truths=TRUTHS, frames=()):
    return Sample('cows', text, text, kind, tuple(frames), truths and (lambda: truths))


def saying(**answers):
    return lambda frames, text: answers[text]


def masks(*found):
    return Grounding(GROUNDED, 0, None, list(found))


RIGHT = masks(block(2), block(9), block(6), None)
HALF = masks(block(2), None, None, None)  # right in the first frame and the last


def test_all_annotated_frames_count():
    result = evaluate([sample('a'), sample('b')], saying(a=RIGHT, b=HALF))
    assert [one.region for one in result.scores] == pytest.approx([1, 2 / 3])
    assert result.whole.region == pytest.approx(5 / 6)
    assert result.whole.mean == pytest.approx((result.whole.region + result.whole.boundary) / 2)
    assert result.kinds == {}


def test_what_is_not_found_is_right_where_there_is_nothing():
    refused = Grounding(NOT_PRESENT)
    nothing = sample('b', truths=[NOTHING] * 3)
    result = evaluate([sample('a'), nothing], saying(a=refused, b=refused))
    assert [one.region for one in result.scores] == pytest.approx([1 / 3, 1])
    assert [one.boundary for one in result.scores] == pytest.approx([1 / 3, 1])
    # masks that come with a failure do not count
    failed = Grounding('turn2_unparsable', 0, None, RIGHT.masks)
    assert evaluate([sample('a')], saying(a=failed)).scores[0].region == pytest.approx(1 / 3)


def test_kinds_are_averaged_first():
    samples = [sample('a', 'referring'), sample('b', 'referring'), sample('c', 'reasoning'),
               sample('d', 'other')]
    result = evaluate(samples, saying(a=RIGHT, b=RIGHT, c=HALF, d=Grounding(NOT_PRESENT)))
    assert {kind: one.expressions for kind, one in result.kinds.items()} == {
        'referring': 2, 'reasoning': 1, 'other': 1}
    assert result.whole.region == pytest.approx((1 + 2 / 3) / 2)
    assert result.whole.expressions == 3
    made = table(result)
    assert list(made.columns[0].cells) == ['referring', 'reasoning', 'other', 'all']
    assert list(made.columns[2].cells) == ['100.0%', '66.7%', '33.3%', '83.3%']


def test_one_kind_alone_is_the_whole():
    samples = [sample('a', 'reasoning'), sample('b', 'reasoning'), sample('c', 'other')]
    result = evaluate(samples, saying(a=RIGHT, b=HALF, c=RIGHT))
    assert result.whole.region == pytest.approx(5 / 6)
    none = evaluate([sample('c', 'other')], saying(c=RIGHT))
    assert math.isnan(none.whole.region)
    assert json.loads(json.dumps(none.as_dict()))['j_and_f'] is None
    assert none.as_dict()['kinds']['other']['region'] == 1.0


def test_masks_of_another_size_are_fitted():
    large = [np.kron(mask, np.ones((3, 3), bool)) for mask in (block(2), block(6))]
    answer = masks(*large)
    result = evaluate([sample('a', truths=[block(2), block(6)])], saying(a=answer))
    assert result.whole.region == 1.0


def test_what_cannot_be_scored_is_refused():
    for samples, words in (([sample(truths=None)], 'take another split'),
                           ([sample(truths=[None, None])], 'no frame of cows is annotated'),
                           ([], 'no expressions')):
        with pytest.raises(PixelReferError, match=words):
            evaluate(samples, lambda frames, text: RIGHT)


def test_pictures_are_read_as_they_are_wanted(tmp_path):
    paths = [tmp_path / f'{i}.png' for i in range(3)]
    for i in (0, 1):
        Image.fromarray(np.full((H, W, 3), 40 * i + 10, np.uint8)).save(paths[i])
    film = Film(paths)
    assert len(film) == 3
    assert film[1].image.shape == (H, W, 3)
    assert film[1].image[0, 0, 0] == 50
    assert film[0].stamp_ns < film[1].stamp_ns
    assert [frame.image[0, 0, 0] for frame in film[:2]] == [10, 50]
    with pytest.raises(PixelReferError, match=r'2\.png'):
        film[-1]
    with pytest.raises(IndexError):
        film[3]


def test_the_film_is_given_to_who_answers(tmp_path):
    path = tmp_path / '0.png'
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(path)
    asked = []

    def ground(frames, text):
        asked.append((len(frames), text))
        return masks(block(2))

    counts = []
    evaluate([sample('who?', truths=[block(2)], frames=[path])], ground, on_sample=counts.append)
    assert asked == [(1, 'who?')]
    assert counts == [1]
