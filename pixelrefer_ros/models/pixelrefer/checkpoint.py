# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check a model directory before its weights are read, and say what is wrong with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open

from pixelrefer_ros.models.pixelrefer.configuration import RegionModelConfig

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from transformers import PreTrainedModel

Config = TypeVar('Config', bound=RegionModelConfig)
Shape = tuple[int, ...]

INDEXES = ('model.safetensors.index.json', 'pytorch_model.bin.index.json')
SINGLE = ('model.safetensors', 'pytorch_model.bin')
MAX_NAMES = 40
"""Names an error message lists before it counts the rest."""

_BUFFER_SUFFIX = 'rotary_emb.inv_freq'
_EMBED, _HEAD = 'model.embed_tokens.weight', 'lm_head.weight'


class CheckpointError(ValueError):
    """Refuse a model directory.

    Attributes:
        missing: Parameters the directory should hold and does not.
        unexpected: Parameters it holds that the model has not.
        mismatched: Parameters of another shape.
    """

    def __init__(
        self,
        message: str,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        mismatched: Iterable[str] = (),
    ) -> None:
        """Put the names into the message and keep them."""
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.mismatched = tuple(mismatched)
        parts = [message]
        for label, names in (
            ('missing', self.missing),
            ('unexpected', self.unexpected),
            ('of another shape', self.mismatched),
        ):
            if names:
                rest = len(names) - MAX_NAMES
                more = f' and {rest} more' if rest > 0 else ''
                parts.append(f'{label} ({len(names)}): {", ".join(names[:MAX_NAMES])}{more}')
        super().__init__('; '.join(parts))


def check(
    model_class: type[PreTrainedModel], directory: Path, config: Config | None = None
) -> Config:
    """Make sure that a directory holds all of a model and nothing else.

    Reads config.json and the names and shapes of the weights, not the weights.

    Args:
        model_class: Class the weights are for; its ``config_class`` says the kind of model.
        directory: The model directory.
        config: Used in place of its config.json.

    Returns:
        The config, its fields that say which unused parts there are as the weights have them,
        the ids of its placeholders as the tokenizer has them.

    Raises:
        CheckpointError: Something is missing, unexpected or of another shape.
    """
    config_class = cast('type[Config]', model_class.config_class)
    fields = config.to_dict() if config is not None else read_config(directory)
    shapes = read_shapes(directory)
    for field, prefix in config_class.unused_parts.items():
        fields[field] = any(name.startswith(prefix) for name in shapes)
    model_type = fields.get('model_type')
    try:
        found = config_class.from_dict(fields)
        with torch.device('meta'):
            model = model_class(found)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f'{directory}: config.json does not fit: {error}') from error
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    missing, unexpected, mismatched = compare(expected, shapes, bool(found.tie_word_embeddings))
    if model_type != config_class.model_type:
        raise CheckpointError(
            f"{directory}: model_type is {model_type!r}, only '{config_class.model_type}' "
            f'({config_class.kind}) can be loaded here',
            missing,
            unexpected,
            mismatched,
        )
    stored = stored_tokens(directory)
    for token, field in config_class.placeholders.items():
        setattr(found, field, stored.get(token, getattr(found, field)))
    if missing or unexpected or mismatched:
        raise CheckpointError(
            f'{directory}: the weights are not those of the {config_class.kind} model '
            'config.json describes',
            missing,
            unexpected,
            mismatched,
        )
    return found


def compare(
    expected: dict[str, Shape], found: dict[str, Shape], tied: bool
) -> tuple[list[str], list[str], list[str]]:
    """Compare parameters by name and shape.

    Args:
        expected: Name → shape the model has.
        found: Name → shape the weights have.
        tied: Whether embeddings and head are one matrix, so that either may be left out.

    Returns:
        Missing names, unexpected names, and 'name: shape instead of shape'.
    """
    missing = [name for name in expected if name not in found]
    if tied and (_EMBED in found or _HEAD in found):
        missing = [name for name in missing if name not in (_EMBED, _HEAD)]
    unexpected = [
        name for name in found if name not in expected and not name.endswith(_BUFFER_SUFFIX)
    ]
    mismatched = [
        f'{name}: {list(shape)} instead of {list(expected[name])}'
        for name, shape in found.items()
        if name in expected and shape != expected[name]
    ]
    return missing, unexpected, mismatched


def read_config(directory: Path) -> dict[str, object]:
    """Read config.json.

    Raises:
        CheckpointError: It is not there or is no JSON object.
    """
    path = directory / 'config.json'
    if not path.is_file():
        raise CheckpointError(f'{directory} is no model directory: it has no config.json')
    try:
        fields = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise CheckpointError(f'{path} is not JSON: {error}') from error
    if not isinstance(fields, dict):
        raise CheckpointError(f'{path} holds no JSON object')
    return fields


def stored_tokens(directory: Path) -> dict[str, int]:
    """Return the added tokens a directory's tokenizer files name, and their ids.

    The reference trusts the tokenizer over config.json.
    """
    path = directory / 'tokenizer_config.json'
    added: dict[str, dict[str, object]] = {}
    if path.is_file():
        added = json.loads(path.read_text(encoding='utf-8')).get('added_tokens_decoder', {})
    ids = {str(token['content']): int(number) for number, token in added.items()}
    path = directory / 'added_tokens.json'
    if path.is_file():
        ids |= json.loads(path.read_text(encoding='utf-8'))
    return ids


def read_shapes(directory: Path) -> dict[str, Shape]:
    """Read names and shapes of the weights of a directory.

    Raises:
        CheckpointError: There are none, a shard is missing, or a file cannot be read.
    """
    shapes: dict[str, Shape] = {}
    for path in weight_files(directory):
        shapes.update(_safetensors(path) if path.suffix == '.safetensors' else _pickled(path))
    return shapes


def weight_files(directory: Path) -> list[Path]:
    """Return the weight files transformers will read: safetensors before .bin, one before shards.

    Raises:
        CheckpointError: There are none, or shards named by the index are missing.
    """
    for single, index in zip(SINGLE, INDEXES, strict=True):
        if (directory / single).is_file():
            return [directory / single]
        if (directory / index).is_file():
            weight_map = json.loads((directory / index).read_text(encoding='utf-8'))['weight_map']
            files = [directory / name for name in sorted(set(weight_map.values()))]
            gone = {path.name for path in files if not path.is_file()}
            if gone:
                raise CheckpointError(
                    f'{directory}: weight files named in {index} are missing: '
                    f'{", ".join(sorted(gone))}',
                    missing=[name for name, file in weight_map.items() if file in gone],
                )
            return files
    raise CheckpointError(
        f'{directory} holds no weights: none of {", ".join((*SINGLE, *INDEXES))} is there'
    )


def _safetensors(path: Path) -> dict[str, Shape]:
    try:
        with safe_open(path, framework='pt') as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{path} cannot be read: {error}') from error


def _pickled(path: Path) -> dict[str, Shape]:
    try:
        state = torch.load(path, map_location='meta', weights_only=True)
    except Exception as error:  # reading arbitrary bytes raises nearly anything
        raise CheckpointError(f'{path} cannot be read as plain weights: {error}') from error
    if not isinstance(state, dict):
        raise CheckpointError(f'{path} holds no named weights')
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
