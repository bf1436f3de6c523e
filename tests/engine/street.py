# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Film a little street for a scripted tracker: coloured things that move, hide and leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixelrefer_ros.core.types import Box, Region, RegionKind, TrackState
from tests.doubles import Colour, TrackerScript, paint
from tests.engine.rig import Rig, ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixelrefer_ros.core.types import Frame, Track
    from pixelrefer_ros.engine.follower import Follower

RED, BLUE, GREY = (200, 0, 0), (0, 0, 200), (90, 90, 90)
COLOURS = {'red': RED, 'blue': BLUE}
RATE_HZ = 10.0


def at_s(i: int) -> float:
    """Return the stamp of frame i, in seconds."""
    return 10.0 + i / RATE_HZ


def at_ns(i: int) -> int:
    return ns(at_s(i))


def red_box(i: int) -> Box:
    """Return where the red thing is in frame i: it goes right, a pixel a frame."""
    return Box(2 + i % 50, 8, 8, 10)


BLUE_BOX = Box(40, 30, 12, 9)


def street(i: int) -> dict[Colour, Box]:
    return {RED: red_box(i), BLUE: BLUE_BOX}


class Street(Rig):
    """A rig whose camera sees the street; ``scene`` says what is where in a frame."""

    def __init__(
        self,
        scene: Callable[[int], dict[Colour, Box]] = street,
        *,
        tracker: TrackerScript | None = None,
        **settings: Any,
    ) -> None:
        self.script = tracker or TrackerScript()
        self.scene = scene
        super().__init__(tracker=self.script, **settings)

    def film(self, frames: Iterable[int], *, run: bool = True) -> None:
        """Let frames come, and the engine keep up."""
        for i in frames:
            self.engine.add_frame(self.picture(i))
            if run:
                self.engine.run_until_idle()

    def picture(self, i: int, camera: str = '') -> Frame:
        return paint(at_s(i), self.scene(i), camera)

    def point(self, name: str, i: int, box: Box | None = None, **fields: Any) -> None:
        """Give the box around a coloured thing as it is in frame i."""
        given = self.region_of(name, i, box or self.scene(i)[COLOURS[name]], **fields)
        (outcome,) = self.engine.add_regions([given])
        assert outcome is None, outcome

    def region_of(self, name: str, i: int, box: Box, **fields: Any) -> Region:
        return Region(name, RegionKind.BOX, stamp_ns=at_ns(i), box=box, **fields)

    @property
    def follower(self) -> Follower:
        return self.engine._following._followers[self.engine._cameras.find('')]

    def seen(self, name: str) -> dict[int, Box]:
        """Return where the engine knows a thing, by frame."""
        state = self.engine._cameras.find('')
        return {number(o.stamp_ns): o.box for o in state.store.observations(name)}

    def states(self, name: str) -> dict[int, TrackState]:
        """Return the last state that was given out of a thing, by frame."""
        return {i: track.state for i, track in self.track(name).items()}

    def track(self, name: str) -> dict[int, Track]:
        """Return the last track that was given out of a thing, by frame."""
        return {
            number(frame.stamp_ns): track
            for frame, tracks in self.tracks
            for track in tracks
            if track.region_id == name
        }


def number(stamp_ns: int) -> int:
    """Return the number of a frame."""
    return round((stamp_ns / 1e9 - 10.0) * RATE_HZ)
