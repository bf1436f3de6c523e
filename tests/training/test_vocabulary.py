# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the tabletop model's tokenizer."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='needs the extra [sim]')

from pixelrefer_ros.training.vocabulary import build_tokenizer
from pixelrefer_ros.training.wordings import WORDINGS, word


@pytest.fixture(scope='module')
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize('text', [
    'It is red, so no.', "I can't tell.", 'A small red ball, being carried.',
    'An orange mug is next to it.', 'At 0.84 and 1.02 m: <object1> is closer.',
    'At 30 and 65 percent of the width: left, so yes.',
])
def test_answers_survive_a_round_trip(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)['input_ids']
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize('kind', sorted(WORDINGS))
def test_every_wording_of_training_is_known(tokenizer, kind):
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = word(kind, rng, two=True, value='red')
        assert tokenizer.unk_token_id not in tokenizer(text)['input_ids'], text


def test_other_words_are_unknown_and_region_tokens_are_single(tokenizer):
    assert tokenizer('frobnicate')['input_ids'] == [tokenizer.unk_token_id]
    ids = tokenizer('[Time 0.7:<REGION><REGION>]', add_special_tokens=False)['input_ids']
    region = tokenizer.convert_tokens_to_ids('<REGION>')
    assert ids.count(region) == 2
    assert len(ids) == 7
