# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the crops of the full PixelRefer."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pixelrefer_ros.models.pixelrefer.full.crops import object_crop
from tests.models.conftest import box_mask, picture, small_full_config

CONFIG = small_full_config()


def test_last_row_and_column_of_the_box_are_left_out() -> None:
    frame = picture()
    crop = object_crop(frame, box_mask(20, 30, 10, 10), CONFIG)
    assert crop.box == (14, 24, 35, 45)
    assert crop.frame_size == (60, 80)
    # 100 pixels to cover 8 patches: 4 times as large
    assert crop.picture.shape == (84, 84, 3)
    expected = cv2.resize(frame[14:35, 24:45], (84, 84), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(crop.picture, expected)


def test_grid_mask_is_of_zeros_and_ones_where_the_mask_lies() -> None:
    crop = object_crop(picture(), box_mask(0, 0, 30, 40), CONFIG)
    assert set(np.unique(crop.grid_mask)) == {0.0, 1.0}
    assert crop.grid_mask[0, 0] == 1
    assert crop.grid_mask[-1, -1] == 0
    assert crop.grid_mask.shape == (crop.picture.shape[0] // 14, crop.picture.shape[1] // 14)


def test_large_masks_are_shrunk_bilinearly() -> None:
    frame = picture(0, 600, 800)
    crop = object_crop(frame, np.ones((600, 800), np.uint8), small_full_config(mask_num=32))
    assert crop.picture.shape == (9 * 14, 12 * 14, 3)
    expected = cv2.resize(frame[:599, :799], (168, 126), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(crop.picture, expected)


@pytest.mark.parametrize(
    'mask',
    [
        box_mask(59, 0, 1, 80),
        box_mask(0, 79, 60, 1),
        box_mask(59, 79, 1, 1),
        box_mask(10, 3, 1, 70),
    ],
    ids=['last row', 'last column', 'last pixel', 'line'],
)
def test_thin_masks_keep_cells_unless_the_reference_is_followed(mask: np.ndarray) -> None:
    config = small_full_config(object_margin=28, mask_num=2)
    crop = object_crop(picture(), mask, config)
    assert crop.grid_mask.any()
    followed = object_crop(picture(), mask, small_full_config(
        object_margin=28, mask_num=2, compat_thin_masks=True
    ))  # fmt: skip
    np.testing.assert_array_equal(followed.picture, crop.picture)
    if mask[59].any() or mask[:, 79].any():
        assert not followed.grid_mask.any()


def test_kept_cells_of_a_thin_mask_are_where_it_lies() -> None:
    config = small_full_config(object_margin=28, mask_num=2)
    crop = object_crop(picture(), box_mask(59, 0, 1, 80), config)
    assert crop.grid_mask[-1].all()
    assert not crop.grid_mask[:-1].any()


def test_empty_mask_is_a_black_patch_without_cells() -> None:
    crop = object_crop(picture(), np.zeros((60, 80), np.uint8), CONFIG)
    assert crop.picture.shape == (14, 14, 3)
    assert not crop.picture.any()
    assert not crop.grid_mask.any()
    assert crop.box == (0, 0, 0, 0)


@pytest.mark.parametrize('size', [(1, 80), (60, 1), (1, 1)])
def test_frames_of_one_row_or_column_have_crops(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 90, np.uint8)
    crop = object_crop(frame, np.ones(size, np.uint8), CONFIG)
    assert crop.grid_mask.any()
    assert (crop.picture == 90).all()
