# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""PixelRefer-Lite on transformers: regions of pictures and videos in, words out."""

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
