# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check image messages of every encoding, size of row and byte order, and broken ones."""

from __future__ import annotations

import sys
import types
from array import array
from typing import Any

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from pixelrefer_ros.imaging import ENCODINGS
from pixelrefer_ros.node.images import (
    byte_array,
    compressed_to_rgb,
    fill_image,
    image_to_rgb,
    stamp_to_ns,
    to_frame,
)

HEIGHT, WIDTH = 24, 32


def smooth_rgb() -> np.ndarray:
    """Return an (H, W, 3) picture without sharp edges, which survives chroma subsampling."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([80 + 3 * columns, 60 + 4 * rows, 200 - 2 * rows - columns], -1).astype(
        np.uint8
    )


def noise_rgb() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def message(
    rows: np.ndarray, encoding: str, *, padding: int = 0, big_endian: bool = False, height: int = 0
) -> Image:
    """Return an Image of (rows, row values), each row padded with bytes that must not be read."""
    height = height or rows.shape[0]
    wire = rows.astype(rows.dtype.newbyteorder('>' if big_endian else '<'))
    flat = wire.reshape(rows.shape[0], -1).view(np.uint8)
    padded = np.pad(flat, ((0, 0), (0, padding)), constant_values=0xA5)
    return Image(
        height=height,
        width=rows.shape[1],
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=padded.shape[1],
        data=padded.tobytes(),
    )


def alpha(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)])


def wide(values: np.ndarray) -> np.ndarray:
    """Return 16-bit values whose scaled value is that of the 8-bit ones."""
    return values.astype(np.uint16) * 257


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """Return what a sensor with this colour filter sees."""
    channel = {'r': 0, 'g': 1, 'b': 2}
    out = np.empty(rgb.shape[:2], np.uint8)
    for index, letter in enumerate(pattern):
        row, column = divmod(index, 2)
        out[row::2, column::2] = rgb[row::2, column::2, channel[letter]]
    return out


def yuv(rgb: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) video-range BT.601 Y, U, V."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    return np.stack([y, u, v], -1).round().astype(np.uint8)


def packed_422(rgb: np.ndarray, order: str) -> np.ndarray:
    """Return (H, W, 2) bytes in 'uyvy' or 'yuyv' order."""
    planes = yuv(rgb)
    chroma = planes[:, 0::2, 1:]
    out = np.empty((*rgb.shape[:2], 2), np.uint8)
    luma, colour = (1, 0) if order == 'uyvy' else (0, 1)
    out[:, :, luma] = planes[..., 0]
    out[:, 0::2, colour] = chroma[..., 0]
    out[:, 1::2, colour] = chroma[..., 1]
    return out


def planar_420(rgb: np.ndarray, order: str) -> np.ndarray:
    """Return (H * 3 / 2, W) bytes: luma, then interleaved chroma in 'uv' or 'vu' order."""
    planes = yuv(rgb)
    chroma = planes[0::2, 0::2, 1:]
    if order == 'vu':
        chroma = chroma[..., ::-1]
    return np.vstack([planes[..., 0], chroma.reshape(HEIGHT // 2, WIDTH)])


NOISE = noise_rgb()
SMOOTH = smooth_rgb()
GREY = NOISE[..., 0]
EXACT: dict[str, tuple[np.ndarray, np.ndarray]] = {
    # encoding: what is sent, what must come out
    'rgb8': (NOISE, NOISE),
    'bgr8': (NOISE[..., ::-1], NOISE),
    'rgba8': (alpha(NOISE), NOISE),
    'bgra8': (alpha(NOISE[..., ::-1]), NOISE),
    '8UC1': (GREY, np.dstack([GREY] * 3)),
    '8UC3': (NOISE[..., ::-1], NOISE),
    '8UC4': (alpha(NOISE[..., ::-1]), NOISE),
    'mono8': (GREY, np.dstack([GREY] * 3)),
    'mono16': (wide(GREY), np.dstack([GREY] * 3)),
    'rgb16': (wide(NOISE), NOISE),
    'bgr16': (wide(NOISE[..., ::-1]), NOISE),
    'rgba16': (wide(alpha(NOISE)), NOISE),
    'bgra16': (wide(alpha(NOISE[..., ::-1])), NOISE),
}
CLOSE: dict[str, tuple[np.ndarray, int]] = {
    # encoding: what is sent, HEIGHT in the message is that of SMOOTH
    'yuv422': (packed_422(SMOOTH, 'uyvy'), HEIGHT),
    'uyvy': (packed_422(SMOOTH, 'uyvy'), HEIGHT),
    'yuv422_yuy2': (packed_422(SMOOTH, 'yuyv'), HEIGHT),
    'yuyv': (packed_422(SMOOTH, 'yuyv'), HEIGHT),
    'nv12': (planar_420(SMOOTH, 'uv'), HEIGHT),
    'nv21': (planar_420(SMOOTH, 'vu'), HEIGHT),
}
for _pattern in ('rggb', 'bggr', 'gbrg', 'grbg'):
    CLOSE[f'bayer_{_pattern}8'] = (mosaic(SMOOTH, _pattern), HEIGHT)
    CLOSE[f'bayer_{_pattern}16'] = (wide(mosaic(SMOOTH, _pattern)), HEIGHT)

PADDINGS = (0, 1, 7)  # odd ones put 16-bit values on odd addresses


def test_every_encoding_is_tested() -> None:
    tested = {name.lower() for name in (*EXACT, *CLOSE)} | {'16uc1', '16sc1', '32fc1'}
    # the generic 16-bit ones are those with names
    assert set(ENCODINGS) - tested <= {'16uc3', '16uc4'}


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('encoding', EXACT)
def test_pixels_are_exact(encoding: str, padding: int) -> None:
    sent, expected = EXACT[encoding]
    np.testing.assert_array_equal(image_to_rgb(message(sent, encoding, padding=padding)), expected)


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('encoding', CLOSE)
def test_colours_survive_mosaics_and_subsampling(encoding: str, padding: int) -> None:
    sent, height = CLOSE[encoding]
    rgb = image_to_rgb(message(sent, encoding, padding=padding, height=height))
    assert rgb.shape == SMOOTH.shape
    inner = (slice(2, -2), slice(2, -2))  # the borders have no neighbours to interpolate from
    difference = np.abs(rgb[inner].astype(int) - SMOOTH[inner].astype(int))
    assert difference.max() <= 8


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('encoding', ['mono16', 'rgb16', 'bgra16'])
def test_big_endian(encoding: str, padding: int) -> None:
    sent, expected = EXACT[encoding]
    big = message(sent, encoding, padding=padding, big_endian=True)
    np.testing.assert_array_equal(image_to_rgb(big), expected)


@pytest.mark.parametrize('big_endian', [False, True])
def test_depth_is_spread_over_its_range(big_endian: bool) -> None:
    depth = np.linspace(1.0, 3.0, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    depth[0, 0] = np.nan
    depth[0, 1] = np.inf
    depth[0, 2] = 1.0
    rgb = image_to_rgb(message(depth, '32FC1', big_endian=big_endian))
    assert rgb[0, 0, 0] == rgb[0, 1, 0] == rgb[0, 2, 0] == 0
    assert (rgb[-1, -1] == 255).all()
    assert int(rgb[HEIGHT // 2, 0, 0]) == pytest.approx(127, abs=2)
    millimetres = np.where(np.isfinite(depth), depth * 1000, 0).astype(np.uint16)
    rgb = image_to_rgb(message(millimetres, '16UC1', big_endian=big_endian))
    assert rgb[0, 0, 0] == 0
    assert rgb[-1, -1, 0] == 255


@pytest.mark.parametrize('value', [0.0, 5.0, np.nan])
def test_depth_without_a_range_is_black(value: float) -> None:
    flat = np.full((HEIGHT, WIDTH), value, np.float32)
    assert not image_to_rgb(message(flat, '32FC1')).any()


def test_encodings_are_known_in_any_case() -> None:
    np.testing.assert_array_equal(image_to_rgb(message(NOISE, ' RGB8 ')), NOISE)


def test_packed_rgb8_is_not_copied() -> None:
    sent = message(NOISE, 'rgb8')
    rgb = image_to_rgb(sent)
    sent.data[0] = (int(rgb[0, 0, 0]) + 1) % 256
    assert rgb[0, 0, 0] == sent.data[0]


def test_frames_are_read_only() -> None:
    for sent in (message(NOISE, 'rgb8'), message(NOISE, 'bgr8')):
        with pytest.raises(ValueError, match='read-only'):
            image_to_rgb(sent)[0, 0, 0] = 1


def test_the_last_row_may_lack_its_padding() -> None:
    sent = message(NOISE, 'rgb8', padding=5)
    sent.data = sent.data[:-5]
    np.testing.assert_array_equal(image_to_rgb(sent), NOISE)


@pytest.mark.parametrize('encoding', [*EXACT, *CLOSE, '16UC1', '32FC1'])
@pytest.mark.parametrize('missing', [1, 100])
def test_truncated_data(encoding: str, missing: int) -> None:
    if encoding in EXACT:
        sent = message(EXACT[encoding][0], encoding)
    elif encoding in CLOSE:
        sent = message(CLOSE[encoding][0], encoding, height=HEIGHT)
    else:
        sent = message(np.zeros((HEIGHT, WIDTH), 'u2' if encoding == '16UC1' else 'f4'), encoding)
    sent.data = sent.data[:-missing]
    with pytest.raises(ValueError, match='truncated'):
        image_to_rgb(sent)


def test_a_step_shorter_than_the_row() -> None:
    sent = message(NOISE, 'rgb8')
    sent.step -= 1
    with pytest.raises(ValueError, match='step of 95 bytes'):
        image_to_rgb(sent)


@pytest.mark.parametrize('encoding', ['rgb8', 'nv12', 'bayer_rggb8', 'strange'])
@pytest.mark.parametrize(('height', 'width'), [(0, 0), (0, 4), (4, 0)])
def test_zero_size(encoding: str, height: int, width: int) -> None:
    with pytest.raises(ValueError, match='check the camera driver'):
        image_to_rgb(Image(height=height, width=width, encoding=encoding, step=12))


@pytest.mark.parametrize(
    ('encoding', 'height', 'width'),
    [('yuv422', 4, 5), ('nv12', 4, 5), ('nv21', 5, 4), ('bayer_rggb8', 1, 1)],
)
def test_sizes_that_do_not_fit_the_encoding(encoding: str, height: int, width: int) -> None:
    sent = Image(height=height, width=width, encoding=encoding, step=64, data=bytes(1024))
    with pytest.raises(ValueError, match='driver'):
        image_to_rgb(sent)


def test_unknown_encoding_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match='bayer_rggb8.*rgb8.*install cv_bridge'):
        image_to_rgb(message(NOISE, 'hdr10'))


def test_unknown_encoding_goes_through_cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    class CvBridge:
        def imgmsg_to_cv2(self, sent: Image, encoding: str) -> Any:
            if sent.encoding == 'broken':
                raise RuntimeError('no conversion')
            assert encoding == 'rgb8'
            return NOISE

    module = types.ModuleType('cv_bridge')
    module.CvBridge = CvBridge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    np.testing.assert_array_equal(image_to_rgb(message(NOISE, 'hdr10')), NOISE)
    with pytest.raises(ValueError, match="cannot convert encoding 'broken'"):
        image_to_rgb(message(NOISE, 'broken'))


def test_agrees_with_cv_bridge() -> None:
    cv_bridge = pytest.importorskip('cv_bridge', reason='cv_bridge is not installed')
    bridge = cv_bridge.CvBridge()
    for encoding in ('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'bayer_rggb8', 'yuv422'):
        sent = message(*(EXACT.get(encoding) or CLOSE[encoding])[:1], encoding, padding=3)
        np.testing.assert_allclose(
            image_to_rgb(sent).astype(int), bridge.imgmsg_to_cv2(sent, 'rgb8').astype(int), atol=1
        )


# Compressed


def compressed(extension: str, picture_format: str, bgr: np.ndarray) -> CompressedImage:
    done, data = cv2.imencode(extension, bgr)
    assert done
    return CompressedImage(format=picture_format, data=data.tobytes())


@pytest.mark.parametrize('picture_format', ['png', 'rgb8; png compressed bgr8', '', 'PNG'])
def test_png_is_exact(picture_format: str) -> None:
    sent = compressed('.png', picture_format, NOISE[..., ::-1])
    np.testing.assert_array_equal(compressed_to_rgb(sent), NOISE)


@pytest.mark.parametrize(
    'picture_format', ['jpeg', 'jpg', 'rgb8; jpeg compressed bgr8', 'bgr8; jpeg compressed bgr8']
)
def test_jpeg(picture_format: str) -> None:
    sent = compressed('.jpg', picture_format, SMOOTH[..., ::-1])
    difference = np.abs(compressed_to_rgb(sent).astype(int) - SMOOTH.astype(int))
    assert difference.mean() < 4


def test_a_file_written_with_red_first_is_turned_round() -> None:
    sent = compressed('.png', 'rgb8; png compressed rgb8', NOISE)
    np.testing.assert_array_equal(compressed_to_rgb(sent), NOISE)


def test_grey_jpeg() -> None:
    rgb = compressed_to_rgb(compressed('.jpg', 'mono8; jpeg compressed ', SMOOTH[..., 0]))
    assert rgb.shape == SMOOTH.shape
    np.testing.assert_array_equal(rgb[..., 0], rgb[..., 2])


@pytest.mark.parametrize(
    ('data', 'picture_format', 'match'),
    [
        (b'', 'jpeg', 'without data'),
        (b'not a picture', 'jpeg', 'cannot be decoded'),
        (cv2.imencode('.png', NOISE)[1].tobytes()[:60], 'png', 'cannot be decoded'),
        (b'\x00' * 500, '16UC1; compressedDepth png', 'depth'),
    ],
)
def test_broken_compressed_images(data: bytes, picture_format: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        compressed_to_rgb(CompressedImage(format=picture_format, data=data))


# Frames and filling


def test_a_frame_has_the_stamp_and_frame_of_its_message() -> None:
    for sent in (message(NOISE, 'rgb8'), compressed('.png', 'png', NOISE[..., ::-1])):
        sent.header.stamp.sec, sent.header.stamp.nanosec = 12, 345
        sent.header.frame_id = 'optical'
        frame = to_frame(sent, 'front')
        assert (frame.camera, frame.frame_id) == ('front', 'optical')
        assert frame.stamp_ns == 12_000_000_345
        np.testing.assert_array_equal(frame.image, NOISE)
        assert stamp_to_ns(sent.header.stamp) == frame.stamp_ns


@pytest.mark.parametrize(
    ('pixels', 'encoding'),
    [
        (NOISE, 'rgb8'),
        (NOISE[:, ::2], 'rgb8'),
        (GREY, 'mono8'),
        (np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH), 'mono16'),
    ],
)
def test_filled_images_hold_the_pixels(pixels: np.ndarray, encoding: str) -> None:
    filled = fill_image(Image(), pixels, encoding)
    assert isinstance(filled.data, array)
    assert filled.encoding == encoding
    back = np.frombuffer(filled.data, pixels.dtype).reshape(pixels.shape)
    np.testing.assert_array_equal(back, pixels)
    assert filled.step * filled.height == len(filled.data)


def test_byte_array_takes_bytes_and_arrays() -> None:
    assert byte_array(b'\x01\x02') == byte_array(np.array([1, 2], np.uint8)) == array('B', [1, 2])
