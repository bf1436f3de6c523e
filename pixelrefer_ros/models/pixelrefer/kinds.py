# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say what each kind of PixelRefer is made of, and what their eyes have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

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
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from pixelrefer_ros.core.describer import Request, VisionStats
    from pixelrefer_ros.core.types import Frame
    from pixelrefer_ros.models.pixelrefer.voice import Prompt


class Prepared(Protocol):
    """Hold a request whose pictures are cut.

    Attributes:
        input_ids: (L,) int64 on the CPU, its prompt.
    """

    input_ids: Tensor


class Eyes(Protocol):
    """See what requests speak of; one kind for each kind of model.

    Attributes:
        needs_regions: Whether a question without any region is refused.
    """

    needs_regions: bool

    def prepare(self, request: Request) -> Any:
        """Do a request's work on the host; return something ``Prepared``.

        Raises:
            PixelReferError: BAD_REQUEST.
            ValueError: The same.
        """
        ...

    def see(self, prepared: Sequence[Any]) -> list[Prompt | None]:
        """Encode what is not yet known; None for a request that was stopped meanwhile."""
        ...

    def look_ahead(self, frame: Frame) -> bool:
        """Encode what every question about a frame needs; say whether there was anything."""
        ...

    def forget(self) -> None:
        """Drop what is kept of frames."""
        ...

    def stats(self) -> VisionStats:
        """Return the counts so far; may be called from any thread."""
        ...


@dataclass(frozen=True)
class Kind:
    """Hold what a kind of model is made of.

    Attributes:
        model: Class of the model.
        processor: Class of its processor.
        eyes: Class of its eyes; takes a model, a processor, ``cache_mib`` and ``resize``.
    """

    model: Any
    processor: Any
    eyes: Any


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
