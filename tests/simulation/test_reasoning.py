# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check rendered reasoning clips: pictures, masks, and what they say happens."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='needs the extra [sim]')

from pixelrefer_ros.simulation.reasoning_clips import KINDS, assignment
from pixelrefer_ros.simulation.reasoning_questions import ask, questions
from tests.rendering import needs_rendering

pytestmark = [needs_rendering, pytest.mark.sim]

LEAST_PX = 90 * 192**2 // 384**2


@pytest.fixture(scope='module')
def maker():
    from pixelrefer_ros.simulation.reasoning import ReasoningMaker

    maker = ReasoningMaker(192, 144)
    yield maker
    maker.close()


@pytest.fixture(scope='module')
def clips(maker):
    """Return a clip of every kind, and two with absent targets."""
    return [maker.make(seed) for seed in (*range(10), 40, 49)]


def own_question(clip):
    return ask(clip, clip.kind, clip.absent, np.random.default_rng((clip.seed, 9)))


def test_clips_hold_sixteen_frames_of_four_to_eight_seconds(clips) -> None:
    for clip in clips:
        assert clip.images.shape == (16, 144, 192, 3)
        assert clip.images.dtype == np.uint8
        assert clip.numbers.shape == (16, 144, 192)
        assert clip.sampled == tuple(range(16))
        assert 4 <= clip.times_s[-1] <= 8
        np.testing.assert_allclose(np.diff(clip.times_s), clip.times_s[1], rtol=1e-4)
        assert 3 <= len(clip.actors) <= 6
        assert clip.numbers.max() <= len(clip.actors)


def test_clips_are_made_for_the_kind_that_their_seed_says(clips) -> None:
    assert [c.kind for c in clips[:10]] == list(KINDS)
    assert [c.absent for c in clips] == [False] * 10 + [True, True]
    for clip in clips:
        assert (clip.kind, clip.absent) == assignment(clip.seed)
        question = own_question(clip)
        assert question is not None
        assert (question.target is None) == clip.absent


def test_a_seed_gives_the_same_clip_again(maker, clips) -> None:
    again = maker.make(4)
    np.testing.assert_array_equal(again.images, clips[4].images)
    np.testing.assert_array_equal(again.numbers, clips[4].numbers)
    assert again.events == clips[4].events
    assert own_question(again) == own_question(clips[4])


def test_frames_between_change_nothing_about_the_sampled_ones(maker, clips) -> None:
    dense = maker.make(1, between=2)
    assert len(dense.images) == 46
    assert dense.sampled == tuple(range(0, 46, 3))
    assert dense.sampled == tuple(np.linspace(0, 45, 16).round().astype(int))
    np.testing.assert_array_equal(dense.images[list(dense.sampled)], clips[1].images)
    np.testing.assert_array_equal(dense.boxes[list(dense.sampled)], clips[1].boxes)
    assert own_question(dense) == own_question(clips[1])
    assert np.diff(dense.times_s).max() < clips[1].times_s[1] / 2.9


def test_areas_and_boxes_follow_from_the_masks(clips) -> None:
    for clip in clips:
        for i in (0, 7, 15):
            for k, actor in enumerate(clip.actors):
                ys, xs = np.nonzero(clip.mask(i, k))
                assert clip.areas[i, k] == len(xs)
                assert actor.visible[i] == (len(xs) >= LEAST_PX)
                box = clip.boxes[i, k].tolist()
                assert box == ([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                               if len(xs) else [-1] * 4)
                if actor.visible[i]:
                    assert actor.x[i] == pytest.approx((xs.mean() + 0.5) / 192, abs=1e-5)


def test_the_key_frame_shows_a_large_box_and_so_do_those_beside_it(clips) -> None:
    for clip in clips:
        for question in questions(clip, np.random.default_rng(clip.seed), 6):
            if question.target is None:
                continue
            key, seen = question.key, np.array(clip.actors[question.target].visible)
            assert seen[key]
            assert clip.areas[key, question.target] >= LEAST_PX
            if any(a.look == clip.actors[question.target].look
                   for k, a in enumerate(clip.actors) if k != question.target):
                continue  # where it cannot be told from its twin is no key frame
            safe = [i for i in np.flatnonzero(seen)
                    if seen[max(i - 1, 0):i + 2].all()] or np.flatnonzero(seen).tolist()
            boxes = clip.boxes[:, question.target]
            sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            large = [i for i in safe if sizes[i] >= 0.85 * sizes[safe].max()]
            assert key == large[0]


def test_the_pictures_show_who_moves_and_when(clips) -> None:
    """Masks move in the picture between start and stop, and lie still before and after."""
    moved = still = 0
    for clip in clips:
        # How far the camera's drift alone moves things in the picture.
        calm = [k for k, a in enumerate(clip.actors) if not a.moves and all(a.visible)]
        if not calm:
            continue

        def travel(k, first, last, clip=clip):
            boxes = clip.boxes[[first, last], k].astype(float)
            return np.abs(boxes[1] - boxes[0]).max()

        drift = max(travel(k, 0, 15) for k in calm)
        for k, actor in enumerate(clip.actors):
            if not actor.moves or not all(actor.visible):
                continue
            assert travel(k, 0, actor.start - 1) <= drift + 6  # shifted by no more than a hand
            before, after = actor.start - 1, actor.stop if actor.stop > 0 else 15
            assert travel(k, before, after) > max(3.0, drift / 3)
            moved += 1
        still += len(calm)
    assert moved >= 10
    assert still >= 10


def test_what_falls_is_seen_below_or_is_gone(clips) -> None:
    clip = clips[0]
    question = own_question(clip)
    assert question.kind == 'fell'
    fall = clip.event('falling', question.target)
    before = clip.frame_at(fall.start_s) - 1
    boxes = clip.boxes[:, question.target]
    gone = clip.areas[-1, question.target] < clip.areas[before, question.target] / 2
    assert gone or boxes[-1, 3] > boxes[before, 3] + 5


def test_masks_lie_on_pixels_of_the_things_colour(clips) -> None:
    """The colour under a mask is nearer to the named one than to its opposites."""
    from pixelrefer_ros.simulation.world import COLOURS

    right = total = 0
    for clip in clips:
        for k, actor in enumerate(clip.actors):
            if not actor.visible[0] or actor.colour in ('white', 'black'):
                continue
            mean = clip.images[0][clip.mask(0, k)].astype(float).mean(0)
            chroma = mean - mean.mean()
            named = {n: np.array(c) - np.mean(c) for n, c in COLOURS.items()
                     if n not in ('white', 'black')}
            best = max(named, key=lambda n: chroma @ named[n] / np.linalg.norm(named[n]))
            right += best == actor.colour
            total += 1
    assert total > 25
    assert right / total > 0.8


def test_clips_can_be_kept_on_disk(clips) -> None:
    again = pickle.loads(pickle.dumps(clips[3]))
    assert own_question(again) == own_question(clips[3])


def test_evaluation_uses_other_seeds_than_training() -> None:
    from pixelrefer_ros.evaluation.tabletop import FIRST_SEED
    from pixelrefer_ros.simulation.reasoning import EVALUATION_SEED

    assert EVALUATION_SEED > FIRST_SEED
    assert EVALUATION_SEED % (len(KINDS) * 5) == 0  # a run starts with the first kind, present
    assert assignment(EVALUATION_SEED) == (KINDS[0], False)
