# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say what is wrong with a file."""

from __future__ import annotations

from pixelrefer_ros.core.types import ErrorCode, PixelReferError


class FileError(PixelReferError):
    """Report a bag, video, picture or ground truth that cannot be used, and what to do."""

    def __init__(self, message: str) -> None:
        """Take the BAD_REQUEST code: the caller named the wrong file."""
        super().__init__(ErrorCode.BAD_REQUEST, message)
