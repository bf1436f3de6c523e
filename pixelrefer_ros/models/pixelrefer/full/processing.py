# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn frames, masks and a question into what the full PixelRefer reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from pixelrefer_ros.models.pixelrefer import crops as shared_crops
from pixelrefer_ros.models.pixelrefer import prompts
from pixelrefer_ros.models.pixelrefer.base_processing import RegionProcessor
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE
from pixelrefer_ros.models.pixelrefer.full.configuration import FullPixelReferConfig
from pixelrefer_ros.models.pixelrefer.full.crops import object_crop
from pixelrefer_ros.models.pixelrefer.full.inputs import FrameInputs, ObjectInputs
from pixelrefer_ros.models.pixelrefer.full.pruning import kept_tokens
from pixelrefer_ros.models.pixelrefer.object_tokenizer import cell_layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

VIDEO_MARK = '<video>'
"""Plain text in a question that marks the place of the frames of a video."""

_TAGS = re.compile(r'(<image>|<video>)')


class FullPixelReferProcessor(RegionProcessor[FullPixelReferConfig]):
    """Make pictures of frames and masks, and prompts."""

    config_class = FullPixelReferConfig

    def frames(self, frames: Sequence[NDArray[np.uint8]], *, video: bool) -> FrameInputs:
        """Cut whole frames into patches: the plain way, which tests compare ``FullEyes`` with.

        Of a video, patches that do not change from one frame to the next are left out.

        Args:
            frames: (H, W, 3) uint8 RGB each.
            video: Whether they are frames of one video, or pictures of their own.

        Raises:
            ValueError: A frame is too long and thin.
        """
        config = self.config
        merge = config.merge_size(video)
        pictures = self._pictures(
            [shared_crops.working_frame(frame, config.working_long_side) for frame in frames],
            config.frame_budget(len(frames), video),
            config.frame_size_factor(video),
        )
        patches = pictures.patches.split([rows * columns for rows, columns in pictures.grids])
        prune = video and config.use_token_compression
        return FrameInputs(
            pictures, merge, kept_tokens(patches, pictures.grids, merge, prune=prune)
        )

    def regions(
        self,
        frames: Sequence[NDArray[np.uint8]],
        masks: Sequence[NDArray[np.generic]],
        mask_frames: Sequence[int],
    ) -> ObjectInputs:
        """Cut the object crops of some masks; as ``frames``, the plain way.

        Args:
            frames: (H, W, 3) uint8 RGB each; those no mask refers to are not looked at.
            masks: (H, W) of their frame's size each, 0 off the object; one per region.
            mask_frames: Per mask, index of its frame.

        Raises:
            ValueError: A mask has not its frame's size, or a crop is too long and thin.
        """
        config = self.config
        side = config.working_long_side
        small = {f: shared_crops.working_frame(frames[f], side) for f in sorted(set(mask_frames))}
        found = []
        for mask, frame in zip(masks, mask_frames, strict=True):
            if mask.shape != frames[frame].shape[:2]:
                raise ValueError(
                    f'a mask is {mask.shape[1]}x{mask.shape[0]} pixels and its frame '
                    f'{frames[frame].shape[1]}x{frames[frame].shape[0]}'
                )
            found.append(object_crop(small[frame], shared_crops.working_mask(mask, side), config))
        budget = config.mm_max_length * PATCH_SIZE * PATCH_SIZE
        if config.compat_shared_budget:
            budget //= max(len(masks), 1)
        pictures = self._pictures([crop.picture for crop in found], budget)
        layout = cell_layout(
            [crop.grid_mask for crop in found],
            pictures.grids,
            [crop.box for crop in found],
            [crop.frame_size for crop in found],
        )
        counts = tuple(min(config.mask_num, length) for length in layout.lengths)
        return ObjectInputs(pictures, layout, counts)

    def prompt(
        self,
        text: str,
        tokens_per_region: Sequence[int],
        frames: int,
        times_s: Sequence[float] | None = None,
    ) -> str:
        """Build the prompt of one question, with one ``<image>`` per frame.

        Args:
            text: The question, one ``<region>`` per region. ``<image>``, or ``<video>`` for the
                frames of a video, may say where the pictures go; they go first otherwise.
            tokens_per_region: How many tokens each region has, in the order of the marks.
            frames: How many frames are shown.
            times_s: Per frame, seconds since the start of the video; None for pictures.

        Raises:
            ValueError: The number of marks or of times does not fit.
        """
        if times_s is not None and len(times_s) != frames:
            raise ValueError(f'{len(times_s)} times for {frames} frames')
        mark, marks = prompts.IMAGE_TOKEN, frames
        if times_s is not None:
            mark, marks = VIDEO_MARK, 1
        if not _TAGS.search(text):
            text = mark * marks + text
        tags = _TAGS.findall(text)
        if tags != [mark] * marks:
            raise ValueError(
                f'the text marks the place of {len(tags)} pictures, it needs {marks} {mark}'
            )
        regions = [prompts.region_text(1, count, None) for count in tokens_per_region]
        text = prompts.fill_regions(text, regions)
        shown = f'{prompts.IMAGE_TOKEN}\n' if times_s is None else _timed(times_s)
        pieces = _TAGS.split(text)
        content = ''.join(shown if piece == mark else piece.strip() for piece in pieces)
        return prompts.user_turn(content, strip=False)

    def encode(self, prompt: str, tokens_per_frame: Sequence[int] | None = None) -> Tensor:
        """Return the token ids of a prompt, (1, L) int64.

        Args:
            prompt: As ``prompt`` makes it.
            tokens_per_frame: How many tokens each frame has; None leaves one for each.

        Raises:
            ValueError: The prompt shows another number of frames.
        """
        ids = super().encode(prompt)
        if tokens_per_frame is None:
            return ids
        places = ids[0].eq(self.config.placeholder_ids[1])
        if int(places.sum()) != len(tokens_per_frame):
            raise ValueError(
                f'the prompt shows {int(places.sum())} frames, {len(tokens_per_frame)} are given'
            )
        repeats = torch.ones(ids.shape[1], dtype=torch.int64)
        repeats[places] = torch.tensor(tokens_per_frame, dtype=torch.int64)
        return ids.repeat_interleave(repeats, dim=1)


def _timed(times_s: Sequence[float]) -> str:
    """Return what stands for the frames of a video."""
    shown = (f'Time {round(float(time), 1)}s:{prompts.IMAGE_TOKEN}' for time in times_s)
    return ','.join(shown) + '\n'
