# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""See what requests speak of: every picture encoded once, and only where it has to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from pixelrefer_ros.models.pixelrefer import asking, crops
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.features import FeatureCache
from pixelrefer_ros.models.pixelrefer.object_tokenizer import cell_layout
from pixelrefer_ros.models.pixelrefer.pixels import to_patches
from pixelrefer_ros.models.pixelrefer.resampling import EXACT, pick_resizer
from pixelrefer_ros.models.pixelrefer.sights import (
    Parts,
    Picture,
    Sight,
    Whole,
    as_binary,
    first_pass,
    mask_digest,
    places,
    unseen,
)
from pixelrefer_ros.models.pixelrefer.tower import pass_size
from pixelrefer_ros.models.pixelrefer.voice import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.core.describer import Request, VisionStats
    from pixelrefer_ros.core.types import Frame
    from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
    from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor
    from pixelrefer_ros.models.pixelrefer.resampling import Pixels

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
class Prepared:
    """Hold a request whose pictures are cut.

    Attributes:
        input_ids: (L,) int64 on the CPU, its prompt.
        sights: Its masks, in the order of the prompt.
        should_stop: Asked between tower passes.
    """

    input_ids: Tensor
    sights: tuple[Sight, ...]
    should_stop: Callable[[], bool]


@dataclass(eq=False)
class _Look:
    """Hold what the masks of one frame of a request have in common.

    Attributes:
        image: The frame's array.
        budget: Pixels a picture may have.
        pixels: The frame as it is cut; None until something is.
        whole: The whole frame; None until it is needed.
        first: Digest and pixels of the mask that the context crop is cut around: the first of
            the frame where the reference is followed, else the one at hand.
        contexts: Mask digest → context crop.
    """

    image: NDArray[np.uint8]
    budget: int
    pixels: Pixels = None
    whole: Whole | None = None
    first: tuple[bytes, NDArray[np.uint8]] | None = None
    contexts: dict[bytes, Picture] = field(default_factory=dict)


