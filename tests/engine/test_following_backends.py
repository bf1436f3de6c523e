# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the real trackers through the engine: what is given once is followed both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pixelrefer_ros.core.types import Box, Frame, Region, RegionKind, Task, TrackState
from pixelrefer_ros.engine import Engine, EngineConfig
from pixelrefer_ros.tracking.anchored import AnchoredTracker
from pixelrefer_ros.tracking.auto import AutoTracker
from tests.doubles import ManualClock, ScriptedDescriber
from tests.engine.rig import ns, query
from tests.tracking import sam2_rig

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Answer, Track

FRAMES, GIVEN, LATER, LAST = 24, 10, 16, 30
BACKENDS: dict[str, Callable[[], RegionTracker]] = {
    'anchored': AnchoredTracker,
    'sam2': sam2_rig.tracker,
    'auto': lambda: AutoTracker(sam2_rig.tracker(), AnchoredTracker(), 5),
}


def frame(i: int) -> Frame:
    """Return a picture in which a red thing goes right and a green one stays."""
    noise = np.random.default_rng(7)
    image = noise.integers(90, 130, (96, 128, 3)).astype(np.uint8)
    for left, top, colour in ((10 + 2 * i, 20, (200, 30, 30)), (80, 60, (30, 180, 40))):
        marks = noise.integers(-25, 25, (24, 24, 1))
        image[top : top + 24, left : left + 24] = np.clip(np.array(colour) + marks, 0, 255)
    return Frame('', ns(1 + i / 10), image)


class Run:
    """Give two things, each once, in the middle of a film; take one away before the end."""

    def __init__(self, make_tracker: Callable[[], RegionTracker]) -> None:
        self.tracks: dict[int, tuple[Track, ...]] = {}
        self.problems: list[str] = []
        self.answers: list[Answer] = []
        self.engine = Engine(
            ScriptedDescriber(),
            EngineConfig(
                keep_rate_hz=0.0, describe_enabled=False, window_s=10.0, record_timings=False
            ),
            on_description=lambda _: None,
            on_answer=self.answers.append,
            make_tracker=make_tracker,
            on_tracks=lambda frame, tracks: self.tracks.update({frame.stamp_ns: tracks}),
            clock=ManualClock(),
            on_problem=self.problems.append,
        )
        self.film(range(FRAMES))
        self.give('red', GIVEN, Box(10 + 2 * GIVEN, 20, 24, 24))
        self.film(range(FRAMES, FRAMES + 2))
        self.give('green', LATER, Box(80, 60, 24, 24))
        self.film(range(FRAMES + 2, LAST))
        self.engine.submit(query('what?', region_ids=('red',), task=Task.ASK))
        self.engine.run_until_idle()
        assert self.engine.remove_regions(['red']) == ['red']
        self.film([LAST])

    def film(self, frames: range | list[int]) -> None:
        for i in frames:
            self.engine.add_frame(frame(i))
            self.engine.run_until_idle()

    def give(self, name: str, i: int, box: Box) -> None:
        region = Region(name, RegionKind.BOX, stamp_ns=frame(i).stamp_ns, box=box)
        assert self.engine.add_regions([region]) == [None]
        self.engine.run_until_idle()

    def at(self, i: int) -> dict[str, Track]:
        return {track.region_id: track for track in self.tracks[frame(i).stamp_ns]}


@pytest.mark.parametrize('backend', list(BACKENDS))
def test_a_tracker_follows_through_the_engine(backend: str) -> None:
    run = Run(BACKENDS[backend])
    assert not run.problems
    assert set(run.at(LAST - 1)) == {'red', 'green'}
    assert set(run.at(LAST)) == {'green'}
    (answer,) = run.answers
    assert answer.error_code == 0
    # the frames it looked at go from before the region was given to the newest
    stamps = [frame(i).stamp_ns for i in range(LAST)]
    assert answer.frame_stamps_ns[0] < stamps[GIVEN]
    assert answer.frame_stamps_ns[-1] > stamps[LATER]
    assert set(answer.frame_stamps_ns) <= set(stamps)
    if backend == 'anchored':
        for i, name, left in ((LAST - 1, 'red', 10 + 2 * (LAST - 1)), (LAST, 'green', 80)):
            track = run.at(i)[name]
            assert track.state == TrackState.TRACKED
            assert track.box is not None
            assert abs(track.box.x - left) <= 2


@pytest.mark.parametrize('backend', list(BACKENDS))
def test_it_gives_the_same_every_time(backend: str) -> None:
    first, second = Run(BACKENDS[backend]), Run(BACKENDS[backend])
    assert first.tracks == second.tracks
    assert first.answers == second.answers
