# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn image messages into RGB pictures, and pictures into JPEG.

Everything here takes plain values, so that messages of any origin (rclpy, a bag) fit. What the
encodings mean is taken from ``sensor_msgs/image_encodings.hpp``; where that leaves a choice the
functions do what ``cv_bridge`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# encoding -> (channels, bytes of one channel, OpenCV conversion to RGB or None when it is RGB)
_PACKED: dict[str, tuple[int, int, int | None]] = {
    'rgb8': (3, 1, None),
    'bgr8': (3, 1, cv2.COLOR_BGR2RGB),
    'rgba8': (4, 1, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, 1, cv2.COLOR_BGRA2RGB),
    'rgb16': (3, 2, None),
    'bgr16': (3, 2, cv2.COLOR_BGR2RGB),
    'rgba16': (4, 2, cv2.COLOR_RGBA2RGB),
    'bgra16': (4, 2, cv2.COLOR_BGRA2RGB),
    'mono8': (1, 1, cv2.COLOR_GRAY2RGB),
    'mono16': (1, 2, cv2.COLOR_GRAY2RGB),
    '8uc1': (1, 1, cv2.COLOR_GRAY2RGB),
    '8uc3': (3, 1, cv2.COLOR_BGR2RGB),
    '8uc4': (4, 1, cv2.COLOR_BGRA2RGB),
    '16uc3': (3, 2, cv2.COLOR_BGR2RGB),
    '16uc4': (4, 2, cv2.COLOR_BGRA2RGB),
}
for _pattern in ('RGGB', 'BGGR', 'GBRG', 'GRBG'):
    for _bits in (8, 16):
        _PACKED[f'bayer_{_pattern.lower()}{_bits}'] = (
            1,
            _bits // 8,
            getattr(cv2, f'COLOR_Bayer{_pattern}2RGB'),
        )

# Measured values rather than brightness: shown from the image's own smallest to its largest.
_RANGED: dict[str, np.dtype[Any]] = {'16uc1': np.dtype(np.uint16), '16sc1': np.dtype(np.int16),
                                     '32fc1': np.dtype(np.float32)}

_YUV422 = {
    'yuv422': cv2.COLOR_YUV2RGB_UYVY,
    'uyvy': cv2.COLOR_YUV2RGB_UYVY,
    'yuv422_yuy2': cv2.COLOR_YUV2RGB_YUY2,
    'yuyv': cv2.COLOR_YUV2RGB_YUY2,
}

_YUV420 = {'nv12': cv2.COLOR_YUV2RGB_NV12, 'nv21': cv2.COLOR_YUV2RGB_NV21}

ENCODINGS = tuple(sorted([*_PACKED, *_RANGED, *_YUV422, *_YUV420]))


def decode_image(
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool | int,
    data: object,
) -> NDArray[np.uint8]:
    """Decode the fields of a ``sensor_msgs/Image`` to RGB.

    16-bit brightness is scaled by 255/65535; 16UC1, 16SC1 and 32FC1, which hold measured values
    such as depth, from the image's own smallest finite value (black) to its largest (white).
    8UC3 and 8UC4 have the channel order of OpenCV, blue first. Alpha is dropped.

    Args:
        encoding: Name as in ``sensor_msgs/image_encodings.hpp``, in any case.
        height: Rows.
        width: Columns.
        step: Bytes from one row to the next.
        is_bigendian: Byte order of channels wider than a byte.
        data: Anything with the buffer protocol: bytes, array.array, a numpy array.

    Returns:
        (height, width, 3) uint8 RGB; it shares memory with ``data`` where nothing had to be
        converted, and is not to be written to.

    Raises:
        ValueError: Zero size, too short data or rows, or an unknown encoding; the text says what
            to do.
    """
    name = encoding.strip().lower()
    if height <= 0 or width <= 0:
        raise ValueError(
            f'image of {width}x{height} pixels: check the camera driver, it sends empty images'
        )
    raw = np.frombuffer(data, dtype=np.uint8)  # type: ignore[call-overload]
    if name in _PACKED:
        channels, depth, conversion = _PACKED[name]
        dtype = np.dtype(np.uint8 if depth == 1 else np.uint16)
        image = _rows(raw, name, height, width, step, channels, dtype, bool(is_bigendian))
        if name.startswith('bayer') and conversion is not None:
            image, conversion = _demosaic(image, conversion, name), None
        if depth == 2:
            image = cv2.convertScaleAbs(image, alpha=255.0 / 65535.0)
        return _rgb(image if conversion is None else cv2.cvtColor(image, conversion))
    if name in _RANGED:
        values = _rows(raw, name, height, width, step, 1, _RANGED[name], bool(is_bigendian))
        return _rgb(cv2.cvtColor(_stretch(values), cv2.COLOR_GRAY2RGB))
    if name in _YUV422:
        if width % 2:
            raise ValueError(f'{encoding} needs an even width, got {width}: fix the camera driver')
        image = _rows(raw, name, height, width, step, 2, np.dtype(np.uint8), False)
        return _rgb(cv2.cvtColor(image, _YUV422[name]))
    if name in _YUV420:
        if width % 2 or height % 2:
            raise ValueError(
                f'{encoding} needs an even size, got {width}x{height}: fix the camera driver'
            )
        image = _rows(raw, name, height * 3 // 2, width, step, 1, np.dtype(np.uint8), False)
        return _rgb(cv2.cvtColor(image, _YUV420[name]))
    raise ValueError(
        f'unknown encoding {encoding!r}: let the driver publish one of {", ".join(ENCODINGS)}'
    )


def _rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    return cast('NDArray[np.uint8]', image)


def _rows(
    raw: NDArray[np.uint8],
    encoding: str,
    height: int,
    width: int,
    step: int,
    channels: int,
    dtype: np.dtype[Any],
    big_endian: bool,
) -> NDArray[Any]:
    """Cut the padding off the rows and bring the values into this machine's byte order."""
    row_bytes = width * channels * dtype.itemsize
    if step < row_bytes:
        raise ValueError(
            f'step of {step} bytes is too small: {width} pixels of {encoding} take {row_bytes}; '
            'fix the step or the encoding in the camera driver'
        )
    needed = step * (height - 1) + row_bytes
    if raw.size < needed:
        raise ValueError(
            f'image data is truncated: {raw.size} of {needed} bytes; check the camera driver '
            'and the transport between it and this node'
        )
    if step == row_bytes:
        pixels = raw[:needed]
    else:
        strided = np.lib.stride_tricks.as_strided(raw, (height, row_bytes), (step, 1))
        pixels = np.ascontiguousarray(strided).reshape(-1)
    wire = dtype.newbyteorder('>' if big_endian else '<')
    values = pixels.view(wire).reshape((height, width, channels) if channels > 1
                                       else (height, width))
    return values if wire.isnative else values.astype(dtype)


def _demosaic(image: NDArray[Any], conversion: int, encoding: str) -> NDArray[Any]:
    if min(image.shape) < 3:
        raise ValueError(f'{encoding} needs at least 3x3 pixels, got '
                         f'{image.shape[1]}x{image.shape[0]}: fix the camera driver')
    return np.asarray(cv2.cvtColor(image, conversion))


def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = numbers[finite].min(), numbers[finite].max()
    scale = 255.0 / (high - low) if high > low else 0.0
    scaled: NDArray[np.uint8] = np.where(finite, (numbers - low) * scale, 0.0).round().astype(
        np.uint8)
    return scaled


def decode_compressed(
    data: object, image_format: str = '', *, use_orientation: bool = False
) -> NDArray[np.uint8]:
    """Decode the fields of a ``sensor_msgs/CompressedImage`` to RGB.

    Args:
        data: Anything with the buffer protocol holding a JPEG, PNG or other still picture.
        image_format: The message's format field; it only helps to refuse what is no picture.
        use_orientation: Turn the picture upright as its EXIF data say: right for a photograph,
            wrong for a camera whose boxes and masks refer to the pixels as they are stored.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: Empty, truncated or unknown data; the text says what to do.
    """
    lowered = image_format.lower()
    if 'compresseddepth' in lowered:
        raise ValueError(
            f'format {image_format!r} holds depth behind a header of its own: subscribe to the '
            'colour image, or republish the depth image uncompressed'
        )
    raw = np.frombuffer(data, dtype=np.uint8)  # type: ignore[call-overload]
    if raw.size == 0:
        raise ValueError('compressed image without data: check the camera driver')
    flags = cv2.IMREAD_COLOR if use_orientation else (
        cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(raw, flags)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(
            f'compressed image of {raw.size} bytes (format {image_format!r}) cannot be decoded: '
            'publish JPEG or PNG, and check that it is not cut off'
        )
    return _rgb(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encode an (H, W, 3) uint8 RGB picture as JPEG; the same picture gives the same bytes."""
    done, coded = cv2.imencode(
        '.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise ValueError(f'OpenCV cannot encode an image of shape {image.shape} as JPEG')
    return coded.tobytes()
