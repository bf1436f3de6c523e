# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""See what requests speak of: every picture encoded once, and only where it has to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from pixelrefer_ros.models.pixelrefer import asking, crops
from pixelrefer_ros.models.pixelrefer.base_eyes import BaseEyes, Look
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE, PixelReferConfig
from pixelrefer_ros.models.pixelrefer.pixels import fitted_size
from pixelrefer_ros.models.pixelrefer.sights import (
    Cut,
    Picture,
    Prepared,
    Sight,
    as_binary,
    layout,
    mask_digest,
)
from pixelrefer_ros.models.pixelrefer.voice import Prompt

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.core.describer import Request
    from pixelrefer_ros.core.types import Frame
    from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
    from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor

# What is kept, at the sizes of the 2B model, in half precision:
#   whole frame, features (576 x 1152)                 1.3 MB   0.5 TFLOP to make again
#   a mask, finished tokens (32 x 1536)                0.1 MB   0.3 TFLOP
#   where pictures are resized on the device, the frame itself (1280 x 720)    2.8 MB   an upload
# and what is not:
#   a mask, features of its two crops (~390 x 1152)    0.9 MB   0.3 TFLOP
#   whole frame, keys and values of the infusion       2.7 MB   0.003 TFLOP
# A mask is kept as finished tokens: nine times smaller than its features, and a second question
# skips the region encoder with the tower. A whole frame is kept as features: any new or
# corrected mask on it needs them, and to project them again costs less than 1 % of the tower.
# 256 MiB hold 30 frames with 32 masks on each.


@dataclass(eq=False)
class Whole:
    """Hold a whole frame.

    Attributes:
        image: The frame's array.
        name: Its name in the cache.
        count: Its patches.
        picture: What to encode; None when that is done.
        features: (count, V); None before.
    """

    image: NDArray[np.uint8]
    name: Hashable
    count: int
    picture: Picture | None = None
    features: Tensor | None = None


@dataclass(eq=False)
class Parts:
    """Hold what the tokens of a mask are made of.

    Attributes:
        whole: The whole frame.
        context: The context crop.
        object: The object crop.
        cut: Where that was cut, and which of its cells belong to the mask.
    """

    whole: Whole
    context: Picture
    object: Picture
    cut: Cut


@dataclass(eq=False)
class MaskSight(Sight):
    """Hold a mask of a frame.

    Attributes:
        parts: What to encode; None when that is done.
    """

    parts: Parts | None = None

    @property
    def shape(self) -> tuple[int, tuple[int, int]]:
        """Return the sizes of what is gathered in batches: whole frame and context."""
        assert self.parts is not None
        return self.parts.whole.count, self.parts.context.grid

    def unseen(self) -> list[Picture]:
        """Return the pictures that have to be encoded, its object crop last."""
        if self.parts is None:
            return []
        own = [self.parts.context, self.parts.object]
        whole = self.parts.whole.picture
        return own if whole is None else [whole, *own]


@dataclass(eq=False)
class _Look(Look):
    """Hold what the masks of one frame of a request have in common.

    Attributes:
        whole: The whole frame; None until it is needed.
        first: Digest and pixels of the mask that the context crop is cut around: the first of
            the frame where the reference is followed, else the one at hand.
        contexts: Mask digest → context crop.
    """

    whole: Whole | None = None
    first: tuple[bytes, NDArray[np.uint8]] | None = None
    contexts: dict[bytes, Picture] = field(default_factory=dict)


