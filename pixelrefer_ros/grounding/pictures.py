# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Prepare the frames of a clip for a vision language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.core.chat import Picture, Video
from pixelrefer_ros.core.sampling import spread
from pixelrefer_ros.grounding.profiles import FramesAs, fill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Frame
    from pixelrefer_ros.grounding.profiles import Profile


def choose_frames(frames: Sequence[Frame], count: int) -> tuple[int, ...]:
    """Return indices of at most ``count`` frames spread evenly over time, the newest among them.

    Args:
        frames: Of one camera, stamps strictly ascending. No frame is chosen twice.
        count: At least 1.
    """
    stamps_ns = [frame.stamp_ns for frame in frames]
    index = {stamp_ns: i for i, stamp_ns in enumerate(stamps_ns)}
    return tuple(index[stamp_ns] for stamp_ns in spread(stamps_ns, count))


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image in another size; the aspect is not kept.

    Each side is shrunk by area or stretched by interpolation, whichever it needs: a wide image
    squeezed into a square may shrink one way and grow the other.

    Args:
        image: (H, W, 3) uint8.
        size: Width and height.
    """
    height, width = image.shape[:2]
    inner = (min(width, size[0]), min(height, size[1]))
    if inner != (width, height):
        image = np.asarray(cv2.resize(image, inner, interpolation=cv2.INTER_AREA), np.uint8)
    if inner != size:
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return image


def frame_parts(
    images: Sequence[NDArray[np.uint8]], profile: Profile, shows_video: bool
) -> tuple[str | Picture | Video, ...]:
    """Return what shows the frames of the first turn: a clip, or pictures with their labels.

    A single frame is a picture: a clip of one would be padded with a copy.

    Args:
        images: The frames in the profile's ``frame_size``, oldest first.
        profile: Says which of the two.
        shows_video: Whether the model takes clips.
    """
    as_video = profile.frames_as == FramesAs.VIDEO or (
        profile.frames_as == FramesAs.AUTO and shows_video
    )
    if as_video and len(images) > 1:
        return (Video(tuple(images), profile.fps),)
    parts: list[str | Picture | Video] = []
    for index, image in enumerate(images):
        if profile.picture_label:
            values = {'index': index, 'time_s': f'{index / profile.fps:g}'}
            parts.append(fill(profile.picture_label, values))
        parts.append(Picture(image))
    return tuple(parts)
