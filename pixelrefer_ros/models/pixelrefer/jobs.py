# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow a request through the describer, and tell its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pixelrefer_ros.core.types import PixelReferError, Utterance
from pixelrefer_ros.models.pixelrefer import prompts

if TYPE_CHECKING:
    from pixelrefer_ros.core.describer import Request
    from pixelrefer_ros.models.pixelrefer.rows import Said
    from pixelrefer_ros.models.pixelrefer.sights import Prepared

OnSaid = Callable[[int, Utterance | PixelReferError], None]


@dataclass(eq=False)
class Job:
    """Follow one request of a call.

    Attributes:
        place: Among the requests.
        request: What is asked.
        prepared: What the eyes made of it.
        on_said: Told the outcome, once.
        preprocess_s: Seconds of the work on the host.
        vision_s: Seconds of the vision, once it is done.
        done: Whether there is an outcome.
    """

    place: int
    request: Request
    prepared: Prepared[Any]
    on_said: OnSaid
    preprocess_s: float = 0.0
    vision_s: float = 0.0
    done: bool = field(default=False, init=False)

    def should_stop(self) -> bool:
        """Return whether nobody wants the words any more."""
        stop = self.request.should_stop
        return stop is not None and stop()

    def tell(self, stage: str, text: str = '') -> None:
        """Tell how far it is."""
        tell(self.request, stage, self._worded(text))

    def end(self, outcome: Said | PixelReferError | None, language_s: float = 0.0) -> None:
        """Tell the outcome: what was said, None when it was stopped before, or an error."""
        self.done = True
        if isinstance(outcome, PixelReferError):
            self.on_said(self.place, outcome)
            return
        utterance = Utterance(
            text='' if outcome is None else self._worded(outcome.text),
            tokens_in=len(self.prepared.input_ids),
            tokens_out=0 if outcome is None else outcome.tokens_out,
            mean_logprob=0.0 if outcome is None else outcome.mean_logprob,
            preprocess_s=self.preprocess_s,
            vision_s=self.vision_s,
            language_s=language_s,
            canceled=outcome is None or outcome.canceled,
        )
        self.on_said(self.place, utterance)

    def _worded(self, text: str) -> str:
        """Name regions as the caller does."""
        return prompts.say_region_ids(text, [one.region_id for one in self.request.regions])


def tell(request: Request, stage: str, text: str = '') -> None:
    """Tell how far a request is."""
    if request.on_progress is not None:
        request.on_progress(stage, text)
