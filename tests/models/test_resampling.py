# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test that resizing on the device is that of OpenCV and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrefer_ros.models.pixelrefer.resampling import (
    EXACT,
    MAX_KEPT_BYTES,
    DeviceResizer,
    _kept,
    area_weights,
    bicubic_weights,
    linear_weights,
    pick_resizer,
    stretch_weights,
)

DEVICE = DeviceResizer(torch.device('cpu'))
SIDES = st.integers(1, 90)


def differences(how: str, seed: int, height: int, width: int, size: tuple[int, int]) -> np.ndarray:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    expected = getattr(EXACT, how)(picture, size)
    found = getattr(DEVICE, how)(DEVICE.upload(picture), size)
    assert found.dtype == torch.uint8
    assert found.shape == (size[1], size[0], 3) == expected.shape
    return np.abs(found.numpy().astype(int) - expected)


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 9))
def test_linear_and_area_are_those_of_opencv(
    height: int, width: int, rows: int, columns: int, seed: int
) -> None:
    for how in ('linear', 'area'):
        assert differences(how, seed, height, width, (columns, rows)).max() <= 1


@pytest.mark.parametrize(
    ('height', 'width', 'size'),
    [(480, 640, (336, 336)), (720, 1280, (336, 336)), (100, 90, (224, 224)), (300, 60, (224, 224)),
     (480, 640, (256, 192)), (448, 672, (224, 224))],
)  # fmt: skip
def test_sizes_that_occur(height: int, width: int, size: tuple[int, int]) -> None:
    assert differences('area', 1, height, width, size).max() <= 1


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(0, 60), st.integers(0, 60), st.integers(0, 9))
def test_growing_is_that_of_pillow(
    height: int, width: int, more_rows: int, more_columns: int, seed: int
) -> None:
    found = differences('bicubic', seed, height, width, (width + more_columns, height + more_rows))
    # where a sum of noise is half a grey level, its rounding is a coin toss in either
    assert np.mean(found > 1) < 1e-3
    assert found.max() <= 2


def test_shrinking_to_the_budget_is_that_of_pillow() -> None:
    assert differences('bicubic', 2, 420, 560, (364, 280)).max() <= 1


@pytest.mark.parametrize(
    'weights', [linear_weights, area_weights, stretch_weights, bicubic_weights]
)
@pytest.mark.parametrize(('source', 'target'), [(7, 7), (10, 3), (1, 5), (40, 41), (33, 183)])
def test_weights_add_up(weights, source: int, target: int) -> None:
    matrix = weights(source, target)
    assert matrix.shape == (target, source)
    torch.testing.assert_close(matrix.sum(1), torch.ones(target))


def test_kept_weights_are_bounded_in_bytes() -> None:
    _kept.cache_clear()
    row = DEVICE.upload(np.zeros((2, 1280, 3), np.uint8))
    assert DEVICE.bicubic(row, (1288, 2)).shape == (2, 1288, 3)  # 6.6 MB
    held = _kept.cache_info().currsize
    DEVICE.area(row, (336, 2))
    assert MAX_KEPT_BYTES > 4 * 336 * 1280
    # the two rows have weights, too
    assert (held, _kept.cache_info().currsize) == (1, 3)
    DEVICE.area(row, (336, 2))
    assert _kept.cache_info().currsize == 3


def test_picture_of_the_right_size_stays_as_it_is() -> None:
    picture = DEVICE.upload(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    assert DEVICE.area(picture, (5, 4)) is picture


def test_frames_of_any_layout_are_uploaded() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    flipped = image[::-1, :, ::-1]
    flipped.flags.writeable = False
    uploaded = DEVICE.upload(flipped)
    np.testing.assert_array_equal(uploaded.numpy(), flipped)
    assert not np.shares_memory(uploaded.numpy(), image)


def test_resizer_is_chosen_by_name_and_device() -> None:
    assert pick_resizer('auto', torch.device('cpu')) is EXACT
    assert pick_resizer('exact', torch.device('cuda')) is EXACT
    assert isinstance(pick_resizer('auto', torch.device('cuda')), DeviceResizer)
    assert isinstance(pick_resizer('device', torch.device('cpu')), DeviceResizer)
    with pytest.raises(ValueError, match="resize is 'fast', must be 'auto', 'exact' or 'device'"):
        pick_resizer('fast', torch.device('cpu'))
