# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find the weights of a tracker, without torch: what is missing is said at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.registry import resolve

if TYPE_CHECKING:
    from pathlib import Path

SUGGESTION = 'facebook/sam2.1-hiera-tiny'
"""The published weights an error message names when there are none."""


def find_weights(name: str) -> Path:
    """Return the directory of a tracker's weights.

    Args:
        name: A directory, or a hub name fetched before.

    Raises:
        PixelReferError: MODEL_ERROR with the command to run.
    """
    advice = f'run `pixelrefer fetch {SUGGESTION}` and give that name'
    if not name:
        raise PixelReferError(ErrorCode.MODEL_ERROR, f'this tracker needs weights; {advice}')
    try:
        return resolve(name)
    except PixelReferError as error:
        if 'pixelrefer fetch' in str(error):
            raise
        raise PixelReferError(
            error.code, f"no tracker weights in '{name}': there is no such folder; {advice}"
        ) from error
