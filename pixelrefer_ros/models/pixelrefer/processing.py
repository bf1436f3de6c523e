# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn frames, masks and a question into what the model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pixelrefer_ros.models.pixelrefer import crops, prompts
from pixelrefer_ros.models.pixelrefer.base_processing import RegionProcessor
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE, PixelReferConfig
from pixelrefer_ros.models.pixelrefer.inputs import RegionInputs
from pixelrefer_ros.models.pixelrefer.object_tokenizer import cell_layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class PixelReferProcessor(RegionProcessor[PixelReferConfig]):
    """Make pictures of masks, and prompts."""

    config_class = PixelReferConfig

    def regions(
        self,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.generic]],
        mask_frames: Sequence[int],
    ) -> RegionInputs:
        """Cut the pictures of some masks; every distinct picture once.

        Args:
            frames: (H, W, 3) uint8 RGB each; those no mask refers to are not looked at.
            masks: (H, W) of their frame's size each, 0 off the object.
            mask_frames: Per mask, index of its frame.

        Raises:
            ValueError: A mask has not its frame's size, or a frame is too long and thin.
        """
        config = self.config
        used = sorted(set(mask_frames))
        place = {frame: row for row, frame in enumerate(used)}
        small = {
            frame: crops.working_frame(frames[frame], config.working_long_side) for frame in used
        }
        budget = config.mm_max_length * PATCH_SIZE * PATCH_SIZE
        if config.compat_shared_budget:
            budget //= max(len(masks), 1)

        objects: list[crops.ObjectCrop] = []
        contexts: list[NDArray[np.uint8]] = []
        context_index: list[int] = []
        context_of_frame: dict[int, int] = {}
        for mask, frame in zip(masks, mask_frames, strict=True):
            if mask.shape != frames[frame].shape[:2]:
                raise ValueError(
                    f'a mask is {mask.shape[1]}x{mask.shape[0]} pixels and its frame '
                    f'{frames[frame].shape[1]}x{frames[frame].shape[0]}'
                )
            inside = crops.working_mask(mask, config.working_long_side)
            objects.append(crops.object_crop(small[frame], inside, config))
            if config.compat_reuse_context and frame in context_of_frame:
                context_index.append(context_of_frame[frame])
                continue
            context_of_frame[frame] = len(contexts)
            context_index.append(len(contexts))
            contexts.append(crops.context_crop(small[frame], inside, config))

        object_pictures = self._pictures([crop.picture for crop in objects], budget)
        return RegionInputs(
            frames=self._pictures(
                [crops.square(small[frame], config.global_size) for frame in used], budget
            ),
            contexts=self._pictures(contexts, budget),
            crops=object_pictures,
            frame_index=torch.tensor([place[frame] for frame in mask_frames], dtype=torch.int64),
            context_index=torch.tensor(context_index, dtype=torch.int64),
            layout=cell_layout(
                [crop.grid_mask for crop in objects],
                object_pictures.grids,
                [crop.box for crop in objects],
                [crop.frame_size for crop in objects],
            ),
        )

    def prompt(
        self, text: str, masks_per_object: Sequence[int], times_s: Sequence[float] | None = None
    ) -> str:
        """Build the prompt of one question.

        Args:
            text: The question, one ``<region>`` per object.
            masks_per_object: How many masks each object has, in the order of the marks.
            times_s: Per mask, seconds since the start of the video, objects one after another;
                None for a picture.

        Raises:
            ValueError: The number of marks or of times does not fit.
        """
        if times_s is not None and len(times_s) != sum(masks_per_object):
            raise ValueError(f'{len(times_s)} times for {sum(masks_per_object)} masks')
        regions = []
        start = 0
        for masks in masks_per_object:
            times = None if times_s is None else times_s[start : start + masks]
            regions.append(prompts.region_text(masks, self.config.mask_num, times))
            start += masks
        return prompts.user_turn(prompts.fill_regions(text, regions))