class LiteEyes(BaseEyes[MaskSight]):
    """See for PixelRefer-Lite: tokens of each mask, and nothing else of the picture."""

    needs_regions = True
    _model: PixelReferForConditionalGeneration
    _processor: PixelReferProcessor
    _config: PixelReferConfig

    def prepare(self, request: Request) -> Prepared[MaskSight]:
        """Put a request into tokens, and cut the pictures the cache lacks.

        Those are held, 588 bytes to the patch, until they are encoded: at published sizes
        0.2 MB for a mask and 0.3 MB for a frame. Nothing but the number of masks bounds it.

        Raises:
            PixelReferError: BAD_REQUEST.
            ValueError: A picture is too long and thin.
        """
        asking.check(request)
        text = asking.question(request, self._config, needs_regions=self.needs_regions)
        shown = asking.shown(request)
        prompt = self._processor.prompt(text, shown.counts, shown.times_s)
        input_ids = self._processor.encode(prompt)[0]
        budget = self._budget(len(shown.masks))
        looks: dict[int, _Look] = {}
        cut_before = self._pictures_cut
        sights = []
        for mask, place in zip(shown.masks, shown.frames, strict=True):
            look = looks.setdefault(place, _Look(request.frames[place].image, budget))
            sights.append(self._sight(look, mask))
        needed = len(looks) + 2 * len(sights)
        self._cache.count(hits=needed - (self._pictures_cut - cut_before))
        return Prepared(input_ids, tuple(sights), request.should_stop or (lambda: False))

    def look_ahead(self, frame: Frame) -> bool:
        """Encode a whole frame before anything is asked about it.

        Returns:
            Whether there was anything to do: it was not known, and there is room for it.
        """
        config, look = self._config, _Look(frame.image, self._budget(1))
        side = config.global_size
        height, width = fitted_size(side, side, config.min_pixels, look.budget)
        floats = height * width // PATCH_SIZE**2 * config.mm_hidden_size
        if floats * self._model.dtype.itemsize > self._cache.max_bytes:
            return False
        whole = self._whole(look)
        if whole.picture is None:
            return False
        self._keep_whole(whole, self._features([whole.picture]))
        self._cache.count(ahead=1)
        return True

    def _budget(self, masks: int) -> int:
        """Return the pixels a picture may have when so many masks are asked about."""
        budget = self._config.mm_max_length * PATCH_SIZE * PATCH_SIZE
        return budget // max(masks, 1) if self._config.compat_shared_budget else budget

    def _sight(self, look: _Look, mask: NDArray[np.generic]) -> MaskSight:
        """Return a mask with its tokens, or with what they are to be made of."""
        binary = as_binary(mask)
        digest = mask_digest(binary)
        if look.first is None or not self._config.compat_reuse_context:
            look.first = digest, binary
        name = ('mask', digest, look.first[0], look.budget)
        tokens = self._cache.get(look.image, name)
        if tokens is not None:
            return MaskSight(look.image, name, tokens=tokens)
        waiting: MaskSight | None = self._waiting.get((id(look.image), name))
        if waiting is not None:
            return waiting
        config = self._config
        pixels = self._pixels(look)
        inside = crops.working_mask(binary, config.working_long_side)
        crop = crops.object_crop(pixels, inside, config, self._resizer)
        around, shown = look.first
        if around not in look.contexts:
            if shown is not binary:  # another mask, whose own tokens are known
                inside = crops.working_mask(shown, config.working_long_side)
            cut = crops.context_crop(pixels, inside, config, self._resizer)
            look.contexts[around] = self._picture(cut, look.budget)
        parts = Parts(
            self._whole(look),
            look.contexts[around],
            self._picture(crop.picture, look.budget),
            Cut.of(crop),
        )
        sight = MaskSight(look.image, name, parts)
        self._waiting[id(look.image), name] = sight
        return sight

    def _whole(self, look: _Look) -> Whole:
        """Return a whole frame, with its features or with what is to be encoded."""
        if look.whole is None:
            name = ('whole', look.budget)
            features = self._cache.get(look.image, name)
            look.whole = self._waiting.get((id(look.image), name))
            if features is not None:
                look.whole = Whole(look.image, name, len(features), features=features)
            elif look.whole is None:
                config = self._config
                square = crops.square(self._pixels(look), config.global_size, self._resizer)
                picture = self._picture(square, look.budget)
                look.whole = Whole(look.image, name, len(picture.patches), picture)
                self._waiting[id(look.image), name] = look.whole
        return look.whole

    def _keep_whole(self, whole: Whole, features: dict[Picture, Tensor]) -> None:
        """Give a whole frame its features, and remember them."""
        assert whole.picture is not None
        # its own memory: the rest of the pass shall not be held with it
        whole.features, whole.picture = features[whole.picture].clone(), None
        self._cache.put(whole.image, whole.name, whole.features)

    def _finish(self, sights: Sequence[MaskSight], features: dict[Picture, Tensor]) -> None:
        """Make tokens of masks."""
        every = [sight.parts for sight in sights if sight.parts is not None]
        wholes: dict[Whole, Tensor] = {}
        for whole in (parts.whole for parts in every):
            if whole.features is None:
                self._keep_whole(whole, features)
            assert whole.features is not None
            wholes[whole] = whole.features
        contexts = list(dict.fromkeys(parts.context for parts in every))
        objects = [parts.object for parts in every]
        tokens = self._model.encode_regions(
            layout([parts.cut for parts in every], objects),
            list(wholes.values()),
            [features[context] for context in contexts],
            [features[picture] for picture in objects],
            _places(list(wholes), [parts.whole for parts in every]),
            _places(contexts, [parts.context for parts in every]),
        )
        for sight, own in zip(sights, tokens, strict=True):
            self._keep(sight, own)
            sight.parts = None

    def _prompt(self, prepared: Prepared[MaskSight]) -> Prompt:
        """Return a prompt whose masks are all encoded."""
        tokens = self._joined(prepared.sights)
        return Prompt(prepared.input_ids, tokens.values, tokens.names)


def _places(among: Sequence[object], of: Sequence[object]) -> Tensor:
    """Return where things are in a sequence, (len(of),) int64."""
    places = {one: place for place, one in enumerate(among)}
    return torch.tensor([places[one] for one in of], dtype=torch.int64)
