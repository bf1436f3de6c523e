# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put errors into words, and report what keeps failing once, not with every frame."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import PixelReferError

if TYPE_CHECKING:
    from collections.abc import Callable

_KEPT = 64
_QUIET_FRAMES = 100  # the same fault is reported again after this many frames without it


def words(error: BaseException) -> str:
    """Return what to tell of an error: its message, or where it comes from when it is a bug."""
    if isinstance(error, PixelReferError):
        return str(error)
    text = f'{type(error).__name__}: {error}'
    frames = traceback.extract_tb(error.__traceback__)
    if frames:
        text += f' (at {frames[-1].filename}:{frames[-1].lineno})'
    return text


class Faults:
    """Collect faults, and report those that are new."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """Set where they go."""
        self._report = report
        self._frames = 0
        self._seen: dict[str, int] = {}  # count of frames when it happened last
        self._new: list[str] = []

    def frame(self) -> None:
        """Count a frame."""
        self._frames += 1

    def note(self, text: str) -> None:
        """Take in a fault; may be called with locks held."""
        before = self._seen.pop(text, None)
        self._seen[text] = self._frames
        if len(self._seen) > _KEPT:
            del self._seen[next(iter(self._seen))]
        if before is None or self._frames - before > _QUIET_FRAMES:
            self._new.append(text)

    def flush(self) -> None:
        """Report what is new; no lock is held."""
        new, self._new = self._new, []
        for text in new:
            self._report(text)

    def clear(self) -> None:
        """Count all faults as new from now on."""
        self._seen.clear()
