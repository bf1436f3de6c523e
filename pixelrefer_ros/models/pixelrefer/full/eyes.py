# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""See what requests speak of with the full PixelRefer: whole frames, and regions in them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import cv2
import torch

from pixelrefer_ros.core.types import NS_PER_S
from pixelrefer_ros.models.pixelrefer import asking, crops
from pixelrefer_ros.models.pixelrefer.base_eyes import BaseEyes, Look
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.full.configuration import FullPixelReferConfig
from pixelrefer_ros.models.pixelrefer.full.crops import object_crop
from pixelrefer_ros.models.pixelrefer.full.pruning import changed
from pixelrefer_ros.models.pixelrefer.full.views import View
from pixelrefer_ros.models.pixelrefer.pixels import fitted_size
from pixelrefer_ros.models.pixelrefer.sights import (
    Cut,
    Picture,
    Prepared,
    as_binary,
    layout,
    mask_digest,
)
from pixelrefer_ros.models.pixelrefer.voice import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.core.describer import Request
    from pixelrefer_ros.core.types import Frame, RegionClip
    from pixelrefer_ros.models.pixelrefer.full.modeling import (
        FullPixelReferForConditionalGeneration,
    )
    from pixelrefer_ros.models.pixelrefer.full.processing import FullPixelReferProcessor

# What is kept, at the sizes of the 2B model, in half precision, of frames of 640 x 360:
#   whole frame of a video, finished tokens (299 x 1536)    0.9 MB   1.1 TFLOP to make again
#   which of them are read, given the frame before          0.3 kB   two frames to cut again
#   a mask, finished tokens (32 x 1536)                     0.1 MB   0.1 to 8 TFLOP

_NUMBERS = count()
"""Tell frames apart; see ``FullEyes._number``."""


@dataclass(eq=False)
class _Look(Look):
    """Hold what is asked of one frame of a request.

    Attributes:
        size: (height, width) in pixels that the whole frame is encoded at.
        merge: As in ``View``.
        whole: The whole frame in patches; None until it is needed.
    """

    size: tuple[int, int]
    merge: int
    whole: Picture | None = None

    @property
    def length(self) -> int:
        """How many tokens the whole frame has, all of them read."""
        side = PATCH_SIZE * self.merge
        return self.size[0] // side * (self.size[1] // side)


class FullEyes(BaseEyes[View]):
    """See for the full PixelRefer: all frames of a request, and one mask of each region.

    The model takes a region by one mask on one frame: that of the region's largest mask in the
    request. An empty mask has no tokens. Of a video, tokens that do not change from one frame
    to the next are not read.
    """

    needs_regions = False
    _model: FullPixelReferForConditionalGeneration
    _processor: FullPixelReferProcessor
    _config: FullPixelReferConfig

    def prepare(self, request: Request) -> Prepared[View]:
        """Put a request into tokens, and cut the pictures the cache lacks.

        Those are held, 588 bytes to the patch, until they are encoded: 0.7 MB for a frame of
        640 x 360. Nothing but the number of frames and masks bounds it.

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
        return Prepared(input_ids, (*frames, *regions), stop, kept)

    def look_ahead(self, frame: Frame) -> bool:
        """Encode a whole frame before anything is asked about it, as a frame of a video.

        Questions about a video see it as it was looked at, however many frames they show. Where
        ``compat_shared_budget`` is set, that is so for ``max_frames_per_region`` frames, and for
        fewer when they are small enough to be within that budget as they are.

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
        self._finish([view], self._features([view.picture]))
        self._cache.count(ahead=1)
        return True

    def _look(self, image: NDArray[np.uint8], frames: int, video: bool) -> _Look:
        """Say how large a frame is seen when it is shown with others."""
        config = self._config
        height, width = image.shape[:2]
        working = crops.working_size((height, width), config.working_long_side)
        if working is not None:
            width, height = working
        budget, side = config.frame_budget(frames, video), config.frame_size_factor(video)
        size = fitted_size(height, width, config.min_pixels, budget, side)
        return _Look(image, budget, size, config.merge_size(video))

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
            number = torch.tensor(next(_NUMBERS))
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
        view.cut = Cut.of(crop)
        view.length = min(config.mask_num, int((crop.grid_mask > 0).sum()))
        if not view.length:
            view.tokens = self._none()
            return view
        view.picture = self._picture(crop.picture, budget)
        self._waiting[id(look.image), view.name] = view
        return view

    def _whole(self, look: _Look) -> Picture:
        """Return a whole frame in patches."""
        if look.whole is None:
            side = PATCH_SIZE * look.merge
            look.whole = self._picture(self._pixels(look), look.budget, side)
        return look.whole

    def _finish(self, sights: Sequence[View], features: dict[Picture, Tensor]) -> None:
        """Make tokens of whole frames and of masks."""
        found = [(view, view.picture) for view in sights if view.picture is not None]
        frames = [one for one in found if one[0].cut is None]
        masks = [one for one in found if one[0].cut is not None]
        tokens = self._model.project_frames(
            [features[picture] for _, picture in frames],
            [picture.grid for _, picture in frames],
            [view.merge for view, _ in frames],
        )
        of_masks = self._model.encode_regions(
            [features[picture] for _, picture in masks],
            layout(
                [view.cut for view, _ in masks if view.cut is not None],
                [picture for _, picture in masks],
            ),
        )
        tokens += of_masks.split([view.length for view, _ in masks])
        for (view, _), own in zip([*frames, *masks], tokens, strict=True):
            self._keep(view, own)
            view.picture = view.cut = None

    def _prompt(self, prepared: Prepared[View]) -> Prompt:
        """Return a prompt whose pictures are all encoded."""
        frames = [
            view.tokens.at(which)
            for view, which in zip(prepared.sights, prepared.kept, strict=False)
            if view.tokens is not None
        ]
        regions = self._joined(prepared.sights[len(prepared.kept) :])
        ids, arrange = prepared.input_ids, self._model.arrange
        return Prompt(
            ids,
            arrange(ids, [frame.values for frame in frames], regions.values),
            arrange(ids, [frame.names for frame in frames], regions.names),
        )
