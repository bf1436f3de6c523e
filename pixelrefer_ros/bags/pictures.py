# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take the pictures of a page from the frames as they pass."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from pixelrefer_ros.drawing import Overlay, draw_overlays
from pixelrefer_ros.imaging import encode_jpeg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pixelrefer_ros.bags.story import Story
    from pixelrefer_ros.core.types import Box, Frame
    from pixelrefer_ros.drawing import Palette

BIG_PX, SMALL_PX, TINY_PX = 520, 200, 128
_JPEG_QUALITY = 78
_BUDGET = 4_500_000  # bytes of JPEG in one page; base64 makes a third more of it
_BOX_COLOUR = (236, 238, 240)


class Key(NamedTuple):
    """Name a picture.

    Attributes:
        camera: Whose.
        stamp_ns: Of the frame.
        regions: Ids of the regions drawn; what lies outside them is dimmed.
        width_px: Shrunk to this.
        box: Drawn too, in white.
    """

    camera: str
    stamp_ns: int
    regions: tuple[str, ...]
    width_px: int
    box: Box | None = None


class Pictures:
    """Collect the pictures wanted, then take them from the frames as they pass."""

    def __init__(self, story: Story, palette: Palette) -> None:
        """Start with none wanted."""
        self._story = story
        self._palette = palette
        self._wanted: dict[tuple[str, int], list[Key]] = {}
        self._done: dict[Key, str] = {}
        self._bytes = 0

    def want(
        self,
        camera: str,
        stamp_ns: int,
        regions: Sequence[str],
        width_px: int,
        box: Box | None = None,
    ) -> Key:
        """Ask for a picture; the key gives it to ``get`` after the frames have passed."""
        key = Key(camera, stamp_ns, tuple(regions), width_px, box)
        keys = self._wanted.setdefault((camera, stamp_ns), [])
        if key not in keys:
            keys.append(key)
        return key

    def take(self, frame: Frame) -> None:
        """Draw what is wanted of a frame."""
        for key in self._wanted.get((frame.camera, frame.stamp_ns), []):
            if key in self._done or self._bytes > _BUDGET:
                continue
            data = encode_jpeg(self._draw(frame, key), _JPEG_QUALITY)
            self._bytes += len(data)
            self._done[key] = 'data:image/jpeg;base64,' + base64.b64encode(data).decode()

    def get(self, key: Key) -> str:
        """Return a picture as a data URI; '' when its frame was not in the bag."""
        return self._done.get(key, '')

    def _draw(self, frame: Frame, key: Key) -> NDArray[np.uint8]:
        height, width = frame.image.shape[:2]
        overlays = self._story.overlays_at(
            key.camera, key.stamp_ns, height, width, self._palette, key.regions
        )
        if key.box is not None:
            overlays.append(Overlay(_BOX_COLOUR, box=key.box))
        scale = min(1.0, key.width_px / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
        shrunk = [one.scaled(scale, size) for one in overlays]
        if key.width_px < BIG_PX:
            shrunk = [replace(one, label='') for one in shrunk]
        # no tint: the words are often about colour
        return draw_overlays(small, shrunk, alpha=0.0, dim=0.5)
