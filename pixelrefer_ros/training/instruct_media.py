# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read the masks and pictures that instruction data speak of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Mask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FOLDER_FPS = 3.0
"""Frames per second of a video that is a folder of pictures (PixelRefer, data loading)."""

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def read_mask(annotation: Any, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Draw one mask.

    Args:
        annotation: COCO run lengths ``{'size': [height, width], 'counts': ...}``, counts a list
            or a compressed string; or polygons in pixels: one list of x, y, x, y..., or a list
            of such lists, or a list of [x, y] points.
        size: (height, width) of the picture, which polygons need; run lengths hold theirs.

    Returns:
        (H, W) uint8 of 0 and 1.

    Raises:
        ValueError: It is neither, or does not fit together.
    """
    if isinstance(annotation, dict):
        return masks.decode(_run_lengths(annotation)).astype(np.uint8)
    if isinstance(annotation, list) and annotation:
        return _polygons(annotation, size)
    raise ValueError('a mask is neither run lengths nor polygons')


def _run_lengths(annotation: dict[str, Any]) -> Mask:
    size, counts = annotation.get('size'), annotation.get('counts')
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size)):
        raise ValueError(f'run lengths need a size [height, width], this is {size!r}')
    if isinstance(counts, str):
        counts = uncompress(counts)
    if not (isinstance(counts, list) and all(isinstance(n, int) for n in counts)):
        raise ValueError('run lengths need counts: a list of integers or a compressed string')
    return Mask(size[0], size[1], tuple(counts))


def uncompress(text: str) -> list[int]:
    """Read run lengths out of COCO's compressed string.

    Each number is a run of characters from code 48 on: five bits each, low bits first, the
    sixth bit set on all but the last; the highest bit of the last is the sign. From the fourth
    number on, what is written is the difference to the number two before.

    Raises:
        ValueError: The string ends within a number or holds other characters.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f'compressed run lengths cannot hold {character!r}')
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError('compressed run lengths end within a number')
    return counts


def _polygons(annotation: list[Any], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    if size is None:
        raise ValueError('polygons need the width and height of the picture in the sample')
    if not isinstance(annotation[0], list):
        annotation = [annotation]
    elif all(isinstance(point, list) and len(point) == 2 for point in annotation):
        annotation = [[number for point in annotation for number in point]]
    mask = np.zeros(size, np.uint8)
    for polygon in annotation:
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            points = np.zeros(0)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError('a polygon needs at least three points, as x, y, x, y...')
        # one call each: in a common call, where two overlap would be left out
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32).reshape(-1, 2)], 1)
    return mask


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as it is stored, which is what masks refer to: EXIF turns nothing.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: It is missing or no picture.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f'cannot read {path}: {error.strerror or error}') from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(data, flags) if data.size else None
    if picture is None:
        raise ValueError(f'{path} is no picture that can be read')
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_video(path: Path, numbers: Sequence[int]) -> tuple[list[NDArray[np.uint8]], float]:
    """Read some frames of a video file, or of a folder of pictures in the order of their names.

    A file is decoded from its start: jumping is not exact with every codec.

    Args:
        path: The file or folder.
        numbers: Frame numbers from 0, ascending.

    Returns:
        Per number (H, W, 3) uint8 RGB; frames per second.

    Raises:
        ValueError: It cannot be read, states no frame rate, or ends before the last number.
    """
    if path.is_dir():
        names = sorted(name for name in path.iterdir() if name.suffix.lower() in PICTURES)
        if numbers and numbers[-1] >= len(names):
            raise ValueError(f'frame {numbers[-1]} is masked, {path} has {len(names)} pictures')
        return [read_picture(names[number]) for number in numbers], FOLDER_FPS
    if not path.is_file():
        raise ValueError(f'there is no video {path}')
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise ValueError(f'{path} is no video that can be read')
        fps = capture.get(cv2.CAP_PROP_FPS)
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f'{path} states no frame rate')
        wanted, frames = set(numbers), []
        for number in range(max(numbers, default=-1) + 1):
            if not capture.grab():
                raise ValueError(f'frame {numbers[-1]} is masked, {path} has {number} frames')
            if number in wanted:
                decoded, frame = capture.retrieve()
                if not decoded:
                    raise ValueError(f'frame {number} of {path} cannot be decoded')
                frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False))
        return frames, fps
    finally:
        capture.release()
