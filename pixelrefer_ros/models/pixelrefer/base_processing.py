# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define what the processors of both kinds of PixelRefer have in common: tokens and patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from transformers import AutoTokenizer

from pixelrefer_ros.models.pixelrefer import prompts
from pixelrefer_ros.models.pixelrefer.checkpoint import CheckpointError, read_config
from pixelrefer_ros.models.pixelrefer.configuration import PATCH_SIZE, RegionModelConfig
from pixelrefer_ros.models.pixelrefer.inputs import Pictures
from pixelrefer_ros.models.pixelrefer.pixels import to_patches
from pixelrefer_ros.models.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Config = TypeVar('Config', bound=RegionModelConfig)


class RegionProcessor(Generic[Config]):
    """Turn text into tokens and back, and pictures into patches.

    Attributes:
        config_class: Class of the configuration.
        config: The model's configuration.
        tokenizer: The model's tokenizer.
    """

    config_class: ClassVar[type[RegionModelConfig]]

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
        """Join a configuration and a tokenizer.

        The tokenizer says which ids the placeholders have, and the fields of the configuration
        are set to them. A tokenizer stored before they were added gets them, where they then
        have the ids the configuration says.

        Raises:
            ValueError: The tokenizer lacks a token, or has one the model has no row for.
        """
        known = tokenizer.get_vocab()
        missing: list[str] = []
        if any(token not in known for token in config.placeholders):
            missing = [token for token in prompts.ADDED_TOKENS if token not in known]
            tokenizer.add_tokens(missing, special_tokens=True)
        for token, field in config.placeholders.items():
            token_id = tokenizer.get_vocab()[token]
            if token in missing and token_id != getattr(config, field):
                raise ValueError(f'the tokenizer has no token {token}')
            if token_id >= config.vocab_size:
                raise ValueError(
                    f'{token} is {token_id} in the tokenizer, the model has '
                    f'{config.vocab_size} tokens'
                )
            setattr(config, field, token_id)
        self.config = config
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, name: str | Path, config: Config | None = None) -> Self:
        """Load the tokenizer and the configuration of a model directory.

        Args:
            name: A directory, or a name that ``models.registry`` knows.
            config: Used in place of the directory's config.json.

        Raises:
            CheckpointError: There is no config.json or no tokenizer, or they do not fit.
        """
        directory = resolve(str(name))
        try:
            config = config or cls.config_class.from_dict(read_config(directory))
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

    def encode(self, prompt: str) -> Tensor:
        """Return the token ids of a prompt, (1, L) int64."""
        ids = self.tokenizer(prompt, add_special_tokens=False)['input_ids']
        return torch.tensor([ids], dtype=torch.int64)

    def decode(self, ids: list[int] | Tensor) -> str:
        """Return the words of generated ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _pictures(
        self, pictures: Sequence[NDArray[np.uint8]], budget: int, factor: int = PATCH_SIZE
    ) -> Pictures:
        """Cut pictures into patches, one after another; sizes as in ``pixels.fitted_size``."""
        least = self.config.min_pixels
        cut = [to_patches(picture, least, budget, factor) for picture in pictures]
        none = np.zeros((0, 3 * PATCH_SIZE * PATCH_SIZE), np.uint8)
        patches = np.concatenate([none, *(patches for patches, _ in cut)])
        return Pictures(torch.from_numpy(patches), tuple(grid for _, grid in cut))
