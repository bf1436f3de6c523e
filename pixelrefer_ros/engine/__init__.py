# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Join cameras, regions, scheduler and describer: frames and questions in, words out."""

from pixelrefer_ros.engine.engine import Engine
from pixelrefer_ros.engine.types import CameraStats, EngineConfig, EngineStats, QueryHandle

__all__ = ['CameraStats', 'Engine', 'EngineConfig', 'EngineStats', 'QueryHandle']
