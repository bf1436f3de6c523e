# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that questions asked at once are read, and learnt from, as if each were alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelrefer_ros.simulation.world import COLOURS, SHAPES, SIZES
from pixelrefer_ros.training.grounding_asking import (
    ASKED,
    FIRST_WORDS_WEIGHT,
    asked_scores,
    draw_asked,
    pointing_loss,
    run_asked,
)
from pixelrefer_ros.training.grounding_config import fresh_model
from pixelrefer_ros.training.grounding_language import (
    OTHER_HEAD,
    OTHER_LAYER,
    STORY_LAYER,
    answer_loss,
)
from pixelrefer_ros.training.grounding_pictures import Shown
from pixelrefer_ros.training.grounding_rows import DECIDING_WEIGHT, HEADS, RowMaker
from pixelrefer_ros.training.grounding_told import told
from pixelrefer_ros.training.grounding_words import build_tokenizer
from tests.training.grounding_clips import StoryStore, shown_of

NUMBERS = [3, 5, 8]


@pytest.fixture(scope='module')
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope='module')
def store():
    return StoryStore(range(12))


@pytest.fixture(scope='module')
def model(tokenizer):
    return fresh_model(tokenizer, 0).eval()


@pytest.fixture(scope='module')
def shown(store) -> Shown:
    return shown_of(store, NUMBERS)


@pytest.fixture(scope='module')
def asked(store, tokenizer):
    return draw_asked(RowMaker(store, tokenizer), NUMBERS, np.random.default_rng(1),
                      tokenizer.pad_token_id)


@pytest.fixture(scope='module')
def made(model, asked, shown):
    """Return the leads with their clips, what comes out, and where tokens look."""
    embed = model.model.language_model.embed_tokens
    clips, _ = told(shown, key=False)
    with torch.no_grad():
        lead = embed(asked.lead).repeat(len(clips), 1, 1)
        lead[:, asked.clip_at:asked.clip_at + clips.shape[1]] = clips
        return lead, *run_asked(model, lead, embed(asked.ids), asked.lead_place, asked.start)


def test_a_question_is_read_as_if_it_were_alone(model, asked, made) -> None:
    lead, out, looks = made
    language = model.model.language_model
    language.config._attn_implementation = 'eager'
    for b, q in ((0, 0), (2, 3)):
        ids = asked.ids[b, q]
        x = torch.cat([lead[b], language.embed_tokens(ids)])[None]
        after = (asked.start + torch.arange(len(ids))).expand(3, -1)
        place = torch.cat([asked.lead_place, after], 1)[:, None]
        with torch.no_grad():
            alone = language(inputs_embeds=x, position_ids=place, use_cache=False,
                             output_attentions=True)
        count = int((asked.weight[b, q] > 0).nonzero().max()) + 1
        mine, theirs = out[b, q, :count], alone.last_hidden_state[0, lead.shape[1]:][:count]
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
        there = alone.attentions[STORY_LAYER][0, :, lead.shape[1]:, :lead.shape[1]]
        torch.testing.assert_close(looks[b, :-1, q, :count], there[:, :count],
                                   rtol=1e-3, atol=1e-4)
        other = alone.attentions[OTHER_LAYER][0, OTHER_HEAD, lead.shape[1]:, :lead.shape[1]]
        torch.testing.assert_close(looks[b, -1, q, :count], other[:count], rtol=1e-3, atol=1e-4)


def test_questions_end_with_their_answers(asked, tokenizer) -> None:
    end = tokenizer.convert_tokens_to_ids('<|im_end|>')
    asked_of = (asked.weight > 0).any(-1)
    assert asked_of.sum() >= len(NUMBERS) * (ASKED - 2)
    for ids, weight in zip(asked.ids[asked_of], asked.weight[asked_of], strict=True):
        answer = weight.nonzero().flatten()
        assert ids[answer[-1]] == end
        assert tokenizer.convert_ids_to_tokens(int(ids[answer[0]])) == '<think>'


def test_what_names_a_thing_first_counts_most(asked, tokenizer) -> None:
    looks = {*COLOURS, *SHAPES, *SIZES}
    first, again = 0, 0
    known: dict[tuple[int, int], set[int]] = {}
    for b, q, pointer in asked.pointers:
        word = tokenizer.convert_ids_to_tokens(int(asked.ids[b, q, pointer.token + 1]))
        if pointer.head != HEADS['looks'] or word not in looks:
            continue
        named = known.setdefault((b, q), set())
        if word in SIZES:  # names begin with it
            new = pointer.thing not in named
            named.add(pointer.thing)
            factor = FIRST_WORDS_WEIGHT if new else 1.0
            first, again = first + new, again + (not new)
        assert float(asked.weight[b, q, pointer.token + 1]) == DECIDING_WEIGHT * factor
    assert min(first, again) > 9


def test_looks_in_half_precision_have_a_finite_cost(asked, shown, made) -> None:
    """Shares in half precision may add up to more than one: nothing is left for "no other"."""
    looks = torch.zeros_like(made[2]).to(torch.bfloat16)
    looks[..., asked.clip_at:asked.clip_at + 3] = torch.tensor([0.5, 0.5, 0.0078]).to(looks)
    assert float(looks[0, -1, 0, 0].float().sum()) > 1
    loss, _ = pointing_loss(asked, shown, looks)
    assert torch.isfinite(loss)


def test_looking_at_the_right_thing_costs_least(asked, shown, made) -> None:
    looks = made[2]
    perfect, wrong = torch.zeros_like(looks), torch.zeros_like(looks)
    for b, q, pointer in asked.pointers:
        for part, goal in ((perfect, shown.first_cells[b] == pointer.thing),
                           (wrong, shown.first_cells[b] == -1)):
            at = asked.clip_at + goal.nonzero().flatten()
            part[b, pointer.head, q, pointer.token, at] = 1 / max(len(at), 1)
    losses = [float(pointing_loss(asked, shown, part)[0]) for part in (perfect, looks, wrong)]
    assert losses == sorted(losses)
    assert losses[0] < 0.01
    assert pointing_loss(asked, shown, perfect)[1]['point_first'] == pytest.approx(1, abs=1e-3)


def test_right_words_score(asked, model, made) -> None:
    loss, said = answer_loss(model, made[1], asked.ids, asked.weight)
    assert torch.isfinite(loss)
    assert set(asked_scores(asked, asked.ids).values()) == {1.0}
    assert max(asked_scores(asked, said).values()) < 0.9
    heads = {pointer.head for *_, pointer in asked.pointers}
    assert heads >= {HEADS['looks'], HEADS['start']}
