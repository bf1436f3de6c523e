# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check which frames a model is shown, and in what size and form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.core.chat import Picture, Video
from pixelrefer_ros.core.types import Frame
from pixelrefer_ros.grounding.pictures import choose_frames, frame_parts, resize
from pixelrefer_ros.grounding.profiles import FramesAs, load_profile

PROFILE = load_profile('tabletop')
PICTURE = np.zeros((84, 112, 3), np.uint8)
IMAGES = [np.full_like(PICTURE, i) for i in range(3)]


@given(st.sets(st.integers(0, 10**12), min_size=1, max_size=60).map(sorted), st.integers(1, 20))
def test_frames_are_spread_over_the_window_and_never_repeated(
    stamps: list[int], count: int
) -> None:
    frames = [Frame('', stamp, PICTURE) for stamp in stamps]
    chosen = choose_frames(frames, count)
    assert len(chosen) == min(count, len(stamps))
    assert list(chosen) == sorted(set(chosen))
    assert chosen[-1] == len(stamps) - 1
    if count > 1:
        assert chosen[0] == 0


def test_frames_are_spread_in_time_where_the_window_is_thinned() -> None:
    # One frame a second for ten seconds, then ten a second for one.
    stamps = [i * 10**9 for i in range(10)] + [9 * 10**9 + i * 10**8 for i in range(1, 11)]
    chosen = choose_frames([Frame('', stamp, PICTURE) for stamp in stamps], 6)
    assert [round(stamps[i] / 1e9, 1) for i in chosen] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


@pytest.mark.parametrize('size', [(8, 8), (96, 96), (48, 20), (12, 60), (24, 20), (448, 448)])
def test_an_image_takes_the_size_and_keeps_its_layout(size: tuple[int, int]) -> None:
    image = np.zeros((20, 48, 3), np.uint8)
    image[:, 24:] = (200, 100, 50)
    resized = resize(image, size)
    assert resized.shape == (size[1], size[0], 3)
    assert resized.dtype == np.uint8
    assert (resized[:, 0] == 0).all()
    assert (resized[:, -1] == (200, 100, 50)).all()
    assert abs(float(resized[..., 0].mean()) - 100.0) < 2.0


def test_shrinking_one_side_averages_even_where_the_other_grows() -> None:
    stripes = np.zeros((10, 80, 3), np.uint8)
    stripes[:, ::2] = 200
    resized = resize(stripes, (20, 20))
    assert (resized == 100).all()


@pytest.mark.parametrize(
    ('frames_as', 'shows_video', 'as_video'),
    [
        (FramesAs.AUTO, True, True),
        (FramesAs.AUTO, False, False),
        (FramesAs.PICTURES, True, False),
        (FramesAs.VIDEO, True, True),
    ],
)
def test_frames_go_as_a_clip_or_as_pictures(
    frames_as: FramesAs, shows_video: bool, as_video: bool
) -> None:
    profile = dataclasses.replace(PROFILE, frames_as=frames_as)
    parts = frame_parts(IMAGES, profile, shows_video)
    if as_video:
        assert parts == (Video(tuple(IMAGES), 2.0),)
    else:
        assert [part.image for part in parts if isinstance(part, Picture)] == IMAGES
        assert len(parts) == 3


def test_pictures_carry_their_labels() -> None:
    profile = dataclasses.replace(PROFILE, picture_label='{index} at {time_s} s', fps=4.0)
    parts = frame_parts(IMAGES, profile, False)
    assert [part for part in parts if isinstance(part, str)] == [
        '0 at 0 s', '1 at 0.25 s', '2 at 0.5 s',
    ]  # fmt: skip
    assert [type(part) for part in parts] == [str, Picture] * 3


def test_a_single_frame_is_a_picture() -> None:
    assert frame_parts(IMAGES[:1], PROFILE, True) == (Picture(IMAGES[0]),)
