# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that training rows are the conversations the model will hold, and are read as such."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from pixelrefer_ros.core.chat import Picture, Turn, Video
from pixelrefer_ros.grounding.pictures import resize
from pixelrefer_ros.grounding.profiles import fill, load_profile
from pixelrefer_ros.models.chat.local import LocalChat
from pixelrefer_ros.models.chat.prompt import read
from pixelrefer_ros.training import grounding_language
from pixelrefer_ros.training.grounding_batch import collate, sees
from pixelrefer_ros.training.grounding_config import (
    CLIP_SIZE,
    FRAMES,
    KEY_SIZE,
    MERGE,
    PATCH,
    fresh_model,
    save_model,
)
from pixelrefer_ros.training.grounding_pictures import shown_in
from pixelrefer_ros.training.grounding_rows import (
    DECIDING_WEIGHT,
    HEADS,
    LOOKED_FOR,
    NONE,
    SIDE_WEIGHT,
    RowMaker,
)
from pixelrefer_ros.training.grounding_vision import merge, run_blocks
from pixelrefer_ros.training.grounding_words import build_tokenizer, spoken_box
from tests.training.grounding_clips import StoryStore, draw_sights

PROFILE = load_profile('tabletop')


@pytest.fixture(scope='module')
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope='module')
def chat(tokenizer, tmp_path_factory):
    """Return an untrained model, saved and loaded as the node does it."""
    folder = tmp_path_factory.mktemp('model')
    save_model(fresh_model(tokenizer, 0), tokenizer, folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16e6
    return LocalChat.load(str(folder), device='cpu')


@pytest.fixture(scope='module')
def store():
    return StoryStore(range(12))


@pytest.fixture(scope='module')
def row(store, tokenizer):
    maker = RowMaker(store, tokenizer, single_share=1)
    return maker.draw(3, np.random.default_rng(1))


def path_to(row, answer):
    """Return the tokens a conversation that ends with an answer holds."""
    return sees(row)[answer.end - 1].nonzero().flatten().tolist()


def tokens_of(model, sights):
    """Return what the tower makes of clips and of pictures."""
    return tuple(merge(model, run_blocks(model, patches, size)) for patches, size in (
        (sights.clips, CLIP_SIZE), (sights.pictures, KEY_SIZE)))


@pytest.fixture(scope='module')
def prompt(chat, store, row, tokenizer):
    """Return the whole conversation of a row's first box as the model is given it."""
    box = next(a for a in row.answers if a.kind == 'box')
    path = path_to(row, box)
    reason = next(a for a in row.answers if a.start in path and a.kind == 'reason')

    def text(first, last):
        return tokenizer.decode(row.ids[first:last], skip_special_tokens=True,
                                clean_up_tokenization_spaces=False)

    images = store.images(row.number, range(16))
    clip = Video(tuple(resize(image, CLIP_SIZE) for image in images), PROFILE.fps)
    key = Picture(resize(images[row.frame], KEY_SIZE))
    actor = store.facts(row.number).actors[box.target]
    turns = [
        Turn('user', (clip, fill(PROFILE.prompts.turn1, {
            'question': reason.question.text, 'frame_count': FRAMES}))),
        Turn('assistant', (text(reason.start, reason.end - 1),)),
        Turn('user', (key, fill(PROFILE.prompts.turn2, {
            'description': f'the {actor.size} {actor.colour} {actor.shape}'}))),
    ]
    return read(chat.processor, turns), path[:path.index(box.start)]


def test_the_profile_has_the_sizes_the_model_is_trained_with() -> None:
    assert (PROFILE.frames, PROFILE.frame_size, PROFILE.key_size) == (
        FRAMES, CLIP_SIZE, KEY_SIZE)
    assert PROFILE.size_multiple % (PATCH * MERGE) == 0


def test_rows_hold_the_tokens_of_the_conversation(prompt, row) -> None:
    given, path = prompt
    assert list(given.ids) == [row.ids[i] for i in path]


def test_tokens_have_the_places_they_have_in_the_conversation(prompt, row, chat) -> None:
    given, path = prompt
    inputs = given.inputs
    places, _ = chat.model.model.get_rope_index(
        inputs['input_ids'], inputs['mm_token_type_ids'], inputs['image_grid_thw'],
        inputs['video_grid_thw'], second_per_grid_ts=inputs['second_per_grid_ts'])
    assert places[:, 0].T.tolist() == [list(row.place[i]) for i in path]


def test_patches_are_those_of_the_processor_and_so_are_their_tokens(
    prompt, store, row, chat
) -> None:
    given, _ = prompt
    inputs = given.inputs
    sights = draw_sights(store, [row.number], [row.frame])
    torch.testing.assert_close(sights.clips[0] / 127.5 - 1, inputs['pixel_values_videos'],
                               rtol=0, atol=1e-6)
    with torch.no_grad():
        for patches, size, kind in ((sights.clips, CLIP_SIZE, 'video'),
                                    (sights.pictures, KEY_SIZE, 'image')):
            pixels = inputs['pixel_values_videos' if kind == 'video' else 'pixel_values']
            seen = getattr(chat.model, f'get_{kind}_features')(
                pixels, inputs[f'{kind}_grid_thw'], return_dict=True).pooler_output[0]
            mine = merge(chat.model, run_blocks(chat.model, patches, size))[0]
            torch.testing.assert_close(mine, seen, rtol=1e-3, atol=1e-4)


def test_a_branch_is_read_as_if_it_were_alone(prompt, store, row, chat) -> None:
    given, path = prompt
    other = RowMaker(store, chat.processor.tokenizer).draw(5, np.random.default_rng(0))
    batch = collate([other, row], chat.processor.tokenizer.pad_token_id)
    sights = draw_sights(store, [other.number, row.number], [other.frame, row.frame])
    with torch.no_grad():
        made = grounding_language.read_batch(chat.model, batch, tokens_of(chat.model, sights))
        mine = chat.model.lm_head(made.out[1, path[-1]])
        theirs = chat.model(**given.inputs).logits[0, -1]
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


def test_branches_do_not_see_each_other(row) -> None:
    seen = sees(row)
    firsts = [a for a in row.answers if a.kind in ('reason', 'single')]
    for answer in firsts:
        for other in firsts:
            part = seen[answer.start:answer.end, other.start:other.end]
            assert bool(part.any()) == (answer is other)
    assert bool(seen[:, :4].all(0)[0])


def test_words_are_read_off_the_things_they_speak_of(store, tokenizer) -> None:
    maker, rng = RowMaker(store, tokenizer), np.random.default_rng(2)
    heads, sides = set(), {True: 0, False: 0}
    for number in range(len(store)):
        made = maker.draw(number, rng)
        if made is None:
            continue
        clip = store.facts(number)
        actors = clip.actors
        single = next(a for a in made.answers if a.kind == 'single')
        for pointer in made.pointers:
            word = tokenizer.convert_ids_to_tokens(made.ids[pointer.token + 1])
            actor = actors[pointer.thing]
            if pointer.box:
                frame = made.frame if pointer.in_key else single.question.key
                box = clip.boxes[clip.sampled[frame], pointer.thing].tolist()
                size = KEY_SIZE if pointer.in_key else CLIP_SIZE
                assert word == str(spoken_box(box, size, store.size)[pointer.head])
                sides[pointer.in_key] += 1
                continue
            heads.add(pointer.head)
            if pointer.thing == NONE:
                assert pointer.head == HEADS['other']
                continue
            if pointer.head == HEADS['looks']:
                assert word in (*actor.look, 'on', 'the', 'left', 'right')
            elif pointer.head in (HEADS['start'], HEADS['stop']):
                assert word == str(actor.start if pointer.head == HEADS['start'] else actor.stop)
            elif pointer.head == HEADS['role']:
                assert word in ('moves', 'is', 'hits', 'and', 'stays')
    assert heads == set(HEADS.values())
    assert min(sides.values()) > 8


def test_before_a_side_is_said_all_that_look_the_same_are_looked_at(tokenizer) -> None:
    store = StoryStore(range(40, 60))
    maker, rng = RowMaker(store, tokenizer), np.random.default_rng(0)
    said = Counter()
    for number in range(len(store)):
        made, actors = maker.ask(number, rng, 6), store.facts(number).actors
        looked: dict[int, set[int]] = {}
        others: dict[int, int] = {}
        for pointer in made.pointers:
            if pointer.head == HEADS['alike']:
                looked.setdefault(pointer.token, set()).add(pointer.thing)
            elif pointer.head == HEADS['other']:
                others[pointer.token] = pointer.thing
        assert others.keys() == looked.keys()
        for token, things in looked.items():
            left = things - {others[token]}
            assert len(left) == 1
            assert (others[token] == NONE) == (left == things)
            look = actors[min(things)].look
            assert things == {k for k, a in enumerate(actors) if a.look == look}
            words = tokenizer.convert_ids_to_tokens(made.ids[token - 4:token + 2])
            assert made.weight[token + 1] == DECIDING_WEIGHT * (
                SIDE_WEIGHT if len(things) > 1 else 1)
            assert set(look) & set(words[:5])
            said[len(things), words[5] in ('on', 'the', 'left', 'right')] += 1
    assert said[1, True] == said[2, False] == 0
    assert min(said[1, False], said[2, True]) > 20


def test_looks_are_computed_as_the_model_does(store, row, chat) -> None:
    batch = collate([row], chat.processor.tokenizer.pad_token_id)
    sights = draw_sights(store, [row.number], [row.frame])
    chat.model.set_attn_implementation('eager')
    with torch.no_grad():
        made = grounding_language.read_batch(chat.model, batch, tokens_of(chat.model, sights))
        tokens = torch.tensor([len(row.ids) - 1, row.answers[0].start])
        mine = grounding_language._attention(
            chat.model, batch, made, 3, (torch.zeros(2, dtype=torch.int64), tokens),
            torch.tensor([1, 2]), batch.clip_at)
        theirs = chat.model.model.language_model(
            inputs_embeds=made.hidden[0], attention_mask=batch.mask, position_ids=batch.place,
            use_cache=False, output_attentions=True).attentions[3][0]
    expected = theirs[[1, 2], tokens][:, batch.clip_at[0]]
    torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-6)


