# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test batched decoding against transformers' own, one prompt at a time."""

from __future__ import annotations

import gc
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from pixelrefer_ros.core.describer import LanguageStats
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.pixelrefer import steps
from pixelrefer_ros.models.pixelrefer import voice as voice_module
from pixelrefer_ros.models.pixelrefer.slots import Slots
from pixelrefer_ros.models.pixelrefer.steps import StaticSteps
from pixelrefer_ros.models.pixelrefer.voice import Prompt, Voice
from tests.models import recorded_graphs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pixelrefer_ros.models.pixelrefer import (
        PixelReferForConditionalGeneration,
        PixelReferProcessor,
    )
    from pixelrefer_ros.models.pixelrefer.rows import Said

REGION = 262
WIDTH = 48
NEW = 16

PER_TOKEN = 3 * 2 * 2 * 12 * 4
"""Bytes: layers, keys and values, heads, width, float32."""


def small_language_model(**changes: object) -> Qwen2ForCausalLM:
    """Return a model whose greedy words vary."""
    config = Qwen2Config(
        vocab_size=263,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=400,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **changes,
    )
    config.placeholder_ids = (REGION,)
    torch.manual_seed(11)
    model = Qwen2ForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    model.generation_config.eos_token_id = 258
    model.generation_config.pad_token_id = 256
    return model


@pytest.fixture
def language() -> Qwen2ForCausalLM:
    """Make a language model."""
    return small_language_model()


@pytest.fixture
def spoken(language: Qwen2ForCausalLM, processor: PixelReferProcessor) -> Voice:
    """Give it a voice."""
    return Voice(language, processor, max_new_tokens=NEW)


@pytest.fixture
def passes(language: Qwen2ForCausalLM) -> list[tuple[int, int]]:
    """Collect (rows, tokens of the longest) of every pass a voice makes."""
    seen: list[tuple[int, int]] = []

    def note(_: object, __: object, given: dict[str, torch.Tensor]) -> None:
        if isinstance(given['past_key_values'], Slots):
            seen.append(tuple(given['inputs_embeds'].shape[:2]))

    language.model.register_forward_pre_hook(note, with_kwargs=True)
    return seen


def prompt(length: int, regions: int = 0, seed: int = 0) -> Prompt:
    """Return random words with some region tokens among them."""
    generator = torch.Generator().manual_seed(1000 * seed + length)
    ids = torch.randint(0, 256, (length,), generator=generator)
    ids[torch.randperm(length - 1, generator=generator)[:regions]] = REGION
    return named(ids, torch.randn(regions, WIDTH, generator=generator))


def named(ids: torch.Tensor, tokens: torch.Tensor) -> Prompt:
    """Return a prompt whose tokens have the same names when they are equal."""
    names = torch.tensor(
        [[hash(tuple(one)), len(one)] for one in tokens.tolist()], dtype=torch.int64
    )
    return Prompt(ids, tokens, names.reshape(-1, 2))


def joined(first: Prompt, second: Prompt) -> Prompt:
    """Return one prompt after the other."""
    return Prompt(
        *(
            torch.cat([getattr(first, name), getattr(second, name)])
            for name in ('input_ids', 'tokens', 'names')
        )
    )


def say(
    voice: Voice,
    prompts: Sequence[Prompt],
    stops: dict[int, Callable[[], bool]] | None = None,
    texts: dict[int, list[str]] | None = None,
) -> list[Said]:
    """Return what is said, in the order of the prompts."""
    said: dict[int, Said] = {}

    def keep(place: int, one: Said) -> None:
        assert place not in said
        said[place] = one

    voice.say(
        prompts,
        should_stop=[(stops or {}).get(place, lambda: False) for place in range(len(prompts))],
        on_text=[
            texts[place].append if texts and place in texts else None
            for place in range(len(prompts))
        ],
        on_said=keep,
    )
    return [said[place] for place in range(len(prompts))]


