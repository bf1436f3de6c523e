# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Share what every benchmark needs: the machine, numbers, tables, files, a drawn scene."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from pixelrefer_ros.core.types import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'bench' / 'results'
_COLOURS = (
    (200, 40, 40), (40, 160, 60), (50, 80, 210), (230, 200, 40),
    (150, 60, 170), (240, 130, 30), (40, 180, 190), (235, 235, 235),
)  # fmt: skip
_console = Console(width=None if sys.stdout.isatty() else 112)


def options(description: str) -> argparse.Namespace:
    """Read the command line: the only option is ``quick``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--quick',
        action='store_true',
        help='a smoke test of some seconds: its figures mean nothing and no file is written',
    )
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Describe the machine without naming it."""
    return {
        'cpu': _cpu_model(),
        'cores': len(os.sched_getaffinity(0)),
        'ram_gib': round(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30, 1),
        'os': platform.freedesktop_os_release().get('PRETTY_NAME', platform.system()),
        'kernel': platform.release(),
        'python': platform.python_version(),
        'torch': version('torch'),
        'numpy': version('numpy'),
        'opencv': cv2.__version__,
        'date': datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC'),
        'load_at_start': round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        key, _, value = line.partition(':')
        if key.strip() == 'model name':
            return value.strip()
    return platform.machine()


def summary(values: Iterable[float]) -> dict[str, float]:
    """Return n, median and p95 (the smallest value that 95 % do not exceed).

    Without values median and p95 are NaN.
    """
    ordered = sorted(values)
    if not ordered:
        return {'n': 0, 'median': math.nan, 'p95': math.nan}
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return {'n': len(ordered), 'median': statistics.median(ordered), 'p95': p95}


def scaled(seconds: Iterable[float], factor: float) -> dict[str, float]:
    """Summarize seconds in another unit: 1e3 for milliseconds, 1e6 for microseconds."""
    return summary(value * factor for value in seconds)


def repeat(work: Callable[[], object], count: int, warm_up: int = 2) -> list[float]:
    """Return the seconds of each of ``count`` calls, after some that are not counted."""
    taken = []
    for number in range(-warm_up, count):
        began = time.perf_counter()
        work()
        if number >= 0:
            taken.append(time.perf_counter() - began)
    return taken


def rss_mib() -> float:
    """Return the memory of this process that is resident, in MiB."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def introduce(title: str, about: dict[str, Any]) -> None:
    """Print what is measured and on what machine, with a warning when that is busy."""
    _console.rule(title)
    _console.print(', '.join(f'{key} {value}' for key, value in about.items()), highlight=False)
    if about['load_at_start'] > 0.5:
        _console.print(
            f'[yellow]load {about["load_at_start"]} at the start: something else is running, the '
            'figures are too high[/yellow]'
        )


def show(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = ''
) -> None:
    """Print a table; floats get three significant digits, a row of nothing draws a line."""
    table = Table(title=title, title_justify='left', caption=note, caption_justify='left')
    for number, column in enumerate(columns):
        table.add_column(column, justify='right' if number else 'left', no_wrap=not number)
    for row in rows:
        if row:
            table.add_row(*map(cell, row))
        else:
            table.add_section()
    _console.print(table)


def say(line: str) -> None:
    """Print a line of progress."""
    _console.print(line, style='dim', highlight=False)


def cell(value: object) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, float):
        if math.isnan(value):
            return '-'
        return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'
    return str(value)


def write(name: str, results: dict[str, Any]) -> Path:
    """Write results to bench/results/<name>.json, floats with four significant digits."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f'{name}.json'
    path.write_text(json.dumps(rounded(results), indent=2, allow_nan=False) + '\n')
    say(f'wrote {path.relative_to(ROOT)}')
    return path


def rounded(value: Any) -> Any:
    """Return the same with floats rounded; NaN, which JSON has not, becomes None."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f'{value:.4g}')
    return value


def scene(width: int, height: int, moment: float = 0.0) -> tuple[NDArray[np.uint8], list[Box]]:
    """Draw a table with eight discs of different colours that drift to the right.

    Args:
        width: Columns.
        height: Rows.
        moment: How far they have drifted, 0..1.

    Returns:
        (height, width, 3) uint8 RGB with some noise, and the discs' boxes.
    """
    noise = np.random.default_rng(0).integers(-6, 7, (height, width, 3))
    picture = np.clip(np.array((150, 120, 95)) + noise, 0, 255).astype(np.uint8)
    radius = height // 12
    boxes = []
    for number, colour in enumerate(_COLOURS):
        x = round(width * (0.12 + 0.22 * (number % 4) + 0.05 * moment))
        y = round(height * (0.35 + 0.35 * (number // 4)))
        cv2.circle(picture, (x, y), radius, colour, cv2.FILLED)
        boxes.append(Box(x - radius, y - radius, 2 * radius + 1, 2 * radius + 1))
    return picture, boxes
