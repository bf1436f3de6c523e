# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what the benchmarks count: operations, memory, and who computes what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from bench import _clip as clip
from bench import _full as full
from bench import _paper as paper
from bench import _plan as plan
from bench import _sizes as sizes
from bench import flops, memory
from bench._counting import Counter
from bench._reference_schedule import ReferenceSchedule
from bench._tally import Tally

if TYPE_CHECKING:
    from pixelrefer_ros.models.pixelrefer import PixelReferConfig

Shape = tuple[int, ...]

REGIONS, FRAMES, ANSWER = 5, 2, 6


def tiny_config() -> PixelReferConfig:
    tower = {'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 2}
    return sizes.config(
        'mid',
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        vision_encoder_config=tower | {'num_attention_heads': 2, 'patch_size': 14},
    )


@pytest.fixture(scope='module')
def counter() -> Counter:
    with torch.device('meta'):
        return Counter(sizes.random_model(tiny_config(), 'meta'))


@pytest.mark.parametrize(('row', 'printed'), paper.PRINTED.items())
def test_the_papers_rows_follow_from_its_formula(
    row: tuple[str, bool, str], printed: float
) -> None:
    assert round(paper.operations(*row) / 1e12, 2) == printed
    assert round(paper.operations(*row, paper.PRINTED_MATRICES) / 1e12, 2) > printed


def test_the_published_2b_costs_what_was_measured_before() -> None:
    rows = flops.measured(Counter.of('2B'))
    assert [row['masks'] for row in rows] == [1, 4, 8, 20]
    for row in rows:
        for part in ('tower', 'language', 'total'):
            assert row[f'{part}_t'] == pytest.approx(row[f'{part}_before_t'], rel=0.01)


def test_the_published_full_2b_costs_what_was_measured_before() -> None:
    row = full.measured(full.FullCounter.of('2B'))
    for name in ('tokens', 'tower_t', 'language_t', 'total_t'):
        assert row[name] == pytest.approx(full.MEASURED[name], rel=0.01)


def test_frames_of_the_full_model_are_read_once_for_all_regions() -> None:
    counter = full.FullCounter.of('mid')
    one, more = (full.compare('mid', counter, regions, 2) for regions in (1, 4))
    extra = more['ours']['prefill'] - one['ours']['prefill']
    assert extra < 0.5 * one['ours']['prefill']
    assert more['reference']['prefill'] == 4 * one['reference']['prefill']
    assert more['second_question']['tower'] == 0
    assert more['ratio'] > 2 * one['ratio']


def test_a_picture_costs_its_projections_and_its_attention(counter: Counter) -> None:
    width, mlp, layers, patches = 32, 48, 2, 6
    layer = 4 * patches * width**2 + 2 * patches * width * mlp + 2 * patches**2 * width
    assert counter.picture((2, 3)) == 2 * (patches * 588 * width + layers * layer)


def test_reading_costs_more_after_more_tokens_and_a_head_per_prediction(
    counter: Counter,
) -> None:
    width, layers, vocabulary = 32, 2, 256
    more = counter.read(3, past=20) - counter.read(3, past=10)
    assert more == 2 * layers * 2 * 3 * 10 * width
    assert counter.read(3, heads=3) - counter.read(3, heads=1) == 2 * 2 * width * vocabulary


def test_decoding_costs_the_sum_of_its_steps(counter: Counter) -> None:
    assert counter.decode(9, 5) == sum(counter.read(1, past) for past in range(9, 13))
    assert counter.decode(9, 1) == 0


def test_both_plans_are_what_is_computed() -> None:
    config = tiny_config()
    model = sizes.random_model(config)
    tokens = sizes.processor(config, clip.QUESTIONS)
    rounds = clip.rounds(REGIONS, FRAMES)
    questions, _ = plan.lengths(tokens, [asked[0] for asked in rounds], ANSWER)
    counter = Counter(sizes.random_model(config, 'meta'))
    work = plan.job(counter, clip.THINGS, REGIONS, FRAMES, questions)

    reference = ReferenceSchedule(model, tokens, ANSWER)
    describer = sizes.describer(model, tokens, ANSWER)
    describer.eyes.max_patches = 10**6  # each pass projects its frames again
    for asked, theirs, own in zip(
        rounds, plan.reference(counter, work), plan.ours(counter, work), strict=True
    ):
        with counted_on_the_cpu() as counted:
            told = [reference.say(request) for request in asked]
        assert {one.tokens_out for one in told} == {ANSWER}
        assert counted.get_total_flops() == pytest.approx(theirs.total, rel=1e-3)
        with counted_on_the_cpu() as counted:
            describer.say(asked, lambda *_: None)
        assert counted.get_total_flops() == pytest.approx(own.total, rel=1e-3)


def test_later_questions_cost_no_vision_and_known_frames_none_of_theirs(
    counter: Counter,
) -> None:
    work = plan.job(counter, clip.THINGS, 8, 4)
    first, *later = plan.ours(counter, work)
    known = plan.ours(counter, work, frames_are_known=True)[0]
    assert first.tower - known.tower == 4 * counter.picture((24, 24))
    assert [bill.tower + bill.region_encoder for bill in later] == [0, 0]
    assert plan.total(plan.reference(counter, work)).tower > 5 * first.tower


def test_a_clip_that_moved_on_costs_one_frame_of_vision(counter: Counter) -> None:
    work = plan.job(counter, clip.THINGS, 3, 4)
    single = plan.job(counter, clip.THINGS, 3, 1)
    live = plan.live(counter, work)
    assert live.tower == plan.ours(counter, single)[0].tower
    assert live.prefill == 3 * counter.read(work.questions[0].tokens)


def test_the_things_are_of_the_sizes_they_stand_for() -> None:
    assert [clip.CLASSES[name][0].area for name in ('small', 'medium', 'large')] == [
        24**2, 64**2, 160**2,
    ]  # fmt: skip
    areas = [thing.area for thing in clip.THINGS]
    small = sum(area < 32**2 for area in areas)
    large = sum(area >= 96**2 for area in areas)
    assert (small, len(areas) - small - large, large) == (1, 4, 3)


def test_a_tally_counts_what_lives_at_one_moment() -> None:
    layer = torch.nn.Linear(4, 8, device='meta')
    with torch.inference_mode(), Tally(layer) as tally:
        weights = tally.held
        rows = torch.empty(10, 4, device='meta')
        out = layer(rows)
        view = out.view(80)
        del out
        held = tally.held
        del view
        rows = rows + 1
    assert weights == 4 * (4 * 8 + 8)
    assert held == weights + 4 * (10 * 4 + 10 * 8)
    assert tally.held == weights + 4 * 10 * 4
    assert tally.peak == held


def test_more_regions_take_more_memory_in_every_stage() -> None:
    model = sizes.random_model(tiny_config(), 'meta')
    one, more = memory.tally(model, 1, 2), memory.tally(model, 5, 2)
    assert one['weights'] == more['weights'] == 4 * model.num_parameters() + _buffers(model)
    for stage in ('vision_peak', 'reading_peak', 'decoding_peak', 'kept_of_prompts'):
        assert more[stage] > one[stage]
    # 2 frames of 576 cells and 5 regions' 32 tokens on each, 32 floats wide
    assert more['kept_of_frames'] == 4 * 32 * (2 * 576 + 2 * 5 * 32)


def counted_on_the_cpu() -> FlopCounterMode:
    """Count also the CPU's fused attention, which torch leaves out."""

    def attention(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
        return sdpa_flop_count(query, key, value)

    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={fused: attention})


def _buffers(model: torch.nn.Module) -> int:
    return sum(one.nbytes for one in model.buffers())
