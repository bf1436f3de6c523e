# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draw what the benchmarks found, for the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from bench import _common as common
from bench._stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

IMAGES = common.ROOT / 'docs' / 'images'
PARTS = {
    'tower': 'vision tower',
    'region_encoder': 'region encoder',
    'prefill': 'reading prompts',
    'decode': 'generating',
}
_COLOURS = ('#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#bbbbbb', '#222255')
_THEIRS, _OURS = '#bb5566', '#004488'
# the same file from the same numbers, text that can be searched
_STYLE = {'svg.hashsalt': 'pixelrefer_ros', 'svg.fonttype': 'none', 'font.size': 9}


def flops(results: dict[str, Any]) -> Path:
    """Draw operations by number of questions, and by part for the job of 8 x 8 x 3.

    Args:
        results: As ``bench.flops`` writes them.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.0, 3.0), layout='constrained')
        left, right = figure.subplots(1, 2)
        asked = [one for one in results['by_questions'] if one['model'] == '2B']
        numbers = [one['questions'] for one in asked]
        for key, colour in (('reference', _THEIRS), ('ours', _OURS)):
            tera = [one[key]['total'] / 1e12 for one in asked]
            left.plot(numbers, tera, marker='o', color=colour, label=key)
        left.set(
            title='Lite-2B, 8 regions, 8 frames', xlabel='questions about each region',
            ylabel='$10^{12}$ FLOPs', ylim=(0, None),
        )  # fmt: skip
        left.legend(frameon=False)

        bars = []
        for key, name in (('by_size', 'Lite'), ('full', 'Full')):
            for one in results[key]:
                if one['model'] == 'mid' or (one['regions'], one['frames']) != (8, 8):
                    continue
                if one.get('things', 'mix') == 'mix':
                    bars.append((f'{name}-{one["model"]}', one['reference'], one['ours']))
        rows = [
            (f'{name} {who}', [bill[part] / theirs['total'] for part in PARTS])
            for name, theirs, own in bars
            for who, bill in (('reference', theirs), ('ours', own))
        ]
        stack(right, rows, list(PARTS.values()))
        right.set(title='8 regions, 8 frames, 3 questions', xlabel='share of the reference')
        return _save(figure, 'flops')


def speed(run: dict[str, Any]) -> Path:
    """Draw seconds by stage, question by question.

    Args:
        run: One entry of ``runs``, as ``bench.speed`` writes them.
    """
    same = run['side_by_side']
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.0, 2.6), layout='constrained')
        axes = figure.subplots()
        rows = [
            (f'{who}, question {number}', [stages[stage] for stage in STAGES])
            for number in range(1, same['questions'] + 1)
            for who, stages in (
                ('reference', same['reference_stages_s'][number - 1]),
                ('ours', same['ours_stages_s'][number - 1]),
            )
        ]
        stack(axes, rows, [stage.replace('_', ' ') for stage in STAGES])
        axes.set(
            title=f'{same["regions"]} regions, {same["frames"]} frames, {run["model"]} model on '
            f'{run["device"]}, {run["threads"]} threads',
            xlabel='s',
        )
        return _save(figure, 'speed')


def stack(axes: Axes, rows: Sequence[tuple[str, Sequence[float]]], parts: Sequence[str]) -> None:
    """Draw rows as horizontal bars of parts, the first on top."""
    names = [name for name, _ in rows]
    left = [0.0] * len(rows)
    for number, part in enumerate(parts):
        widths = [values[number] for _, values in rows]
        axes.barh(names, widths, left=left, color=_COLOURS[number], label=part, height=0.7)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc='outside lower center', ncols=len(parts), frameon=False, fontsize=8,
    )  # fmt: skip


def _save(figure: Figure, name: str) -> Path:
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f'{name}.svg'
    figure.savefig(path, metadata={'Date': None})
    common.say(f'wrote {path.relative_to(common.ROOT)}')
    return path
