# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put what the speed benchmark measured into docs/performance.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import _common as common
from bench._speed_tables import TARGETS, peak
from bench._stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

DOCUMENT = common.ROOT / 'docs' / 'performance.md'
BEGIN, END = '<!-- written by bench/speed.py from here -->', '<!-- to here -->'


def put(results: dict[str, Any]) -> Path:
    """Replace what stands between the marks.

    Args:
        results: As ``bench.speed`` writes them.

    Raises:
        ValueError: The document lost its marks.
    """
    before, found, rest = DOCUMENT.read_text(encoding='utf-8').partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f'{DOCUMENT.name} lacks the lines {BEGIN} and {END}')
    about = results['machine']
    lines = [
        f'{about["cpu"]}, {about["cores"]} cores, torch {about["torch"]}, {about["date"]}'
        f' (load {about["load_at_start"]} before it began).',
    ]
    for run in results['runs']:
        lines += ['', *_section(run)]
    DOCUMENT.write_text('\n'.join([before + BEGIN, *lines, END + after]), encoding='utf-8')
    common.say(f'wrote {DOCUMENT.relative_to(common.ROOT)}')
    return DOCUMENT


def _section(run: dict[str, Any]) -> list[str]:
    """Return the lines about one model on one device."""
    same = run['side_by_side']
    flops = same['flops']
    seconds = zip(same['reference_s'], same['ours_s'], strict=True)
    rows: list[tuple[object, ...]] = [
        *((f'question {n}', a, b, _times(a / b), '') for n, (a, b) in enumerate(seconds, 1)),
        ('all three', sum(same['reference_s']), sum(same['ours_s']), _times(same['ratio']),
         _target(same['ratio'], 'ratio')),
        ('all three, asked at once', '', same['ours_together_s'], _times(same['ratio_together']),
         ''),
        ('second question against first', '', '', _times(same['ratio_second_to_first']),
         _target(same['ratio_second_to_first'], 'ratio_second_to_first')),
        ('10¹² FLOPs', flops['reference']['total'] / 1e12, flops['ours']['total'] / 1e12,
         _times(flops['ratio']), _target(flops['ratio'], 'flops')),
    ]  # fmt: skip
    shown = [
        (stage.replace('_', ' '), *(one[stage] for one in same['reference_stages_s'][:2]),
         *(one[stage] for one in same['ours_stages_s'][:2]))
        for stage in STAGES
    ]  # fmt: skip
    shapes = [
        (one['regions'], one['frames'], first['total_s'], first['first_token_s'],
         second['total_s'], second['first_token_s'])
        for one in run['shapes']
        for first, second in [one['questions'][:2]]
    ]  # fmt: skip
    decoding = [
        (one['rows'], 1e3 * one['first_token_s'], one['step_ms'], one['tokens_per_s'],
         one['limit_tokens_per_s'], f'{one["share_of_limit"]:.0%}')
        for one in run['decoding']
    ]  # fmt: skip
    return [
        f'**{run["model"]} on {run["device"]}**, {run["dtype"]}, {run["threads"]} threads, '
        f'{run["parameters"] / 1e6:.0f} million parameters: {same["regions"]} regions in '
        f'{same["frames"]} frames, {same["questions"]} questions each; '
        f'{same["words_equal"]} of {same["words_compared"]} answers equal, '
        f'{same["tokens_out"]} tokens generated, tower calls by question '
        f'{same["ours_tower_calls"]}, pictures encoded by question '
        f'{same["ours_pictures_encoded"]} (there are {same["pictures_there_are"]}).'
        + peak(run),
        '',
        *_table(('seconds', 'reference', 'ours', 'ratio', 'target'), rows),
        '',
        *_table(
            ('seconds by stage', 'reference, 1st', 'reference, 2nd', 'ours, 1st', 'ours, 2nd'),
            shown,
        ),
        '',
        *_table(
            ('regions', 'frames', '1st question s', 'first token s', '2nd question s',
             'first token s'), shapes,
        ),
        '',
        *_table(
            ('rows', 'first token ms', 'ms per step', 'tokens/s', 'memory would allow', 'share'),
            decoding,
        ),
    ]  # fmt: skip


def _times(ratio: float) -> str:
    return f'{ratio:.1f} ×'


def _target(ratio: float, name: str) -> str:
    return f'≥ {TARGETS[name]:g} ×: {"met" if ratio >= TARGETS[name] else "missed"}'


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    return [
        f'| {" | ".join(cells)} |'
        for cells in (
            head,
            ['---'] * len(head),
            *([common.cell(value) for value in row] for row in rows),
        )
    ]
