# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Do what the reference implementation does, in its order: the baseline of the speed benchmark.

One region at a time. Per mask three pictures (object crop, whole frame, context crop), each list
one packed call of the tower, whole frames again for every mask; everything again for every
question; batch 1; transformers' ``generate`` with its key-value cache. Weights, resizing,
clustering and attention are the package's own, so that only the schedule differs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from pixelrefer_ros.models.pixelrefer import asking, crops
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.object_tokenizer import CellLayout, cell_layout
from pixelrefer_ros.models.pixelrefer.pixels import to_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.core.describer import Request
    from pixelrefer_ros.models.pixelrefer import (
        PixelReferForConditionalGeneration,
        PixelReferProcessor,
    )


@dataclass(frozen=True)
class Said:
    """Hold one answer.

    Attributes:
        text: The words.
        tokens_in: Length of the prompt.
        tokens_out: Generated tokens.
        first_token_s: From the question to its first token.
        total_s: From the question to its last token.
    """

    text: str
    tokens_in: int
    tokens_out: int
    first_token_s: float
    total_s: float


@dataclass(frozen=True)
class Prepared:
    """Hold a question's prompt and its pictures.

    Attributes:
        input_ids: (1, L).
        objects: Per mask, its object crop: patches and grids, as ``encode_images`` takes them.
        frames: Per mask, the whole frame.
        contexts: Per mask, the context crop.
        layout: Cells of the masks in their crops.
    """

    input_ids: Tensor
    objects: tuple[Tensor, list[tuple[int, int]]]
    frames: tuple[Tensor, list[tuple[int, int]]]
    contexts: tuple[Tensor, list[tuple[int, int]]]
    layout: CellLayout


class ReferenceSchedule:
    """Answer questions about one region, one after another; nothing is kept between them."""

    def __init__(
        self,
        model: PixelReferForConditionalGeneration,
        processor: PixelReferProcessor,
        max_new_tokens: int,
    ) -> None:
        """Join a model and its processor."""
        self.model = model
        self.processor = processor
        self.max_new_tokens = max_new_tokens

    @torch.inference_mode()
    def say(self, request: Request) -> Said:
        """Answer a request about one region."""
        began_s = self._now()
        prepared = self.prepare(request)
        objects = self.model.encode_images(*prepared.objects)
        frames = self.model.encode_images(*prepared.frames)
        contexts = self.model.encode_images(*prepared.contexts)
        tokens = self.model.region_encoder(
            objects,
            prepared.layout.to(self.model.device),
            torch.stack(contexts),
            torch.stack(frames),
        )
        first = _FirstToken(self._now)
        (ids,) = self.model.generate(
            prepared.input_ids.to(self.model.device),
            region_tokens=tokens,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList([first]),
        )
        text = self.processor.decode(ids)
        return Said(
            text,
            prepared.input_ids.shape[1],
            len(ids),
            first.at_s - began_s,
            self._now() - began_s,
        )

    def prepare(self, request: Request) -> Prepared:
        """Cut the pictures of a request and put it into tokens, as the describer words it."""
        config = self.model.config
        shown = asking.shown(request)
        prompt = self.processor.prompt(
            asking.question(request, config), shown.counts, shown.times_s
        )
        images = [request.frames[frame].image for frame in shown.frames]
        masks = [(np.asarray(mask) != 0).astype(np.uint8) for mask in shown.masks]
        pairs = list(zip(images, masks, strict=True))
        found = [crops.object_crop(image, mask, config) for image, mask in pairs]
        objects = self._cut([crop.picture for crop in found])
        return Prepared(
            self.processor.encode(prompt),
            objects,
            self._cut([crops.square(image, config.global_size) for image in images]),
            self._cut([crops.context_crop(image, mask, config) for image, mask in pairs]),
            cell_layout(
                [crop.grid_mask for crop in found],
                objects[1],
                [crop.box for crop in found],
                [crop.frame_size for crop in found],
            ),
        )

    def _cut(self, pictures: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Cut pictures into patches, (N, 588) uint8, and return their grids."""
        config = self.model.config
        budget = config.mm_max_length * PATCH_SIZE * PATCH_SIZE
        cut = [to_patches(picture, config.min_pixels, budget) for picture in pictures]
        return torch.from_numpy(np.concatenate([one for one, _ in cut])), [grid for _, grid in cut]

    def _now(self) -> float:
        """Return the time [s] once the device has done what it was given."""
        if self.model.device.type == 'cuda':
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter()


class _FirstToken(StoppingCriteria):
    """Remember when the first token came."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.at_s = 0.0
        self._now = now

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        if not self.at_s:
            self.at_s = self._now()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
