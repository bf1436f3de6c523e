# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the processor of the full PixelRefer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelrefer_ros.models.pixelrefer.full import FullPixelReferConfig, FullPixelReferProcessor
from pixelrefer_ros.models.pixelrefer.pixels import fitted_size
from tests.models.conftest import box_mask, picture, small_full_config

PLACES = '<REGION>' * 8


def content(prompt: str) -> str:
    start, end = '<|im_start|>user\n', '<|im_end|>\n<|im_start|>assistant\n'
    assert prompt.startswith(start)
    assert prompt.endswith(end)
    return prompt[len(start) : -len(end)]


def with_config(processor: FullPixelReferProcessor, **changes) -> FullPixelReferProcessor:
    return FullPixelReferProcessor(small_full_config(**changes), processor.tokenizer)


def test_picture_goes_before_the_words(full_processor: FullPixelReferProcessor) -> None:
    prompt = full_processor.prompt(' Is <region> on <region>? ', [8, 3], 1)
    assert content(prompt) == f'<image>\nIs [{PLACES}] on [{"<REGION>" * 3}]?'


def test_pictures_go_where_the_text_says(full_processor: FullPixelReferProcessor) -> None:
    prompt = full_processor.prompt('What of <image> is in <image>', [], 2)
    assert content(prompt) == 'What of<image>\nis in<image>\n'


def test_several_pictures_without_a_place_go_first(
    full_processor: FullPixelReferProcessor,
) -> None:
    assert content(full_processor.prompt('Same?', [], 3)) == '<image>\n' * 3 + 'Same?'


@pytest.mark.parametrize('text', ['What is <region>?', '<video>\nWhat is <region>?'])
def test_frames_of_a_video_have_times(full_processor, text: str) -> None:
    prompt = full_processor.prompt(text, [2], 3, [0.0, 0.25, 12])
    times = 'Time 0.0s:<image>,Time 0.2s:<image>,Time 12.0s:<image>\n'
    assert content(prompt) == times + 'What is [<REGION><REGION>]?'


def test_region_without_tokens_has_empty_brackets(full_processor) -> None:
    assert content(full_processor.prompt('<region>', [0], 1)) == '<image>\n[]'


@pytest.mark.parametrize(
    ('text', 'regions', 'frames', 'times', 'message'),
    [
        ('<region>', [], 1, None, '1 <region> marks for 0 objects'),
        ('<image><image>', [], 1, None, 'place of 2 pictures, it needs 1 <image>'),
        ('<video>', [], 1, None, 'it needs 1 <image>'),
        ('<image>', [], 1, [0.0], 'it needs 1 <video>'),
        ('Hm?', [], 2, [0.0], '1 times for 2 frames'),
    ],
)
def test_prompts_that_do_not_fit_are_refused(
    full_processor, text, regions, frames, times, message
) -> None:
    with pytest.raises(ValueError, match=message):
        full_processor.prompt(text, regions, frames, times)


def test_every_frame_takes_as_many_ids_as_it_has_tokens(full_processor) -> None:
    prompt = full_processor.prompt('<image>a<image>', [], 2)
    ids = full_processor.encode(prompt, [3, 2])[0].tolist()
    once = full_processor.encode(prompt)[0].tolist()
    first, second = (place for place, token in enumerate(once) if token == 259)
    assert ids == (
        once[:first] + [259] * 3 + once[first + 1 : second] + [259] * 2 + once[second + 1 :]
    )
    with pytest.raises(ValueError, match='shows 2 frames, 1 are given'):
        full_processor.encode(prompt, [5])


def test_pictures_are_whole_patches_and_video_frames_squares_of_them(full_processor) -> None:
    frames = [picture(seed, 90, 130) for seed in range(2)]
    as_pictures = full_processor.frames(frames, video=False)
    assert as_pictures.pictures.grids == ((6, 9),) * 2
    assert as_pictures.token_counts == [54, 54]
    as_video = full_processor.frames(frames, video=True)
    assert as_video.pictures.grids == ((6, 10),) * 2
    assert as_video.merge == 2
    assert as_video.token_counts[0] == 15
    assert as_video.pictures.patches.dtype == torch.uint8


def test_frames_share_the_pixel_budget_when_the_reference_is_followed(full_processor) -> None:
    frames = [picture(seed) for seed in range(4)]
    small = with_config(
        full_processor, mm_max_length=40, min_pixels=196, compat_shared_budget=True
    )
    assert small.frames(frames[:1], video=False).pictures.grids == ((4, 6),)
    assert small.frames(frames, video=False).pictures.grids == ((2, 3),) * 4
    # a video has merge x merge patches to the token
    assert small.frames(frames, video=True).pictures.grids == ((4, 6),) * 4
    assert small.frames(frames * 10, video=True).pictures.grids == ((2, 2),) * 40


