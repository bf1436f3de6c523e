# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what is remembered of regions as frames come and go."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.core.region_store import RegionStore
from pixelrefer_ros.core.regions import Observation, observe_sighting
from pixelrefer_ros.core.tracker import Sighting
from pixelrefer_ros.core.types import (
    Box,
    ErrorCode,
    Frame,
    Mask,
    PixelReferError,
    Region,
    RegionKind,
    TrackState,
)
from pixelrefer_ros.core.video_buffer import FrameView

MS = 1_000_000


class Scene:
    """A store beside the frames it follows; times are in milliseconds."""

    def __init__(self, *, max_regions: int = 8, ttl_s: float = 10.0) -> None:
        self.told: list[tuple[str, int]] = []
        self.store = RegionStore(
            max_regions=max_regions,
            ttl_s=ttl_s,
            tolerance_s=0.05,
            pending_s=0.5,
            on_given=lambda region, seen, _: self.told.append(
                (region.region_id, seen.stamp_ns // MS)
            ),
        )
        self.frames: list[Frame] = []

    @property
    def view(self) -> FrameView:
        return FrameView(tuple(self.frames))

    def frame(self, *stamps_ms: int) -> list[str]:
        problems = []
        for stamp in stamps_ms:
            self.frames.append(Frame('', stamp * MS, np.zeros((20, 30, 3), dtype=np.uint8)))
            problems += self.store.advance(self.view)
        return problems

    def drop(self, *stamps_ms: int) -> None:
        gone = [stamp * MS for stamp in stamps_ms]
        self.frames = [f for f in self.frames if f.stamp_ns not in gone]
        self.store.advance(self.view, gone)

    def add(self, region_id: str, stamp_ms: int = 0, x: int = 1, **fields: float) -> str | None:
        region = Region(
            region_id, RegionKind.BOX, stamp_ns=stamp_ms * MS, box=Box(x, 2, 3, 4), **fields
        )
        return self.store.add(region, self.view)

    def track(self, region_id: str, stamp_ms: int, x: int | None = 1) -> None:
        seen = None if x is None else tracked(stamp_ms, x)
        self.store.track(region_id, stamp_ms * MS, seen)

    def seen(self, region_id: str) -> list[int]:
        return [one.stamp_ns // MS for one in self.store.observations(region_id)]


def tracked(stamp_ms: int, x: int) -> Observation:
    picture = np.zeros((20, 30), dtype=bool)
    picture[2:6, x : x + 3] = True
    frame = Frame('', stamp_ms * MS, np.zeros((20, 30, 3), dtype=np.uint8))
    seen = observe_sighting(Sighting('a', TrackState.TRACKED, 0.8, picture), frame)
    assert seen is not None
    return seen


def test_the_same_id_at_several_stamps_is_one_region() -> None:
    scene = Scene()
    scene.frame(100, 200, 300)
    for stamp in (300, 100, 200):
        scene.add('a', stamp)
    assert scene.seen('a') == [100, 200, 300]
    assert scene.store.ids() == ('a',)
    assert scene.store.first_ns('a') == 100 * MS
    assert scene.store.newest('a').stamp_ns == 300 * MS
    assert scene.store.pinned() == {300 * MS}


def test_no_stamp_means_the_newest_image() -> None:
    scene = Scene()
    scene.frame(100, 200)
    scene.add('a')
    assert scene.seen('a') == [200]
    assert scene.store.region('a').stamp_ns == 200 * MS


def test_each_frame_keeps_the_observation_nearest_to_it() -> None:
    scene = Scene()
    scene.frame(100, 200)
    scene.add('a', 130, x=3)
    scene.add('a', 105, x=5)
    scene.add('a', 120, x=7)
    assert scene.seen('a') == [100]
    assert scene.store.observations('a')[0].box.x == 5
    scene.add('a', 105, x=9)
    assert scene.store.observations('a')[0].box.x == 9


def test_a_region_ahead_waits_for_its_image() -> None:
    scene = Scene()
    scene.frame(100)
    assert scene.add('a', 300) is None
    assert (scene.store.ids(), scene.store.pending_ids()) == ((), ('a',))
    assert scene.frame(200) == []
    assert scene.store.ids() == ()
    assert scene.frame(300) == []
    assert scene.seen('a') == [300]
    assert scene.store.pending_ids() == ()


def test_a_region_a_little_ahead_shows_on_the_newest_image_until_its_own_comes() -> None:
    scene = Scene()
    scene.frame(100)
    scene.add('a', 130)
    assert scene.seen('a') == [100]
    assert scene.store.first_ns('a') == 100 * MS
    scene.frame(133)
    assert scene.seen('a') == [133]
    assert scene.store.newest('a').stamp_ns == 133 * MS
    scene.add('a', 150)
    scene.frame(250)
    assert scene.seen('a') == [133]


def test_a_region_whose_image_never_comes_is_dropped_with_a_reason() -> None:
    scene = Scene()
    scene.frame(100)
    scene.add('a', 300)
    problems = scene.frame(400)
    assert len(problems) == 1
    assert "'a' is 0.100 s from the nearest kept image" in problems[0]
    assert scene.store.pending_ids() == ()


def test_regions_before_the_first_image_wait_unless_they_are_far_ahead() -> None:
    scene = Scene()
    scene.add('near', 300)
    scene.add('far', 9000)
    scene.add('past', 10)
    problems = scene.frame(200)
    assert len(problems) == 2
    assert "'far' is 8.800 s ahead" in problems[0]
    assert "'past' is 0.190 s older than the buffer" in problems[1]
    scene.frame(300)
    assert scene.seen('near') == [300]


def test_a_waiting_region_that_does_not_fit_its_image_is_dropped_with_a_reason() -> None:
    scene = Scene()
    scene.frame(100)
    region = Region('a', RegionKind.MASK, stamp_ns=200 * MS, mask=Mask(9, 9, (0, 81)))
    scene.store.add(region, scene.view)
    (problem,) = scene.frame(200)
    assert 'the image 30x20' in problem


@pytest.mark.parametrize(
    ('stamp_ms', 'code', 'words'),
    [
        (40, ErrorCode.BAD_STAMP, '0.060 s older than the buffer'),
        (250, ErrorCode.BAD_STAMP, '0.100 s from the nearest kept image'),
        (851, ErrorCode.BAD_STAMP, '0.501 s ahead of the newest image'),
    ],
)
def test_stamps_that_meet_no_image_are_refused(
    stamp_ms: int, code: ErrorCode, words: str
) -> None:
    scene = Scene()
    scene.frame(100, 150, 350)
    with pytest.raises(PixelReferError, match=words) as caught:
        scene.add('a', stamp_ms)
    assert caught.value.code == code
    assert scene.store.ids() == ()


def test_without_images_and_without_an_id() -> None:
    scene = Scene()
    with pytest.raises(PixelReferError, match='none has come') as caught:
        scene.add('a')
    assert caught.value.code == ErrorCode.NO_FRAMES
    with pytest.raises(PixelReferError, match='region_id') as caught:
        scene.add('')
    assert caught.value.code == ErrorCode.BAD_REGION


def test_regions_are_forgotten_after_their_time() -> None:
    scene = Scene(ttl_s=1.0)
    scene.frame(100)
    scene.add('default', 100)
    scene.add('longer', 100, ttl_s=2.0)
    scene.frame(1100)
    assert scene.store.ids() == ('default', 'longer')
    scene.frame(1101)
    assert scene.store.ids() == ('longer',)
    scene.frame(2101)
    assert scene.store.ids() == ()


def test_observations_go_with_their_frames_the_region_stays() -> None:
    scene = Scene()
    scene.frame(100, 200)
    scene.add('a', 100)
    scene.add('a', 200)
    scene.drop(100)
    assert scene.seen('a') == [200]
    scene.frame(300)
    scene.drop(200)
    assert scene.seen('a') == []
    assert scene.store.ids() == ('a',)


def test_a_newer_region_takes_the_place_of_the_stalest() -> None:
    scene = Scene(max_regions=2)
    scene.frame(100, 200, 300)
    scene.add('a', 100)
    scene.add('b', 200)
    scene.add('a', 300)
    assert scene.add('c', 300) == 'b'
    assert scene.store.ids() == ('a', 'c')
    with pytest.raises(PixelReferError, match='raise max_regions') as caught:
        scene.add('d', 300)
    assert caught.value.code == ErrorCode.QUEUE_FULL


def test_removal_by_name_and_of_all() -> None:
    scene = Scene()
    scene.frame(100)
    for name in 'abc':
        scene.add(name)
    scene.add('w', 400)
    assert scene.store.remove(['b', 'w', 'unknown']) == ['b', 'w']
    assert scene.frame(400) == []
    assert scene.store.remove() == ['a', 'c']
    assert scene.store.ids() == ()


def test_waiting_is_bounded_the_newest_stay() -> None:
    scene = Scene(max_regions=2)
    for i in range(20):
        scene.add(f'r{i}', 1000 + i)
    assert scene.store.pending_ids() == tuple(f'r{i}' for i in range(12, 20))


@given(
    st.lists(
        st.tuples(st.sampled_from(['frame', 'a', 'b', 'drop']), st.integers(0, 700)), max_size=60
    )
)
def test_observations_always_lie_on_kept_frames_within_the_tolerance(
    events: list[tuple[str, int]],
) -> None:
    scene = Scene(max_regions=1)
    now = 1000
    scene.frame(now)
    for what, value in events:
        if what == 'frame':
            now += 1 + value // 5
            scene.frame(now)
        elif what == 'drop' and len(scene.frames) > 1:
            scene.drop(scene.frames[value % (len(scene.frames) - 1)].stamp_ns // MS)
        elif what in 'ab':
            with contextlib.suppress(PixelReferError):
                scene.add(what, now - 200 + value)
        stamps = set(scene.view.stamps_ns)
        assert len(scene.store.ids()) <= 1
        for region_id in scene.store.ids():
            seen = scene.store.observations(region_id)
            assert {one.stamp_ns for one in seen} <= stamps
            assert all(one.offset_ns <= 50 * MS for one in seen)
            newest = scene.store.newest(region_id)
            assert all(one.given_ns <= newest.given_ns for one in seen)


def test_tracked_observations_count_like_given_ones() -> None:
    scene = Scene(ttl_s=1.0)
    scene.frame(100, 200, 300)
    scene.add('a', 200)
    scene.track('a', 300, 5)
    scene.track('a', 100, 1)
    assert scene.seen('a') == [100, 200, 300]
    assert scene.store.newest('a').stamp_ns == 300 * MS
    assert scene.store.newest_given('a').stamp_ns == 200 * MS
    assert scene.store.region('a').stamp_ns == 200 * MS
    assert scene.store.first_ns('a') == 200 * MS
    assert scene.store.pinned() == {300 * MS}
    newest = scene.store.at('a', 300 * MS)
    assert newest is not None
    assert (newest.tracked, newest.score, newest.area) == (True, 0.8, 12)
    assert newest.box == Box(5, 2, 3, 4)
    scene.frame(1300)
    assert scene.store.ids() == ('a',)
    scene.frame(1301)
    assert scene.store.ids() == ()


def test_a_tracked_observation_is_replaced_or_taken_back_a_given_one_is_not() -> None:
    scene = Scene()
    scene.frame(100, 200)
    scene.add('a', 100, x=1)
    scene.track('a', 100, 9)
    scene.track('a', 100, None)
    scene.track('a', 200, 7)
    scene.track('a', 200, 8)
    assert [one.box.x for one in scene.store.observations('a')] == [1, 8]
    scene.track('a', 200, None)
    assert scene.seen('a') == [100]
    assert scene.store.newest('a').stamp_ns == 100 * MS


def test_a_given_observation_that_agrees_leaves_the_track_alone() -> None:
    scene = Scene()
    scene.frame(100, 200, 300, 400)
    scene.add('a', 100)
    for stamp in (200, 300, 400):
        scene.track('a', stamp, 2)
    scene.add('a', 300, x=3)
    assert [one.box.x for one in scene.store.observations('a')] == [1, 2, 3, 2]


def test_a_given_observation_elsewhere_takes_the_track_back_to_the_given_ones_around() -> None:
    scene = Scene()
    scene.frame(100, 200, 300, 400, 500, 600, 700)
    scene.add('a', 200)
    for stamp in (100, 300, 400, 500, 600, 700):
        scene.track('a', stamp, 2)
    scene.add('a', 600, x=2)
    scene.add('a', 400, x=20)
    assert scene.seen('a') == [100, 200, 400, 600, 700]
    scene.add('a', 700, x=20)
    assert scene.store.newest('a').stamp_ns == 700 * MS


def test_whoever_listens_is_told_of_what_is_given_and_of_which_life_it_is() -> None:
    scene = Scene()
    scene.frame(100)
    scene.add('a', 130)
    first = scene.store.life('a')
    scene.frame(133)
    scene.track('a', 100, 2)
    assert scene.told == [('a', 100), ('a', 133)]
    scene.store.remove()
    assert scene.store.life('a') is None
    scene.add('a')
    assert scene.store.life('a') not in (None, first)


def test_a_region_that_is_seen_stays_rather_than_a_lost_one() -> None:
    scene = Scene(max_regions=2)
    scene.frame(100, 200, 300)
    scene.add('seen', 100)
    scene.add('lost', 200)
    scene.track('seen', 300)
    assert scene.add('new', 300) == 'lost'


def test_a_mask_of_another_size_than_its_frame_is_the_fault_of_the_tracker() -> None:
    frame = Frame('', 1, np.zeros((20, 30, 3), dtype=np.uint8))
    wrong = Sighting('a', TrackState.TRACKED, 1.0, np.ones((30, 20), dtype=bool))
    with pytest.raises(PixelReferError, match='30x20') as caught:
        observe_sighting(wrong, frame)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    for nothing in (None, np.zeros((20, 30), dtype=bool)):
        assert observe_sighting(Sighting('a', TrackState.OCCLUDED, 0.1, nothing), frame) is None