class LiteEyes:
    """See for PixelRefer-Lite: tokens of each mask, and nothing else of the picture.

    Attributes:
        needs_regions: Whether a question without any region is refused.
        max_patches: Patches of one tower pass, unless a single mask takes more.
    """

    needs_regions = True

    def __init__(
        self,
        model: PixelReferForConditionalGeneration,
        processor: PixelReferProcessor,
        *,
        cache_mib: float = 256.0,
        resize: str = 'auto',
    ) -> None:
        """Look with a model.

        Args:
            model: On the device it shall run on.
            processor: Of the same directory.
            cache_mib: What features may take on the device; 0 keeps none.
            resize: 'exact' resizes on the host, bit by bit as published weights know it;
                'device' on the device, at most a grey level away; 'auto' on the device when it
                is no CPU.

        Raises:
            ValueError: ``resize`` is another word.
        """
        self.max_patches = pass_size(model.device)
        self._model = model
        self._processor = processor
        self._config = model.config
        self._cache = FeatureCache(int(cache_mib * 2**20))
        self._resizer = pick_resizer(resize, model.device)
        # what requests at hand wait for, so that others need not cut it again; gone with them
        self._waiting: WeakValueDictionary[tuple[int, Hashable], Any] = WeakValueDictionary()
        self._cut = 0

    def prepare(self, request: Request) -> Prepared:
        """Put a request into tokens, and cut the pictures the cache lacks.

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
        cut_before = self._cut
        sights = []
        for mask, place in zip(shown.masks, shown.frames, strict=True):
            look = looks.setdefault(place, _Look(request.frames[place].image, budget))
            sights.append(self._sight(look, mask))
        needed = len(looks) + 2 * len(sights)
        self._cache.count(hits=needed - (self._cut - cut_before))
        return Prepared(input_ids, tuple(sights), request.should_stop or (lambda: False))

    def see(self, prepared: Sequence[Prepared]) -> list[Prompt | None]:
        """Encode what is not yet known, all requests together.

        Args:
            prepared: Requests, as ``prepare`` returned them.

        Returns:
            What to ask the language model; None for a request that was stopped meanwhile.
        """
        going = list(prepared)
        left = unseen(sight for one in going for sight in one.sights)
        while left:
            self._encode(first_pass(left, self.max_patches))
            left = unseen(sight for one in going for sight in one.sights)
            if left:
                going = [one for one in going if not one.should_stop()]
                left = unseen(sight for one in going for sight in one.sights)
        return [self._prompt(one) if one in going else None for one in prepared]

    def look_ahead(self, frame: Frame) -> bool:
        """Encode a whole frame before anything is asked about it.

        Returns:
            Whether there was anything to do: it was not known, and there is room for it.
        """
        whole = self._whole(_Look(frame.image, self._budget(1)))
        needed = whole.count * self._config.mm_hidden_size * self._model.dtype.itemsize
        if whole.picture is None or needed > self._cache.max_bytes:
            return False
        picture = whole.picture
        (features,) = self._model.encode_images(picture.patches, [picture.grid])
        self._cache.put(frame.image, whole.name, features.clone())
        self._cache.count(ahead=1)
        return True

    def forget(self) -> None:
        """Drop what is kept of frames."""
        self._cache.forget()

    def stats(self) -> VisionStats:
        """Return the counts so far; may be called from any thread."""
        return self._cache.stats()

    def _budget(self, masks: int) -> int:
        """Return the pixels a picture may have when so many masks are asked about."""
        budget = self._config.mm_max_length * PATCH_SIZE * PATCH_SIZE
        return budget // max(masks, 1) if self._config.compat_shared_budget else budget

    def _sight(self, look: _Look, mask: NDArray[np.generic]) -> Sight:
        """Return a mask with its tokens, or with what they are to be made of."""
        binary = as_binary(mask)
        digest = mask_digest(binary)
        if look.first is None or not self._config.compat_reuse_context:
            look.first = digest, binary
        name = ('mask', digest, look.first[0], look.budget)
        tokens = self._cache.get(look.image, name)
        if tokens is not None:
            return Sight(look.image, name, tokens=tokens)
        waiting = self._waiting.get((id(look.image), name))
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
            crop,
        )
        sight = Sight(look.image, name, parts)
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

    def _pixels(self, look: _Look) -> Pixels:
        """Return a frame as it is cut: where it is resized, and of the working size."""
        if look.pixels is None:
            on_host = self._resizer is EXACT
            look.pixels = None if on_host else self._cache.get(look.image, 'pixels')
            if look.pixels is None:
                pixels = self._resizer.upload(look.image)
                side = self._config.working_long_side
                look.pixels = crops.working_frame(pixels, side, self._resizer)
                if not on_host:
                    self._cache.put(look.image, 'pixels', look.pixels, cheap=True)
        return look.pixels

    def _picture(self, picture: Pixels, budget: int) -> Picture:
        """Cut a picture into patches."""
        self._cut += 1
        least = self._config.min_pixels
        patches, grid = to_patches(picture, least, budget, resizer=self._resizer)
        return Picture(torch.as_tensor(patches), grid)

    def _encode(self, sights: Sequence[tuple[Sight, Parts]]) -> None:
        """Encode masks in one tower pass, and keep what came of it."""
        every = [parts for _, parts in sights]
        pictures = list(dict.fromkeys(one for parts in every for one in parts.unseen()))
        pictures.sort(key=lambda picture: len(picture.patches))  # equal sizes run as one batch
        found = self._model.encode_images(
            torch.cat([picture.patches for picture in pictures]),
            [picture.grid for picture in pictures],
        )
        self._cache.count(misses=len(pictures))
        features = dict(zip(pictures, found, strict=True))
        wholes: dict[Whole, Tensor] = {}
        for whole in (parts.whole for parts in every):
            if whole.features is None and whole.picture is not None:
                # its own memory: the rest of the pass shall not be held with it
                whole.features = features[whole.picture].clone()
                whole.picture = None
                self._cache.put(whole.image, whole.name, whole.features)
            assert whole.features is not None
            wholes[whole] = whole.features
        contexts = list(dict.fromkeys(parts.context for parts in every))
        tokens = self._model.encode_regions(
            cell_layout(
                [parts.crop.grid_mask for parts in every],
                [parts.object.grid for parts in every],
                [parts.crop.box for parts in every],
                [parts.crop.frame_size for parts in every],
            ),
            list(wholes.values()),
            [features[context] for context in contexts],
            [features[parts.object] for parts in every],
            places(list(wholes), [parts.whole for parts in every]),
            places(contexts, [parts.context for parts in every]),
        )
        for (sight, _), own in zip(sights, tokens, strict=True):
            sight.tokens, sight.parts = own.clone(), None
            self._cache.put(sight.image, sight.name, sight.tokens)

    def _prompt(self, prepared: Prepared) -> Prompt:
        """Return a prompt whose masks are all encoded."""
        none = self._model.model.embed_tokens.weight.new_zeros(0, self._config.hidden_size)
        tokens = [sight.tokens for sight in prepared.sights if sight.tokens is not None]
        return Prompt(prepared.input_ids, torch.cat([none, *tokens]))
