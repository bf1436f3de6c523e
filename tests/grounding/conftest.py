# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Let property tests take their time: a busy machine is no fault."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile('no deadline', deadline=None)
settings.load_profile('no deadline')
