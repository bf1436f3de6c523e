# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define what the engine asks of a model that puts regions into words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.types import Frame, RegionClip, Utterance


class RegionDescriber(Protocol):
    """Describe regions and answer questions about them.

    Attributes:
        name: Model name, as it appears in the results.
        frames_per_region: How many frames of a region the model wants to see at most.
    """

    name: str
    frames_per_region: int

    def describe(
        self,
        frames: Sequence[Frame],
        region: RegionClip,
        *,
        hint: str = '',
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> Utterance:
        """Describe one region over some frames of one camera.

        Args:
            frames: The clip, oldest first; one frame for a picture.
            region: The region's masks on those frames.
            hint: Text that refines what to say; '' for the model's own default.
            should_stop: Asked at least once per token; True ends the work early.
            on_progress: Called with (stage, text so far), stage being 'preprocess', 'vision'
                or 'language'.

        Raises:
            PixelReferError: BAD_REQUEST, OUT_OF_MEMORY or MODEL_ERROR.
        """
        ...

    def answer(
        self,
        question: str,
        frames: Sequence[Frame],
        regions: Sequence[RegionClip],
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[str, str], None] | None = None,
    ) -> Utterance:
        """Answer a question about regions; '{region_id}' in it names a region.

        Args:
            question: The question.
            frames: The clip, oldest first.
            regions: At least one region.
            should_stop: As in ``describe``.
            on_progress: As in ``describe``.

        Raises:
            PixelReferError: As ``describe``; BAD_REQUEST also for a name that is no region.
        """
        ...
