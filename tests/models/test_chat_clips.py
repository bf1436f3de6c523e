# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Show that clips are cut into patches as the models were trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoProcessor
from transformers.video_utils import VideoMetadata

from pixelrefer_ros.core.chat import Picture, Turn, Video
from pixelrefer_ros.models.chat.clips import load_processor
from pixelrefer_ros.models.chat.prompt import Sight, read, shared_tokens
from tests.models.chat_models import FAMILIES, MULTIPLE, Family, picture, write_model


def _torchvision_works() -> bool:
    try:
        import torchvision  # noqa: F401
    except Exception:  # built for another torch, it raises nearly anything
        return False
    return True


@pytest.fixture(scope='module', params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope='module')
def processors(tmp_path_factory: pytest.TempPathFactory, family: Family) -> tuple[object, object]:
    """Return the processor and the directory it came from."""
    directory = write_model(tmp_path_factory.mktemp(family), family)
    return load_processor(directory, AutoConfig.from_pretrained(directory)), directory


def test_a_clip_of_one_still_frame_is_cut_like_the_picture(
    processors: tuple[object, object], family: Family
) -> None:
    side = MULTIPLE[family]
    still = picture(4, 2 * side, 3 * side)
    turns = [Turn('user', (Picture(still), Video((still, still), 2.0), 'What?'))]
    inputs = read(processors[0], turns).inputs
    torch.testing.assert_close(inputs['pixel_values_videos'], inputs['pixel_values'].float())
    assert inputs['video_grid_thw'].tolist() == inputs['image_grid_thw'].tolist()


def test_patches_go_through_pairs_of_frames_and_the_last_one_stands_still(
    processors: tuple[object, object], family: Family
) -> None:
    side = MULTIPLE[family]
    frames = [picture(seed, side, side) for seed in range(3)]
    inputs = read(processors[0], [Turn('user', (Video(tuple(frames), 2.0), 'What?'))]).inputs
    assert inputs['video_grid_thw'].tolist() == [[2, 2, 2]]
    patch = side // 2
    values = inputs['pixel_values_videos'].reshape(2, 2, 2, 3, 2, patch, patch).numpy()
    for number, image in enumerate([*frames, frames[2]]):
        # a token's patches stand in rows of two
        seen = values[number // 2, :, :, :, number % 2].transpose(0, 3, 1, 4, 2)
        shown = (image / 255 - 0.5) / 0.5
        np.testing.assert_allclose(seen.reshape(side, side, 3), shown, atol=1e-6)


@pytest.mark.skipif(not _torchvision_works(), reason='compares with what torchvision does')
@pytest.mark.parametrize('count', [2, 5])
def test_cuts_as_the_processors_of_transformers_do(
    processors: tuple[object, object], family: Family, count: int
) -> None:
    side = MULTIPLE[family]
    frames = [picture(seed, 2 * side, 3 * side) for seed in range(count)]
    still = picture(50, side, side)
    turns = [Turn('user', (Video(tuple(frames), 2.0), 'What?', Picture(still)))]
    ours = read(processors[0], turns).inputs
    content = [
        {'type': 'video', 'video': np.stack(frames)},
        {'type': 'text', 'text': 'What?'},
        {'type': 'image', 'image': Image.fromarray(still)},
    ]
    metadata = VideoMetadata(
        total_num_frames=count, fps=2.0, duration=count / 2, frames_indices=list(range(count))
    )
    theirs = AutoProcessor.from_pretrained(processors[1]).apply_chat_template(
        [{'role': 'user', 'content': content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors='pt',
        processor_kwargs={
            'images_kwargs': {'do_resize': False},
            'videos_kwargs': {
                'do_resize': False,
                'do_sample_frames': False,
                'video_metadata': [[metadata]],
            },
        },
    )
    for name, value in ours.items():
        torch.testing.assert_close(
            torch.as_tensor(value), torch.as_tensor(theirs[name]), check_dtype=False
        )


def test_prompts_share_whole_pictures_only() -> None:
    ids = [1, 2, 9, 9, 9, 3, 4]
    one, other = Sight('image', 2, 5, b'a'), Sight('image', 2, 5, b'b')
    assert shared_tokens(ids, [one], ids, [one]) == 7
    assert shared_tokens(ids, [one], ids, [other]) == 2
    assert shared_tokens(ids, [one], [1, 2, 9, 9, 9, 3, 5], [one]) == 6
    # cut through the picture: none of it counts
    assert shared_tokens(ids, [one], [1, 2, 9, 9], [one]) == 2
    assert shared_tokens([1, 5], [], ids, [one]) == 1
    assert shared_tokens([], [], ids, [one]) == 0
