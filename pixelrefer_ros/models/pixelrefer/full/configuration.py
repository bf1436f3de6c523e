# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold the configuration of the full PixelRefer, as published config.json files have it."""

from __future__ import annotations

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE, RegionModelConfig
from pixelrefer_ros.models.pixelrefer.prompts import IMAGE_TOKEN, REGION_TOKEN


@strict
class FullPixelReferConfig(RegionModelConfig):
    """Describe a full PixelRefer model, which sees whole pictures and regions.

    Attributes:
        compat_shared_budget: As the reference does, divide the pixel budget by the number of
            masks, and that of whole frames by the number that are shown. Otherwise a frame of a
            video may always have what it has among ``max_frames_per_region``, so that it looks
            the same in whatever company, and is encoded once; a picture has the whole budget.
        compat_thin_masks: As the reference does, give no token to a mask so thin that it
            vanishes on the patch grid; otherwise it keeps the cells it covers most.
    """

    model_type = 'pixelrefer_qwen2'
    kind: ClassVar[str] = 'PixelRefer'
    placeholders: ClassVar[dict[str, str]] = {
        REGION_TOKEN: 'region_token_index',
        IMAGE_TOKEN: 'image_token_index',
    }

    large_object_patches: int = 100
    kmeans_iterations: int = 5
    max_frames_per_region: int = 20
    compat_thin_masks: bool = False

    describe_prompt_image: str = 'Please describe the <region> in the image in detail.'

    def frame_size_factor(self, video: bool) -> int:
        """Return what the sides of a whole frame are multiples of, in pixels."""
        return PATCH_SIZE * self.merge_size(video)

    def merge_size(self, video: bool) -> int:
        """Return the side in patches of the square one token of a whole frame stands for."""
        return self.spatial_merge_size if video else 1

    def frame_budget(self, frames: int, video: bool) -> int:
        """Return how many pixels a whole frame may have.

        Args:
            frames: How many are shown together; matters with ``compat_shared_budget`` alone.
            video: Whether they are frames of a video.
        """
        side = self.frame_size_factor(video)
        if not self.compat_shared_budget:
            frames = self.max_frames_per_region if video else 1
        return max(self.mm_max_length * side * side // max(frames, 1), 1)
