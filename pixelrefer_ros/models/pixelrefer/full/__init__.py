# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The full PixelRefer on transformers: whole pictures and regions in, words out."""

from pixelrefer_ros.models.pixelrefer.full.configuration import FullPixelReferConfig
from pixelrefer_ros.models.pixelrefer.full.modeling import FullPixelReferForConditionalGeneration
from pixelrefer_ros.models.pixelrefer.full.processing import FullPixelReferProcessor

__all__ = [
    'FullPixelReferConfig',
    'FullPixelReferForConditionalGeneration',
    'FullPixelReferProcessor',
]
