# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""See what requests speak of with the full PixelRefer: whole frames, and regions in them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import cv2
import torch

from pixelrefer_ros.core.types import NS_PER_S
from pixelrefer_ros.models.pixelrefer import asking, crops
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.features import FeatureCache
from pixelrefer_ros.models.pixelrefer.full.crops import object_crop
from pixelrefer_ros.models.pixelrefer.full.pruning import changed
from pixelrefer_ros.models.pixelrefer.full.views import Prepared, View, first_pass, unseen
from pixelrefer_ros.models.pixelrefer.object_tokenizer import cell_layout
from pixelrefer_ros.models.pixelrefer.pixels import fitted_size, to_patches
from pixelrefer_ros.models.pixelrefer.resampling import EXACT, pick_resizer
from pixelrefer_ros.models.pixelrefer.sights import Picture, as_binary, mask_digest
from pixelrefer_ros.models.pixelrefer.tower import pass_size
from pixelrefer_ros.models.pixelrefer.voice import Prompt

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.core.describer import Request, VisionStats
    from pixelrefer_ros.core.types import Frame, RegionClip
    from pixelrefer_ros.models.pixelrefer.full.modeling import (
        FullPixelReferForConditionalGeneration,
    )
    from pixelrefer_ros.models.pixelrefer.full.processing import FullPixelReferProcessor
    from pixelrefer_ros.models.pixelrefer.resampling import Pixels

# What is kept, at the sizes of the 2B model, in half precision, of frames of 640 x 360:
#   whole frame of a video, finished tokens (299 x 1536)    0.9 MB   1.1 TFLOP to make again
#   which of them are read, given the frame before          0.3 kB   two frames to cut again
#   a mask, finished tokens (32 x 1536)                     0.1 MB   0.1 to 8 TFLOP


@dataclass(eq=False)
class _Look:
    """Hold what is asked of one frame of a request.

    Attributes:
        image: The frame's array.
        size: (height, width) in pixels that the whole frame is encoded at.
        budget: How many pixels it may have.
        merge: As in ``View``.
        pixels: The frame as it is cut; None until something is.
        whole: The whole frame in patches; None until it is needed.
    """

    image: NDArray[np.uint8]
    size: tuple[int, int]
    budget: int
    merge: int
    pixels: Pixels = None
    whole: Picture | None = None

    @property
    def length(self) -> int:
        """How many tokens the whole frame has, all of them read."""
        side = PATCH_SIZE * self.merge
        return self.size[0] // side * (self.size[1] // side)


