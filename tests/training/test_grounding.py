# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the whole recipe of the embedded grounding model in the small."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip('mujoco', reason='needs the extra [sim]')

from pixelrefer_ros.core.types import PixelReferError
from pixelrefer_ros.training.grounding import Feed, GroundingRecipe, train_grounding
from pixelrefer_ros.training.grounding_cache import SightCache
from pixelrefer_ros.training.grounding_store import ReasoningStore
from pixelrefer_ros.training.loop import keep_recipe
from tests.rendering import needs_rendering
from tests.training.grounding_clips import draw_sights

SMALL = GroundingRecipe(clips=4, sight_steps=1, words_steps=1, reading_steps=1, batch=3,
                        pictures=2, rows=2, processes=1)


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
    assert [line['stage'] for line in lines] == ['sight', 'words', 'reading']
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


@needs_rendering
def test_what_another_recipe_or_version_made_is_refused(made, tmp_path) -> None:
    out, _ = made
    with pytest.raises(PixelReferError, match='with other clips, batch: give the same ones'):
        train_grounding(out, replace(SMALL, clips=5, batch=4))
    for kept in ('0000000-4', 'cut.json'):  # of a version that took no note; of another size
        (tmp_path / kept).write_text('[]')
        with pytest.raises(PixelReferError, match='cut in another way: remove it'):
            SightCache(out / 'clips', SMALL.clips, tmp_path)
    with pytest.raises(PixelReferError, match='remove it'):
        ReasoningStore(out / 'clips', SMALL.clips, size=(96, 72))


def test_a_recipe_may_change_until_something_is_learnt(tmp_path) -> None:
    keep_recipe(tmp_path, SMALL)
    keep_recipe(tmp_path, replace(SMALL, clips=5))
    (tmp_path / 'sight.pt').touch()
    keep_recipe(tmp_path, replace(SMALL, clips=5, processes=2, loaders=1, device='cuda'))
    with pytest.raises(PixelReferError, match='with other clips: give the same ones'):
        keep_recipe(tmp_path, SMALL)


@needs_rendering
def test_clips_kept_as_patches_are_those_of_the_pictures(made) -> None:
    out, _ = made
    cache = SightCache(out / 'clips', SMALL.clips, out / 'sights')
    numbers = [2, 1, 3]
    frames = [cache.kept(2)[1], cache.kept(1)[0], cache.kept(3)[-1]]
    kept, drawn = cache.draw(numbers, frames), draw_sights(cache.store, numbers, frames)
    for part in ('clips', 'pictures', 'first', 'last', 'picture', 'first_cells',
                 'picture_cells'):
        torch.testing.assert_close(getattr(kept, part), getattr(drawn, part), rtol=0, atol=0)
    for part in ('first_boxes', 'boxes'):
        for mine, other in zip(getattr(kept, part), getattr(drawn, part), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=0)
    fewer = cache.draw(numbers, frames[:1])
    assert len(fewer.clips) == 3
    torch.testing.assert_close(fewer.pictures, drawn.pictures[:1], rtol=0, atol=0)


def test_a_batch_is_the_same_whoever_draws_it() -> None:
    def draw(rng: np.random.Generator) -> float:
        return float(rng.random())

    plain, ahead = Feed(draw, 5, (0, 1), 0), Feed(draw, 5, (0, 1), 1)
    assert [plain(step) for step in (2, 3, 4)] == [float(ahead(step)) for step in (2, 3, 4)]
    assert plain(2) != plain(3)


def test_recipes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match='batch is 0'):
        GroundingRecipe(batch=0)
    with pytest.raises(ValueError, match='clips is 1; it must be at least 2'):
        GroundingRecipe(clips=1)
    with pytest.raises(ValueError, match='cpu or cuda'):
        GroundingRecipe(device='tpu')
    with pytest.raises(ValueError, match='at most batch'):
        GroundingRecipe(batch=2, pictures=3)
