# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Stand in for the slow parts of the house in tests."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.core.types import ErrorCode, Frame, PixelReferError, Utterance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.types import RegionClip


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


class ScriptedDescriber:
    """Say scripted things about regions, token by token, and remember what was asked.

    It keeps the promises of ``RegionDescriber`` (a token at a time, ``should_stop`` asked before
    each, progress) and checks those of its caller: frames oldest first and of one camera,
    masks of the size of their frames, one thread at a time.

    Attributes:
        script: What to say or raise, one entry a call, taken from the front; when it is empty a
            sentence made from the call is said, so that equal calls give equal words.
        gate: When set to an Event, each call waits for it before its first token, asking
            ``should_stop`` meanwhile.
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
        mean_logprob: float = math.log(0.5),
    ) -> None:
        """Set what to say, and the attributes of a describer."""
        self.name = name
        self.frames_per_region = frames_per_region
        self.mean_logprob = mean_logprob
        self.script: list[str | BaseException] = list(script)
        self.calls: list[Call] = []
        self.threads: set[int] = set()
        self.gate: threading.Event | None = None
        self.started = threading.Event()
        self.on_token: Callable[[str], None] | None = None
        self.deaf = False
        self._busy = threading.Lock()

    def describe(
        self,
        frames: Sequence[Frame],
        region: RegionClip,
        *,
        hint: str = '',
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> Utterance:
        """Say the next line of the script about a region."""
        return self._speak(Call('describe', hint, tuple(frames), (region,)),
                           should_stop, on_progress)

    def answer(
        self,
        question: str,
        frames: Sequence[Frame],
        regions: Sequence[RegionClip],
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> Utterance:
        """Say the next line of the script as the answer."""
        return self._speak(Call('answer', question, tuple(frames), tuple(regions)),
                           should_stop, on_progress)

    def _speak(
        self,
        call: Call,
        should_stop: Callable[[], bool] | None,
        on_progress: Callable[[str, str], None] | None,
    ) -> Utterance:
        if not self._busy.acquire(blocking=False):
            raise AssertionError('a describer is called by one thread at a time')
        try:
            _check(call)
            self.calls.append(call)
            self.threads.add(threading.get_ident())
            self.started.set()
            line = self.script.pop(0) if self.script else _sentence(call)
            return self._say(line, call, should_stop or (lambda: False), on_progress)
        finally:
            self._busy.release()

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
                             self.mean_logprob, 0.001, 0.002, 0.003, canceled)

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
    if not call.regions:
        raise PixelReferError(ErrorCode.BAD_REQUEST, 'no region')
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
