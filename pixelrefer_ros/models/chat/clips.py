# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cut clips into the patches the Qwen-VL models read, and load their processors.

The video processors of transformers need torchvision, which has no build beside a CPU build of
torch, and without it ``AutoProcessor`` refuses these models altogether. Clips come here with the
frames chosen and at the size the model is to see, so that only cutting is left to do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, BatchFeature
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.video_processing_utils import VideoProcessorMixin

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLIP_MODELS = frozenset(
    {'qwen2_vl', 'qwen2_5_vl', 'qwen3_vl', 'qwen3_vl_moe', 'qwen3_5', 'qwen3_5_moe'}
)
"""``model_type`` of the models that read a clip as patches through pairs of frames."""


class ClipPatches(VideoProcessorMixin):
    """Cut clips into patches; a video processor of transformers that leaves frames as they are.

    Attributes:
        patch_size: Side of a patch in pixels.
        merge_size: Patches to a side of what becomes one token.
        temporal_patch_size: Frames a patch goes through.
    """

    def __init__(
        self,
        patch_size: int,
        merge_size: int,
        temporal_patch_size: int,
        image_mean: list[float],
        image_std: list[float],
    ) -> None:
        """Take the sizes of the model's own processor.

        Args:
            patch_size: As in the attributes.
            merge_size: As in the attributes.
            temporal_patch_size: As in the attributes.
            image_mean: Per channel, of values from 0 to 1.
            image_std: Per channel.
        """
        super().__init__()
        self.patch_size = patch_size
        self.merge_size = merge_size
        self.temporal_patch_size = temporal_patch_size
        self.image_mean = image_mean
        self.image_std = image_std

    def __call__(self, videos: Any, **options: Any) -> BatchFeature:
        """Cut clips into patches.

        Args:
            videos: Per conversation a list of clips, each (T, H, W, 3) uint8 with sides that are
                multiples of a token's.
            **options: ``video_metadata``, one per clip; others change nothing.

        Returns:
            ``pixel_values_videos`` (patches, values of one) float32, ``video_grid_thw`` (clips, 3)
            int64 in patches, and the metadata.
        """
        clips = [clip for conversation in videos for clip in conversation]
        patches, grids = zip(*(self._cut(clip) for clip in clips), strict=True)
        metadata = [one for group in options['video_metadata'] for one in group]
        return BatchFeature(
            {
                'pixel_values_videos': torch.from_numpy(np.concatenate(patches)),
                'video_grid_thw': torch.tensor(grids),
                'video_metadata': metadata,
            }
        )

    def _cut(self, clip: NDArray[np.uint8]) -> tuple[NDArray[np.floating], tuple[int, int, int]]:
        """Return the patches of one clip, those of a token together, and how many there are."""
        side, merge, through = self.patch_size, self.merge_size, self.temporal_patch_size
        # the last frame stands still to the end of its patch
        clip = np.concatenate([clip, np.repeat(clip[-1:], -len(clip) % through, axis=0)])
        frames, height, width, channels = clip.shape
        grid = frames // through, height // side, width // side
        mean, std = (np.array(one, np.float32) for one in (self.image_mean, self.image_std))
        values: NDArray[np.floating] = (clip.astype(np.float32) / 255 - mean) / std
        values = values.reshape(
            grid[0],
            through,
            grid[1] // merge,
            merge,
            side,
            grid[2] // merge,
            merge,
            side,
            channels,
        ).transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
        return values.reshape(grid[0] * grid[1] * grid[2], -1), grid


class _TakesClipPatches:
    """Let a processor of transformers have ``ClipPatches`` where it wants a class of its own."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Return the class of a part the processor is made of; TypeError when it is wrong."""
        if argument_name == 'video_processor':
            return type(argument)
        return super().check_argument_for_proper_class(argument_name, argument)  # type: ignore[misc]


def load_processor(directory: Path, config: Any) -> Any:
    """Load the processor of a model directory.

    Args:
        directory: The model directory.
        config: Of the model.

    Returns:
        A ``ProcessorMixin`` with a chat template; its ``video_processor`` is a ``ClipPatches``
        for the models in ``CLIP_MODELS``.

    Raises:
        OSError, ValueError, ImportError: The directory holds no such processor.
    """
    if config.model_type in CLIP_MODELS:
        processor = _load_with_clips(directory, config)
    else:
        processor = AutoProcessor.from_pretrained(directory)
    tokenizer = getattr(processor, 'tokenizer', None)
    if tokenizer is None or not hasattr(processor, 'apply_chat_template'):
        raise ValueError(f'{directory} holds no processor of pictures and text')
    processor.chat_template = processor.chat_template or tokenizer.chat_template
    if not processor.chat_template:
        raise ValueError(
            f'{directory} holds no chat template: take the model that was tuned to instructions'
        )
    return processor


def _load_with_clips(directory: Path, config: Any) -> Any:
    base = PROCESSOR_MAPPING[type(config)]
    kind: Any = type(base.__name__, (_TakesClipPatches, base), {})
    images = AutoImageProcessor.from_pretrained(directory)
    own = _video_fields(directory)
    clips = ClipPatches(
        images.patch_size,
        images.merge_size,
        images.temporal_patch_size,
        list(own.get('image_mean') or images.image_mean),
        list(own.get('image_std') or images.image_std),
    )
    fields, _ = base.get_processor_dict(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return kind.from_args_and_dict([images, tokenizer, clips], fields)


def _video_fields(directory: Path) -> dict[str, Any]:
    """Read what a model directory says of its clips; nothing where it says nothing."""
    path = directory / 'video_preprocessor_config.json'
    if path.is_file():
        return dict(json.loads(path.read_text(encoding='utf-8')))
    path = directory / 'processor_config.json'
    if path.is_file():
        whole = json.loads(path.read_text(encoding='utf-8'))
        return dict(whole.get('video_processor') or {})
    return {}
