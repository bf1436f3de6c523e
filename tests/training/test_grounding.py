# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the whole recipe of the embedded grounding model in the small."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='needs the extra [sim]')

from pixelrefer_ros.training.grounding import Feed, GroundingRecipe, train_grounding
from pixelrefer_ros.training.grounding_store import ReasoningStore
from tests.rendering import needs_rendering

SMALL = GroundingRecipe(clips=4, dense_steps=1, language_steps=1, joint_steps=1, batch=2,
                        processes=1)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('grounding')
    return out, train_grounding(out, SMALL)


@needs_rendering
def test_the_recipe_leaves_a_model_that_the_chain_asks(made) -> None:
    from pixelrefer_ros.evaluation.reasoning import frames_of
    from pixelrefer_ros.grounding.chain import GroundingChain
    from pixelrefer_ros.grounding.profiles import load_profile
    from pixelrefer_ros.models.chat.local import LocalChat

    out, folder = made
    clip = ReasoningStore(out / 'clips', SMALL.clips)[0]
    model = LocalChat.load(str(folder), device='cpu')
    found = GroundingChain(model, load_profile('tabletop')).ground(
        frames_of(clip), 'Which object fell?')
    assert found.said[0].tokens_in > 96
    assert found.said[0].tokens_out > 0


@needs_rendering
def test_every_stage_logs_and_a_finished_run_is_not_run_again(made) -> None:
    out, folder = made
    lines = [json.loads(line) for line in (out / 'log.jsonl').read_text().splitlines()]
    assert [line['stage'] for line in lines] == ['dense', 'language', 'joint']
    assert all(np.isfinite(line['loss']) for line in lines)
    before = (folder / 'model.safetensors').read_bytes()
    assert train_grounding(out, SMALL) == folder
    assert (folder / 'model.safetensors').read_bytes() == before
    assert len((out / 'log.jsonl').read_text().splitlines()) == 3


@needs_rendering
def test_clips_come_back_as_they_were_rendered(made) -> None:
    from pixelrefer_ros.simulation.reasoning import ReasoningMaker

    store = ReasoningStore(made[0] / 'clips', SMALL.clips)
    maker = ReasoningMaker()
    rendered = maker.make(1)
    maker.close()
    kept = store[1]
    np.testing.assert_array_equal(kept.numbers, rendered.numbers)
    np.testing.assert_array_equal(kept.boxes, rendered.boxes)
    assert kept.kind == rendered.kind
    off = np.abs(kept.images.astype(int) - rendered.images).mean()
    assert off < 2
    with pytest.raises(IndexError):
        store.facts(SMALL.clips)


def test_a_batch_is_the_same_whoever_draws_it() -> None:
    def draw(rng: np.random.Generator) -> float:
        return float(rng.random())

    plain, ahead = Feed(draw, 5, (0, 1), 0), Feed(draw, 5, (0, 1), 1)
    assert [plain(step) for step in (2, 3, 4)] == [float(ahead(step)) for step in (2, 3, 4)]
    assert plain(2) != plain(3)


def test_recipes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match='batch is 0'):
        GroundingRecipe(batch=0)
    with pytest.raises(ValueError, match='cpu or cuda'):
        GroundingRecipe(device='tpu')
