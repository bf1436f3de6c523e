# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Do what the eyes of both kinds of PixelRefer have in common: cut, encode and remember."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic
from weakref import WeakValueDictionary

import torch

from pixelrefer_ros.models.pixelrefer import crops
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.features import FeatureCache
from pixelrefer_ros.models.pixelrefer.pixels import to_patches
from pixelrefer_ros.models.pixelrefer.resampling import EXACT, pick_resizer
from pixelrefer_ros.models.pixelrefer.sights import (
    AnySight,
    Picture,
    Prepared,
    Tokens,
    first_pass,
    unseen,
)
from pixelrefer_ros.models.pixelrefer.tower import pass_size

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.core.describer import Request, VisionStats
    from pixelrefer_ros.core.types import Frame
    from pixelrefer_ros.models.pixelrefer.resampling import Pixels
    from pixelrefer_ros.models.pixelrefer.voice import Prompt


@dataclass(eq=False)
class Look:
    """Hold what is asked of one frame of a request.

    Attributes:
        image: The frame's array.
        budget: Pixels a picture may have.
        pixels: The frame as it is cut; None until something is.
    """

    image: NDArray[np.uint8]
    budget: int
    pixels: Pixels = field(default=None, init=False)


class BaseEyes(ABC, Generic[AnySight]):
    """See with the tower of a model: each picture once, as many together as a pass takes.

    Attributes:
        needs_regions: Whether a question without any region is refused.
        max_patches: Patches of one tower pass, unless a single sight takes more.
    """

    needs_regions: bool

    def __init__(
        self, model: Any, processor: Any, *, cache_mib: float = 256.0, resize: str = 'auto'
    ) -> None:
        """Look with a model.

        Args:
            model: On the device it shall run on.
            processor: Of the same directory.
            cache_mib: What features may take on the device; 0 keeps none.
            resize: 'exact' resizes on the host, bit by bit as published weights know it;
                'device' on the device, a grey level away here and there (see ``resampling``);
                'auto' on the device when it is no CPU.

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
        self._pictures_cut = 0

    @abstractmethod
    def prepare(self, request: Request) -> Prepared[AnySight]:
        """Put a request into tokens, and cut the pictures the cache lacks.

        Raises:
            PixelReferError: BAD_REQUEST.
            ValueError: A picture is too long and thin.
        """

    @abstractmethod
    def look_ahead(self, frame: Frame) -> bool:
        """Encode a whole frame before anything is asked about it.

        Returns:
            Whether there was anything to do: it was not known, and there is room for it.
        """

    def see(self, prepared: Sequence[Prepared[AnySight]]) -> list[Prompt | None]:
        """Encode what is not yet known, all requests together.

        Args:
            prepared: Requests, as ``prepare`` returned them.

        Returns:
            What to ask the language model; None for a request that was stopped meanwhile.
        """
        going = list(prepared)
        while left := unseen(going):
            part = first_pass(left, self.max_patches)
            features = self._features(picture for sight in part for picture in sight.unseen())
            self._cache.count(misses=len(features))
            self._finish(part, features)
            if unseen(going):
                going = [one for one in going if not one.should_stop()]
        return [self._prompt(one) if one in going else None for one in prepared]

    def forget(self) -> None:
        """Drop what is kept of frames."""
        self._cache.forget()

    def stats(self) -> VisionStats:
        """Return the counts so far; may be called from any thread."""
        return self._cache.stats()

    def _pixels(self, look: Look) -> Pixels:
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

    def _picture(self, pixels: Pixels, budget: int, factor: int = PATCH_SIZE) -> Picture:
        """Cut a picture into patches."""
        self._pictures_cut += 1
        least = self._config.min_pixels
        patches, grid = to_patches(pixels, least, budget, factor, self._resizer)
        return Picture(torch.as_tensor(patches), grid)

    def _features(self, pictures: Iterable[Picture]) -> dict[Picture, Tensor]:
        """Encode pictures in one tower pass, each once; equal sizes run as one batch there."""
        ordered = sorted(dict.fromkeys(pictures), key=lambda picture: len(picture.patches))
        features = self._model.encode_images(
            torch.cat([picture.patches for picture in ordered]),
            [picture.grid for picture in ordered],
        )
        return dict(zip(ordered, features, strict=True))

    @abstractmethod
    def _finish(self, sights: Sequence[AnySight], features: dict[Picture, Tensor]) -> None:
        """Make tokens of what a tower pass found."""

    @abstractmethod
    def _prompt(self, prepared: Prepared[AnySight]) -> Prompt:
        """Return a prompt whose sights all have tokens."""

    def _keep(self, sight: AnySight, values: Tensor) -> None:
        """Give a sight its tokens, and remember them."""
        # its own memory: the rest of the pass shall not be held with it
        sight.tokens = Tokens.named(values.clone())
        self._cache.put(sight.image, sight.name, sight.tokens)

    def _joined(self, sights: Sequence[AnySight]) -> Tokens:
        """Return the tokens of some sights, one after another."""
        tokens = [sight.tokens for sight in sights if sight.tokens is not None]
        none = self._none()
        return Tokens(
            torch.cat([none.values, *(one.values for one in tokens)]),
            torch.cat([none.names, *(one.names for one in tokens)]),
        )

    def _none(self) -> Tokens:
        """Return no tokens."""
        weight = self._model.model.embed_tokens.weight
        return Tokens.named(weight.new_zeros(0, self._config.hidden_size))
