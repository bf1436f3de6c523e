# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what the benchmarks conclude from what they measure; running them takes minutes."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench import _common as common
from bench.cameras import judge, wanted
from bench.cameras import table as camera_table
from pixelrefer_ros.core.types import NS_PER_S

AT_30_HZ = [NS_PER_S + number * NS_PER_S // 30 for number in range(30)]


def told(kept: list[int], received: int, delay_ns: int = 5_000_000) -> dict[str, object]:
    at = [stamp_ns + delay_ns for stamp_ns in kept]
    return {'received': received, 'lost': 0, 'bad': 0, 'stamps_ns': kept, 'kept_at_ns': at}


def test_summary_gives_median_and_95th_percentile() -> None:
    assert common.summary(range(1, 101)) == {'n': 100, 'median': 50.5, 'p95': 95}
    assert common.summary([3.0]) == {'n': 1, 'median': 3.0, 'p95': 3.0}
    assert common.scaled([0.002], 1e3)['median'] == 2.0


def test_summary_of_nothing_is_not_a_number_and_null_in_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = common.summary([])
    assert empty['n'] == 0
    assert math.isnan(empty['p95'])
    monkeypatch.setattr(common, 'RESULTS', tmp_path / 'results')
    monkeypatch.setattr(common, 'ROOT', tmp_path)
    path = common.write('some', {'empty': empty, 'rows': [(1.23456,)]})
    assert json.loads(path.read_text()) == {
        'empty': {'n': 0, 'median': None, 'p95': None},
        'rows': [[1.235]],
    }


def test_repeat_counts_only_what_comes_after_the_warm_up() -> None:
    calls: list[int] = []
    assert len(common.repeat(lambda: calls.append(1), 3, warm_up=2)) == 3
    assert len(calls) == 5


def test_the_machine_is_described_and_not_named() -> None:
    about = common.machine()
    assert about['cores'] >= 1
    assert about['ram_gib'] > 0
    assert socket.gethostname() not in json.dumps(about).split('"')


@pytest.mark.parametrize(
    ('value', 'shown'), [(0.012345, '0.0123'), (12345.6, '12346'), (math.nan, '-'), (7, '7')]
)
def test_numbers_in_tables_are_short(value: object, shown: str) -> None:
    assert common.cell(value) == shown


def test_the_boxes_of_the_scene_hold_its_discs() -> None:
    picture, boxes = common.scene(640, 480, 1.0)
    assert picture.shape == (480, 640, 3)
    assert picture.dtype == np.uint8
    assert len(boxes) == 8
    centres = {tuple(picture[b.y + b.height // 2, b.x + b.width // 2]) for b in boxes}
    assert len(centres) == 8
    assert all(b.x >= 0 and b.y >= 0 for b in boxes)
    assert all(b.x + b.width <= 640 and b.y + b.height <= 480 for b in boxes)


def test_a_third_of_30_hz_is_wanted_at_10_hz_and_all_at_0() -> None:
    assert wanted(AT_30_HZ, 10.0, AT_30_HZ[0]) == set(AT_30_HZ[::3])
    assert wanted(AT_30_HZ, 0.0, AT_30_HZ[0]) == set(AT_30_HZ)


def test_losing_what_is_not_wanted_loses_nothing() -> None:
    result = judge(AT_30_HZ, 10.0, told(AT_30_HZ[::3], received=20))
    assert (result['sent'], result['received'], result['lost']) == (30, 20, 10)
    assert result['sampler_would_keep'] == 10
    assert result['sampler_would_keep_and_lost'] == 0
    assert result['sent_hz'] == pytest.approx(30.0)
    assert result['stamp_to_buffer_ms']['median'] == pytest.approx(5.0)


def test_a_wanted_image_replaced_by_its_neighbour_is_lost() -> None:
    kept = sorted({*AT_30_HZ[::3]} - {AT_30_HZ[9]} | {AT_30_HZ[10]})
    assert judge(AT_30_HZ, 10.0, told(kept, 29))['sampler_would_keep_and_lost'] == 1


def test_an_image_lost_at_the_start_counts_once() -> None:
    result = judge(AT_30_HZ, 10.0, told(AT_30_HZ[1::3], 29))
    assert result['sampler_would_keep_and_lost'] == 1


def test_a_camera_of_which_nothing_arrives_loses_all() -> None:
    result = judge(AT_30_HZ, 10.0, told([], 0))
    assert result['sampler_would_keep_and_lost'] == 10
    run = {
        'transport': 'default', 'keep_rate_hz': 0.0, 'describing': True,
        'node_cpu_percent_of_a_core': 1.0, 'cameras': {'left': result},
    }  # fmt: skip
    line, row = camera_table([run])
    assert line == []
    assert row[0] == 'default, all, model busy'


def test_a_process_ends_with_the_script_that_started_it() -> None:
    pytest.importorskip('rclpy')
    script = (
        'import os\n'
        'from bench._processes import Child, set_environment\n'
        'set_environment(profile=True)\n'
        "child = Child('bench._camera', '--width', 64, '--height', 48)\n"
        'print(child._process.pid, flush=True)\n'
        'os._exit(0)\n'  # without any goodbye
    )
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=common.ROOT, capture_output=True, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    assert_ended(int(done.stdout))


def assert_ended(pid: int) -> None:
    until = time.monotonic() + 100.0
    while time.monotonic() < until:
        try:
            state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == 'Z':
            return
        time.sleep(0.1)
    raise AssertionError(f'process {pid} still runs')
