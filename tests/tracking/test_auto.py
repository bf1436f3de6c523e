# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test how a tracker that knows and a tracker that is quick are joined."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.regions import region_mask
from pixelrefer_ros.core.tracker import Sighting
from pixelrefer_ros.core.types import ErrorCode, PixelReferError, TrackState
from pixelrefer_ros.tracking.anchored import AnchoredTracker
from pixelrefer_ros.tracking.auto import AutoTracker
from tests.tracking.sam2_rig import box, frame, masked, of, rectangle, tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Frame, Region

PERIOD = 4
NEW, TRACKED, OCCLUDED, LOST, REACQUIRED = (
    TrackState.NEW, TrackState.TRACKED, TrackState.OCCLUDED, TrackState.LOST,
    TrackState.REACQUIRED,
)  # fmt: skip


class Watcher:
    """See what the test says, and keep the caller to the protocol.

    Attributes:
        sights: What is seen of each region in the next frames; a start sets it.
        state: State of what is seen.
        stepped: Stamps of the frames seen.
        starts: (stamp, region id, mask) of each start.
    """

    name = 'watcher'

    def __init__(self) -> None:
        self.sights: dict[str, NDArray[np.bool_] | None] = {}
        self.state = TRACKED
        self.stepped: list[int] = []
        self.starts: list[tuple[int, str, NDArray[np.bool_]]] = []
        self.refusal: PixelReferError | None = None

    @property
    def region_ids(self) -> tuple[str, ...]:
        return tuple(self.sights)

    def start(self, frame: Frame, region: Region) -> Sighting:
        assert not self.stepped or self.stepped[-1] == frame.stamp_ns, 'not the newest frame'
        if self.refusal is not None:
            raise self.refusal
        mask = masks.decode(region_mask(region, *frame.image.shape[:2]))
        self.stepped = self.stepped or [frame.stamp_ns]
        self.starts.append((frame.stamp_ns, region.region_id, mask))
        known = region.region_id in self.sights
        self.sights[region.region_id] = mask
        return Sighting(region.region_id, TRACKED if known else NEW, 0.9, mask)

    def step(self, frame: Frame) -> list[Sighting]:
        self.stepped.append(frame.stamp_ns)
        return [
            Sighting(region_id, LOST if mask is None else self.state, 0.8, mask)
            for region_id, mask in self.sights.items()
        ]

    def remove(self, region_id: str) -> None:
        self.sights.pop(region_id, None)

    def fork(self) -> Watcher:
        return Watcher()

    def adopt(self, other: Watcher, region_id: str, frame: Frame) -> None:
        self.sights[region_id] = other.sights.pop(region_id)


def joined() -> tuple[AutoTracker, Watcher, Watcher]:
    key, quick = Watcher(), Watcher()
    return AutoTracker(key, quick, PERIOD), key, quick


HERE, MOVED, AWAY = rectangle(10, 8, 20, 16), rectangle(14, 8, 20, 16), rectangle(40, 30, 20, 16)


def test_the_key_tracker_sees_key_frames_and_the_quick_one_is_anchored_on_them() -> None:
    both, key, quick = joined()
    assert both.start(frame(0), masked('a', HERE)).state == NEW
    key.sights['a'] = MOVED
    told = [both.step(frame(number))[0] for number in range(1, 2 * PERIOD + 1)]
    assert key.stepped[1:] == [frame(PERIOD).stamp_ns, frame(2 * PERIOD).stamp_ns]
    assert quick.stepped[1:] == [frame(number).stamp_ns for number in range(1, 2 * PERIOD + 1)]
    assert [stamp_ns for stamp_ns, _, _ in quick.starts[1:]] == key.stepped[1:]
    for number, sighting in enumerate(told, 1):
        expected = HERE if number < PERIOD else MOVED
        assert np.array_equal(sighting.mask, expected)
        assert sighting.state == TRACKED


def test_the_quick_tracker_starts_on_the_mask_of_the_key_tracker() -> None:
    key, quick = tracker(), Watcher()
    started = AutoTracker(key, quick, PERIOD).start(frame(0), box())
    assert np.array_equal(quick.starts[0][2], started.mask)


def test_what_the_key_tracker_does_not_see_stays_unseen_until_it_does() -> None:
    both, key, _ = joined()
    both.start(frame(0), masked('a', HERE))
    for number in range(1, PERIOD):
        both.step(frame(number))
    key.sights['a'] = None
    gone = [both.step(frame(number))[0] for number in range(PERIOD, 3 * PERIOD)]
    assert all(seen.mask is None and seen.score == 0.0 for seen in gone)
    assert gone[0].state == OCCLUDED
    assert gone[4].state == LOST
    assert gone[-1].state == LOST
    key.sights['a'] = AWAY
    back = both.step(frame(3 * PERIOD))[0]
    assert back.state == REACQUIRED
    assert np.array_equal(back.mask, AWAY)
    after = both.step(frame(3 * PERIOD + 1))[0]
    assert after.state == TRACKED
    assert np.array_equal(after.mask, AWAY)


def test_what_the_quick_tracker_loses_the_key_tracker_finds() -> None:
    both, _, quick = joined()
    both.start(frame(0), masked('a', HERE))
    quick.sights['a'] = None
    gone = [both.step(frame(number))[0].state for number in range(1, PERIOD)]
    assert gone == [OCCLUDED, OCCLUDED, OCCLUDED]
    assert both.step(frame(PERIOD))[0].state == REACQUIRED
    assert quick.sights['a'] is not None


