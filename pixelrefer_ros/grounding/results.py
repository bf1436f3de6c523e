# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define what the grounding chain gives back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelrefer_ros.core.types import Box
    from pixelrefer_ros.grounding.replies import Note


class Stage(StrEnum):
    """Say what the chain is at: choosing the frame, or boxing the target in it."""

    REASON = 'reason'
    GROUND = 'ground'


class Status(StrEnum):
    """Say how the chain ended."""

    OK = 'ok'
    TURN1_UNPARSABLE = 'turn1_unparsable'
    FRAME_OUT_OF_RANGE = 'frame_out_of_range'
    TURN2_UNPARSABLE = 'turn2_unparsable'
    DEGENERATE_BOX = 'degenerate_box'
    NOT_PRESENT = 'not_present'
    STOPPED = 'stopped'


@dataclass(frozen=True, slots=True)
class Said:
    """Hold one reply of the model.

    Attributes:
        stage: Which turn it belongs to; the single turn counts as REASON.
        text: As the model said it.
        is_repair: Whether it answers a request to answer again.
        complete: False when it was stopped or ran out of tokens.
        tokens_in: Tokens of the prompt, pictures included; 0 when not known.
        tokens_reused: How many of them needed no reading again; 0 when not known.
        tokens_out: Tokens said.
        log_prob: Mean log probability of the tokens said; NaN when not known.
        seconds: How long it took.
    """

    stage: Stage
    text: str
    is_repair: bool
    complete: bool
    tokens_in: int
    tokens_reused: int
    tokens_out: int
    log_prob: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Grounding:
    """Hold what the chain found, as far as it came.

    Attributes:
        status: How it ended.
        shown: Indices of the frames shown in the first turn, into those given; ascending.
        shown_stamps_ns: Their stamps.
        key_index: Index of the key frame, into those given; None before it is chosen.
        key_stamp_ns: Its stamp; None before it is chosen.
        description: Of the target in the key frame; '' before it is given.
        box: Of the target in the key frame, in pixels of the original image; only when OK.
        reasoning: Of the turns, without the answers.
        notes: What was irregular and put right.
        said: Every reply, in order.
    """

    status: Status
    shown: tuple[int, ...]
    shown_stamps_ns: tuple[int, ...]
    key_index: int | None = None
    key_stamp_ns: int | None = None
    description: str = ''
    box: Box | None = None
    reasoning: str = ''
    notes: tuple[Note, ...] = ()
    said: tuple[Said, ...] = ()

    @property
    def raw_texts(self) -> tuple[str, ...]:
        """Return what the model said, reply by reply."""
        return tuple(said.text for said in self.said)

    @property
    def tokens_in(self) -> int:
        """Return the tokens of all prompts together, whether read again or not."""
        return sum(said.tokens_in for said in self.said)

    @property
    def tokens_reused(self) -> int:
        """Return how many of them needed no reading again."""
        return sum(said.tokens_reused for said in self.said)

    @property
    def tokens_out(self) -> int:
        """Return the tokens of all replies together."""
        return sum(said.tokens_out for said in self.said)

    @property
    def log_prob(self) -> float:
        """Return the mean log probability of all tokens said; NaN when not known."""
        if not self.tokens_out:
            return math.nan
        return sum(s.log_prob * s.tokens_out for s in self.said if s.tokens_out) / self.tokens_out

    def seconds(self, stage: Stage) -> float:
        """Return how long a stage took, repairs included."""
        return sum(said.seconds for said in self.said if said.stage == stage)
