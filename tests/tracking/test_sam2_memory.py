# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare a pruned session with one that keeps everything, to the last bit."""

from __future__ import annotations

import pytest
import torch
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from bench._tiny_sam2 import believe
from pixelrefer_ros.tracking.sam2_memory import NEWEST_PROMPTS, Decoded, RegionMemory
from tests.tracking.sam2_rig import frame, rectangle, segmenter

FRAMES = 60
POINTS = torch.tensor([[12.0, 10.0], [40.0, 44.0]])
LABELS = torch.tensor([2, 3], dtype=torch.int32)


def unpruned(prompt: str) -> list[tuple[torch.Tensor, float]]:
    """Follow a region with transformers alone, nothing forgotten."""
    model = segmenter().model
    session = Sam2VideoInferenceSession(dtype=torch.float32)
    number = session.obj_id_to_idx(7)
    if prompt == 'points':
        inputs = {'point_coords': POINTS[None, None], 'point_labels': LABELS[None, None]}
        session.add_point_inputs(number, 0, inputs)
    else:
        picture = torch.from_numpy(rectangle(16, 16, 24, 20, (64, 64))).float()
        session.add_mask_inputs(number, 0, picture[None, None])
    session.obj_with_new_inputs = [7]
    told = []
    for index in range(FRAMES):
        one = frame(index)
        pixels = segmenter().look(one.stamp_ns, one.image).pixels
        out = model(session, frame=pixels, frame_idx=index)
        told.append((out.pred_masks[0, 0], float(out.object_score_logits)))
    assert len(session.processed_frames) == FRAMES
    return told


def pruned(prompt: str, window: int | None = None) -> list[Decoded]:
    memory = RegionMemory(segmenter())
    memory._window = window or memory._window
    memory._spatial_window = min(memory._spatial_window, memory._window)
    told = []
    for index in range(FRAMES):
        one = frame(index)
        picture = segmenter().look(one.stamp_ns, one.image)
        if index:
            told.append(memory.follow(picture))
        elif prompt == 'points':
            told.append(memory.prompt_points(picture, POINTS, LABELS))
        else:
            told.append(memory.prompt_mask(picture, rectangle(16, 16, 24, 20, (64, 64))))
        assert len(memory._outputs['non_cond_frame_outputs']) <= memory._window
        assert not memory._session.processed_frames
    assert len(memory._outputs['non_cond_frame_outputs']) == memory._window
    return told


@pytest.mark.parametrize('prompt', ['points', 'mask'])
def test_pruned_and_unpruned_are_equal_to_the_last_bit(prompt: str) -> None:
    believe(segmenter().model, True)
    for one, (logits, object_logit) in zip(pruned(prompt), unpruned(prompt), strict=True):
        assert torch.equal(one.logits, logits)
        assert one.object_logit == object_logit


def test_the_comparison_tells_a_window_that_is_too_short() -> None:
    believe(segmenter().model, True)
    pairs = list(zip(pruned('points', window=14), unpruned('points'), strict=True))
    equal = [torch.equal(one.logits, logits) for one, (logits, _) in pairs]
    assert equal[:15] == [True] * 15
    assert not all(equal)


def test_prompted_frames_are_the_first_and_the_newest() -> None:
    believe(segmenter().model, True)
    memory = RegionMemory(segmenter())
    for index in range(30):
        one = frame(index)
        picture = segmenter().look(one.stamp_ns, one.image)
        if index:
            memory.follow(picture)
        memory.prompt_mask(picture, rectangle(10, 10, 20, 20))
    newest = range(30 - NEWEST_PROMPTS, 30)
    assert list(memory._outputs['cond_frame_outputs']) == [0, *newest]
    assert memory._session.point_inputs_per_obj == {0: {}}
    assert memory._session.mask_inputs_per_obj == {0: {}}
    assert len(memory._session.frames_tracked_per_obj[0]) <= 16


@pytest.mark.parametrize(
    ('logits', 'object_logit', 'score'),
    [
        ([[20.0, -20.0]], 60.0, 1.0),
        ([[20.0, 0.0]], 60.0, 0.5),
        ([[20.0, -20.0]], 0.0, 0.5),
        ([[20.0, -20.0]], -1e9, 0.0),
        ([[-1024.0, -1024.0]], 5.0, 0.0),
    ],
)
def test_score_is_belief_times_stability(
    logits: list[list[float]], object_logit: float, score: float
) -> None:
    assert Decoded(torch.tensor(logits), object_logit).score == pytest.approx(score)


def test_masks_are_scaled_to_the_frame() -> None:
    decoded = Decoded(torch.tensor([[9.0, -9.0], [-9.0, -9.0]]), 9.0)
    mask = decoded.mask(6, 8)
    assert mask.shape == (6, 8)
    assert mask[0, 0]
    assert not mask[:, 4:].any()
    assert not mask[3:].any()
