# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what the painter publishes when, on a clock that the test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Box, Description, Frame, Timings, Track, TrackState
from pixelrefer_ros.node import outputs as out
from pixelrefer_ros.node.painter import Painter
from tests.doubles import ManualClock, make_frame
from tests.ros.rig import ns, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


class Listeners:
    """Stand in for the publishers: everybody listens to these topics."""

    def __init__(self, *topics: str) -> None:
        self.topics = topics
        self.arrays: list[tuple[int, tuple[str, ...]]] = []
        self.images: list[tuple[str, int, Any]] = []

    def watched(self, topic: str) -> bool:
        return topic in self.topics

    def tracks(self, frame: Frame, tracks: tuple[Track, ...]) -> None:
        self.arrays.append((frame.stamp_ns, tuple(track.region_id for track in tracks)))

    def publish(self, topic: str, message: Any) -> None:
        stamp_ns = ns(message.header.stamp.sec) + message.header.stamp.nanosec
        self.images.append((topic, stamp_ns, message))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def listeners() -> Listeners:
    return Listeners(out.TRACKS, out.IMAGE_ANNOTATED, out.LABEL_IMAGE)


@pytest.fixture
def painter(listeners: Listeners, clock: ManualClock) -> Iterator[Painter]:
    """Return a painter of an engine that follows regions; what it says is a failure."""
    problems: list[str] = []
    painter = Painter(
        None, listeners, problems.append, tracking=True, clock=clock
    )  # type: ignore[arg-type]
    yield painter
    painter.stop()
    assert not problems


BOX = Box(2, 3, 8, 6)


def track(region_id: str, stamp_s: float, box: Box | None = BOX) -> Track:
    mask = None if box is None else masks.encode_box(box, 24, 32)
    state = TrackState.LOST if box is None else TrackState.TRACKED
    return Track(region_id, '', ns(stamp_s), state, 0.5, box, mask, ns(1))


def test_tracks_are_published_as_they_come_and_drawn_as_they_were_last(
    painter: Painter, listeners: Listeners
) -> None:
    frame = make_frame(1.0)
    names = ['a', 'b', 'c', 'd']
    for count in range(5):
        painter.tracked(frame, tuple(track(name, 1.0) for name in names[:count]))
        assert listeners.arrays[-1] == (ns(1), tuple(names[:count]))  # at once
    painter.tracked(make_frame(1.1), (track('a', 1.1),))
    wait_for(lambda: any(stamp == ns(1.1) for _, stamp, _ in listeners.images), 'the pictures')
    labels = [m for topic, stamp, m in listeners.images
              if topic == out.LABEL_IMAGE and stamp == ns(1)]  # fmt: skip
    values = np.frombuffer(labels[-1].data, np.uint16).reshape(24, 32)
    assert set(np.unique(values)) == {0, 4}  # all four in the same place: the last has it


def test_a_lost_region_is_drawn_where_it_was(painter: Painter, listeners: Listeners) -> None:
    frames = [make_frame(second, height=240, width=320) for second in (1.0, 2.0)]
    box = Box(100, 120, 60, 50)
    seen = Track('a', '', ns(1), TrackState.TRACKED, 0.9, box, masks.encode_box(box, 240, 320),
                 ns(1))  # fmt: skip
    painter.tracked(frames[0], (seen,))
    wait_for(lambda: len(listeners.images) == 2, 'the first pictures')
    painter.tracked(frames[1], (track('a', 2.0, None),))
    wait_for(lambda: len(listeners.images) == 4, 'the second pictures')
    by_topic = {(topic, stamp): message for topic, stamp, message in listeners.images}
    assert not any(by_topic[out.LABEL_IMAGE, ns(2)].data)
    drawn = np.frombuffer(by_topic[out.IMAGE_ANNOTATED, ns(2)].data, np.uint8)
    changed = drawn.reshape(240, 320, 3).any(-1)
    assert 0.2 < changed[120, 100:160].mean() < 0.8  # dashes
    assert not changed[125:165, 105:155].any()


def test_a_clock_that_goes_back_forgets_where_things_were(
    painter: Painter, listeners: Listeners
) -> None:
    painter.tracked(make_frame(9.0), (track('a', 9.0),))
    wait_for(lambda: len(listeners.images) == 2, 'the first pictures')
    painter.tracked(make_frame(1.0), (track('a', 1.0, None),))
    wait_for(lambda: len(listeners.images) == 4, 'the second pictures')
    assert not any(listeners.images[-1][2].data)  # a black frame with nothing on it


def test_nothing_is_drawn_for_nobody(painter: Painter, listeners: Listeners) -> None:
    listeners.topics = ()
    painter.tracked(make_frame(1.0), (track('a', 1.0),))
    assert not painter._easels
    assert not listeners.images


def test_words_do_not_pile_up(painter: Painter) -> None:
    for index in range(1000):
        painter.described(
            Description('', f'r{index}', '', 1, '', 'words', 1.0, None, (1,), Timings(), 1, 1, 'm')
        )
    words = painter._easels[''].words
    assert len(words) < 300
    assert list(words)[-1] == 'r999'