def test_size_of_a_frame_does_not_depend_on_company(full_processor) -> None:
    frames = [picture(seed) for seed in range(4)]
    small = with_config(full_processor, mm_max_length=40, min_pixels=196, max_frames_per_region=8)
    for count in (1, 2, 4, 20):
        shown = (frames * 5)[:count]
        assert small.frames(shown, video=True).pictures.grids == ((2, 4),) * count
        assert small.frames(shown, video=False).pictures.grids == ((4, 6),) * count


@pytest.mark.parametrize(
    ('size', 'frames', 'video', 'expected'),
    [
        ((360, 640), 20, True, (364, 644)),
        ((360, 640), 1, False, (364, 644)),
        ((1080, 1920), 8, True, (672, 1176)),
        ((1080, 1920), 8, False, (336, 588)),
        ((20, 100), 3, True, (28, 140)),
        ((42, 70), 1, True, (56, 56)),  # halves are rounded to even
        ((49, 63), 1, False, (56, 56)),
        ((10, 30), 1, False, (42, 98)),
    ],
)
def test_published_sizes_of_frames(size, frames: int, video: bool, expected) -> None:
    config = FullPixelReferConfig(compat_shared_budget=True)
    found = fitted_size(
        *size,
        config.min_pixels,
        config.frame_budget(frames, video),
        config.frame_size_factor(video),
    )
    assert found == expected


@pytest.mark.parametrize(
    ('size', 'video', 'expected'),
    [
        ((360, 640), True, (364, 644)),
        ((480, 640), True, (476, 644)),
        ((720, 1280), True, (420, 728)),
        ((1080, 1920), True, (420, 728)),
        ((1080, 1920), False, (938, 1680)),
    ],
)
def test_published_sizes_of_frames_in_any_company(size, video: bool, expected) -> None:
    config = FullPixelReferConfig()
    found = {
        fitted_size(
            *size,
            config.min_pixels,
            config.frame_budget(frames, video),
            config.frame_size_factor(video),
        )
        for frames in range(1, 21)
    }
    assert found == {expected}


def test_still_video_is_read_once(full_processor) -> None:
    frames = [picture(0)] * 3
    whole = with_config(full_processor, use_token_compression=False)
    assert full_processor.frames(frames, video=True).token_counts == [6, 1, 1]
    assert whole.frames(frames, video=True).token_counts == [6, 6, 6]
    assert full_processor.frames(frames, video=False).token_counts[1:] == [24, 24]


def test_regions_have_as_many_tokens_as_cells(full_processor) -> None:
    masks = [box_mask(5, 5, 30, 30), np.zeros((60, 80), np.uint8), box_mask(59, 79, 1, 1)]
    inputs = full_processor.regions([picture()], masks, [0, 0, 0])
    assert inputs.token_counts[:2] == (8, 0)
    assert 1 <= inputs.token_counts[2] <= 8
    assert inputs.layout.lengths[0] > 8
    assert len(inputs.crops.grids) == 3
    assert full_processor.regions([], [], []).token_counts == ()


def test_masks_share_the_budget_only_when_the_reference_is_followed(full_processor) -> None:
    masks = [box_mask(40, 50, 5, 5)] * 4
    small = {'mm_max_length': 40, 'min_pixels': 196}
    own = with_config(full_processor, **small).regions([picture()], masks, [0] * 4)
    assert all(25 < rows * columns <= 40 for rows, columns in own.crops.grids)
    shared = with_config(full_processor, compat_shared_budget=True, **small)
    grids = shared.regions([picture()], masks, [0] * 4).crops.grids
    assert all(rows * columns <= 10 for rows, columns in grids)


def test_working_size_makes_large_frames_cheap(full_processor) -> None:
    small = with_config(full_processor, working_long_side=80)
    assert small.frames([picture(0, 600, 800)], video=False).pictures.grids == ((4, 6),)
    mask = box_mask(100, 100, 200, 200, (600, 800))
    inputs = small.regions([picture(0, 600, 800)], [mask], [0])
    expected = small.regions([picture(0, 600, 800)[5::10, 5::10]], [mask[5::10, 5::10]], [0])
    assert inputs.crops.grids == expected.crops.grids


def test_mask_of_another_size_is_refused(full_processor) -> None:
    with pytest.raises(ValueError, match='a mask is 80x59 pixels and its frame 80x60'):
        full_processor.regions([picture()], [np.ones((59, 80), np.uint8)], [0])
