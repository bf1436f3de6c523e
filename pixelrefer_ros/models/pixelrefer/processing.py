# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn frames, masks and a question into what the model reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import AutoTokenizer

from pixelrefer_ros.models.pixelrefer import crops, prompts
from pixelrefer_ros.models.pixelrefer.checkpoint import CheckpointError, read_config
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE, PixelReferConfig
from pixelrefer_ros.models.pixelrefer.inputs import Pictures, RegionInputs
from pixelrefer_ros.models.pixelrefer.object_tokenizer import cell_layout
from pixelrefer_ros.models.pixelrefer.pixels import to_patches
from pixelrefer_ros.models.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class PixelReferProcessor:
    """Make pictures of masks, and prompts.

    Attributes:
        config: The model's configuration.
        tokenizer: The model's tokenizer.
    """

    def __init__(self, config: PixelReferConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        """Join a configuration and a tokenizer.

        The tokenizer says which id the region token has, and ``config.region_token_index`` is
        set to it. A tokenizer stored before the region token was added gets it, where it then
        has the id the configuration says.

        Raises:
            ValueError: The tokenizer has no region token, or one the model has no row for.
        """
        region_id = _token_id(tokenizer, prompts.REGION_TOKEN)
        if region_id is None:
            missing = [t for t in prompts.ADDED_TOKENS if _token_id(tokenizer, t) is None]
            tokenizer.add_tokens(missing, special_tokens=True)
            region_id = _token_id(tokenizer, prompts.REGION_TOKEN)
            if region_id != config.region_token_index:
                raise ValueError(f'the tokenizer has no token {prompts.REGION_TOKEN}')
        if region_id is None or region_id >= config.vocab_size:
            raise ValueError(
                f'{prompts.REGION_TOKEN} is {region_id} in the tokenizer, the model has '
                f'{config.vocab_size} tokens'
            )
        config.region_token_index = region_id
        self.config = config
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(
        cls, name: str | Path, config: PixelReferConfig | None = None
    ) -> PixelReferProcessor:
        """Load the tokenizer and the configuration of a model directory.

        Args:
            name: A directory, or a name that ``models.registry`` knows.
            config: Used in place of the directory's config.json.

        Raises:
            CheckpointError: There is no config.json or no tokenizer, or they do not fit.
        """
        directory = resolve(str(name))
        try:
            config = config or PixelReferConfig.from_dict(read_config(directory))
            # the config is given so that no model type has to be looked up
            tokenizer = AutoTokenizer.from_pretrained(
                directory, config=config, local_files_only=True
            )
            return cls(config, tokenizer)
        except CheckpointError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f'{directory}: no usable tokenizer: {error}') from error

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the tokenizer, and config.json where the model has not written its own."""
        self.tokenizer.save_pretrained(directory)
        if not (Path(directory) / 'config.json').is_file():
            self.config.save_pretrained(directory)

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

    def encode(self, prompt: str) -> Tensor:
        """Return the token ids of a prompt, (1, L) int64."""
        ids = self.tokenizer(prompt, add_special_tokens=False)['input_ids']
        return torch.tensor([ids], dtype=torch.int64)

    def decode(self, ids: list[int] | Tensor) -> str:
        """Return the words of generated ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _pictures(self, pictures: Sequence[NDArray[np.uint8]], budget: int) -> Pictures:
        """Cut pictures into patches, one after another."""
        cut = [to_patches(picture, self.config.min_pixels, budget) for picture in pictures]
        none = np.zeros((0, 3 * PATCH_SIZE * PATCH_SIZE), np.uint8)
        patches = np.concatenate([none, *(patches for patches, _ in cut)])
        return Pictures(torch.from_numpy(patches), tuple(grid for _, grid in cut))


def _token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """Return the id of a token, None when the tokenizer does not know it."""
    known: int | None = tokenizer.get_vocab().get(token)
    return known
