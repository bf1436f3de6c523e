# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define what grounding asks of a vision language model that holds a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Picture:
    """Show one image, (H, W, 3) uint8 RGB, at the very size the model is to see."""

    image: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Video:
    """Show frames of one size as a clip.

    Attributes:
        images: Each (H, W, 3) uint8 RGB, oldest first.
        fps: Frames per second the model is told.
    """

    images: tuple[NDArray[np.uint8], ...]
    fps: float


@dataclass(frozen=True, slots=True)
class Turn:
    """Say one thing in a conversation.

    Attributes:
        role: Who says it.
        parts: Text, pictures and clips in order; the assistant's are text.
    """

    role: Literal['system', 'user', 'assistant']
    parts: tuple[str | Picture | Video, ...]


@dataclass(frozen=True, slots=True)
class Decoding:
    """Say how a reply is decoded.

    Attributes:
        max_new_tokens: The reply ends there at the latest.
        temperature: 0 for greedy.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """Hold what the model said.

    Attributes:
        text: The words, without special tokens.
        complete: False when it was stopped or ran into ``max_new_tokens``.
        tokens_in: Tokens of the whole prompt, pictures included; 0 when not known.
        tokens_reused: How many of them a cache held already; 0 when not known.
        tokens_out: Tokens said.
        log_prob: Mean log probability of the tokens said; NaN when not known.
    """

    text: str
    complete: bool
    tokens_in: int
    tokens_reused: int
    tokens_out: int
    log_prob: float


class ChatModel(Protocol):
    """Reply to a conversation with pictures. Used by one thread at a time.

    Attributes:
        name: Model name, as it appears in the results.
        shows_video: Whether a turn may hold a Video; pictures always work.
        picture_multiple: Sides of pictures must be multiples of it, in pixels; 1 when any size
            will do, or it is not known.
        remote: Whether it runs elsewhere, so that a reply takes time and no work here.
    """

    name: str
    shows_video: bool
    picture_multiple: int
    remote: bool

    def reply(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Say the assistant's next turn.

        A conversation that goes on from the one before is not read again where the model can
        keep what it read.

        Args:
            turns: The conversation so far; the last turn is the user's.
            decoding: How to decode.
            should_stop: Asked at least once per token; True ends the reply early.
            on_text: Called with the text so far.

        Raises:
            PixelReferError: BAD_REQUEST, OUT_OF_MEMORY, or MODEL_ERROR when the model or its
                server fails, saying what to do.
        """
        ...

    def forget(self) -> None:
        """Free what is kept of the last conversation."""
        ...

    def trouble(self) -> str:
        """Return why the model cannot reply now; '' when it can, as far as is known.

        May be called by any thread.
        """
        ...
