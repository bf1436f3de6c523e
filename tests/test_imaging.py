# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the image decoder on every encoding, row paddings, byte orders and broken data."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

from pixelrefer_ros.imaging import (
    ENCODINGS,
    decode_compressed,
    decode_image,
    encode_jpeg,
)

HEIGHT, WIDTH = 6, 8


def smooth_picture(height=HEIGHT, width=WIDTH):
    rows, columns = np.mgrid[0:height, 0:width]
    rows, columns = rows / height, columns / width
    return np.stack([40 + 120 * rows, 60 + 120 * columns, 200 - 60 * rows - 40 * columns],
                    axis=-1).astype(np.uint8)


def message_bytes(values, padding=0):
    """Return (step, bytes) of rows with padding that no decoder may read as pixels."""
    rows = values.reshape(values.shape[0], -1)
    raw = rows.view(np.uint8).reshape(values.shape[0], -1)
    padded = np.pad(raw, ((0, 0), (0, padding)), constant_values=0xAA)
    return padded.shape[1], padded.tobytes()


def encode(encoding, rgb):
    """Return the pixel values of a message and the RGB that decoding must give."""
    grey = np.repeat(rgb[..., :1], 3, axis=-1)
    alpha = np.full((*rgb.shape[:2], 1), 77, np.uint8)
    wide = rgb.astype(np.uint16) * 257
    wide_alpha = np.full((*rgb.shape[:2], 1), 777, np.uint16)
    bgr, wide_bgr = rgb[..., ::-1], wide[..., ::-1]
    table = {
        'rgb8': (rgb, rgb),
        'bgr8': (bgr, rgb),
        '8uc3': (bgr, rgb),
        'rgba8': (np.concatenate([rgb, alpha], -1), rgb),
        'bgra8': (np.concatenate([bgr, alpha], -1), rgb),
        '8uc4': (np.concatenate([bgr, alpha], -1), rgb),
        'rgb16': (wide, rgb),
        'bgr16': (wide_bgr, rgb),
        '16uc3': (wide_bgr, rgb),
        'rgba16': (np.concatenate([wide, wide_alpha], -1), rgb),
        'bgra16': (np.concatenate([wide_bgr, wide_alpha], -1), rgb),
        '16uc4': (np.concatenate([wide_bgr, wide_alpha], -1), rgb),
        'mono8': (rgb[..., 0], grey),
        '8uc1': (rgb[..., 0], grey),
        'mono16': (wide[..., 0], grey),
    }
    values, expected = table[encoding]
    return np.ascontiguousarray(values), expected


PLAIN = ['rgb8', 'bgr8', '8uc3', 'rgba8', 'bgra8', '8uc4', 'rgb16', 'bgr16', '16uc3', 'rgba16',
         'bgra16', '16uc4', 'mono8', '8uc1', 'mono16']


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', PLAIN)
def test_packed_encodings_are_exact(encoding, padding):
    values, expected = encode(encoding, smooth_picture())
    step, data = message_bytes(values, padding)
    image = decode_image(encoding, HEIGHT, WIDTH, step, 0, data)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('encoding', [name for name in PLAIN if '16' in name])
def test_big_endian(encoding):
    values, expected = encode(encoding, smooth_picture())
    step, data = message_bytes(values.astype('>u2').view(np.uint16), padding=2)
    image = decode_image(encoding, HEIGHT, WIDTH, step, 1, data)
    np.testing.assert_array_equal(image, expected)


