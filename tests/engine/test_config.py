# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that settings out of range are refused with the range."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from pixelrefer_ros.engine import EngineConfig


@pytest.mark.parametrize(
    ('setting', 'words'),
    [
        ({'cameras': ()}, 'give at least one'),
        ({'cameras': ('a', 'a')}, 'each name once'),
        ({'keep_rate_hz': -1.0}, 'keep_rate_hz is -1.0; it must be from 0 to 1000'),
        ({'buffer_max_mib': 0.5}, 'must be at least 1'),
        ({'window_s': float('nan')}, 'window_s is nan'),
        ({'deadline_s': 0.0}, 'at least 0.001'),
        ({'max_regions': 0}, 'from 1 to 10000'),
        ({'queue_size': 0}, 'from 1 to 100000'),
        ({'max_batch': 0}, 'from 1 to 1024'),
        ({'look_ahead': 'sometimes'}, 'one of never, regions, always'),
    ],
)
def test_settings_out_of_range(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EngineConfig(**setting)


@pytest.mark.parametrize(
    'name', [f.name for f in fields(EngineConfig) if f.type == 'float' or f.type == 'int']
)
def test_every_number_has_a_range(name: str) -> None:
    with pytest.raises(ValueError, match=f'{name} is -1'):
        EngineConfig(**{name: -1})


def test_the_engine_needs_neither_torch_nor_ros() -> None:
    code = (
        'import sys, pixelrefer_ros.engine; '
        "print([m for m in ('torch', 'rclpy', 'cv2', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == '[]'
