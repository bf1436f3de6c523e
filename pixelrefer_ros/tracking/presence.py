# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Judge from frame to frame whether a region is in sight, hidden or lost."""

from __future__ import annotations

import math

from pixelrefer_ros.core.types import NS_PER_S, TrackState

LOST_AFTER_S = 0.4
"""Image time without a sight of it after which a region is lost: at 10 Hz and more it is told
within half a second."""

HIDDEN_BELOW = 0.25
BACK_ABOVE = 0.4
"""Parts of its usual area below which a region is hidden, and above which it is back."""

UNSEEN_BELOW = 0.05
"""Part of its usual area below which what is seen is taken for noise."""

SURE_ABOVE = 0.5
"""Score from which a lost region counts as found."""

_ADAPT_S = 5.0


class Presence:
    """Keep the state of one region; time may run backward.

    Attributes:
        state: Newest state.
        in_sight: Whether any of it was seen in the newest frame; never when LOST.
    """

    def __init__(self) -> None:
        """Know of nothing; ``given`` comes first."""
        self.state = TrackState.NEW
        self.in_sight = False
        self._usual = 0.0
        self._seen_ns: int | None = None

    def given(self, stamp_ns: int, share: float) -> TrackState:
        """Note that somebody pointed at it; return its state.

        Args:
            stamp_ns: Of the frame.
            share: Its area as a part of the frame, above 0.
        """
        if self.state in (TrackState.OCCLUDED, TrackState.LOST):
            self.state = TrackState.REACQUIRED
        elif self._seen_ns not in (None, stamp_ns):
            self.state = TrackState.TRACKED
        self._usual, self._seen_ns, self.in_sight = share, stamp_ns, True
        return self.state

    def see(
        self, stamp_ns: int, share: float, *, score: float = 1.0, hidden: bool = False
    ) -> TrackState:
        """Note what was seen of it in the next frame; return its state.

        Args:
            stamp_ns: Of the frame.
            share: Area of what is seen as a part of the frame; 0 for nothing.
            score: How sure that is, in [0, 1].
            hidden: True when somebody who knows says that the rest of it is hidden.
        """
        was_lost = self.state == TrackState.LOST
        seen_ns = stamp_ns if self._seen_ns is None else self._seen_ns
        self.in_sight = share > 0.0 and share >= UNSEEN_BELOW * self._usual
        if was_lost and (score < SURE_ABOVE or hidden):
            self.in_sight = False
        if not self.in_sight:
            gone = was_lost or abs(stamp_ns - seen_ns) >= LOST_AFTER_S * NS_PER_S
            self.state = TrackState.LOST if gone else TrackState.OCCLUDED
            return self.state
        if was_lost:
            # it may have come back nearer or farther away
            self._usual = share
        back = BACK_ABOVE if self.state == TrackState.OCCLUDED else HIDDEN_BELOW
        if hidden or share < back * self._usual:
            self.state = TrackState.OCCLUDED
        elif self.state in (TrackState.OCCLUDED, TrackState.LOST):
            self.state = TrackState.REACQUIRED
        else:
            self.state = TrackState.TRACKED
        passed_s = abs(stamp_ns - seen_ns) / NS_PER_S
        self._usual += (share - self._usual) * (1.0 - math.exp(-passed_s / _ADAPT_S))
        self._seen_ns = stamp_ns
        return self.state
