# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask a describer several things at once, and see that each gets its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.engine.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.describer import RegionDescriber, Request
    from pixelrefer_ros.core.types import Utterance
    from pixelrefer_ros.engine.delivery import Delivery
    from pixelrefer_ros.engine.errand import Errand

    Parts = list[tuple[Errand, int]]


class Batches:
    """Put errands to a describer, ``max_batch`` parts in a call."""

    def __init__(
        self,
        describer: RegionDescriber,
        delivery: Delivery,
        max_batch: int,
        on_call: Callable[[int], None],
    ) -> None:
        """Join the parts.

        Args:
            describer: The model.
            delivery: Ends the errands.
            max_batch: How many things are asked together.
            on_call: Told of each call how many things it asks.
        """
        self._describer = describer
        self._delivery = delivery
        self._max_batch = max_batch
        self._on_call = on_call
        self._calls = 0
        self._pace = Pace()

    def room(self) -> int:
        """Return how many things may be asked together without keeping the first waiting."""
        return self._pace.room()

    def run(self, errands: Sequence[Errand]) -> None:
        """Have errands that know what they look at put into words; all are over then.

        A result is delivered as soon as its words are complete. What goes wrong for one, or
        ends it, leaves the others be.
        """
        parts = [(errand, part) for errand in errands for part in range(len(errand))]
        while parts:
            call, parts = parts[: self._max_batch], parts[self._max_batch :]
            self._say(call)
            parts = [(errand, part) for errand, part in parts if not errand.over]

    def _say(self, call: Parts) -> None:
        """Ask for some parts together."""
        made = [(errand, part, self._request(errand, part)) for errand, part in call]
        # The last part of an errand may have been what ended it.
        asked = [
            (errand, part, request)
            for errand, part, request in made
            if request is not None and not errand.over
        ]
        if not asked:
            return
        self._calls += 1
        self._on_call(len(asked))
        silent = set(range(len(asked)))
        before = self._describer.vision_stats()
        last: Utterance | None = None

        def on_said(place: int, outcome: Utterance | PixelReferError) -> None:
            nonlocal last
            errand, part, _ = asked[place]
            silent.discard(place)
            if errand.over:
                return
            try:
                if isinstance(outcome, PixelReferError):
                    self._delivery.failed(errand, outcome)
                    return
                last = outcome
                if errand.take(part, outcome, self._calls):
                    self._delivery.said(errand)
            except Exception as error:  # what was said is nonsense
                self._delivery.failed(errand, error)

        def fail(error: Exception) -> None:
            for errand in [asked[place][0] for place in sorted(silent)]:
                if not errand.over:
                    self._delivery.failed(errand, error)

        try:
            self._describer.say([request for _, _, request in asked], on_said)
        except Exception as error:
            fail(error)
        fail(PixelReferError(ErrorCode.MODEL_ERROR, 'the model said nothing'))
        if last is not None and not last.canceled:
            things = sum(max(1, len(request.regions)) for _, _, request in asked)
            after = self._describer.vision_stats()
            self._pace.note(
                things, after.hits - before.hits, after.misses - before.misses, last
            )

    def _request(self, errand: Errand, part: int) -> Request | None:
        """Return what is asked in one part; None when its errand is over, or ends with that."""
        if errand.over:
            return None
        if errand.stopper():
            self._delivery.stopped(errand)
            return None
        try:
            return errand.request(part)
        except Exception as error:
            self._delivery.failed(errand, error)
            return None