def test_names_of_opencv_types_are_taken_in_capitals():
    step, data = message_bytes(smooth_picture()[..., ::-1].copy())
    np.testing.assert_array_equal(decode_image('8UC3', HEIGHT, WIDTH, step, 0, data),
                                  smooth_picture())


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('big_endian', [False, True])
def test_bayer(pattern, bits, big_endian):
    colour = {'r': 200, 'g': 120, 'b': 30}
    tile = np.array([colour[letter] for letter in pattern], np.uint16).reshape(2, 2)
    values = np.tile(tile, (HEIGHT, WIDTH))
    if bits == 8:
        values = values.astype(np.uint8)
    else:
        values = values * 257
        values = values.astype('>u2').view(np.uint16) if big_endian else values
    step, data = message_bytes(values, padding=4)
    image = decode_image(f'bayer_{pattern}{bits}', 2 * HEIGHT, 2 * WIDTH, step, big_endian, data)
    assert image.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    np.testing.assert_array_equal(image[4:-4, 4:-4], np.broadcast_to(
        np.array([200, 120, 30], np.uint8), image[4:-4, 4:-4].shape))


def yuv_of(rgb):
    """Return limited-range BT.601 planes, written out independently of OpenCV."""
    red, green, blue = (rgb[..., index].astype(np.float64) for index in range(3))
    luma = 16 + 0.257 * red + 0.504 * green + 0.098 * blue
    chroma_u = 128 - 0.148 * red - 0.291 * green + 0.439 * blue
    chroma_v = 128 + 0.439 * red - 0.368 * green - 0.071 * blue
    return [plane.round().astype(np.uint8) for plane in (luma, chroma_u, chroma_v)]


FLAT = np.broadcast_to(np.array([180, 90, 40], np.uint8), (HEIGHT, WIDTH, 3))


