# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""PixelRefer on transformers: Lite here, the full model in ``full``; regions in, words out."""

from pixelrefer_ros.models.pixelrefer.checkpoint import CheckpointError
from pixelrefer_ros.models.pixelrefer.configuration import PixelReferConfig
from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber
from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor

__all__ = [
    'CheckpointError',
    'PixelReferConfig',
    'PixelReferDescriber',
    'PixelReferForConditionalGeneration',
    'PixelReferProcessor',
]
