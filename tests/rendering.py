# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tell whether this machine can render the simulated tabletop."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest


@cache
def can_render() -> bool:
    """Try it in a process of its own: where it fails it may abort."""
    code = ('from pixelrefer_ros.simulation.render import TabletopRenderer;'
            'TabletopRenderer(64, 48).close()')
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, check=False,
                         env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
    return run.returncode == 0


needs_rendering = pytest.mark.skipif(
    not can_render(), reason='no offscreen rendering: install libosmesa6, or set MUJOCO_GL')
