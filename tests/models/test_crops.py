# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test sizes of pictures, crops and the scaling of frames and masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.models.pixelrefer.configuration import PixelReferConfig
from pixelrefer_ros.models.pixelrefer.crops import (
    context_crop,
    object_crop,
    square,
    working_frame,
    working_mask,
)
from pixelrefer_ros.models.pixelrefer.pixels import fitted_size, to_patches
from tests.models.conftest import box_mask, picture

PAPER = PixelReferConfig(
    vision_encoder_config={'hidden_size': 8, 'num_attention_heads': 1, 'patch_size': 14}
)


@given(st.integers(1, 600), st.integers(1, 600))
def test_fitted_sizes_are_whole_patches_within_the_budget(height: int, width: int) -> None:
    if max(height, width) > 200 * min(height, width):
        return
    rows, columns = fitted_size(height, width, 3136, 196 * 196)
    assert (rows % 14, columns % 14) == (0, 0)
    assert rows * columns <= 196 * 196 or min(rows, columns) == 14


@pytest.mark.parametrize(
    ('size', 'fitted'),
    [((168, 196), (168, 196)), ((14, 14), (56, 56)), ((35, 49), (56, 70)), ((63, 91), (56, 84)),
     ((7, 21), (42, 98)), ((2000, 1000), (266, 126))],
)  # fmt: skip
def test_fitted_size_examples(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fitted_size(*size, 3136, 196 * 196) == fitted


def test_too_long_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match='too long'):
        fitted_size(14, 14 * 201, 3136, 10**6)


def test_patches_are_channel_row_column() -> None:
    image = np.arange(28 * 42 * 3, dtype=np.uint32).astype(np.uint8).reshape(28, 42, 3)
    patches, grid = to_patches(image, 1, 10**6)
    assert grid == (2, 3)
    assert patches.shape == (6, 588)
    np.testing.assert_array_equal(
        patches[4].reshape(3, 14, 14), image[14:28, 14:28].transpose(2, 0, 1)
    )


def test_crop_has_a_margin_clipped_to_the_frame() -> None:
    crop = object_crop(picture(0, 200, 300), box_mask(2, 100, 20, 30, (200, 300)), PAPER)
    assert crop.box == (0, 72, 49, 157)
    assert crop.frame_size == (200, 300)


def test_small_masks_are_enlarged_by_a_whole_factor() -> None:
    crop = object_crop(picture(0, 200, 300), box_mask(80, 100, 20, 20, (200, 300)), PAPER)
    scale = math.ceil(math.sqrt(196 * 32 / 400))
    assert crop.picture.shape[:2] == (math.ceil(76 * scale / 14) * 14,) * 2
    assert crop.grid_mask.shape == tuple(side // 14 for side in crop.picture.shape[:2])
    assert int((crop.grid_mask > 0).sum()) >= 32


def test_large_masks_are_shrunk_to_the_cap() -> None:
    size = (600, 800)
    crop = object_crop(picture(0, *size), box_mask(100, 100, 400, 500, size), PAPER)
    assert 40 <= int((crop.grid_mask > 0.5).sum()) <= 80
    assert crop.picture.shape == (8 * 14, 9 * 14, 3)


def test_empty_mask_makes_a_black_patch_and_the_whole_frame() -> None:
    image, empty = picture(), np.zeros((60, 80), np.uint8)
    crop = object_crop(image, empty, PAPER)
    assert crop.picture.shape == (14, 14, 3)
    assert not crop.picture.any()
    assert crop.grid_mask.tolist() == [[0.0]]
    assert crop.box == (0, 0, 0, 0)
    np.testing.assert_array_equal(context_crop(image, empty, PAPER), square(image, 224))


def test_one_pixel_makes_a_crop_with_cells() -> None:
    crop = object_crop(picture(), box_mask(0, 79, 1, 1), PAPER)
    assert crop.box == (0, 51, 28, 79)
    assert (crop.grid_mask > 0).any()


def test_context_has_its_own_margin() -> None:
    image = picture(3, 120, 160)
    mask = box_mask(50, 60, 10, 10, (120, 160))
    config = PixelReferConfig(
        vision_encoder_config=PAPER.vision_encoder_config, object_margin=2, context_margin=40
    )
    np.testing.assert_array_equal(
        context_crop(image, mask, config), square(image[10:100, 20:110], 224)
    )
    assert object_crop(image, mask, config).box == (48, 58, 61, 71)


def test_working_size_keeps_small_frames_and_thin_masks() -> None:
    small = picture(0, 60, 80)
    assert working_frame(small, 256) is small
    assert working_frame(picture(0, 480, 640), 256).shape == (192, 256, 3)
    assert working_frame(picture(0, 480, 640), 0).shape == (480, 640, 3)
    thin = box_mask(100, 100, 1, 1, (480, 640))
    assert working_mask(thin, 256).sum() >= 1
    assert not working_mask(np.zeros((480, 640), bool), 256).any()
    half = working_mask(box_mask(0, 0, 240, 640, (480, 640)), 256)
    assert half.shape == (192, 256)
    assert half[:96].all()
    assert not half[96:].any()


def test_masks_of_any_nonzero_value_count_once() -> None:
    bright = box_mask(10, 10, 5, 5) * 255
    np.testing.assert_array_equal(working_mask(bright, 0), box_mask(10, 10, 5, 5))
