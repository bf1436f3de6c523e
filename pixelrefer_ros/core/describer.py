# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define what the engine asks of a model that puts regions into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pixelrefer_ros.core.types import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.types import Frame, PixelReferError, RegionClip, Utterance


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for words about some frames of one camera.

    Attributes:
        task: DESCRIBE, of exactly one region, or ASK.
        frames: The clip, oldest first; one frame for a picture.
        regions: Their masks on those frames; none for a question about the whole clip, which
            only describers take that see more than regions.
        text: The question, in which '{region_id}' names a region; of a description what refines
            it, '' for the model's own default.
        should_stop: Asked at least once per token; True ends the work on this request early.
        on_progress: Called with (stage, text so far), stage being 'preprocess', 'vision' or
            'language'.
    """

    task: Task
    frames: tuple[Frame, ...]
    regions: tuple[RegionClip, ...]
    text: str = ''
    should_stop: Callable[[], bool] | None = None
    on_progress: Callable[[str, str], None] | None = None


@dataclass(frozen=True, slots=True)
class VisionStats:
    """Count what was seen, and what did not have to be looked at again.

    Attributes:
        hits: Pictures whose features were still there when they were needed.
        misses: Pictures that had to be encoded.
        encoded_ahead: Whole frames encoded before anything was asked about them.
        held_bytes: What the features that are kept take.
        max_bytes: What they may take.
    """

    hits: int = 0
    misses: int = 0
    encoded_ahead: int = 0
    held_bytes: int = 0
    max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LanguageStats:
    """Count what was read of prompts, and what did not have to be read again.

    Attributes:
        hits: Tokens that were read before, or together with another prompt.
        misses: Tokens that had to be read.
        held_bytes: What the keys and values take that are kept for the next call.
        max_bytes: What they may take.
    """

    hits: int = 0
    misses: int = 0
    held_bytes: int = 0
    max_bytes: int = 0


class RegionDescriber(Protocol):
    """Describe regions and answer questions about them; called by one thread at a time.

    Attributes:
        name: Model name, as it appears in the results.
        frames_per_region: How many frames of a region the model wants to see at most.
        needs_regions: Whether a question without any region is refused.
    """

    name: str
    frames_per_region: int
    needs_regions: bool

    def say(
        self,
        requests: Sequence[Request],
        on_said: Callable[[int, Utterance | PixelReferError], None],
    ) -> None:
        """Put several requests into words together.

        What a request gets does not depend on what else is asked with it. One that fails does
        not keep the others from their words.

        Args:
            requests: At least one; of any cameras.
            on_said: Called exactly once per request, as soon as its words are complete, with its
                place in ``requests`` and the words, or what went wrong: BAD_REQUEST,
                OUT_OF_MEMORY or MODEL_ERROR. Timings are those of the work the request was part
                of, so shared work counts for each.
        """
        ...

    def look_ahead(self, frame: Frame) -> bool:
        """Encode what every question about a frame needs, before one is asked.

        Returns:
            Whether there was anything to do.
        """
        ...

    def forget(self) -> None:
        """Drop everything kept of frames and conversations, as when time jumped back."""
        ...

    def vision_stats(self) -> VisionStats:
        """Return the counts so far; may be called from any thread."""
        ...

    def language_stats(self) -> LanguageStats:
        """Return the counts so far; may be called from any thread."""
        ...

    def describe(
        self,
        frames: Sequence[Frame],
        region: RegionClip,
        *,
        hint: str = '',
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> Utterance:
        """Describe one region over some frames of one camera; see ``Request``.

        Raises:
            PixelReferError: BAD_REQUEST, OUT_OF_MEMORY or MODEL_ERROR.
        """
        return self._say_one(
            Request(Task.DESCRIBE, tuple(frames), (region,), hint, should_stop, on_progress)
        )

    def answer(
        self,
        question: str,
        frames: Sequence[Frame],
        regions: Sequence[RegionClip],
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> Utterance:
        """Answer a question about regions; see ``Request``.

        Raises:
            PixelReferError: As ``describe``; BAD_REQUEST also for a name that is no region.
        """
        return self._say_one(
            Request(Task.ASK, tuple(frames), tuple(regions), question, should_stop, on_progress)
        )

    def _say_one(self, request: Request) -> Utterance:
        said: list[Utterance | PixelReferError] = []
        self.say([request], lambda _, outcome: said.append(outcome))
        (outcome,) = said
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
