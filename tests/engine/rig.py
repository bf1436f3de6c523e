# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Set up an engine with a scripted describer and remember all it gives out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pixelrefer_ros.core.types import Answer, Box, Description, Query, Region, RegionKind
from pixelrefer_ros.engine import Engine, EngineConfig, QueryHandle
from tests.doubles import ManualClock, ScriptedDescriber, TrackerScript, make_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pixelrefer_ros.core.types import Frame, Track
    from pixelrefer_ros.engine.grounding import Grounder


class Rig:
    """Hold an engine and what came out of it; times are in seconds."""

    def __init__(
        self,
        *,
        describer: ScriptedDescriber | None = None,
        clock: Callable[[], float] | None = None,
        tracker: TrackerScript | None = None,
        grounder: Grounder | None = None,
        **settings: Any,
    ) -> None:
        settings = {'keep_rate_hz': 0.0, 'describe_enabled': False, **settings}
        self.describer = describer or ScriptedDescriber()
        self.clock = ManualClock()
        self.descriptions: list[Description] = []
        self.answers: list[Answer] = []
        self.problems: list[str] = []
        self.tracks: list[tuple[Frame, tuple[Track, ...]]] = []
        self.on_tracks: Callable[[Frame, tuple[Track, ...]], None] = lambda *_: None
        self.engine = Engine(
            self.describer,
            EngineConfig(**settings),
            on_description=self.descriptions.append,
            on_answer=self.answers.append,
            make_tracker=None if tracker is None else tracker.make,
            grounder=grounder,
            on_tracks=self._take_tracks,
            clock=clock or self.clock,
            on_problem=self.problems.append,
        )

    def _take_tracks(self, frame: Frame, tracks: tuple[Track, ...]) -> None:
        self.tracks.append((frame, tracks))
        self.on_tracks(frame, tracks)

    def frames(self, stamps_s: Iterable[float], camera: str = '') -> None:
        for stamp_s in stamps_s:
            self.engine.add_frame(make_frame(stamp_s, camera))

    def region(self, region_id: str, stamp_s: float = 0.0, camera: str = '') -> None:
        (outcome,) = self.engine.add_regions([region(region_id, stamp_s, camera)])
        assert outcome is None, outcome

    def ask(self, text: str = 'what?', **fields: Any) -> QueryHandle:
        return self.engine.submit(query(text, **fields))

    def answer(self, text: str = 'what?', **fields: Any) -> Answer:
        """Ask, run, and return the one answer."""
        before = len(self.answers)
        handle = self.ask(text, **fields)
        self.engine.run_until_idle()
        assert handle.done
        (answer,) = self.answers[before:]
        return answer

    def answered_once(self, handles: Iterable[QueryHandle]) -> bool:
        asked = Counter(handle.query_id for handle in handles)
        return asked == Counter(answer.query_id for answer in self.answers)


def region(region_id: str, stamp_s: float = 0.0, camera: str = '', **fields: Any) -> Region:
    return Region(
        region_id,
        RegionKind.BOX,
        camera=camera,
        stamp_ns=ns(stamp_s),
        box=Box(4, 6, 8, 10),
        **{'label': f'label of {region_id}', **fields},
    )


def query(text: str = 'what?', **fields: Any) -> Query:
    stamp_s = fields.pop('stamp_s', 0.0)
    return Query(**{'query_id': 'q', 'text': text, 'stamp_ns': ns(stamp_s), **fields})


def ns(stamp_s: float) -> int:
    return round(stamp_s * 1e9)


def seconds(stamps_ns: Iterable[int]) -> list[float]:
    return [stamp / 1e9 for stamp in stamps_ns]


def span(start_s: float, end_s: float, rate_hz: float = 10.0) -> list[float]:
    """Return stamps from start to end, both included."""
    return [start_s + i / rate_hz for i in range(round((end_s - start_s) * rate_hz) + 1)]
