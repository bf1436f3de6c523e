# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Watch text being generated: report it, stop it, and keep its probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class ScoreKeeper(LogitsProcessor):
    """Keep the scores the next token is taken from, and leave them as they are.

    Attributes:
        scores: (1, vocabulary) of the newest step.
    """

    def __init__(self) -> None:
        """Start without scores."""
        self.scores: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Keep the scores."""
        self.scores = scores
        return scores


class Watch(StoppingCriteria):
    """Follow one generation, token by token.

    Attributes:
        keeper: Goes to ``generate`` as logits processor.
        token_ids: The tokens so far, the end token included.
        canceled: True once ``should_stop`` said so.
    """

    def __init__(
        self,
        words: Any,
        should_stop: Callable[[], bool] | None,
        on_text: Callable[[str], None] | None,
    ) -> None:
        """Watch for the given callbacks.

        Args:
            words: Turns ids into words: ``decode``.
            should_stop: True ends the generation after the token at hand.
            on_text: Called with the text so far, after every token that changes it.
        """
        self.keeper = ScoreKeeper()
        self.token_ids: list[int] = []
        self.canceled = False
        self._words = words
        self._should_stop = should_stop
        self._on_text = on_text
        self._sum = 0.0
        self._told = ''

    @property
    def mean_logprob(self) -> float:
        """Mean natural-log probability of the tokens, 0 when there are none."""
        return self._sum / len(self.token_ids) if self.token_ids else 0.0

    @property
    def text(self) -> str:
        """The words so far; a letter whose last bytes have not come yet is left out."""
        return str(self._words.decode(self.token_ids)).rstrip('\N{REPLACEMENT CHARACTER}')

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Look at the token that was taken; True ends the generation."""
        token = int(input_ids[0, -1])
        self.token_ids.append(token)
        if self.keeper.scores is not None:
            self._sum += float(torch.log_softmax(self.keeper.scores[0].float(), dim=-1)[token])
        if self._on_text is not None:
            text = self.text
            if text != self._told:
                self._told = text
                self._on_text(text)
        self.canceled = self._should_stop is not None and self._should_stop()
        return torch.tensor([self.canceled], device=input_ids.device)
