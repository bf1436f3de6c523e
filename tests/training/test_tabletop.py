# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the whole recipe of the tabletop model in the small, and check its parts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip('mujoco', reason='needs the extra [sim]')

from pixelrefer_ros.training import language, vision
from pixelrefer_ros.training.clip_store import ClipStore
from pixelrefer_ros.training.fast_tower import run_tower
from pixelrefer_ros.training.pictures import PictureSet, draw_pictures
from pixelrefer_ros.training.tabletop import Recipe, train
from pixelrefer_ros.training.tabletop_config import fresh_model
from pixelrefer_ros.training.vocabulary import build_tokenizer
from tests.rendering import needs_rendering

pytestmark = needs_rendering

SMALL = Recipe(clips=6, dense_steps=2, region_steps=2, language_clips=6, language_steps=2,
               joint_steps=1)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('tabletop')
    lines = []
    model = train(out, SMALL, lambda *line: lines.append(line))
    return out, model, lines


@pytest.fixture(scope='module')
def store(made):
    return ClipStore(made[0] / 'clips', SMALL.clips)


@pytest.fixture(scope='module')
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope='module')
def model(tokenizer):
    return fresh_model(tokenizer, 0)


def test_the_recipe_leaves_a_model_that_describes(made):
    from pixelrefer_ros.core.types import Frame, RegionClip
    from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber

    _, folder, lines = made
    assert {line[0] for line in lines} >= {'dense', 'regions', 'language', 'joint'}
    describer = PixelReferDescriber.load(str(folder), device='cpu')
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:30] = 1
    said = describer.describe([Frame('', 1, np.zeros((48, 64, 3), np.uint8))],
                              RegionClip('a', (0,), [mask]))
    assert said.tokens_out > 0


def test_a_finished_run_is_not_run_again(made):
    out, folder, _ = made
    before = (folder / 'model.safetensors').read_bytes()
    steps = (out / 'log.jsonl').read_text()
    assert train(out, SMALL) == folder
    assert (out / 'log.jsonl').read_text() == steps
    assert (folder / 'model.safetensors').read_bytes() == before


def test_the_log_is_json_with_scores(made):
    lines = [json.loads(line) for line in (made[0] / 'log.jsonl').read_text().splitlines()]
    assert [line['stage'] for line in lines] == ['dense', 'regions', 'language', 'joint']
    assert all(np.isfinite(line['loss']) for line in lines)


def test_recipes_are_checked():
    with pytest.raises(ValueError, match='clips is 0'):
        Recipe(clips=0)
    with pytest.raises(ValueError, match='joint_steps is -1'):
        Recipe(joint_steps=-1)


def test_the_padded_tower_equals_the_models_own(model):
    rng = np.random.default_rng(0)
    pictures = PictureSet()
    for rows, columns in ((3, 4), (5, 2), (6, 6)):
        pictures.add(rng.integers(0, 256, (14 * rows, 14 * columns, 3), dtype=np.uint8),
                     np.zeros((rows, columns), np.int64))
    patches, rows, columns, inside, _ = pictures.padded()
    with torch.no_grad():
        ours = run_tower(model.tower, patches, rows, columns, inside)
        theirs = model.encode_images(
            torch.from_numpy(np.concatenate(pictures.patches)), pictures.grids)
    for i, reference in enumerate(theirs):
        torch.testing.assert_close(ours[i, :len(reference)], reference, atol=2e-5, rtol=1e-4)


def test_training_and_describing_see_the_same_tokens(model, store):
    """The batched path of training equals processor and model on the same regions."""
    from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor

    clip = store[0]
    pictures = draw_pictures([clip], model.config, np.random.default_rng(0), box_share=0.0)
    with torch.no_grad():
        crops, _, _ = vision.encode(model, pictures.crops)
        contexts, _, _ = vision.encode(model, pictures.contexts)
        frames, _, _ = vision.encode(model, pictures.frames)
        ours = model.region_encoder.feat_linear(
            vision.region_tokens(model, pictures, frames, contexts, crops))
        processor = PixelReferProcessor(model.config, build_tokenizer())
        steps = pictures.entry_step
        masks = [clip.mask(step, pictures.regions[r][1])
                 for r, step in zip(pictures.entry_region, steps, strict=True)]
        theirs = model.encode(processor.regions(list(clip.images), masks, steps))
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


def test_branches_of_a_row_do_not_see_each_other(model, store, tokenizer):
    """Each answer of a packed row is predicted as if its question stood alone."""
    cache = language.cache_tokens(model, store, range(SMALL.clips), 0)
    maker = language.RowMaker(store, cache, tokenizer, model)
    rng = np.random.default_rng(3)
    row = None
    while row is None or len(row.questions) < 3:
        row = maker.draw(rng)
    with torch.no_grad():
        batch = language.collate([row], tokenizer.pad_token_id)
        raw = cache.tokens[batch.region[:, 0], batch.region[:, 1]].float()
        tokens = model.region_encoder.feat_linear(raw)
        packed = model.model(
            inputs_embeds=model.embed(batch.ids, tokens), attention_mask=batch.mask,
            position_ids=batch.position).last_hidden_state[0]
        branch = torch.tensor(row.branch)
        for number in range(1, len(row.questions) + 1):
            alone = (branch == 0) | (branch == number)
            single = model.model(
                inputs_embeds=model.embed(batch.ids[:, alone], tokens)).last_hidden_state[0]
            torch.testing.assert_close(packed[alone], single, atol=1e-4, rtol=1e-3)


def test_labels_are_the_answers_and_their_end(model, store, tokenizer):
    cache = language.cache_tokens(model, store, range(SMALL.clips), 0)
    maker = language.RowMaker(store, cache, tokenizer, model)
    rng = np.random.default_rng(1)
    batch = language.draw_batch(maker, rng, 4, tokenizer.pad_token_id)
    for row in batch.rows:
        for number, question in enumerate(row.questions, 1):
            ids = [i for i, b, a in zip(row.ids, row.branch, row.answer, strict=True)
                   if a and b == number]
            assert tokenizer.decode(ids, skip_special_tokens=True) == question.answer
            assert ids[-1] == tokenizer.eos_token_id