def test_cells_show_what_covers_them() -> None:
    numbers = np.zeros((56, 56), np.uint8)
    numbers[:28, :28] = 2
    numbers[:28, 28:32] = 1
    numbers[28:32, :14] = 2
    numbers[32:40, 36:44] = 3
    numbers[52:, :4] = 3
    shown = shown_in(numbers, (28, 28), 14)
    assert shown[0, 0] == 1
    assert shown[0, 1] == 0, 'hardly seen, but nowhere else'
    assert shown[1, 0] < -1, 'hardly seen'
    assert shown[1, 1] == 2
    assert (shown_in(np.zeros((56, 56), np.uint8), (28, 28), 14) == -1).all()


def test_a_small_thing_takes_no_other_its_only_token() -> None:
    numbers = np.zeros((56, 56), np.uint8)
    numbers[4:18, 4:18] = 1
    numbers[20:28, 24:29] = 2  # most of it beside the first, the rest in the next cell
    shown = shown_in(numbers, (28, 28), 14)
    assert shown[0, 0] == 0
    assert shown[0, 1] == 1


def test_every_thing_in_view_is_shown_by_a_token(store) -> None:
    """What no token tells of, the language model can only make up."""
    for number in range(len(store)):
        mask = store.numbers(number, [0])[0]
        shown = shown_in(mask, CLIP_SIZE, PATCH * MERGE)
        in_view = {k - 1 for k in np.unique(mask).tolist() if k}
        hidden = in_view - set(shown.ravel().tolist())
        for k in hidden:  # a token has room for one
            ys, xs = np.nonzero(mask == k + 1)
            assert len(xs) < 40, f'thing {k} of clip {number}: {len(xs)} pixels'


def test_what_is_not_there_is_asked_for_as_often_as_what_is(store, tokenizer) -> None:
    maker, rng = RowMaker(store, tokenizer), np.random.default_rng(3)
    asked = [answer.question for number in range(len(store)) for _ in range(4)
             for answer in maker.ask(number, rng, 6).answers[-LOOKED_FOR:]]
    looked_for = [question for question in asked if question.kind == 'refer']
    assert len(looked_for) > 0.8 * len(asked)
    assert 0.35 < np.mean([question.target is None for question in looked_for]) < 0.65
