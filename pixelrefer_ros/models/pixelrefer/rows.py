# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow one sequence while it is said: its tokens, its words, who asked for it to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.prefixes import Node


class Words(Protocol):
    """Turn ids into words, as ``PixelReferProcessor`` does."""

    def decode(self, ids: list[int]) -> str:
        """Return the words, special tokens left out."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """Hold what was said.

    Attributes:
        text: The words, special tokens and a letter whose last bytes did not come left out.
        token_ids: The tokens, the end token included.
        tokens_in: Length of the prompt.
        prefill_tokens: How many of them were read, the others being known or shared.
        mean_logprob: Mean natural-log probability of the tokens.
        canceled: True when it ends early because it was asked to.
    """

    text: str
    token_ids: tuple[int, ...]
    tokens_in: int
    prefill_tokens: int
    mean_logprob: float
    canceled: bool

    @property
    def tokens_out(self) -> int:
        """How many tokens were said."""
        return len(self.token_ids)


@dataclass(eq=False)
class Row:
    """Follow one sequence.

    Attributes:
        place: Of its prompt among those asked for.
        ids: (L,) int64 on the CPU, the prompt.
        tokens: (R, D), what stands at some places instead.
        places: (R,) int64 on the CPU, those places, in ascending order.
        key: (L, 3) int64, see ``PrefixTree.path``.
        room: How many tokens may be said.
        should_stop: Asked after every token.
        on_text: Called with the text so far when a token changes it.
        path: The prompt in the tree, without its last token; empty once it is read.
        prefill_tokens: How many tokens were read for it.
        token_ids: What was said.
        logprob: Of all that was said.
        told: The text told last.
        canceled: Whether it was asked to stop.
    """

    place: int
    ids: Tensor
    tokens: Tensor
    places: Tensor
    key: NDArray[np.int64]
    room: int
    should_stop: Callable[[], bool]
    on_text: Callable[[str], None] | None
    path: list[Node] = field(default_factory=list)
    prefill_tokens: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    told: str = ''
    canceled: bool = False

    @property
    def length(self) -> int:
        """Length of the prompt, in tokens."""
        return len(self.ids)

    @property
    def position(self) -> int:
        """Where the newest token goes."""
        return self.length + len(self.token_ids) - 1

    def hear(self, token: int, logprob: float, ends: Container[int], words: Words) -> bool:
        """Take the next token; return whether it is the last.

        Args:
            token: Its id.
            logprob: Its natural-log probability.
            ends: Ids of the tokens that end a sequence.
            words: Turns ids into words.
        """
        self.token_ids.append(token)
        self.logprob += logprob
        if self.on_text is not None:
            text = self._text(words)
            if text != self.told:
                self.told = text
                self.on_text(text)
        ended = token in ends or len(self.token_ids) >= self.room
        self.canceled = self.should_stop() and not ended  # nothing is missing at the end
        return self.canceled or ended

    def said(self, words: Words) -> Said:
        """Return what was said."""
        return Said(
            text=self._text(words),
            token_ids=tuple(self.token_ids),
            tokens_in=self.length,
            prefill_tokens=self.prefill_tokens,
            mean_logprob=self.logprob / len(self.token_ids) if self.token_ids else 0.0,
            canceled=self.canceled,
        )

    def _text(self, words: Words) -> str:
        """Return the words so far, without a letter whose last bytes have not come yet."""
        return words.decode(self.token_ids).rstrip('\N{REPLACEMENT CHARACTER}').rstrip()
