# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Stand in for vision language models in tests."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.core.chat import Decoding, Picture, Reply, Turn, Video

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

TOKENS_PER_PICTURE = 100


@dataclass(frozen=True)
class ChatCall:
    """Hold what a model was asked."""

    turns: tuple[Turn, ...]
    decoding: Decoding

    @property
    def prompt(self) -> str:
        """Return the text of the last turn."""
        return '\n'.join(part for part in self.turns[-1].parts if isinstance(part, str))

    @property
    def pictures(self) -> list[NDArray[np.uint8]]:
        """Return the pictures of the last turn, those of clips among them."""
        found: list[NDArray[np.uint8]] = []
        for part in self.turns[-1].parts:
            if isinstance(part, Picture):
                found.append(part.image)
            elif isinstance(part, Video):
                found.extend(part.images)
        return found


class ScriptedChatModel:
    """Say scripted replies, word by word, and remember what was asked.

    It keeps the promises of ``ChatModel`` (``should_stop`` asked before each token,
    ``max_new_tokens``, nothing read again of a conversation that goes on) and checks those of
    its caller: turns in order, pictures of the right type, clips only where they can be shown,
    one thread at a time.

    Attributes:
        script: What to say or raise, one entry a call, taken from the front. A function is
            given the call and returns what to say.
        gate: When set to an Event, each call waits for it before its first token, asking
            ``should_stop`` meanwhile.
        started: Set when a call begins.
        on_token: Called before each token, with the text so far.
        calls: What was asked.
        forgotten: How often ``forget`` was called.
        why_away: What ``trouble`` returns.
    """

    def __init__(
        self,
        script: Sequence[str | BaseException | Callable[[ChatCall], str]] = (),
        *,
        name: str = 'scripted-chat',
        shows_video: bool = True,
        log_prob: float = math.log(0.5),
        remote: bool = False,
    ) -> None:
        """Set what to say, and the attributes of a chat model."""
        self.name = name
        self.shows_video = shows_video
        self.picture_multiple = 1
        self.remote = remote
        self.log_prob = log_prob
        self.script = list(script)
        self.calls: list[ChatCall] = []
        self.forgotten = 0
        self.why_away = ''
        self.gate: threading.Event | None = None
        self.started = threading.Event()
        self.on_token: Callable[[str], None] | None = None
        self._known: tuple[Turn, ...] = ()
        self._busy = threading.Lock()

    def reply(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Say the next line of the script."""
        if not self._busy.acquire(blocking=False):
            raise AssertionError('a chat model is called by one thread at a time')
        try:
            call = ChatCall(tuple(turns), decoding)
            _check(call, self.shows_video)
            self.calls.append(call)
            self.started.set()
            assert self.script, 'the script has no line for this call'
            line = self.script.pop(0)
            if isinstance(line, BaseException):
                raise line
            text = line if isinstance(line, str) else line(call)
            return self._say(text, call, should_stop or (lambda: False), on_text)
        finally:
            self._busy.release()

    def trouble(self) -> str:
        """Return what the test has put there."""
        return self.why_away

    def forget(self) -> None:
        """Forget the conversation."""
        self.forgotten += 1
        self._known = ()

    def _say(
        self,
        text: str,
        call: ChatCall,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None,
    ) -> Reply:
        known = len(self._known)
        goes_on = (
            known
            and len(call.turns) > known
            and all(a is b or a == b for a, b in zip(self._known, call.turns, strict=False))
        )
        reused = sum(map(_tokens, self._known)) if goes_on else 0
        said, count, complete = '', 0, True
        while self.gate is not None and not self.gate.wait(0.005):
            if should_stop():
                complete = False
                break
        for token in re.findall(r'\s*\S+\s*', text) if complete else ():
            if self.on_token:
                self.on_token(said)
            if should_stop() or count == call.decoding.max_new_tokens:
                complete = False
                break
            said, count = said + token, count + 1
            if on_text:
                on_text(said)
        self._known = (*call.turns, Turn('assistant', (said,)))
        return Reply(said, complete, sum(map(_tokens, call.turns)), reused, count, self.log_prob)


def _tokens(turn: Turn) -> int:
    count = 1
    for part in turn.parts:
        if isinstance(part, str):
            count += len(part.split())
        elif isinstance(part, Picture):
            count += TOKENS_PER_PICTURE
        else:
            count += TOKENS_PER_PICTURE * math.ceil(len(part.images) / 2)
    return count


def _check(call: ChatCall, shows_video: bool) -> None:
    roles = [turn.role for turn in call.turns if turn.role != 'system']
    assert roles == ['user', 'assistant'] * (len(roles) // 2) + ['user'], 'turns out of order'
    assert all(turn.role != 'system' for turn in call.turns[1:]), 'the system speaks first'
    for turn in call.turns:
        for part in turn.parts:
            if isinstance(part, str):
                continue
            assert turn.role == 'user', 'only the user shows pictures'
            assert shows_video or isinstance(part, Picture), 'this model takes no clips'
            images = part.images if isinstance(part, Video) else (part.image,)
            assert images, 'a clip without frames'
            assert len({image.shape for image in images}) == 1, 'frames of different sizes'
            for image in images:
                assert image.dtype == np.uint8, 'pictures are uint8'
                assert image.ndim == 3, 'pictures are (H, W, 3)'
                assert image.shape[2] == 3, 'pictures are (H, W, 3)'
