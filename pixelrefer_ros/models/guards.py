# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn what goes wrong in torch and transformers into errors that say what to do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers.utils import logging as transformers_logging

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    from collections.abc import Iterator

# What torch says when the memory of the CPU is all taken.
_NO_MEMORY = ('allocate memory', 'not enough memory')


def lacks_memory(error: Exception) -> bool:
    """Return whether memory did not suffice, of the GPU or of the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    )


@contextmanager
def failures(what: str, advice: str) -> Iterator[None]:
    """Turn what goes wrong inside into a PixelReferError: memory as such, or the model's.

    Args:
        what: Begins the message.
        advice: What to do when memory does not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if lacks_memory(error):
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            raise PixelReferError(
                ErrorCode.OUT_OF_MEMORY, f'{what}: out of memory; {advice}'
            ) from error
        raise PixelReferError(ErrorCode.MODEL_ERROR, f'{what} failed: {error}') from error
    except (ImportError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise PixelReferError(ErrorCode.MODEL_ERROR, f'{what} failed: {error!r}') from error


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers' bar and table out of the log: what is wrong is said in the error."""
    shown = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
