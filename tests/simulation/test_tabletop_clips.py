# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the simulated tabletop against what it says about itself."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='needs the extra [sim]')


from tests.rendering import needs_rendering

pytestmark = needs_rendering


@pytest.fixture(scope='module')
def maker():
    from pixelrefer_ros.simulation.clips import ClipMaker

    maker = ClipMaker()
    yield maker
    maker.close()


@pytest.fixture(scope='module')
def clips(maker):
    return [maker.make(seed) for seed in range(12)]


def test_a_seed_gives_the_same_clip_again(maker, clips):
    again = maker.make(3)
    np.testing.assert_array_equal(again.images, clips[3].images)
    np.testing.assert_array_equal(again.numbers, clips[3].numbers)


def test_clips_hold_two_to_six_things_in_pictures_of_the_asked_size(clips):
    for clip in clips:
        assert clip.images.shape == (4, 288, 384, 3)
        assert clip.images.dtype == np.uint8
        assert clip.numbers.shape == (4, 288, 384)
        assert 2 <= len(clip.things) <= 6
        assert clip.numbers.max() <= len(clip.things)
        assert (np.diff(clip.times_s) > 0).all()


def test_masks_lie_on_pixels_of_the_things_colour(clips):
    """The hue under a mask is that of the named colour, so masks and pictures agree."""
    from pixelrefer_ros.simulation.world import COLOURS

    right = total = 0
    for clip in clips:
        for k, thing in enumerate(clip.things):
            for i, seen in enumerate(thing.visible):
                if not seen or thing.colour in ('white', 'black'):
                    continue
                mean = clip.images[i][clip.mask(i, k)].astype(float).mean(0)
                chroma = mean - mean.mean()
                named = {n: np.array(c) - np.mean(c) for n, c in COLOURS.items()
                         if n not in ('white', 'black')}
                best = max(named, key=lambda n: chroma @ named[n] / np.linalg.norm(named[n]))
                right += best == thing.colour
                total += 1
    assert total > 40
    assert right / total > 0.85


def test_centres_and_visibility_follow_from_the_masks(clips):
    for clip in clips:
        for k, thing in enumerate(clip.things):
            for i, seen in enumerate(thing.visible):
                ys, xs = np.nonzero(clip.mask(i, k))
                assert seen == (len(xs) >= 90)
                if seen:
                    assert thing.centre[i, 0] == pytest.approx((xs.mean() + 0.5) / 384, abs=1e-5)
                    assert thing.centre[i, 1] == pytest.approx((ys.mean() + 0.5) / 288, abs=1e-5)


def test_still_things_stay_and_others_move(clips):
    """Facts about motion agree with the pictures where the camera stands still."""
    moved = {}
    for clip in clips:
        for thing in clip.things:
            if thing.motion and all(thing.visible):
                step = np.linalg.norm(thing.centre[-1] - thing.centre[0])
                moved.setdefault(thing.motion == 'still', []).append(step)
    assert np.median(moved[False]) > 3 * np.median(moved[True])


def test_motion_needs_enough_travel():
    from pixelrefer_ros.simulation.clips import motion_over

    short = np.array([[0, 0, 0], [0.03, 0, 0.0]])
    far = np.array([[0, 0, 0], [0.2, 0, 0.0]])
    down = np.array([[0, 0, 0], [0.1, 0, -0.2]])
    assert motion_over(short, 'sliding') == ''
    assert motion_over(far, 'sliding') == 'sliding'
    assert motion_over(far, 'still') == 'still'
    assert motion_over(down, 'falling') == 'falling'
    assert motion_over(far, 'falling') == ''
    assert motion_over(far[:1], 'rolling') == ''
