# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Stand in for the slow parts of the house in tests."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.describer import LanguageStats, RegionDescriber, Request, VisionStats
from pixelrefer_ros.core.regions import region_mask
from pixelrefer_ros.core.tracker import Sighting
from pixelrefer_ros.core.types import (
    Box,
    ErrorCode,
    Frame,
    PixelReferError,
    Task,
    TrackState,
    Utterance,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Region, RegionClip

T = TypeVar('T')


@dataclass(frozen=True)
class Call:
    """Hold what a describer was asked; ``text`` is the hint or the question."""

    kind: str
    text: str
    frames: tuple[Frame, ...]
    regions: tuple[RegionClip, ...]

    @property
    def stamps_ns(self) -> tuple[int, ...]:
        """Return the stamps of the frames."""
        return tuple(frame.stamp_ns for frame in self.frames)


class ScriptedDescriber(RegionDescriber):
    """Say scripted things about regions, token by token, and remember what was asked.

    It keeps the promises of ``RegionDescriber`` (a token at a time, ``should_stop`` asked before
    each, progress) and checks those of its caller: frames oldest first and of one camera,
    masks of the size of their frames, one thread at a time.

    Attributes:
        script: What to say or raise, one entry a call, taken from the front; when it is empty a
            sentence made from the call is said, so that equal calls give equal words.
        gate: When set to an Event, each call waits for it before its first token, asking
            ``should_stop`` meanwhile.
        batches: How many requests came together, call by call.
        seen: What ``vision_stats`` returns. A frame is a picture, and so is each region in it;
            those it was not shown before are misses.
        read: What ``language_stats`` returns.
        seconds: What preprocessing, vision and language took, as each utterance says.
        ahead: Frames that were to be looked at before anything was asked.
        on_ahead: Called with each of them; may raise.
        forgotten: How often everything was to be forgotten.
        started: Set when a call begins.
        on_token: Called before each token, with the words so far.
        deaf: True ignores ``should_stop``.
    """

    def __init__(
        self,
        script: Sequence[str | BaseException] = (),
        *,
        name: str = 'scripted',
        frames_per_region: int = 4,
        needs_regions: bool = True,
        mean_logprob: float = math.log(0.5),
    ) -> None:
        """Set what to say, and the attributes of a describer."""
        self.name = name
        self.frames_per_region = frames_per_region
        self.needs_regions = needs_regions
        self.mean_logprob = mean_logprob
        self.script: list[str | BaseException] = list(script)
        self.calls: list[Call] = []
        self.batches: list[int] = []
        self.seen = VisionStats(max_bytes=1 << 20)
        self.read = LanguageStats()
        self.seconds = (0.001, 0.002, 0.003)
        self.ahead: list[Frame] = []
        self.on_ahead: Callable[[Frame], None] = lambda _: None
        self.forgotten = 0
        self.threads: set[int] = set()
        self.gate: threading.Event | None = None
        self.started = threading.Event()
        self.on_token: Callable[[str], None] | None = None
        self.deaf = False
        self._known: set[tuple[str, int, str]] = set()
        self._busy = threading.Lock()

    def say(
        self,
        requests: Sequence[Request],
        on_said: Callable[[int, Utterance | PixelReferError], None],
    ) -> None:
        """Say the next line of the script about each request."""
        assert requests, 'no requests'
        self.batches.append(len(requests))
        for place, one in enumerate(requests):
            call = Call('describe' if one.task == Task.DESCRIBE else 'answer',
                        one.text, one.frames, one.regions)
            assert one.task == Task.ASK or len(one.regions) == 1, 'one region is described'
            outcome: Utterance | PixelReferError
            try:
                outcome = self._speak(call, one.should_stop, one.on_progress)
            except PixelReferError as error:
                outcome = error
            on_said(place, outcome)

    def look_ahead(self, frame: Frame) -> bool:
        """Note the frame; return whether it is new."""
        self._call(lambda: self.on_ahead(frame))
        self.ahead.append(frame)
        new = not self._look([(frame.camera, frame.stamp_ns, '')])
        self.seen = replace(self.seen, encoded_ahead=self.seen.encoded_ahead + new)
        return new

    def forget(self) -> None:
        """Count the call."""
        self._call(self._known.clear)
        self.forgotten += 1

    def vision_stats(self) -> VisionStats:
        """Return what is set, and what was counted since."""
        return self.seen

    def language_stats(self) -> LanguageStats:
        """Return what is set."""
        return self.read

    def _look(self, pictures: Sequence[tuple[str, int, str]]) -> int:
        """Look at pictures; return how many of them are known."""
        hits = len(self._known.intersection(pictures))
        self._known.update(pictures)
        return hits

    def _call(self, work: Callable[[], T]) -> T:
        if not self._busy.acquire(blocking=False):
            raise AssertionError('a describer is called by one thread at a time')
        try:
            self.threads.add(threading.get_ident())
            return work()
        finally:
            self._busy.release()

    def _speak(
        self,
        call: Call,
        should_stop: Callable[[], bool] | None,
        on_progress: Callable[[str, str], None] | None,
    ) -> Utterance:
        def speak() -> Utterance:
            _check(call)
            if not call.regions and self.needs_regions:
                raise PixelReferError(ErrorCode.BAD_REQUEST, 'no region')
            self.calls.append(call)
            self.started.set()
            pictures = [
                (frame.camera, frame.stamp_ns, name)
                for i, frame in enumerate(call.frames)
                for name in ('', *(r.region_id for r in call.regions if i in r.frame_indices))
            ]
            hits = self._look(pictures)
            misses = len(pictures) - hits
            self.seen = replace(
                self.seen, hits=self.seen.hits + hits, misses=self.seen.misses + misses
            )
            line = self.script.pop(0) if self.script else _sentence(call)
            return self._say(line, call, should_stop or (lambda: False), on_progress)

        return self._call(speak)

    def _say(
        self,
        line: str | BaseException,
        call: Call,
        should_stop: Callable[[], bool],
        on_progress: Callable[[str, str], None] | None,
    ) -> Utterance:
        tokens_in = 10 + 8 * sum(len(region.masks) for region in call.regions)
        said: list[str] = []

        def stopped() -> bool:
            return should_stop() and not self.deaf

        def result(canceled: bool) -> Utterance:
            return Utterance(' '.join(said), tokens_in, len(said) + (not canceled),
                             self.mean_logprob, *self.seconds, canceled)

        for stage in ('preprocess', 'vision'):
            if on_progress:
                on_progress(stage, '')
        while self.gate is not None and not self.gate.wait(0.005):
            if stopped():
                return result(True)
        if isinstance(line, BaseException):
            raise line
        for word in line.split():
            if self.on_token:
                self.on_token(' '.join(said))
            if stopped():
                return result(True)
            said.append(word)
            if on_progress:
                on_progress('language', ' '.join(said))
        return result(False)


def _check(call: Call) -> None:
    stamps = call.stamps_ns
    assert stamps, 'no frames'
    assert list(stamps) == sorted(set(stamps)), 'frames oldest first, each once'
    assert len({frame.camera for frame in call.frames}) == 1, 'frames of one camera'
    for region in call.regions:
        assert len(region.masks) == len(region.frame_indices) > 0
        assert list(region.frame_indices) == sorted(set(region.frame_indices))
        for index, mask in zip(region.frame_indices, region.masks, strict=True):
            assert mask.shape == call.frames[index].image.shape[:2], 'mask of the frame size'
            assert np.asarray(mask).any(), 'empty mask'


def _sentence(call: Call) -> str:
    about = ', '.join(f'{r.region_id} in {len(r.masks)} frames' for r in call.regions)
    return f'{call.kind} {about} until {call.stamps_ns[-1]}'


class ManualClock:
    """Tell the time a test sets, in seconds."""

    def __init__(self, now_s: float = 0.0) -> None:
        """Start at this time."""
        self.now_s = now_s

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


def make_frame(
    stamp_s: float, camera: str = '', *, height: int = 24, width: int = 32, value: int = 0
) -> Frame:
    """Return a frame of one grey."""
    image = np.full((height, width, 3), value, dtype=np.uint8)
    return Frame(camera, round(stamp_s * 1e9), image, f'{camera}_optical')


Colour = tuple[int, int, int]


def paint(
    stamp_s: float,
    patches: Mapping[Colour, Box],
    camera: str = '',
    *,
    height: int = 48,
    width: int = 64,
) -> Frame:
    """Return a black frame with boxes of one colour each, later ones before earlier ones."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for colour, box in patches.items():
        rows, columns = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
        image[rows, columns] = colour
    return Frame(camera, round(stamp_s * 1e9), image, f'{camera}_optical')


@dataclass
class TrackerScript:
    """Hold what a family of scripted trackers is to do, and remembers what it did.

    Attributes:
        fails_at: Stamps of the frames on which ``step`` raises.
        fails_on: Region ids at which ``start`` raises, and what.
        makes: What making a tracker raises; None for nothing.
        gate: When set to an Event, each step waits for it.
        on_step: Called in each step with the stamp of the frame.
        spoils: What to say instead of a sighting; None for the truth.
        steps: (number of the tracker, stamp, regions), one per step.
        starts: (number of the tracker, stamp, region id), one per start.
        made: How many trackers there were; forks count.
        threads: Names of the threads that called.
    """

    fails_at: set[int] = field(default_factory=set)
    fails_on: dict[str, Exception] = field(default_factory=dict)
    makes: Exception | None = None
    gate: threading.Event | None = None
    on_step: Callable[[int], None] | None = None
    spoils: Callable[[Sighting], Sighting] | None = None
    steps: list[tuple[int, int, tuple[str, ...]]] = field(default_factory=list)
    starts: list[tuple[int, int, str]] = field(default_factory=list)
    made: int = 0
    threads: set[str] = field(default_factory=set)

    def make(self) -> ScriptedTracker:
        """Return a tracker, as an engine's ``make_tracker``."""
        if self.makes is not None:
            raise self.makes
        return ScriptedTracker(self)


@dataclass
class _Thing:
    """Hold what a scripted tracker knows of a region."""

    colour: Colour
    area: int
    state: TrackState


class ScriptedTracker:
    """Follow things by their colour, which must be theirs alone.

    It keeps the promises of ``RegionTracker`` and checks those of its caller: one thread at a
    time, regions started in the frame it is at, adopted from a tracker at the same frame.
    """

    name = 'scripted'

    def __init__(self, script: TrackerScript) -> None:
        """Begin without regions."""
        self.script = script
        self.number = script.made
        script.made += 1
        self._things: dict[str, _Thing] = {}
        self._at: Frame | None = None
        self._busy = threading.Lock()

    @property
    def region_ids(self) -> tuple[str, ...]:
        """Return the regions that are followed."""
        return tuple(self._things)

    def start(self, frame: Frame, region: Region) -> Sighting:
        """Follow the colour that covers most of a region."""
        assert self._at is None or self._at is frame, 'started in the frame of the last step'
        self.script.threads.add(threading.current_thread().name)
        self.script.starts.append((self.number, frame.stamp_ns, region.region_id))
        if region.region_id in self.script.fails_on:
            raise self.script.fails_on[region.region_id]
        self._at = frame
        inside = frame.image[masks.decode(region_mask(region, *frame.image.shape[:2]))]
        colours, counts = np.unique(inside[inside.any(axis=1)], axis=0, return_counts=True)
        if not len(colours):
            raise PixelReferError(ErrorCode.BAD_REGION, 'there is nothing but background')
        red, green, blue = (int(value) for value in colours[counts.argmax()])
        mask = (frame.image == (red, green, blue)).all(axis=2)
        known = self._things.get(region.region_id)
        state = TrackState.NEW
        if known is not None:
            away = known.state in (TrackState.OCCLUDED, TrackState.LOST)
            state = TrackState.REACQUIRED if away else TrackState.TRACKED
        self._things[region.region_id] = _Thing((red, green, blue), int(mask.sum()), state)
        return Sighting(region.region_id, state, 1.0, mask)

    def step(self, frame: Frame) -> list[Sighting]:
        """Look for the colours in the next frame."""
        if not self._busy.acquire(blocking=False):
            raise AssertionError('a tracker is called by one thread at a time')
        try:
            self.script.threads.add(threading.current_thread().name)
            self.script.steps.append((self.number, frame.stamp_ns, self.region_ids))
            if self.script.gate is not None:
                self.script.gate.wait(20.0)
            if self.script.on_step is not None:
                self.script.on_step(frame.stamp_ns)
            if frame.stamp_ns in self.script.fails_at:
                raise RuntimeError('the tracker has lost its mind')
            self._at = frame
            seen = [self._look(i, thing, frame.image) for i, thing in self._things.items()]
            return [self.script.spoils(one) for one in seen] if self.script.spoils else seen
        finally:
            self._busy.release()

    def remove(self, region_id: str) -> None:
        """Forget a region."""
        self._things.pop(region_id, None)

    def fork(self) -> ScriptedTracker:
        """Return a tracker without regions."""
        return ScriptedTracker(self.script)

    def adopt(self, other: ScriptedTracker, region_id: str, frame: Frame) -> None:
        """Take a region over."""
        assert other.script is self.script
        for one in (self, other):
            assert one._at is not None
            assert one._at.stamp_ns == frame.stamp_ns, 'the frame both have seen last'
        self._things[region_id] = other._things[region_id]

    def _look(self, region_id: str, thing: _Thing, image: NDArray[np.uint8]) -> Sighting:
        mask = (image == thing.colour).all(axis=2)
        part = mask.sum() / thing.area
        was_away = thing.state in (TrackState.OCCLUDED, TrackState.LOST)
        if part == 0:
            thing.state = TrackState.LOST
            return Sighting(region_id, thing.state, 0.0, None)
        if part < 0.5:
            thing.state = TrackState.OCCLUDED
        else:
            thing.state = TrackState.REACQUIRED if was_away else TrackState.TRACKED
        return Sighting(region_id, thing.state, min(1.0, float(part)), mask)
