# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Judge how many things a describer can be asked together without keeping the first waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelrefer_ros.core.types import Utterance

_NEW = 0.2  # weight of the newest call


class Pace:
    """Remember how long a describer takes to see one thing, and to speak.

    Speaking of several things at once takes hardly longer than of one where the time goes into
    reading the weights, as on a GPU. Seeing is paid for thing by thing, and no word comes
    before all is seen. So what is joined to a job may take as long to see as that one job takes
    by itself: a question waits for no more than one description, as it does when that has just
    begun. On a CPU, where seeing is most of the work, that leaves no room for another.

    What is joined may be new to the describer, so what it need not look at again tells nothing.
    """

    def __init__(self) -> None:
        """Start without a measurement: each thing alone."""
        self._see_s = self._speak_s = 0.0

    def note(self, count: int, hits: int, misses: int, said: Utterance) -> None:
        """Take in a call of the describer, unless it knew all it was asked about.

        Args:
            count: How many things it asked about, at least 1; one asked about twice is two.
            hits: Pictures it needed and knew, or needed twice.
            misses: Pictures that it had to encode. Of the things it counts as having seen the
                same part as of the pictures, and at least one.
            said: The last that was said; its times are those of the call.
        """
        if not misses:
            return
        seen = max(1, round(count * misses / (hits + misses)))
        see_s = (said.preprocess_s + said.vision_s) / seen
        if not self._see_s:
            self._see_s, self._speak_s = see_s, said.language_s
        self._see_s += _NEW * (see_s - self._see_s)
        self._speak_s += _NEW * (said.language_s - self._speak_s)

    def room(self) -> int:
        """Return how many things may be seen for one call, at least one."""
        return 1 + int(self._speak_s / self._see_s) if self._see_s else 1