@pytest.mark.parametrize('padding', [0, 10])
@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'nv12', 'nv21'])
def test_yuv(encoding, padding):
    luma, u, v = yuv_of(FLAT)
    if encoding in ('nv12', 'nv21'):
        first, second = (u, v) if encoding == 'nv12' else (v, u)
        chroma = np.stack([first[::2, ::2], second[::2, ::2]], -1).reshape(HEIGHT // 2, WIDTH)
        values = np.concatenate([luma, chroma])
    else:
        chroma = np.stack([u[:, ::2], v[:, ::2]], -1).reshape(HEIGHT, WIDTH)
        pair = [chroma, luma] if encoding in ('yuv422', 'uyvy') else [luma, chroma]
        values = np.stack(pair, -1)
    step, data = message_bytes(np.ascontiguousarray(values), padding)
    image = decode_image(encoding, HEIGHT, WIDTH, step, 0, data)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(image.astype(int) - FLAT).max() <= 3


@pytest.mark.parametrize('big_endian', [False, True])
def test_depth_is_stretched_to_its_own_range(big_endian):
    depth = np.linspace(1000, 3000, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    wire = depth.astype('>u2').view(np.uint16) if big_endian else depth
    step, data = message_bytes(wire)
    image = decode_image('16UC1', HEIGHT, WIDTH, step, big_endian, data)
    assert image[0, 0].tolist() == [0, 0, 0]
    assert image[-1, -1].tolist() == [255, 255, 255]
    metres = depth.astype(np.float32) / 1000
    metres[2, 3] = np.nan
    metres[2, 4] = np.inf
    wire = metres.astype('>f4').view(np.float32) if big_endian else metres
    step, data = message_bytes(wire, padding=4)
    floats = decode_image('32FC1', HEIGHT, WIDTH, step, big_endian, data)
    assert floats[2, 3].tolist() == floats[2, 4].tolist() == [0, 0, 0]
    finite = np.isfinite(metres)
    assert np.abs(floats[finite].astype(int) - image[finite]).max() <= 1


def test_a_flat_depth_image_and_one_without_values_are_black():
    for value in (5.0, np.nan):
        values = np.full((HEIGHT, WIDTH), value, np.float32)
        assert not decode_image('32FC1', HEIGHT, WIDTH, 4 * WIDTH, 0, values.tobytes()).any()


def test_every_buffer_type_and_no_copy_for_rgb8():
    picture = smooth_picture()
    data = picture.tobytes()
    for buffer in (data, array.array('B', data), np.frombuffer(data, np.uint8),
                   memoryview(data), bytearray(data)):
        np.testing.assert_array_equal(
            decode_image('rgb8', HEIGHT, WIDTH, 3 * WIDTH, 0, buffer), picture)
    flat = np.frombuffer(data, np.uint8)
    assert np.shares_memory(decode_image('rgb8', HEIGHT, WIDTH, 3 * WIDTH, 0, flat), flat)


def test_last_row_may_lack_its_padding_and_surplus_bytes_are_ignored():
    picture = smooth_picture()
    step, data = message_bytes(picture, padding=5)
    np.testing.assert_array_equal(decode_image('rgb8', HEIGHT, WIDTH, step, 0, data[:-5]), picture)
    np.testing.assert_array_equal(decode_image('rgb8', HEIGHT, WIDTH, step, 0, data + b'xyz'),
                                  picture)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_truncated_data_is_refused_for_every_encoding(encoding):
    step = 16 * WIDTH
    rows = HEIGHT * 3 // 2 if encoding.startswith('nv') else HEIGHT
    data = bytes(step * rows)
    assert decode_image(encoding, HEIGHT, WIDTH, step, 0, data).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ValueError, match='truncated'):
        decode_image(encoding, HEIGHT, WIDTH, step, 0, data[:-step])
    with pytest.raises(ValueError, match='truncated'):
        decode_image(encoding, HEIGHT, WIDTH, step, 0, b'')


@pytest.mark.parametrize(('arguments', 'text'), [
    (('rgb8', 0, 8, 24, 0, b''), 'empty images'),
    (('rgb8', 6, 0, 0, 0, b''), 'empty images'),
    (('rgb8', 6, 8, 23, 0, bytes(999)), 'step'),
    (('rgb8', 6, 8, 0, 0, bytes(999)), 'step'),
    (('hologram', 6, 8, 24, 0, bytes(999)), "unknown encoding 'hologram'"),
    (('', 6, 8, 24, 0, bytes(999)), 'unknown encoding'),
    (('yuyv', 6, 7, 24, 0, bytes(999)), 'even width'),
    (('nv12', 5, 8, 24, 0, bytes(999)), 'even size'),
    (('bayer_rggb8', 2, 2, 2, 0, bytes(4)), '3x3'),
])
def test_bad_messages_are_refused_with_a_reason(arguments, text):
    with pytest.raises(ValueError, match=text):
        decode_image(*arguments)


def test_compressed_jpeg_and_png():
    picture = smooth_picture(32, 48)
    png = cv2.imencode('.png', picture[..., ::-1])[1]
    np.testing.assert_array_equal(decode_compressed(png.tobytes(), 'png'), picture)
    np.testing.assert_array_equal(decode_compressed(array.array('B', png.tobytes())), picture)
    jpeg = decode_compressed(encode_jpeg(picture, 95), 'rgb8; jpeg compressed bgr8')
    assert np.abs(jpeg.astype(int) - picture).max() <= 12
    grey = cv2.imencode('.png', picture[..., 0])[1].tobytes()
    assert decode_compressed(grey).shape == (32, 48, 3)


def test_exif_orientation_only_on_request():
    picture = smooth_picture(32, 48)
    exif = (b'\xff\xe1\x00\x22Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01'
            b'\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00')
    coded = encode_jpeg(picture)
    turned = coded[:2] + exif + coded[2:]
    assert decode_compressed(turned).shape == (32, 48, 3)
    assert decode_compressed(turned, use_orientation=True).shape == (48, 32, 3)


@pytest.mark.parametrize(('data', 'name', 'text'), [
    (b'', 'jpeg', 'without data'),
    (b'no picture at all', 'jpeg', 'cannot be decoded'),
    (b'\x00' * 40, '16UC1; compressedDepth png', 'depth'),
])
def test_bad_compressed_images(data, name, text):
    with pytest.raises(ValueError, match=text):
        decode_compressed(data, name)
