# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say what each kind of PixelRefer is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pixelrefer_ros.models.pixelrefer.checkpoint import read_config
from pixelrefer_ros.models.pixelrefer.configuration import PixelReferConfig
from pixelrefer_ros.models.pixelrefer.eyes import LiteEyes
from pixelrefer_ros.models.pixelrefer.full import (
    FullPixelReferConfig,
    FullPixelReferForConditionalGeneration,
    FullPixelReferProcessor,
)
from pixelrefer_ros.models.pixelrefer.full.eyes import FullEyes
from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor

if TYPE_CHECKING:
    from pathlib import Path

    from pixelrefer_ros.models.pixelrefer.base_eyes import BaseEyes


@dataclass(frozen=True)
class Kind:
    """Hold what a kind of model is made of.

    Attributes:
        model: Class of the model.
        processor: Class of its processor.
        eyes: Class of its eyes.
    """

    model: Any
    processor: Any
    eyes: type[BaseEyes[Any]]


LITE = Kind(PixelReferForConditionalGeneration, PixelReferProcessor, LiteEyes)
FULL = Kind(FullPixelReferForConditionalGeneration, FullPixelReferProcessor, FullEyes)

KINDS = {PixelReferConfig.model_type: LITE, FullPixelReferConfig.model_type: FULL}
"""``model_type`` of config.json → what it is made of."""


def kind_of(directory: Path) -> Kind:
    """Return the kind of the model in a directory; Lite, which then refuses it, when unknown.

    Raises:
        CheckpointError: It has no config.json.
    """
    return KINDS.get(str(read_config(directory).get('model_type')), LITE)
