# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Convert image messages to frames, and pictures to image messages.

What each encoding means is in ``pixelrefer_ros.imaging``; encodings it does not know go through
cv_bridge where that is installed.
"""

from __future__ import annotations

import array
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pixelrefer_ros.core.types import NS_PER_S, Frame
from pixelrefer_ros.imaging import ENCODINGS, decode_compressed, decode_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from sensor_msgs.msg import CompressedImage, Image


def stamp_to_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def image_to_rgb(msg: Image) -> NDArray[np.uint8]:
    """Convert a sensor_msgs/Image to an array.

    Args:
        msg: The image; its data may have padded rows and either byte order.

    Returns:
        (H, W, 3) uint8 RGB, read-only; a view of ``msg.data`` for packed rgb8.

    Raises:
        ValueError: The image has no pixels, its data are truncated or the encoding is unknown;
            the text says which and what to do.
    """
    try:
        if msg.encoding.strip().lower() in ENCODINGS:
            rgb = decode_image(
                msg.encoding, msg.height, msg.width, msg.step, msg.is_bigendian, msg.data
            )
        else:
            rgb = _through_cv_bridge(msg)
    except cv2.error as error:
        raise ValueError(
            f'{msg.width}x{msg.height} image in {msg.encoding!r} cannot be converted '
            f'({error.err or error}): check that its size fits the encoding'
        ) from error
    rgb.flags.writeable = False
    return rgb


def compressed_to_rgb(msg: CompressedImage) -> NDArray[np.uint8]:
    """Decode a sensor_msgs/CompressedImage holding a JPEG, PNG or other still picture.

    Orientation tags are ignored, so that pixel coordinates are those of the sensor. Takes some
    milliseconds, without holding the interpreter lock.

    Args:
        msg: The image; ``format`` may be 'jpeg', 'png' or as image_transport writes it
            ('rgb8; jpeg compressed bgr8').

    Returns:
        (H, W, 3) uint8 RGB, read-only.

    Raises:
        ValueError: The data are empty or broken, or it is no still picture.
    """
    rgb = decode_compressed(msg.data, msg.format)
    if 'compressed rgb' in msg.format.lower():
        # image_transport names the order handed to the encoder after 'compressed'. The encoder
        # takes blue first; given red first, the file itself has red and blue swapped.
        rgb = cv2.cvtColor(rgb, cv2.COLOR_BGR2RGB)
    rgb.flags.writeable = False
    return rgb


def to_frame(msg: Image | CompressedImage, camera: str) -> Frame:
    """Convert either image message to a frame.

    Raises:
        ValueError: As ``image_to_rgb`` and ``compressed_to_rgb``.
    """
    rgb = image_to_rgb(msg) if hasattr(msg, 'encoding') else compressed_to_rgb(msg)
    return Frame(camera, stamp_to_ns(msg.header.stamp), rgb, msg.header.frame_id)


def fill_image(msg: Image, pixels: NDArray[Any], encoding: str = 'rgb8') -> Image:
    """Fill an image message.

    Args:
        msg: The message to fill; its header is left as it is.
        pixels: (H, W, 3) uint8 for rgb8, (H, W) uint8 for mono8, (H, W) uint16 for mono16.
        encoding: 'rgb8', 'mono8' or 'mono16'.

    Returns:
        ``msg``.
    """
    pixels = np.ascontiguousarray(pixels)
    msg.height, msg.width = pixels.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = int(sys.byteorder == 'big')
    msg.step = pixels.strides[0]
    msg.data = byte_array(pixels)
    return msg


def byte_array(values: NDArray[Any] | bytes) -> array.array[int]:
    """Return bytes in the one type that message fields take without a slow copy."""
    data = array.array('B')
    if isinstance(values, bytes):
        data.frombytes(values)
    else:
        data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data


def _through_cv_bridge(msg: Image) -> NDArray[np.uint8]:
    known = ', '.join(ENCODINGS)
    if not (msg.width and msg.height):
        raise ValueError(
            f'image of {msg.width}x{msg.height} pixels: check the camera driver, it sends empty '
            'images'
        )
    try:
        convert = _cv_bridge()
    except ImportError:
        raise ValueError(
            f'unknown encoding {msg.encoding!r}: let the driver publish one of {known}, or '
            'install cv_bridge'
        ) from None
    try:
        return np.array(convert(msg, 'rgb8'), np.uint8)
    except Exception as error:  # cv_bridge raises its own and OpenCV's errors
        raise ValueError(
            f'cv_bridge cannot convert encoding {msg.encoding!r} ({error}): let the driver '
            f'publish one of {known}'
        ) from error


def _cv_bridge() -> Callable[[Image, str], Any]:
    from cv_bridge import CvBridge

    return CvBridge().imgmsg_to_cv2
