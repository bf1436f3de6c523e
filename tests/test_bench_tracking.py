# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the clips and the conclusions of the tracking benchmark."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench import _synthetic as synthetic
from bench._tabletop_clips import _lost_after_s as lost_after_s
from bench.tracking import summarize, times
from pixelrefer_ros.core.types import RegionKind, TrackState

T, OC, LOST = TrackState.TRACKED, TrackState.OCCLUDED, TrackState.LOST


def truths(*shown: int) -> list[np.ndarray]:
    return [np.full((10, 10), bool(one)) for one in shown]


def test_the_same_seed_makes_the_same_clip_and_another_another() -> None:
    clip = synthetic.make(3, distinct=True, occluded=False, frames=2)
    again = synthetic.make(3, distinct=True, occluded=False, frames=2)
    other = synthetic.make(4, distinct=True, occluded=False, frames=2)
    np.testing.assert_array_equal(clip.images, again.images)
    assert (clip.masks != other.masks).any()


def test_the_mask_is_where_the_distinct_thing_is_seen() -> None:
    clip = synthetic.make(0, distinct=True, occluded=False, frames=1)
    inside = clip.images[0][clip.masks[0]].astype(float).mean(0)
    outside = clip.images[0][~clip.masks[0]].astype(float).mean(0)
    assert inside[0] - inside[2] > 60
    assert abs(outside[0] - outside[2]) < 30


def test_the_occluder_hides_part_and_later_all() -> None:
    free = synthetic.make(1, distinct=True, occluded=False).masks.sum((1, 2))
    seen = synthetic.make(1, distinct=True, occluded=True).masks.sum((1, 2))
    share = seen / free
    assert share[0] == share[-1] == 1.0
    assert 0 < share[:50].min() < 0.6
    assert share[50:].min() == 0.0


@pytest.mark.parametrize(
    ('shown', 'states', 'wanted'),
    [
        ((1, 1, 0, 0, 0, 0, 0), (T, T, OC, OC, OC, LOST, LOST), 0.4),
        ((1, 1, 0, 0, 0, 0, 0), (T, T, OC, OC, OC, OC, OC), math.inf),
        ((1, 1, 1, 1, 0, 0, 0), (T, T, T, T, OC, OC, OC), None),
        ((1, 0, 0, 1, 1, 1, 1), (T, OC, OC, T, T, T, T), None),
    ],
    ids=['in time', 'never', 'gone too shortly', 'back again'],
)
def test_how_long_a_loss_went_unreported(
    shown: tuple[int, ...], states: tuple[TrackState, ...], wanted: float | None
) -> None:
    assert lost_after_s(truths(*shown), list(states)) == wanted


def test_a_summary_counts_what_was_lost_and_names_the_worst() -> None:
    judged = [
        {'clip': 0, 'thing': name, 'j': j, 'f': j, 'j_and_f': j, 'cpu_ms': [1.0, 3.0],
         'lost_after_s': after}
        for name, j, after in (('a', 0.9, None), ('b', 0.5, 0.4), ('c', 1.0, math.inf))
    ]  # fmt: skip
    told = summarize(RegionKind.BOX, 1, judged)
    assert told['given'] == 'box'
    assert told['j_and_f'] == pytest.approx(0.8)
    assert (told['gone'], told['reported_lost_in_time'], told['never_reported_lost']) == (2, 1, 1)
    assert told['worst'][0]['thing'] == 'b'
    assert told['cpu_ms_per_frame_and_object'] == times([1.0, 3.0] * 3)
