# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read the masks of published data sets: COCO run lengths and palette pictures."""

from __future__ import annotations

import importlib
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pixelrefer_ros.core.masks import decode
from pixelrefer_ros.core.types import ErrorCode, Mask, PixelReferError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        PixelReferError: BAD_REQUEST when it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'{path} is no JSON ({error}): unpack the data set again'
        ) from error


def read_numbers(path: Path) -> NDArray[np.uint8]:
    """Return the object numbers of a picture with a palette or in grey, (H, W) uint8.

    Raises:
        PixelReferError: BAD_REQUEST when it is no such picture.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode in ('P', 'L'):
                return np.array(picture, np.uint8)
            if picture.mode in ('1', 'I;16', 'I'):
                return np.array(picture).astype(np.uint8)
            mode = picture.mode
    except (OSError, UnidentifiedImageError) as error:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'{path} is no picture: unpack the data set again') from error
    raise PixelReferError(
        ErrorCode.BAD_REQUEST,
        f'{path} is a picture of mode {mode}; masks have a palette or are grey: was it converted?')


def size_of(path: Path) -> tuple[int, int]:
    """Return the height and width of a picture, reading its header alone."""
    with Image.open(path) as picture:
        return picture.height, picture.width


def decode_rle(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """Return the mask of COCO run lengths, (H, W) bool.

    Args:
        rle: ``size`` (height, width) and ``counts``: a list, or a string that is compressed.

    Raises:
        PixelReferError: BAD_REQUEST when it is no such thing, or strings cannot be read here;
            BAD_REGION when the run lengths do not fit the size.
    """
    try:
        height, width = (int(n) for n in rle['size'])
        counts = rle['counts']
    except (KeyError, TypeError, ValueError) as error:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, 'a mask in COCO form has a size and counts; this one has not: '
            'was the file made by another tool?') from error
    if isinstance(counts, list):
        return decode(Mask(height, width, tuple(counts)))
    # core.masks reads plain run lengths; the compressed strings are pycocotools' own.
    try:
        coco = importlib.import_module('pycocotools.mask')
    except ImportError as error:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, 'the masks of this data set are compressed COCO run lengths: '
            'pip install pycocotools to read them') from error
    text = counts.encode() if isinstance(counts, str) else counts
    mask: NDArray[np.bool_] = coco.decode({'size': [height, width], 'counts': text}) != 0
    return mask


class RunLengths:
    """Read the masks of a ``mask_dict.json`` when the first of them is wanted."""

    def __init__(self, path: Path) -> None:
        """Keep the path; nothing is read yet."""
        self._path = path

    @cached_property
    def _lists(self) -> dict[str, list[dict[str, Any] | None]]:
        lists: dict[str, list[dict[str, Any] | None]] = read_json(self._path)
        return lists

    def united(
        self, annotations: list[str], frames: int, size: Callable[[], tuple[int, int]]
    ) -> list[NDArray[np.bool_] | None]:
        """Return per frame the pixels of any of the annotated objects, (H, W) bool.

        A frame without run lengths shows none of them.

        Args:
            annotations: Keys of the file; none for an expression without a target.
            frames: How many frames the video has.
            size: Called for height and width when no run lengths tell them.

        Raises:
            PixelReferError: BAD_REQUEST when the file has no such key, or not one entry per
                frame.
        """
        shape: tuple[int, int] | None = None
        united: list[NDArray[np.bool_] | None] = [None] * frames
        for key in annotations:
            entries = self._lists.get(key)
            if entries is None or len(entries) != frames:
                found = 'nothing' if entries is None else f'{len(entries)} masks'
                raise PixelReferError(
                    ErrorCode.BAD_REQUEST, f'{self._path} has {found} for annotation {key} of a '
                    f'video of {frames} frames: use files of the same release')
            for i, entry in enumerate(entries):
                if entry:
                    mask = decode_rle(entry)
                    shape = mask.shape[0], mask.shape[1]
                    before = united[i]
                    united[i] = mask if before is None else before | mask
        if any(mask is None for mask in united):
            empty = np.zeros(size() if shape is None else shape, np.bool_)
            united = [empty if mask is None else mask for mask in united]
        return united


def read_pictures(
    paths: list[Path], number: int | None
) -> list[NDArray[np.bool_] | None]:
    """Return per frame the pixels with an object's number, (H, W) bool; any but 0 for None.

    A frame without a picture is not annotated: None.
    """
    masks: list[NDArray[np.bool_] | None] = []
    for path in paths:
        if not path.exists():
            masks.append(None)
            continue
        numbers = read_numbers(path)
        masks.append(numbers != 0 if number is None else numbers == number)
    return masks
