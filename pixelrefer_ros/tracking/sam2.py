# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow regions with SAM 2 (Ravi et al., 2024) or a model of its kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.regions import region_mask
from pixelrefer_ros.core.tracker import Sighting
from pixelrefer_ros.core.types import RegionKind
from pixelrefer_ros.models.guards import failures
from pixelrefer_ros.tracking.presence import Presence
from pixelrefer_ros.tracking.sam2_memory import Decoded, RegionMemory
from pixelrefer_ros.tracking.sam2_model import ADVICE, Picture, Segmenter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Frame, Region

_TOP_LEFT, _BOTTOM_RIGHT = 2, 3


@dataclass(slots=True)
class _Followed:
    """Hold one region: the memory of it, its state, its mask in the newest frame."""

    memory: RegionMemory
    presence: Presence = field(default_factory=Presence)
    mask: NDArray[np.bool_] | None = None


class Sam2Tracker:
    """Follow regions of one camera; implements ``core.tracker.RegionTracker``.

    Each frame is encoded once, however many regions are followed, and not at all when there are
    none. Memory is bounded: see ``tracking.sam2_memory``. Beyond the protocol, ``start`` takes any
    frame, not only that of the last ``step``.

    Attributes:
        name: Of the backend.
    """

    name = 'sam2'

    def __init__(self, segmenter: Segmenter) -> None:
        """Follow nothing yet.

        Args:
            segmenter: May be shared by trackers that are used in the same thread.
        """
        self._segmenter = segmenter
        self._regions: dict[str, _Followed] = {}
        self._picture: Picture | None = None

    @property
    def region_ids(self) -> tuple[str, ...]:
        """Return the regions that are followed, in the order they first came."""
        return tuple(self._regions)

    def start(self, frame: Frame, region: Region) -> Sighting:
        """Follow a region from this frame on, or correct it; see ``RegionTracker``.

        A known region that is in sight and that the prompt does not touch is taken for another
        thing: what was known of its looks is dropped.

        Raises:
            PixelReferError: BAD_REGION when there is nothing to follow, OUT_OF_MEMORY,
                MODEL_ERROR.
        """
        height, width = frame.image.shape[:2]
        given = masks.decode(region_mask(region, height, width))
        with failures(f"following '{region.region_id}'", ADVICE):
            picture = self._look(frame)
            followed = self._regions.get(region.region_id) or self._fresh()
            memory = followed.memory
            if memory.stamp_ns not in (None, frame.stamp_ns):
                self._follow(region.region_id, followed, picture, height, width)
            if followed.mask is not None and not (followed.mask & given).any():
                memory = RegionMemory(self._segmenter)
            decoded, mask = self._prompt(memory, picture, region, given)
        followed.memory, followed.mask = memory, mask
        self._regions[region.region_id] = followed
        state = followed.presence.given(frame.stamp_ns, float(mask.mean()))
        return Sighting(region.region_id, state, decoded.score, mask)

    def step(self, frame: Frame) -> list[Sighting]:
        """Follow all regions into the next frame; see ``RegionTracker``.

        The model sees every frame as the same square, so that a frame of another size needs no
        care.

        Raises:
            PixelReferError: OUT_OF_MEMORY or MODEL_ERROR.
        """
        if not self._regions:
            self._picture = None
            return []
        height, width = frame.image.shape[:2]
        with failures('following regions', ADVICE):
            picture = self._picture = self._segmenter.look(frame.stamp_ns, frame.image)
            return [
                self._follow(region_id, followed, picture, height, width)
                for region_id, followed in self._regions.items()
            ]

    def remove(self, region_id: str) -> None:
        """Stop following a region; does nothing when it is not known."""
        self._regions.pop(region_id, None)

    def fork(self) -> Sam2Tracker:
        """Return a tracker without regions that shares the model."""
        return Sam2Tracker(self._segmenter)

    def adopt(self, other: RegionTracker, region_id: str, frame: Frame) -> None:
        """Take a region over from a fork, with all the fork remembers of it.

        Raises:
            TypeError: The other is of another kind.
            KeyError: It does not follow the region.
        """
        if not isinstance(other, Sam2Tracker):
            raise TypeError(f'a Sam2Tracker cannot take over from {type(other).__name__}')
        self._regions[region_id] = other._regions.pop(region_id)

    def _fresh(self) -> _Followed:
        return _Followed(RegionMemory(self._segmenter))

    def _look(self, frame: Frame) -> Picture:
        """Return the frame as the model sees it, the newest one with what is known of it."""
        if self._picture is None or self._picture.stamp_ns != frame.stamp_ns:
            self._picture = self._segmenter.look(frame.stamp_ns, frame.image)
        return self._picture

    def _follow(
        self, region_id: str, followed: _Followed, picture: Picture, height: int, width: int
    ) -> Sighting:
        """Find one region in the next frame and judge what was found."""
        decoded = followed.memory.follow(picture)
        mask = decoded.mask(height, width)
        share = float(mask.mean()) if decoded.object_logit > 0.0 else 0.0
        score = decoded.score if share else 0.0
        state = followed.presence.see(picture.stamp_ns, share, score=score)
        followed.mask = mask if followed.presence.in_sight else None
        if followed.mask is None:
            score = 0.0
        return Sighting(region_id, state, score, followed.mask)

    def _prompt(
        self,
        memory: RegionMemory,
        picture: Picture,
        region: Region,
        given: NDArray[np.bool_],
    ) -> tuple[Decoded, NDArray[np.bool_]]:
        """Show the model where the region is.

        Where it finds nothing at a box or points it is given their mask: somebody pointed there,
        so something is there.
        """
        if region.kind != RegionKind.MASK:
            decoded = memory.prompt_points(picture, *self._points(region, given))
            mask = decoded.mask(*given.shape)
            if decoded.object_logit > 0.0 and mask.any():
                return decoded, mask
        return memory.prompt_mask(picture, given), given

    def _points(
        self, region: Region, given: NDArray[np.bool_]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the points of a prompt in the model's square, and their labels.

        The model counts in pixel centres (the first pixel is at 0) and was trained with boxes
        from centre to centre; regions count in pixel edges.
        """
        height, width = given.shape
        if region.kind == RegionKind.BOX:
            rows, columns = np.flatnonzero(given.any(axis=1)), np.flatnonzero(given.any(axis=0))
            points = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], dtype=np.float32)
            labels: tuple[int, ...] = (_TOP_LEFT, _BOTTOM_RIGHT)
        else:
            points = np.array(region.points, dtype=np.float32) - 0.5
            labels = region.point_labels or (1,) * len(points)
        points = np.clip(points, 0.0, (width - 1, height - 1))
        size = self._segmenter.image_size
        scale = np.array([size / width, size / height])
        return (
            torch.from_numpy((points * scale).astype(np.float32)),
            torch.tensor(labels, dtype=torch.int32),
        )
