# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what is drawn, where, and how a region in sight differs from one that is not."""

from __future__ import annotations

import numpy as np
import pytest

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import NS_PER_S, Box, Track, TrackState
from pixelrefer_ros.drawing import Overlay, Palette, draw_overlays, track_overlay


def test_palette_is_stable_and_distinct():
    palette = Palette()
    colours = [palette(f'obj{index}') for index in range(12)]
    assert len(set(colours)) == 12
    assert palette('obj3') == colours[3]


def test_overlay_changes_the_region_and_nothing_far_from_it():
    image = np.full((120, 160, 3), 100, np.uint8)
    mask = np.zeros((120, 160), bool)
    mask[40:80, 50:90] = True
    drawn = draw_overlays(image, [Overlay((250, 0, 0), mask=mask, label='cup')])
    assert (image == 100).all()
    assert drawn[60, 70].tolist() == [152, 65, 65]
    assert (drawn[100:, :] == 100).all()
    framed = draw_overlays(image, [Overlay((0, 250, 0), box=Box(10, 20, 30, 40))])
    assert framed[20, 25].tolist() == [0, 250, 0]
    assert framed[40, 25].tolist() == [100, 100, 100]


def test_overlay_can_leave_colours_and_dim_the_rest():
    image = np.full((60, 60, 3), (200, 40, 40), np.uint8)
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    drawn = draw_overlays(image, [Overlay((0, 0, 250), mask=mask)], alpha=0.0, dim=0.5)
    assert drawn[30, 30].tolist() == [200, 40, 40]
    assert drawn[5, 5].max() < 140
    plain = draw_overlays(image, [Overlay((0, 0, 250))], dim=0.5)
    assert (plain == image).all()


def test_overlay_at_the_edges_and_with_an_empty_mask():
    image = np.full((40, 40, 3), 100, np.uint8)
    edge = np.zeros((40, 40), np.uint8)
    edge[0, 0] = 1
    empty = np.zeros((40, 40), np.uint8)
    drawn = draw_overlays(image, [Overlay((250, 0, 0), mask=edge, label='a very long label'),
                                  Overlay((0, 0, 250), mask=empty, label='not drawn'),
                                  Overlay((0, 250, 0), box=Box(-5, -5, 200, 200), label='x')])
    assert drawn.shape == image.shape
    assert not (drawn == (0, 0, 250)).all(-1).any()
    with pytest.raises(ValueError, match='mask of shape'):
        draw_overlays(image, [Overlay((1, 2, 3), mask=np.ones((4, 4), bool))])


def test_a_plate_stays_in_the_picture_and_off_other_plates():
    image = np.full((240, 320, 3), 100, np.uint8)
    words = 'a small red ball that rolls to the left, slowly, and then comes to a stop at last'
    overlays = [
        Overlay(colour, box=Box(150, 2, 20, 20), label='ball', words=words)
        for colour in ((250, 0, 0), (0, 250, 0))
    ]
    single = draw_overlays(image, overlays[:1])
    both = draw_overlays(image, overlays)
    red = (single == (250, 0, 0)).all(-1)
    # the second plate hides nothing of the first but the outline of the box they share
    hidden = red & ~(both == (250, 0, 0)).all(-1)
    assert hidden.sum() < 100
    assert (both == (0, 250, 0)).all(-1).sum() > 200
    corner = draw_overlays(image, [Overlay((0, 0, 250), box=Box(300, 230, 50, 50), label='far')])
    assert (corner[:, :, 2] == 250).sum() > 50


def test_words_that_are_too_long_are_cut():
    image = np.full((240, 320, 3), 100, np.uint8)
    box = Box(10, 150, 20, 20)

    def drawn(words):
        return draw_overlays(image, [Overlay((250, 0, 0), box=box, label='a', words=words)])

    changed = (drawn('word ' * 200) != image).any(-1)
    assert not changed[:, 200:].any()
    assert np.array_equal(drawn('word ' * 200), drawn('word ' * 300))
    assert not np.array_equal(drawn('word'), drawn('other'))


def track(state, *, mask=None, score=0.5, last_seen_s=2.0, label=''):
    return Track('cup', '', 3 * NS_PER_S, state, score, None, mask, round(last_seen_s * NS_PER_S),
                 label)


def test_a_track_in_sight_says_state_and_score():
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:50] = True
    overlay = track_overlay(track(TrackState.TRACKED, mask=masks.encode(mask), label='mug'),
                            (250, 0, 0), last_box=Box(0, 0, 5, 5), words='red')
    assert (overlay.label, overlay.words) == ('cup mug  tracked 0.50', 'red')
    assert overlay.box is None
    assert not overlay.faint
    assert np.array_equal(overlay.mask, mask)
    hidden = track_overlay(track(TrackState.OCCLUDED, mask=masks.encode(mask), label='cup'),
                           (250, 0, 0))
    assert hidden.label == 'cup  occluded 0.50'
    assert hidden.faint


def test_a_lost_track_shows_where_it_was_and_since_when():
    overlay = track_overlay(track(TrackState.LOST, score=0.0), (250, 0, 0),
                            last_box=Box(20, 20, 30, 20))
    assert overlay.label == 'cup  lost 0.00, seen 1.0 s ago'
    assert overlay.mask is None
    assert overlay.box == Box(20, 20, 30, 20)
    assert overlay.faint


def test_faint_outlines_are_dashed():
    image = np.full((120, 160, 3), 100, np.uint8)
    box = Box(30, 30, 60, 60)
    solid = draw_overlays(image, [Overlay((250, 0, 0), box=box)])[30, 30:90]
    dashed = draw_overlays(image, [Overlay((250, 0, 0), box=box, faint=True)])[30, 30:90]
    assert (solid == (250, 0, 0)).all()
    drawn = (dashed == (250, 0, 0)).all(-1)
    assert 0.3 < drawn.mean() < 0.7
    assert np.abs(np.diff(drawn.astype(int))).sum() > 6  # several dashes