class FullEyes:
    """See for the full PixelRefer: all frames of a request, and one mask of each region.

    The model takes a region by one mask on one frame: that of the region's largest mask in the
    request. An empty mask has no tokens. Of a video, tokens that do not change from one frame
    to the next are not read.

    Attributes:
        needs_regions: Whether a question without any region is refused.
        max_patches: Patches of one tower pass, unless a single picture takes more.
    """

    needs_regions = False

    def __init__(
        self,
        model: FullPixelReferForConditionalGeneration,
        processor: FullPixelReferProcessor,
        *,
        cache_mib: float = 256.0,
        resize: str = 'auto',
    ) -> None:
        """Look with a model; the arguments are those of ``LiteEyes``."""
        self.max_patches = pass_size(model.device)
        self._model = model
        self._processor = processor
        self._config = model.config
        self._cache = FeatureCache(int(cache_mib * 2**20))
        self._resizer = pick_resizer(resize, model.device)
        # what requests at hand wait for, so that others need not cut it again; gone with them
        self._waiting: WeakValueDictionary[tuple[int, Hashable], View] = WeakValueDictionary()
        self._numbers = count()

    def prepare(self, request: Request) -> Prepared:
        """Put a request into tokens, and cut the pictures the cache lacks.

        Raises:
            PixelReferError: BAD_REQUEST.
            ValueError: A picture is too long and thin.
        """
        asking.check(request)
        text = asking.question(request, self._config, needs_regions=self.needs_regions)
        video = len(request.frames) > 1
        looks = [self._look(frame.image, len(request.frames), video) for frame in request.frames]
        frames = [self._frame(look) for look in looks]
        kept = self._kept(looks, prune=video and self._config.use_token_compression)
        regions = [self._region(looks, region, request.regions) for region in request.regions]
        start_ns = request.frames[0].stamp_ns
        times_s = [(frame.stamp_ns - start_ns) / NS_PER_S for frame in request.frames]
        prompt = self._processor.prompt(
            text,
            [region.length for region in regions],
            len(frames),
            times_s if video else None,
        )
        input_ids = self._processor.encode(prompt, [int(which.sum()) for which in kept])[0]
        stop = request.should_stop or (lambda: False)
        return Prepared(input_ids, tuple(frames), kept, tuple(regions), stop)

    def see(self, prepared: Sequence[Prepared]) -> list[Prompt | None]:
        """Encode what is not yet known, all requests together.

        Args:
            prepared: Requests, as ``prepare`` returned them.

        Returns:
            What to ask the language model; None for a request that was stopped meanwhile.
        """
        going = list(prepared)
        while left := unseen(going):
            part = first_pass(left, self.max_patches)
            self._encode(part)
            self._cache.count(misses=len(part))
            if unseen(going):
                going = [one for one in going if not one.should_stop()]
        return [self._prompt(one) if one in going else None for one in prepared]

    def look_ahead(self, frame: Frame) -> bool:
        """Encode a whole frame before anything is asked about it, as a frame of a video.

        A question about many frames of more pixels than the model's budget sees them smaller
        and has to encode them again.

        Returns:
            Whether there was anything to do: it was not known, and there is room for it.
        """
        look = self._look(frame.image, self._config.max_frames_per_region, video=True)
        needed = look.length * self._config.hidden_size * self._model.dtype.itemsize
        if needed > self._cache.max_bytes:
            return False
        view = self._frame(look, ahead=True)
        if view.picture is None:
            return False
        self._encode([view])
        self._cache.count(ahead=1)
        return True

    def forget(self) -> None:
        """Drop what is kept of frames."""
        self._cache.forget()

    def stats(self) -> VisionStats:
        """Return the counts so far; may be called from any thread."""
        return self._cache.stats()

    def _look(self, image: NDArray[np.uint8], frames: int, video: bool) -> _Look:
        """Say how large a frame is seen when it is shown with others."""
        config = self._config
        height, width = image.shape[:2]
        working = crops.working_size((height, width), config.working_long_side)
        if working is not None:
            width, height = working
        budget, side = config.frame_budget(frames, video), config.frame_size_factor(video)
        size = fitted_size(height, width, config.min_pixels, budget, side)
        return _Look(image, size, budget, config.merge_size(video))

    def _frame(self, look: _Look, *, ahead: bool = False) -> View:
        """Return a whole frame with its tokens, or with what they are to be made of."""
        view = View(look.image, ('frame', look.size, look.merge), look.length, look.merge)
        known = self._known(view, ahead=ahead)
        if known is not None:
            return known
        view.picture = self._whole(look)
        self._waiting[id(look.image), view.name] = view
        return view

    def _known(self, view: View, *, ahead: bool = False) -> View | None:
        """Return a view whose tokens are there, or waited for by another request."""
        tokens = self._cache.get(view.image, view.name)
        found = self._waiting.get((id(view.image), view.name))
        if tokens is not None:
            view.tokens, view.length = tokens, len(tokens)
            found = view
        if found is not None and not ahead:
            self._cache.count(hits=1)
        return found

    def _kept(self, looks: Sequence[_Look], *, prune: bool) -> tuple[Tensor, ...]:
        """Say which tokens of each frame are read; see ``pruning``."""
        kept: list[Tensor] = []
        for place, look in enumerate(looks):
            before = looks[place - 1]
            if not prune or not place or before.size != look.size:
                kept.append(torch.ones(look.length, dtype=torch.bool))
                continue
            name = ('kept', look.size, look.merge, self._number(before.image))
            which = self._cache.get(look.image, name)
            if which is None:
                old, new = self._whole(before), self._whole(look)
                which = changed(old.patches, new.patches, new.grid, look.merge).cpu()
                self._cache.put(look.image, name, which)
            kept.append(which)
        return tuple(kept)

    def _number(self, image: NDArray[np.uint8]) -> int:
        """Return what tells a frame from all others, those that are gone among them."""
        number = self._cache.get(image, 'number')
        if number is None:
            number = torch.tensor(next(self._numbers))
            self._cache.put(image, 'number', number)
        return int(number)

    def _region(
        self, looks: Sequence[_Look], region: RegionClip, regions: Sequence[RegionClip]
    ) -> View:
        """Return a region's largest mask with its tokens, or with what they are made of."""
        config = self._config
        masks = [as_binary(mask) for mask in region.masks]
        areas = [cv2.countNonZero(mask) for mask in masks]
        place = areas.index(max(areas))
        mask, look = masks[place], looks[region.frame_indices[place]]
        budget = config.mm_max_length * PATCH_SIZE * PATCH_SIZE
        if config.compat_shared_budget:
            budget //= len(regions)
        view = View(look.image, ('mask', mask_digest(mask), budget), 0)
        known = self._known(view)
        if known is not None:
            return known
        inside = crops.working_mask(mask, config.working_long_side)
        crop = object_crop(self._pixels(look), inside, config, self._resizer)
        view.crop = crop
        view.length = min(config.mask_num, int((crop.grid_mask > 0).sum()))
        if not view.length:
            view.tokens = self._none()
            return view
        view.picture = self._picture(crop.picture, budget, PATCH_SIZE)
        self._waiting[id(look.image), view.name] = view
        return view

    def _whole(self, look: _Look) -> Picture:
        """Return a whole frame in patches."""
        if look.whole is None:
            side = PATCH_SIZE * look.merge
            look.whole = self._picture(self._pixels(look), look.budget, side)
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

    def _picture(self, pixels: Pixels, budget: int, factor: int) -> Picture:
        """Cut a picture into patches."""
        least = self._config.min_pixels
        patches, grid = to_patches(pixels, least, budget, factor, self._resizer)
        return Picture(torch.as_tensor(patches), grid)

    def _encode(self, views: Sequence[View]) -> None:
        """Encode pictures in one tower pass, and keep what came of it."""
        pictures = [view.picture for view in views if view.picture is not None]
        features = self._model.encode_images(
            torch.cat([picture.patches for picture in pictures]),
            [picture.grid for picture in pictures],
        )
        found = list(zip(views, pictures, features, strict=True))
        frames = [one for one in found if one[0].crop is None]
        masks = [one for one in found if one[0].crop is not None]
        tokens = self._model.project_frames(
            [own for _, _, own in frames],
            [picture.grid for _, picture, _ in frames],
            [view.merge for view, _, _ in frames],
        )
        cut = [view.crop for view in views if view.crop is not None]
        layout = cell_layout(
            [crop.grid_mask for crop in cut],
            [picture.grid for _, picture, _ in masks],
            [crop.box for crop in cut],
            [crop.frame_size for crop in cut],
        )
        of_masks = self._model.encode_regions([own for _, _, own in masks], layout)
        tokens += of_masks.split([view.length for view, _, _ in masks])
        for (view, _, _), own in zip([*frames, *masks], tokens, strict=True):
            # its own memory: the rest of the pass shall not be held with it
            view.tokens, view.picture, view.crop = own.clone(), None, None
            self._cache.put(view.image, view.name, view.tokens)

    def _prompt(self, prepared: Prepared) -> Prompt:
        """Return a prompt whose pictures are all encoded."""
        frames = [
            view.tokens[which.to(view.tokens.device)]
            for view, which in zip(prepared.frames, prepared.kept, strict=True)
            if view.tokens is not None
        ]
        regions = [view.tokens for view in prepared.regions if view.tokens is not None]
        of_regions = torch.cat([self._none(), *regions])
        ids = prepared.input_ids
        return Prompt(ids, self._model.arrange(ids, frames, of_regions))

    def _none(self) -> Tensor:
        """Return no tokens."""
        none: Tensor = self._model.model.embed_tokens.weight.new_zeros(0, self._config.hidden_size)
        return none
