# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the codes that tower and language model agree on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelrefer_ros.training.grounding_codes import (
    BOX_PERIODS,
    FACTS,
    PARTS,
    WIDTH,
    box_code,
    code_table,
    waves,
    words_in_codes,
)
from pixelrefer_ros.training.grounding_config import (
    CLIP_SIZE,
    KEY_SIZE,
    MERGE,
    PATCH,
    fresh_model,
)
from pixelrefer_ros.training.grounding_pictures import flipped
from pixelrefer_ros.training.grounding_told import telling_loss, telling_scores, told
from pixelrefer_ros.training.grounding_words import (
    ANCHORS,
    CLIP_START,
    PICTURE_START,
    build_tokenizer,
)
from tests.training.grounding_clips import StoryStore, draw_sights


@pytest.fixture(scope='module')
def sights():
    store = StoryStore(range(12))
    return draw_sights(store, [3, 5, 8], [7, 0, 15])


def test_parts_of_a_code_lie_beside_each_other() -> None:
    used = np.zeros(WIDTH, int)
    for part in PARTS.values():
        used[part] += 1
    assert used.max() == 1
    assert used.sum() == max(part.stop for part in PARTS.values())


def test_every_fact_is_told_apart() -> None:
    for fact, count in FACTS.items():
        table = code_table(fact)
        alike = table @ table.T
        alike.fill_diagonal_(-1)
        first = 1 if fact in ('start', 'stop') else 0  # class 0: it never does, nothing is told
        assert len(table) == count
        assert alike[first:, first:].max() < 0.95
        torch.testing.assert_close(table[first:].norm(dim=-1), torch.ones(count - first))


def test_waves_turn_by_what_is_added() -> None:
    place, off = torch.tensor(91.0), torch.tensor(-17.5)
    a, b = (torch.complex(*waves(x, BOX_PERIODS).chunk(2)) for x in (place, off))
    product = a * b * len(BOX_PERIODS) ** 0.5
    sum_of_both = torch.cat([product.real, product.imag])
    torch.testing.assert_close(sum_of_both, waves(place + off, BOX_PERIODS))


def test_what_is_uncertain_is_told_in_its_slow_waves_only() -> None:
    sharp, dim = (waves(torch.tensor(10.0), blur=blur) for blur in (0.0, 6.0))
    sizes = (dim.view(2, -1).norm(dim=0) / sharp.view(2, -1).norm(dim=0)).tolist()
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.01
    assert sizes[-1] > 0.9


def test_words_begin_as_the_codes_of_what_they_name() -> None:
    words = words_in_codes()
    torch.testing.assert_close(words['red'][PARTS['colour']].sum(), torch.tensor(1.0))
    table = code_table('start')
    torch.testing.assert_close(words['7'], table[8])
    tokenizer = build_tokenizer()
    known = tokenizer.get_vocab()
    assert words.keys() <= known.keys()
    model = fresh_model(tokenizer, 0)
    embedded = model.model.language_model.embed_tokens.weight
    torch.testing.assert_close(embedded[known['falls']], words['falls'])


@pytest.mark.parametrize('key', [False, True])
def test_what_is_told_exactly_is_read_exactly(sights, key) -> None:
    tokens, clear = told(sights, key=key)
    assert clear.any(1).all()
    scores = telling_scores(tokens, sights, key=key)
    assert set(scores.values()) == {1.0}
    assert telling_loss(tokens, sights, key=key)[0] == 0


def test_small_things_count_as_large_ones_do(sights) -> None:
    """A token of a small thing costs more than one of a large thing, and both than the ground."""
    cells, (exact, _) = sights.first_cells[0], told(sights, key=False)
    sizes = {k: int((cells == k).sum()) for k in set(cells[cells >= 0].tolist())}
    small, large = min(sizes, key=sizes.get), max(sizes, key=sizes.get)
    assert sizes[small] < sizes[large]

    def cost(thing: int) -> float:
        wrong = exact.clone()
        wrong[0, (cells == thing).nonzero()[0]] += 1
        return telling_loss(wrong, sights, key=False)[0].item()

    assert cost(small) > cost(large) > cost(-1) > 0


def test_doubts_leave_most_of_it_right(sights) -> None:
    rng = np.random.default_rng(0)
    exact, _ = told(sights, key=False)
    drawn = [told(sights, key=False, rng=rng)[0] for _ in range(20)]
    assert all((tokens != exact).any() for tokens in drawn)
    scores = [telling_scores(tokens, sights, key=False) for tokens in drawn]
    for fact in scores[0]:
        assert 0.7 < np.mean([s[fact] for s in scores]) <= 1, fact


def test_mirror_images_are_told_mirrored(sights) -> None:
    mirrored = flipped(sights)
    for a, b in zip((sights.clips, sights.pictures), (flipped(mirrored).clips,
                                                     flipped(mirrored).pictures), strict=True):
        assert torch.equal(a, b)
    rows, columns = CLIP_SIZE[1] // 14, CLIP_SIZE[0] // 14
    assert torch.equal(mirrored.first_cells.view(-1, rows, columns),
                       sights.first_cells.view(-1, rows, columns).flip(2))
    width = CLIP_SIZE[0]
    torch.testing.assert_close(mirrored.first_boxes[0][:, 0], width - sights.first_boxes[0][:, 2])
    assert set(telling_scores(told(mirrored, key=True)[0], mirrored, key=True).values()) == {1.0}


@pytest.mark.parametrize(('start', 'size'), [(CLIP_START, CLIP_SIZE), (PICTURE_START, KEY_SIZE)])
def test_tokens_that_see_know_their_place_from_the_start(start, size) -> None:
    tokenizer = build_tokenizer()
    language = fresh_model(tokenizer, 0).model.language_model
    ids = tokenizer.convert_tokens_to_ids(['<|im_start|>', 'user', start, *ANCHORS])
    token = PATCH * MERGE
    rows, columns = size[1] // token, size[0] // token
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    seen = torch.zeros(len(cells), WIDTH)
    seen[:, PARTS['none']] = 1
    seen[::3] = code_table('colour')[2] + code_table('shape')[1] + box_code(
        torch.tensor([-9.0, -12, 11, 8]))
    x = torch.cat([language.embed_tokens(torch.tensor(ids)), seen])[None]
    n = len(ids)
    place = torch.tensor([(i,) * 3 for i in range(n)]
                         + [(n, n + row, n + column) for row, column in cells]).T[:, None]
    with torch.no_grad():
        added = language.layers[0].self_attn(
            language.layers[0].input_layernorm(x),
            position_embeddings=language.rotary_emb(x, place),
            attention_mask=torch.full((x.shape[1],) * 2, -1e9).triu(1)[None, None])[0][0, n:]
    for side, number in (('row', 0), ('column', 1)):
        wanted = torch.tensor([(cell[number] + 0.5) * token for cell in cells])
        tried = torch.arange(256.0)
        found = tried[(added[:, PARTS[side]] @ waves(tried, BOX_PERIODS).T).argmax(-1)]
        assert (found - wanted).abs().median() <= 1
        assert ((found - wanted).abs() <= 3).float().mean() > 0.85
