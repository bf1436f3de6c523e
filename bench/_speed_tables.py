# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Print what the speed benchmark measured."""

from __future__ import annotations

from typing import Any

from bench import _common as common
from bench._stages import STAGES

TARGETS = {'ratio': 10.0, 'ratio_second_to_first': 5.0, 'flops': 6.0}
"""At least so many times faster, or fewer operations."""


def show(result: dict[str, Any]) -> None:
    """Print the tables of one model on one device."""
    name = f'{result["model"]} on {result["device"]}, {result["dtype"]}'
    same = result['side_by_side']
    _side_by_side(name, result, same)
    _stages(name, same)
    common.show(
        f'(c) {name}: seconds for descriptions of all regions, and for a second question',
        ['regions', 'frames', '1st s', 'first token', '2nd s', 'first token', 'x faster'],
        [
            [one['regions'], one['frames'], first['total_s'], first['first_token_s'],
             second['total_s'], second['first_token_s'], first['total_s'] / second['total_s']]
            for one in result['shapes']
            for first, second in [one['questions'][:2]]
        ],
    )  # fmt: skip
    common.show(
        f'(d) {name}: decoding, {result["copy_gb_s"]:.3g} GB/s copied',
        ['rows', 'first token ms', 'ms per step', 'tokens/s', 'limit', 'share of it'],
        [
            [one['rows'], 1e3 * one['first_token_s'], one['step_ms'], one['tokens_per_s'],
             one['limit_tokens_per_s'], one['share_of_limit']]
            for one in result['decoding']
        ],
        'Pictures and prompts are known. Limit: weights, keys and values are read once a step, '
        'at twice the speed of a copy.' + peak(result),
    )  # fmt: skip


def peak(result: dict[str, Any]) -> str:
    """Return a sentence about the memory of the device; '' where it was not measured."""
    most = result.get('peak_memory_mib')
    return '' if most is None else f' Most memory that ours took: {most:.0f} MiB.'


def _side_by_side(name: str, result: dict[str, Any], same: dict[str, Any]) -> None:
    rows: list[list[object]] = [
        [f'question {number}, s', theirs, own, theirs / own, '']
        for number, (theirs, own) in enumerate(
            zip(same['reference_s'], same['ours_s'], strict=True), start=1
        )
    ]
    flops = same['flops']
    rows += [
        ['all, s', sum(same['reference_s']), sum(same['ours_s']), same['ratio'],
         _target('ratio', same['ratio'])],
        ['all, asked at once, s', sum(same['reference_s']), same['ours_together_s'],
         same['ratio_together'], ''],
        ['first question over second', same['reference_s'][0] / same['reference_s'][1],
         same['ratio_second_to_first'], '',
         _target('ratio_second_to_first', same['ratio_second_to_first'])],
        ['10^12 FLOPs', flops['reference']['total'] / 1e12, flops['ours']['total'] / 1e12,
         flops['ratio'], _target('flops', flops['ratio'])],
        ['  of them the tower', flops['reference']['tower'] / 1e12,
         flops['ours']['tower'] / 1e12, flops['ratio_tower'], ''],
    ]  # fmt: skip
    common.show(
        f'(a) {name}, {result["threads"]} threads: {same["regions"]} regions in '
        f'{same["frames"]} frames, {same["questions"]} questions each',
        ['what', 'reference', 'ours', 'ratio', 'target'],
        rows,
        f'{same["words_equal"]} of {same["words_compared"]} answers have the same words; '
        f'{same["different_words"]} of the reference differ from each other; '
        f'{same["tokens_out"]} tokens generated. Tower calls of ours by question: '
        f'{same["ours_tower_calls"]}.',
    )


def _stages(name: str, same: dict[str, Any]) -> None:
    columns = ['stage', *(f'reference {n}' for n in (1, 2)), *(f'ours {n}' for n in (1, 2))]
    columns = [*columns, 'share of ours 1']
    told = (*same['reference_stages_s'][:2], *same['ours_stages_s'][:2])
    total_s = sum(same['ours_stages_s'][0].values())
    common.show(
        f'(b) {name}: seconds by stage, first and second question',
        columns,
        [
            [stage, *(one[stage] for one in told), same['ours_stages_s'][0][stage] / total_s]
            for stage in STAGES
        ],
    )


def _target(name: str, value: float) -> str:
    wanted = TARGETS[name]
    return f'>= {wanted:g}: {"met" if value >= wanted else "MISSED"}'
