# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test when a region is in sight, hidden, lost and found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_ros.core.types import NS_PER_S, TrackState
from pixelrefer_ros.tracking.presence import Presence

NEW, TRACKED, OCCLUDED, LOST, REACQUIRED = (
    TrackState.NEW, TrackState.TRACKED, TrackState.OCCLUDED, TrackState.LOST,
    TrackState.REACQUIRED,
)  # fmt: skip
STEP_NS = NS_PER_S // 10


def follow(*shares: float, direction: int = 1, score: float = 1.0) -> list[TrackState]:
    """Return the states of a region given with a share of 0.1, then seen with these, at 10 Hz."""
    presence = Presence()
    return [presence.given(0, 0.1)] + [
        presence.see(direction * number * STEP_NS, share, score=score)
        for number, share in enumerate(shares, 1)
    ]


def test_a_region_in_sight_is_new_once_then_tracked() -> None:
    assert follow(0.1, 0.11, 0.09) == [NEW, TRACKED, TRACKED, TRACKED]


def test_hidden_in_part_it_is_occluded_until_enough_is_back() -> None:
    assert follow(0.1, 0.02, 0.03, 0.05, 0.1)[2:] == [OCCLUDED, OCCLUDED, REACQUIRED, TRACKED]


def test_out_of_sight_it_is_occluded_then_lost_within_half_a_second() -> None:
    assert follow(0.1, 0, 0, 0, 0)[2:] == [OCCLUDED, OCCLUDED, OCCLUDED, LOST]


def test_a_speck_is_no_sight() -> None:
    assert follow(0.004, 0.004, 0.004, 0.004)[-1] == LOST


def test_time_may_run_backward() -> None:
    shares = (0.1, 0, 0, 0, 0, 0.1, 0.1)
    assert follow(*shares, direction=-1) == follow(*shares)


def test_what_is_lost_is_found_only_for_sure() -> None:
    presence = Presence()
    presence.given(0, 0.1)
    assert presence.see(NS_PER_S, 0.0) == LOST
    assert presence.see(NS_PER_S + 1, 0.1, score=0.3) == LOST
    assert presence.see(NS_PER_S + 2, 0.1, hidden=True) == LOST
    assert not presence.in_sight
    assert presence.see(NS_PER_S + 3, 0.1, score=0.9) == REACQUIRED
    assert presence.in_sight


def test_it_may_come_back_smaller() -> None:
    assert follow(0, 0, 0, 0, 0.01, 0.01)[-3:] == [LOST, REACQUIRED, TRACKED]


def test_it_may_grow_and_shrink_slowly_without_being_hidden() -> None:
    shares = [0.1 * 0.99**number for number in range(400)]
    assert set(follow(*shares)[1:]) == {TRACKED}


def test_it_is_hidden_when_somebody_who_knows_says_so() -> None:
    presence = Presence()
    presence.given(0, 0.1)
    assert presence.see(STEP_NS, 0.1, hidden=True) == OCCLUDED
    assert presence.in_sight


def test_a_region_that_is_given_again_goes_on() -> None:
    presence = Presence()
    assert presence.given(0, 0.1) == NEW
    assert presence.given(0, 0.2) == NEW
    presence.see(STEP_NS, 0.2)
    assert presence.given(STEP_NS, 0.2) == TRACKED
    presence.see(2 * STEP_NS, 0.0)
    assert presence.given(2 * STEP_NS, 0.2) == REACQUIRED
    presence.see(NS_PER_S, 0.0)
    assert presence.given(NS_PER_S, 0.2) == REACQUIRED


@given(
    st.lists(
        st.tuples(
            st.integers(1, NS_PER_S), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.booleans()
        ),
        max_size=40,
    ),
    st.sampled_from([1, -1]),
)
def test_a_lost_region_is_never_in_sight_and_nothing_is_new_twice(
    steps: list[tuple[int, float, float, bool]], direction: int
) -> None:
    presence = Presence()
    presence.given(0, 0.1)
    stamp_ns = seen_ns = 0
    before = NEW
    for passed_ns, share, score, hidden in steps:
        stamp_ns += direction * passed_ns
        state = presence.see(stamp_ns, share, score=score, hidden=hidden)
        assert state != NEW
        if presence.in_sight:
            assert share > 0.0
            assert state != LOST
            seen_ns = stamp_ns
        else:
            assert state in (OCCLUDED, LOST)
            if abs(stamp_ns - seen_ns) >= NS_PER_S // 2:
                assert state == LOST
        if state == REACQUIRED:
            assert before in (OCCLUDED, LOST)
        before = state