def test_a_hidden_region_does_not_anchor() -> None:
    both, key, quick = joined()
    both.start(frame(0), masked('a', HERE))
    key.state = OCCLUDED
    key.sights['a'] = rectangle(10, 8, 10, 16)
    told = [both.step(frame(number))[0] for number in range(1, PERIOD + 1)]
    assert told[-1].state == OCCLUDED
    assert told[-1].mask is not None
    assert len(quick.starts) == 1


def test_a_new_region_between_key_frames_makes_one() -> None:
    both, key, quick = joined()
    both.start(frame(0), masked('a', HERE))
    both.step(frame(1))
    key.sights['a'] = MOVED
    assert both.start(frame(1), masked('b', AWAY)).state == NEW
    assert key.stepped == [frame(0).stamp_ns, frame(1).stamp_ns]
    assert np.array_equal(quick.sights['a'], MOVED)
    both.start(frame(1), masked('c', AWAY))
    assert len(key.stepped) == 2
    assert both.region_ids == ('a', 'b', 'c')
    assert [one.region_id for one in both.step(frame(2))] == ['a', 'b', 'c']


def test_a_correction_between_key_frames_costs_none_and_is_kept_where_they_disagree() -> None:
    both, key, quick = joined()
    both.start(frame(0), masked('a', HERE))
    both.step(frame(1))
    assert both.start(frame(1), masked('a', AWAY)).state == TRACKED
    assert len(key.stepped) == 1
    told = [both.step(frame(number))[0] for number in range(2, PERIOD + 1)]
    assert all(np.array_equal(seen.mask, AWAY) for seen in told)
    assert np.array_equal(key.sights['a'], AWAY)
    # where they agree the key tracker is right
    quick.start(frame(PERIOD), masked('a', HERE))
    both.step(frame(PERIOD + 1))
    both.start(frame(PERIOD + 1), masked('a', HERE))
    key.sights['a'] = MOVED
    for number in range(PERIOD + 2, 2 * PERIOD + 1):
        told = both.step(frame(number))
    assert np.array_equal(told[0].mask, MOVED)


def test_a_correction_brings_back_what_the_key_tracker_did_not_see() -> None:
    both, key, _ = joined()
    both.start(frame(0), masked('a', HERE))
    key.sights['a'] = None
    for number in range(1, PERIOD + 3):
        state = both.step(frame(number))[0].state
    assert state in (OCCLUDED, LOST)
    assert both.start(frame(PERIOD + 2), masked('a', HERE)).state == REACQUIRED
    assert both.step(frame(PERIOD + 3))[0].state == TRACKED


def test_a_region_neither_can_follow_is_refused_and_leaves_nothing() -> None:
    both, key, quick = joined()
    both.start(frame(0), masked('a', HERE))
    quick.refusal = PixelReferError(ErrorCode.BAD_REGION, 'too small')
    with pytest.raises(PixelReferError, match='too small'):
        both.start(frame(0), masked('b', AWAY))
    assert both.region_ids == key.region_ids == quick.region_ids == ('a',)
    # a mask of a key frame that the quick one cannot follow leaves it where it was
    for number in range(1, PERIOD + 1):
        told = both.step(frame(number))
    assert told[0].state == TRACKED
    quick.refusal = PixelReferError(ErrorCode.MODEL_ERROR, 'broken')
    for number in range(PERIOD + 1, 2 * PERIOD):
        both.step(frame(number))
    with pytest.raises(PixelReferError, match='broken'):
        both.step(frame(2 * PERIOD))


def test_remove_fork_and_adopt() -> None:
    both, key, quick = joined()
    both.start(frame(0), masked('a', HERE))
    both.step(frame(1))
    fork = both.fork()
    assert fork.region_ids == ()
    fork.start(frame(0), masked('b', AWAY))
    fork.step(frame(1))
    both.adopt(fork, 'b', frame(1))
    assert both.region_ids == key.region_ids == quick.region_ids == ('a', 'b')
    assert fork.region_ids == ()
    both.remove('a')
    both.remove('a')
    assert both.region_ids == key.region_ids == quick.region_ids == ('b',)
    assert [one.region_id for one in both.step(frame(2))] == ['b']
    with pytest.raises(TypeError):
        both.adopt(key, 'b', frame(2))


def test_nothing_to_follow() -> None:
    both, key, quick = joined()
    assert [both.step(frame(number)) for number in range(3)] == [[], [], []]
    both.start(frame(2), masked('a', HERE))
    assert len(both.step(frame(3))) == 1
    assert key.stepped == [frame(number).stamp_ns for number in range(3)]
    assert len(quick.stepped) == 4


def test_a_period_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match='key_period_frames'):
        AutoTracker(Watcher(), Watcher(), 0)


def test_both_real_trackers_together() -> None:
    both = AutoTracker(tracker(), AnchoredTracker(), PERIOD)
    both.start(frame(0), masked('a', HERE))
    both.start(frame(0), box('b', 30, 20, 20, 20))
    for number in range(1, 3 * PERIOD):
        height = 48 if number < 6 else 96
        told = both.step(frame(number, height))
        assert [one.region_id for one in told] == ['a', 'b']
        for one in told:
            assert 0.0 <= one.score <= 1.0
            assert (one.mask is None) <= (one.state in (OCCLUDED, LOST))
            assert one.mask is None or one.mask.shape == (height, 64)
        if number == 3:
            fork = both.fork()
            fork.start(frame(2), box('c', 5, 25, 20, 20))
            fork.step(frame(3))
            both.adopt(fork, 'c', frame(3))
            assert of(both.step(frame(3)), 'c').region_id == 'c'
            both.remove('c')
