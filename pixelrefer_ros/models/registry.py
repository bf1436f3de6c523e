# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find the directory of a model by name, and fetch models when told to.

Nothing here downloads on its own: ``resolve`` looks at this machine only, ``fetch`` is what
``pixelrefer fetch`` runs.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TABLETOP = 'tabletop'
"""Name of both embedded models; they know coloured objects on a table and nothing else."""


class Use(StrEnum):
    """Name what a model is wanted for: it decides which of two of the same name is meant."""

    DESCRIBING = 'describing regions'
    GROUNDING = 'grounding'


# Folder beside this file, and the command that makes what is in it.
_EMBEDDED: Final = {
    Use.DESCRIBING: ('tabletop', 'pixelrefer train tabletop'),
    Use.GROUNDING: ('tabletop_grounding', 'pixelrefer train grounding'),
}

_HUB_NAME = re.compile(r'[\w.-]+/[\w.-]+')
_HASH_BLOCK = 1 << 20
TEXT_FILES = ('*.json', '*.txt', '*.model')
"""Files fetched beside the weights; code in a repository never is."""


def resolve(name: str, use: Use = Use.DESCRIBING) -> Path:
    """Return the directory of a model on this machine.

    Args:
        name: 'tabletop', a directory, or a hub name such as org/name that was fetched before.
        use: What it is wanted for; there is a 'tabletop' for each.

    Returns:
        An existing directory; whether it holds a model shows when it is loaded.

    Raises:
        PixelReferError: MODEL_ERROR when there is none, with what to do.
    """
    if name == TABLETOP:
        folder, command = _EMBEDDED[use]
        directory = Path(str(resources.files('pixelrefer_ros.models') / folder))
        if (directory / 'config.json').is_file():
            return directory
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"the embedded model '{TABLETOP}' for {use} is not in {directory}; reinstall the "
            f'package, or make it with `{command}`',
        )
    directory = Path(name).expanduser()
    if directory.is_dir():
        return directory
    if _HUB_NAME.fullmatch(name):
        cached = _cached(name)
        if cached is not None:
            return cached
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"model '{name}' is not on this machine; run `pixelrefer fetch {name}`",
        )
    raise PixelReferError(
        ErrorCode.MODEL_ERROR,
        f"no model '{name}': it is neither '{TABLETOP}', nor a directory, nor a hub name like "
        'org/name',
    )


def fetch(name: str, on_progress: Callable[[str], None] | None = None) -> Path:
    """Download a model from the hub and verify every file.

    Args:
        name: Hub name, org/name. 'tabletop' and directories are returned as they are.
        on_progress: Called with a line of text per step.

    Returns:
        The directory in the local cache.

    Raises:
        PixelReferError: MODEL_ERROR when the name is no hub name, the download fails, or a file
            has not the sha256 the hub states for it.
    """
    if not _HUB_NAME.fullmatch(name) or Path(name).expanduser().is_dir():
        return resolve(name)
    # imported here: looking a local model up needs no hub client
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    tell = on_progress or (lambda line: None)
    try:
        files = [file.rfilename for file in HfApi().model_info(name).siblings or []]
        weights = '*.safetensors' if any(f.endswith('.safetensors') for f in files) else '*.bin'
        tell(f'fetching {name}')
        directory = Path(snapshot_download(name, allow_patterns=[*TEXT_FILES, weights]))
        # a snapshot folder is named after its commit
        info = HfApi().model_info(name, revision=directory.name, files_metadata=True)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR, f"could not fetch '{name}': {error}"
        ) from error
    stated = [(file.rfilename, file.lfs.sha256) for file in info.siblings or [] if file.lfs]
    verify(directory, stated, tell)
    return directory


def verify(
    directory: Path,
    stated: Sequence[tuple[str, str]],
    tell: Callable[[str], None],
) -> None:
    """Compare files with the sha256 stated for them; a file that differs is removed.

    Args:
        directory: Where the files are; stated files that were not fetched are passed over.
        stated: (relative path, sha256 in hex).
        tell: Called with a line of text per file.

    Raises:
        PixelReferError: MODEL_ERROR naming the files that differ.
    """
    wrong = []
    for name, expected in stated:
        path = directory / name
        if not path.is_file():
            continue
        if sha256(path) == expected:
            tell(f'{name}: sha256 {expected} as stated')
        else:
            wrong.append(name)
            path.resolve().unlink()
            path.unlink(missing_ok=True)
    if wrong:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f'sha256 differs from what the hub states, removed: {", ".join(wrong)}; fetch again',
        )


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _cached(name: str) -> Path | None:
    """Return the cached snapshot of a hub model, None when there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