def taken_at_steps(voice: Voice, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect what tensors take before every step."""
    taken: list[int] = []
    step = voice._steps.step

    def note(*given: Any) -> torch.Tensor:
        taken.append(memory.taken())
        return step(*given)

    monkeypatch.setattr(voice._steps, 'step', note)
    return taken


def alone(model: Qwen2ForCausalLM, one: Prompt, new: int = NEW) -> tuple[list[int], float]:
    """Return ids and mean log-probability of transformers' own decoding."""
    embeds = model.model.embed_tokens(one.input_ids).detach()
    embeds[one.input_ids == REGION] = one.tokens
    room = model.config.max_position_embeddings - len(one.input_ids)
    with torch.inference_mode():
        out = model.generate(
            inputs_embeds=embeds[None],
            attention_mask=torch.ones(1, len(embeds), dtype=torch.int64),
            max_new_tokens=min(new, room),
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
    ids = out.sequences[0].tolist()
    logprobs = [
        float(score[0].log_softmax(-1)[token])
        for score, token in zip(out.scores, ids, strict=True)
    ]
    return ids, sum(logprobs) / len(logprobs)


def assert_as_alone(
    model: Qwen2ForCausalLM, prompts: Sequence[Prompt], said: Sequence[Said]
) -> None:
    for one, words in zip(prompts, said, strict=True):
        ids, logprob = alone(model, one)
        assert list(words.token_ids) == ids
        assert words.mean_logprob == pytest.approx(logprob, abs=1e-4)
        assert words.tokens_in == len(one.input_ids)
        assert not words.canceled


MIXED = [prompt(5), prompt(200, 40), prompt(1), prompt(37, 8), prompt(90, 3), prompt(2)]


ASKED = [prompt(30, seed=seed) for seed in range(1, 4)]


def test_rows_of_any_length_say_what_they_say_alone(
    language: Qwen2ForCausalLM, spoken: Voice
) -> None:
    said = say(spoken, MIXED)
    assert_as_alone(language, MIXED, said)
    assert [one.tokens_out for one in said] == [NEW] * len(MIXED)
    assert len({one.token_ids for one in said}) == len(MIXED)


def test_neither_order_nor_company_changes_the_words(spoken: Voice) -> None:
    said = say(spoken, MIXED)
    spoken.forget()
    assert [one.token_ids for one in reversed(say(spoken, MIXED[::-1]))] == [
        one.token_ids for one in said
    ]
    for one, words in zip(MIXED, said, strict=True):
        spoken.forget()
        assert say(spoken, [one])[0].token_ids == words.token_ids


def ending(language: Qwen2ForCausalLM, one: Prompt, after: int) -> int:
    """Make the token a prompt says in some place an end token; return how many it then says."""
    ids, _ = alone(language, one)
    language.generation_config.eos_token_id = [258, ids[after]]
    return ids.index(ids[after]) + 1


@pytest.mark.parametrize('static', [False, True])
def test_rows_end_by_themselves_and_leave_the_batch(
    language: Qwen2ForCausalLM,
    processor: PixelReferProcessor,
    passes: list[tuple[int, int]],
    static: bool,
) -> None:
    taken = ending(language, MIXED[1], 9)
    spoken = Voice(language, processor, max_new_tokens=NEW, static=static)
    passes.clear()
    order: list[int] = []
    prompts = [MIXED[1], MIXED[0], MIXED[1]]
    spoken.say(
        prompts,
        should_stop=[lambda: False] * 3,
        on_text=[None] * 3,
        on_said=lambda place, _: order.append(place),
    )
    taken_by = [rows for rows, tokens in passes if tokens == 1]
    assert sorted(order[:2]) == [0, 2]
    assert order[2] == 1
    first, last = (4, 1) if static else (3, 1)
    assert taken_by == [first] * (taken - 1) + [last] * (NEW - taken)
    assert_as_alone(language, prompts, say(spoken, prompts))


def test_cancel_ends_one_row_within_a_token(language: Qwen2ForCausalLM, spoken: Voice) -> None:
    asked = count(1)
    said = say(spoken, MIXED, stops={2: lambda: next(asked) == 4})
    assert said[2].canceled
    assert list(said[2].token_ids) == alone(language, MIXED[2])[0][:4]
    assert next(asked) == 5  # never asked again
    del said[2]
    assert_as_alone(language, [*MIXED[:2], *MIXED[3:]], said)


def test_what_is_complete_is_not_canceled(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor
) -> None:
    taken = ending(language, MIXED[1], 9)
    spoken = Voice(language, processor, max_new_tokens=NEW)
    lengths = {0: NEW, 1: taken, 2: NEW}
    asked = {place: count(1) for place in lengths}
    stops = {
        place: lambda place=place: next(asked[place]) >= lengths[place] - (place == 2)
        for place in lengths
    }
    said = say(spoken, MIXED[:3], stops=stops)
    assert [one.tokens_out for one in said] == [NEW, taken, NEW - 1]
    assert [one.canceled for one in said] == [False, False, True]


def test_who_stops_while_others_speak_is_not_read(
    language: Qwen2ForCausalLM,
    spoken: Voice,
    passes: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(voice_module, 'MAX_ROWS', 2)
    prompts = [MIXED[0], MIXED[1], MIXED[3], MIXED[4], MIXED[3], MIXED[2]]
    heard: list[int] = []

    def listen() -> bool:
        heard.append(1)
        return False

    said = say(
        spoken,
        prompts,
        stops={0: listen, **{place: lambda: bool(heard) for place in (2, 3, 4)}},
    )
    assert [one for one in passes if one[1] > 1] == [(2, 200)]
    assert [one.canceled for one in said] == [False, False, True, True, True, False]
    for one in said[2:5]:
        assert (one.text, one.tokens_out, one.prefill_tokens) == ('', 0, 0)
    whole = [0, 1, 5]
    assert_as_alone(language, [prompts[k] for k in whole], [said[k] for k in whole])


def test_each_row_has_its_own_room(language: Qwen2ForCausalLM, spoken: Voice) -> None:
    prompts = [prompt(395, 20), prompt(6), prompt(399)]
    said = say(spoken, prompts)
    assert [one.tokens_out for one in said] == [5, NEW, 1]
    assert_as_alone(language, prompts, said)


def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_read(
    spoken: Voice, passes: list[tuple[int, int]]
) -> None:
    with pytest.raises(PixelReferError, match='takes 400 tokens, the model reads 400') as error:
        say(spoken, [prompt(5), prompt(400)])
    assert error.value.code == ErrorCode.BAD_REQUEST
    assert passes == []


def test_rows_grow_while_they_speak(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor
) -> None:
    language.generation_config.eos_token_id = 299  # never said
    prompts = [prompt(60), prompt(7)]
    new = 230
    expected = [alone(language, one, new)[0] for one in prompts]
    assert [len(ids) for ids in expected] == [new, new]
    for static in (False, True):
        spoken = Voice(language, processor, max_new_tokens=new, static=static)
        assert [list(one.token_ids) for one in say(spoken, prompts)] == expected


def test_what_prompts_share_is_read_once(
    language: Qwen2ForCausalLM, spoken: Voice, passes: list[tuple[int, int]]
) -> None:
    prompts = [joined(prompt(150, 60), question) for question in ASKED]
    said = say(spoken, prompts)
    assert passes[:2] == [(1, 150), (3, 30)]
    assert sorted(one.prefill_tokens for one in said) == [30, 30, 180]
    assert_as_alone(language, prompts, said)


def test_shared_beginnings_fork(
    language: Qwen2ForCausalLM, spoken: Voice, passes: list[tuple[int, int]]
) -> None:
    start = prompt(80)
    regions = [joined(start, prompt(70 + 10 * seed, 16, seed)) for seed in range(2)]
    prompts = [joined(region, question) for region in regions for question in ASKED]
    said = say(spoken, prompts)
    assert passes[:3] == [(1, 80), (2, 80), (6, 30)]
    assert sum(one.prefill_tokens for one in said) == 80 + 70 + 80 + 6 * 30
    assert_as_alone(language, prompts, said)


def test_short_shared_beginnings_do_not_take_a_pass(
    language: Qwen2ForCausalLM, spoken: Voice, passes: list[tuple[int, int]]
) -> None:
    prompts = [joined(prompt(10), question) for question in ASKED]
    said = say(spoken, prompts)
    assert passes[0] == (3, 40)
    assert_as_alone(language, prompts, said)
    again = [joined(prompt(10), prompt(20, seed=9)), prompts[1]]
    said = say(spoken, again)
    assert [one.prefill_tokens for one in said] == [20, 1]
    assert_as_alone(language, again, said)


def test_second_question_reads_only_its_own_words(
    language: Qwen2ForCausalLM, spoken: Voice
) -> None:
    about = prompt(150, 60)
    prompts = [joined(about, question) for question in ASKED]
    assert say(spoken, prompts[:1])[0].prefill_tokens == 180
    said = say(spoken, prompts[1:2])
    assert said[0].prefill_tokens == 30
    assert_as_alone(language, prompts[1:2], said)
    said = say(spoken, prompts)  # of unequal news: known, known, and all but the question
    assert [one.prefill_tokens for one in said] == [1, 1, 30]
    assert_as_alone(language, prompts, said)
    read, known = 180 + 30 + 32, 150 + 508
    assert spoken.stats() == LanguageStats(known, read, 237 * PER_TOKEN, 256 << 20)
    spoken.forget()
    assert spoken.stats() == LanguageStats(known, read, 0, 256 << 20)
    assert say(spoken, prompts[:1])[0].prefill_tokens == 180


def test_other_tokens_behind_the_same_ids_are_read_anew(
    language: Qwen2ForCausalLM, spoken: Voice
) -> None:
    one = prompt(150, 60)
    say(spoken, [one])
    tokens = one.tokens.clone()
    tokens[-1, -1] = torch.nextafter(tokens[-1, -1], torch.tensor(9.0))
    nearly = named(one.input_ids, tokens)
    last = int((one.input_ids == REGION).nonzero()[-1])
    assert say(spoken, [nearly])[0].prefill_tokens == 150 - last
    other = named(one.input_ids, torch.randn(60, WIDTH))
    said = say(spoken, [other])
    first = int((one.input_ids == REGION).nonzero()[0])
    assert said[0].prefill_tokens == 150 - first
    assert_as_alone(language, [other], said)


def test_no_more_is_kept_than_allowed_and_what_was_used_last(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor
) -> None:
    spoken = Voice(
        language, processor, max_new_tokens=2, cache_mib=(2 * 99 + 50) * PER_TOKEN / 2**20
    )
    one, two, three = (prompt(100, seed=seed) for seed in range(3))
    say(spoken, [one])
    say(spoken, [two])
    assert spoken.stats().held_bytes == 2 * 99 * PER_TOKEN
    say(spoken, [one])
    assert say(spoken, [three])[0].prefill_tokens == 100
    assert spoken.stats().held_bytes == 2 * 99 * PER_TOKEN
    assert say(spoken, [one])[0].prefill_tokens == 1
    assert say(spoken, [two])[0].prefill_tokens == 100


def test_nothing_is_kept_where_nothing_may_be(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor
) -> None:
    spoken = Voice(language, processor, max_new_tokens=NEW, cache_mib=0)
    prompts = [joined(prompt(150, 60), question) for question in ASKED]
    for _ in range(2):
        said = say(spoken, prompts)
        assert sum(one.prefill_tokens for one in said) == 150 + 3 * 30
        assert spoken.stats().held_bytes == 0
    assert_as_alone(language, prompts, said)


def test_what_batches_of_a_call_share_is_read_once(
    language: Qwen2ForCausalLM,
    processor: PixelReferProcessor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(voice_module, 'MAX_ROWS', 2)
    start, other = prompt(150, 60), prompt(100, 20)
    questions = [prompt(30, seed=seed) for seed in range(6)]
    prompts = [joined(start, question) for question in questions]
    prompts[2:2] = [other, other]
    expected = [alone(language, one, 4)[0] for one in prompts]
    for mib in (0, 0.05):  # less than one beginning takes
        spoken = Voice(language, processor, max_new_tokens=4, cache_mib=mib)
        said = say(spoken, prompts)
        assert sum(one.prefill_tokens for one in said) == 150 + 6 * 30 + 100 + 1
        assert spoken.stats().held_bytes <= mib * 2**20
        assert [list(one.token_ids) for one in said] == expected


def test_what_is_spared_for_rows_that_stop_goes_with_them(
    language: Qwen2ForCausalLM,
    processor: PixelReferProcessor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(voice_module, 'MAX_ROWS', 1)
    spoken = Voice(language, processor, max_new_tokens=4, cache_mib=0)
    held: list[int] = []

    def note() -> bool:
        held.append(spoken.stats().held_bytes)
        return False

    say(spoken, [prompt(150), prompt(150)], stops={0: note, 1: lambda: True})
    assert held[0] > 0
    assert spoken.stats().held_bytes == 0


def test_what_is_too_long_to_be_kept_is_said_once(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    for mib in (0, 1, 0.05):  # 0 asks for it, 1 is enough
        spoken = Voice(language, processor, max_new_tokens=2, cache_mib=mib)
        for seed in range(3):
            say(spoken, [prompt(150, seed=seed), prompt(5)])
        lines = [line for line in caplog.messages if 'may be kept between questions' in line]
        assert len(lines) == (mib == 0.05)


class Memory:
    """Count what tensors take that were not there when it was made."""

    def __init__(self) -> None:
        self._before = set(self._tensors())
        gc.freeze()  # so that fewer objects are looked through

    def taken(self) -> int:
        """Return bytes, each counted once."""
        return sum(size for at, size in self._tensors().items() if at not in self._before)

    def _tensors(self) -> dict[int, int]:
        gc.collect()
        held = [one.untyped_storage() for one in gc.get_objects() if type(one) is torch.Tensor]
        return {one.data_ptr(): one.nbytes() for one in held}


@pytest.fixture
def memory(language: Qwen2ForCausalLM) -> Iterator[Memory]:
    """Count from when the model is there."""
    yield Memory()
    gc.unfreeze()


@pytest.mark.parametrize('kept', [0, 250])
def test_what_was_read_is_let_go_of_before_the_words(
    language: Qwen2ForCausalLM,
    processor: PixelReferProcessor,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    kept: int,
) -> None:
    monkeypatch.setattr(voice_module, 'MAX_ROWS', 2)
    spoken = Voice(language, processor, max_new_tokens=3, cache_mib=kept * PER_TOKEN / 2**20)
    taken = taken_at_steps(spoken, memory, monkeypatch)
    prompts = [prompt(200, 20, seed) for seed in range(6)]
    given = sum(one.tokens.nbytes + one.input_ids.nbytes + one.names.nbytes for one in prompts)
    say(spoken, prompts)
    slots = 2 * 320 * PER_TOKEN
    embedded = 200 * WIDTH * 4  # of one prompt, a third of its keys and values
    assert len(taken) == 3 * 2
    assert slots <= min(taken)
    assert max(taken) < slots + min(kept, 199) * PER_TOKEN + given + embedded


def test_batches_that_shrink_free_what_they_took(
    language: Qwen2ForCausalLM,
    processor: PixelReferProcessor,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoken = Voice(language, processor, max_new_tokens=6, cache_mib=0)
    taken = taken_at_steps(spoken, memory, monkeypatch)
    asked = count()
    stops = {place: lambda: next(asked) >= 7 for place in range(1, 8)}  # after two tokens
    say(spoken, [prompt(200, seed=seed) for seed in range(8)], stops=stops)
    row = 320 * PER_TOKEN
    assert len(taken) == 5
    assert 8 * row <= taken[0] < 9 * row
    assert row <= taken[1] < 2 * row


@pytest.mark.parametrize('static', [False, True])
def test_batches_that_grow_do_not_hold_what_they_were(
    language: Qwen2ForCausalLM,
    processor: PixelReferProcessor,
    monkeypatch: pytest.MonkeyPatch,
    memory: Memory,
    static: bool,
) -> None:
    language.generation_config.eos_token_id = 299  # never said
    spoken = Voice(language, processor, max_new_tokens=200, cache_mib=0, static=static)
    sizes: list[tuple[int, int, int]] = []
    fill = Slots.fill

    def note(self: Slots, source: Slots) -> None:
        sizes.append((memory.taken(), source.store.nbytes, self.store.nbytes))
        fill(self, source)

    monkeypatch.setattr(Slots, 'fill', note)
    say(spoken, [prompt(100), prompt(90)])
    ((taken, kept, grown),) = sizes
    assert kept + grown <= taken < kept + grown + 20_000


@pytest.mark.parametrize('name', ['MAX_ROWS', 'MAX_SLOTS', 'MAX_READ'])
def test_more_than_fits_is_done_in_parts(
    language: Qwen2ForCausalLM,
    spoken: Voice,
    passes: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(
        voice_module, name, {'MAX_ROWS': 2, 'MAX_SLOTS': 512, 'MAX_READ': 80}[name]
    )
    said = say(spoken, MIXED)
    assert [one for one in passes if one[1] > 1] == {
        'MAX_ROWS': [(2, 200), (2, 37), (2, 90)],
        'MAX_SLOTS': [(1, 5), (1, 200), (2, 37), (2, 90)],
        'MAX_READ': [(3, 5), (1, 37), (1, 90), (1, 200)],
    }[name]
    assert_as_alone(language, MIXED, said)


def test_text_streams_by_row_without_broken_letters(
    language: Qwen2ForCausalLM, spoken: Voice, processor: PixelReferProcessor
) -> None:
    texts: dict[int, list[str]] = {0: [], 3: []}
    said = say(spoken, MIXED, texts=texts)
    for place, seen in texts.items():
        ids = alone(language, MIXED[place])[0]
        expected: list[str] = []
        for stop in range(1, len(ids) + 1):
            text = processor.decode(ids[:stop]).rstrip('\N{REPLACEMENT CHARACTER}').rstrip()
            if text != (expected[-1] if expected else ''):
                expected.append(text)
        assert seen == expected
        assert len(seen) > 5
        assert said[place].text == seen[-1]


def test_what_is_cut_within_a_letter_ends_before_it(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor
) -> None:
    ids = alone(language, MIXED[0])[0]
    broken = [
        length
        for length in range(2, NEW + 1)
        if processor.decode(ids[:length]).endswith('\N{REPLACEMENT CHARACTER}')
    ]
    assert broken
    for length in broken:
        texts: dict[int, list[str]] = {0: []}
        spoken = Voice(language, processor, max_new_tokens=length)
        (said,) = say(spoken, MIXED[:1], texts=texts)
        assert not said.text.endswith('\N{REPLACEMENT CHARACTER}')
        assert said.text == texts[0][-1]


@pytest.mark.filterwarnings('ignore:Passing .repetition_penalty.')
@pytest.mark.parametrize('static', [False, True])
def test_the_models_repetition_penalty_counts(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor, static: bool
) -> None:
    plain = [alone(language, one)[0] for one in MIXED]
    language.generation_config.repetition_penalty = 1.5
    spoken = Voice(language, processor, max_new_tokens=NEW, static=static)
    said = say(spoken, MIXED, stops={1: lambda: True, 4: lambda: True})  # so that rows move
    assert [said.pop(4).tokens_out, said.pop(1).tokens_out] == [1, 1]
    left = [MIXED[place] for place in (0, 2, 3, 5)]
    assert_as_alone(language, left, said)
    assert [list(one.token_ids) for one in said] != [plain[place] for place in (0, 2, 3, 5)]


def test_fixed_shapes_say_the_same(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor, passes: list[tuple[int, int]]
) -> None:
    prompts = [*MIXED, *(joined(prompt(150, 60), question) for question in ASKED)]
    free = Voice(language, processor, max_new_tokens=NEW)
    fixed = Voice(language, processor, max_new_tokens=NEW, static=True)
    fixed.warm_up()
    expected = say(free, prompts)
    for reads in ([(1, 150), (9, 200)], [(9, 1)]):  # later in used memory, all of it known
        passes.clear()
        said = say(fixed, prompts)
        assert [one.token_ids for one in said] == [one.token_ids for one in expected]
        assert passes == reads + [(16, 1)] * (NEW - 1)
    assert_as_alone(language, prompts, said)


def test_a_failure_reaches_the_caller_and_the_next_call_works(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for static, problem in (
        (False, RuntimeError('kernel failed')),
        (True, torch.OutOfMemoryError('no memory')),
        (True, RuntimeError('kernel failed')),
    ):
        spoken = Voice(language, processor, max_new_tokens=NEW, static=static)
        say(spoken, MIXED[:2])
        head, calls = language.lm_head.forward, count()

        def fail(states: torch.Tensor, head=head, calls=calls, problem=problem) -> torch.Tensor:
            if next(calls) == 5:
                raise problem
            return head(states)

        with monkeypatch.context() as patch:
            patch.setattr(language.lm_head, 'forward', fail)
            with pytest.raises(type(problem), match=str(problem)):
                say(spoken, MIXED)
        assert spoken.stats().held_bytes == 0
        assert_as_alone(language, MIXED, say(spoken, MIXED))


def test_a_failing_listener_ends_the_call_alone(language: Qwen2ForCausalLM, spoken: Voice) -> None:
    def listen(text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError):
        spoken.say(
            MIXED[:1], should_stop=[lambda: False], on_text=[listen], on_said=lambda *_: None
        )
    assert_as_alone(language, MIXED[:2], say(spoken, MIXED[:2]))


def test_tokens_and_their_places_must_agree(spoken: Voice) -> None:
    one = prompt(20, 5)
    with pytest.raises(ValueError, match='room for 5 tokens, 4 given with 5 names'):
        say(spoken, [Prompt(one.input_ids, one.tokens[:4], one.names)])
    with pytest.raises(ValueError, match='room for 5 tokens, 5 given with 4 names'):
        say(spoken, [Prompt(one.input_ids, one.tokens, one.names[:4])])


def test_tokens_are_known_by_their_names_alone(spoken: Voice) -> None:
    one = prompt(150, 60)
    said = say(spoken, [one])
    again = Prompt(one.input_ids, torch.zeros_like(one.tokens), one.names)
    assert say(spoken, [again])[0].token_ids == said[0].token_ids
    names = one.names.clone()
    names[-1, 1] += 1
    last = int((one.input_ids == REGION).nonzero()[-1])
    assert say(spoken, [Prompt(one.input_ids, one.tokens, names)])[0].prefill_tokens == 150 - last


def test_names_are_no_words(spoken: Voice) -> None:
    plain = prompt(150)
    say(spoken, [plain])
    ids = torch.full((150,), REGION)
    names = torch.stack([plain.input_ids, torch.zeros_like(ids)], dim=1)
    assert say(spoken, [Prompt(ids, torch.zeros(150, WIDTH), names)])[0].prefill_tokens == 150


def test_image_placeholders_are_replaced_too(language: Qwen2ForCausalLM, spoken: Voice) -> None:
    one = prompt(40, 12)
    language.config.placeholder_ids = (REGION, 261)
    ids = one.input_ids.clone()
    places = (ids == REGION).nonzero()[:, 0]
    ids[places[::2]] = 261
    said = say(spoken, [Prompt(ids, one.tokens, one.names)])
    assert_as_alone(language, [one], said)


def test_sliding_windows_are_refused(processor: PixelReferProcessor) -> None:
    model = small_language_model(use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(PixelReferError, match='set use_sliding_window to false') as error:
        Voice(model, processor, max_new_tokens=NEW)
    assert error.value.code == ErrorCode.MODEL_ERROR


@pytest.mark.parametrize('attention', ['eager', 'sdpa'])
def test_both_ways_to_attend_agree(processor: PixelReferProcessor, attention: str) -> None:
    model = small_language_model(attn_implementation=attention)
    assert model.config._attn_implementation == attention
    said = say(Voice(model, processor, max_new_tokens=NEW), MIXED)
    assert_as_alone(model, MIXED, said)


def test_half_precision_speaks_and_remembers(processor: PixelReferProcessor) -> None:
    spoken = Voice(small_language_model().bfloat16(), processor, max_new_tokens=5, static=True)
    about = joined(prompt(150, 60), ASKED[0])
    assert [one.tokens_out for one in say(spoken, [about, *MIXED])] == [5] * 7
    assert say(spoken, [joined(prompt(150, 60), ASKED[1])])[0].prefill_tokens == 30


def test_regions_are_put_into_words(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    generator = torch.Generator().manual_seed(3)
    prompts, expected = [], []
    for times in ([0.0], [0.0, 1.5]):
        ids = processor.encode(processor.prompt('What is <region>?', [len(times)], times))
        tokens = torch.randn(len(times), 8, 32, generator=generator)
        new = model.generate(ids, region_tokens=tokens, max_new_tokens=NEW, do_sample=False)
        expected.append(tuple(new[0].tolist()))
        prompts.append(named(ids[0], tokens.flatten(0, 1)))
    said = say(Voice(model, processor, max_new_tokens=NEW), prompts)
    assert [one.token_ids for one in said] == expected


def recording(model: Qwen2ForCausalLM, processor: PixelReferProcessor, new: int = NEW) -> Voice:
    """Return a voice that records its steps though there is no CUDA device."""
    spoken = Voice(model, processor, max_new_tokens=new, static=True)
    assert isinstance(spoken._steps, StaticSteps)
    spoken._steps._records = True
    return spoken


@pytest.mark.filterwarnings('ignore:Passing .repetition_penalty.')
@pytest.mark.parametrize('penalty', [1.0, 1.5])
def test_steps_replayed_say_the_same(
    language: Qwen2ForCausalLM,
    processor: PixelReferProcessor,
    monkeypatch: pytest.MonkeyPatch,
    penalty: float,
) -> None:
    language.generation_config.repetition_penalty = penalty
    graphs = recorded_graphs.install(monkeypatch)
    spoken = recording(language, processor)
    spoken.warm_up()
    assert len(graphs) == len(steps.WARM_ROWS) * len(steps.WARM_SIZES)
    taken = sum(graph.replays for graph in graphs)
    ending(language, MIXED[1], 3)
    free = Voice(language, processor, max_new_tokens=NEW)
    fixed = recording(language, processor)
    for _ in range(2):
        expected = [one.token_ids for one in say(free, MIXED)]
        assert [one.token_ids for one in say(fixed, MIXED)] == expected
    del graphs[: len(steps.WARM_ROWS) * len(steps.WARM_SIZES)]
    assert taken == 12
    assert sum(graph.replays for graph in graphs) == 2 * (NEW - 1)
    assert len(graphs) <= 2  # one shape, and where a row ended early perhaps a smaller one


def test_steps_are_recorded_anew_when_rows_outgrow_the_memory(
    language: Qwen2ForCausalLM, processor: PixelReferProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = recorded_graphs.install(monkeypatch)
    language.generation_config.eos_token_id = 299  # never said
    fixed = recording(language, processor, new=230)
    one = prompt(60)
    expected = alone(language, one, 230)[0]
    for _ in range(2):
        assert list(say(fixed, [one])[0].token_ids) == expected
    # 256 slots do for 195 more tokens; the larger memory then holds both shapes
    assert [graph.replays for graph in graphs] == [195, 2 * 34, 195]


def test_steps_that_cannot_be_recorded_are_taken_one_by_one(
    language: Qwen2ForCausalLM,
    processor: PixelReferProcessor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    graphs = recorded_graphs.install(monkeypatch)
    head = language.lm_head.forward

    def wait(states: torch.Tensor) -> torch.Tensor:
        assert len(states.nonzero())  # needs to know what the device found
        return head(states)

    monkeypatch.setattr(language.lm_head, 'forward', wait)
    fixed = recording(language, processor)
    said = say(fixed, MIXED)
    assert sum('cannot be recorded' in line for line in caplog.messages) == 1
    assert [graph.replays for graph in graphs] == [0]
    assert_as_alone(language, MIXED, said)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_recorded_steps_say_the_same(processor: PixelReferProcessor) -> None:
    model = small_language_model().cuda()
    fixed = Voice(model, processor, max_new_tokens=NEW)
    fixed.warm_up()
    free = Voice(model, processor, max_new_tokens=NEW, static=False)
    prompts = [Prompt(one.input_ids, one.tokens.cuda(), one.names) for one in MIXED]
    for _ in range(2):
        assert [one.token_ids for one in say(fixed, prompts)] == [
            one.token_ids for one in say(free, prompts)
        ]
