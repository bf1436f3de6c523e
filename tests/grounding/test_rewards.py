# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the rewards against values worked out by hand."""

from __future__ import annotations

import pytest

from pixelrefer_ros.core.types import Box
from pixelrefer_ros.grounding.boxes import Coordinates
from pixelrefer_ros.grounding.rewards import (
    Rewards,
    box_iou,
    format_reward,
    score,
    spatial_reward,
    temporal_reward,
)

GOOD1 = '<think>a</think><answer>[{"frame_idx": 2, "object description": "the cup"}]</answer>'
GOOD2 = '[{"bbox_2d": [100, 100, 300, 200], "label": "cup"}]'
ABSENT = '<think>a</think><answer>[]</answer>'
# Areas 0, 100, 400, 200.
TRUTH = [None, Box(0, 0, 10, 10), Box(10, 20, 20, 20), Box(0, 0, 10, 20)]


@pytest.mark.parametrize(
    ('turn1', 'turn2', 'thirds'),
    [
        (GOOD1, GOOD2, 3.0),
        (GOOD1, None, 2.0),
        (GOOD1, 'the cup', 2.0),
        (GOOD1, '[]', 3.0),
        (GOOD1.replace('<think>', '').replace('</think>', ''), GOOD2, 2.5),
        ('[{"frame_idx": 2, "object description": "the cup"}]', GOOD2, 2.0),
        ('<think>a</think><answer>[{"frame_idx": 2}]</answer>', None, 1.5),
        ('<think>a</think><answer>[{"object description": "cup"}]</answer>', None, 1.5),
        ('<think>a</think><answer>the cup</answer>', None, 1.0),
        ('frame 2', None, 0.0),
        ('', None, 0.0),
        (ABSENT, None, 3.0),
        ('[]', None, 2.0),
    ],
)
def test_the_form_is_graded_in_thirds(turn1: str, turn2: str | None, thirds: float) -> None:
    assert format_reward(turn1, turn2) == pytest.approx(thirds / 3)


def test_absence_in_the_words_of_the_profile_is_in_form() -> None:
    text = '<think>a</think><answer>no target</answer>'
    assert format_reward(text) == pytest.approx(1 / 3)
    assert format_reward(text, absent='no target') == pytest.approx(1.0)


@pytest.mark.parametrize(
    ('chosen', 'reward'), [(0, 0.0), (1, 0.25), (2, 1.0), (3, 0.5), (4, 0.0), (-1, 0.0)]
)
def test_the_temporal_reward_scales_the_area(chosen: int, reward: float) -> None:
    assert temporal_reward(TRUTH, chosen) == reward


def test_the_temporal_reward_counts_from_the_least_area() -> None:
    # Areas 100, 400, 200: (200 - 100) / (400 - 100).
    assert temporal_reward(TRUTH[1:], 2) == pytest.approx(1 / 3)
    assert temporal_reward(TRUTH[1:], 0) == 0.0


def test_where_all_areas_are_equal_any_frame_is_best() -> None:
    assert temporal_reward([Box(0, 0, 4, 5), Box(3, 3, 5, 4)], 1) == 1.0
    assert temporal_reward([Box(0, 0, 4, 5)], 0) == 1.0
    assert temporal_reward([None, None], 1) == 0.0
    assert temporal_reward([], 0) == 0.0


@pytest.mark.parametrize(
    ('a', 'b', 'iou'),
    [
        (Box(0, 0, 10, 10), Box(0, 0, 10, 10), 1.0),
        (Box(0, 0, 10, 10), Box(5, 0, 10, 10), 50 / 150),
        (Box(0, 0, 10, 10), Box(0, 0, 10, 5), 0.5),
        (Box(0, 0, 10, 10), Box(10, 0, 10, 10), 0.0),
        (Box(0, 0, 10, 10), Box(20, 20, 5, 5), 0.0),
        (Box(2, 2, 4, 4), Box(0, 0, 10, 10), 0.16),
        (Box(0, 0, 0, 0), Box(0, 0, 0, 0), 0.0),
    ],
)
def test_the_overlap_of_boxes(a: Box, b: Box, iou: float) -> None:
    assert box_iou(a, b) == pytest.approx(iou)
    assert box_iou(b, a) == pytest.approx(iou)


def test_the_spatial_reward_needs_more_than_half() -> None:
    truth = Box(0, 0, 10, 10)
    assert spatial_reward(Box(0, 0, 10, 5), truth) == 0.0
    assert spatial_reward(Box(0, 0, 10, 6), truth) == 1.0
    assert spatial_reward(None, truth) == 0.0
    assert spatial_reward(truth, None) == 0.0


def rewards(turn1: str, turn2: str | None, truth: list[Box | None]) -> Rewards:
    return score(turn1, turn2, truth, coordinates=Coordinates.ABSOLUTE, key_size=(840, 420),
                 image_size=(84, 84))  # fmt: skip


def test_a_good_conversation_earns_all_three() -> None:
    # The box 100..300 x 100..200 of 840x420 is 10..30 x 20..40 of 84x84: the true one.
    found = rewards(GOOD1, GOOD2, TRUTH)
    assert found == Rewards(1.0, 1.0, 1.0)
    assert found.total == 3.0


def test_a_failed_turn_earns_nothing_further() -> None:
    failed = rewards('<think>a</think><answer>[{"frame_idx": 2}]</answer>', GOOD2, TRUTH)
    assert failed == Rewards(2.5 / 3, 0.0, 0.0)
    assert rewards(GOOD1.replace('2', '9'), GOOD2, TRUTH) == Rewards(1.0, 0.0, 0.0)
    assert rewards(GOOD1, 'no', TRUTH) == Rewards(2 / 3, 1.0, 0.0)
    degenerate = '[{"bbox_2d": [100, 100, 101, 200]}]'
    assert rewards(GOOD1, degenerate, TRUTH) == Rewards(1.0, 1.0, 0.0)
    assert rewards(GOOD1.replace('2', '0'), GOOD2, TRUTH) == Rewards(1.0, 0.0, 0.0)


def test_refusing_pays_only_where_the_target_is_absent() -> None:
    absent: list[Box | None] = [None, None, None]
    assert rewards(ABSENT, None, absent) == Rewards(1.0, 1.0, 1.0)
    assert rewards(GOOD1, '[]', absent) == Rewards(1.0, 0.0, 1.0)
    assert rewards(GOOD1, GOOD2, absent) == Rewards(1.0, 0.0, 0.0)
    assert rewards(ABSENT, None, TRUTH) == Rewards(1.0, 0.0, 0.0)
    assert rewards(GOOD1, '[]', TRUTH) == Rewards(1.0, 1.0, 0.0)
