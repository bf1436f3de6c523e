# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make tracks of regions as they were given, where no tracker follows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import NS_PER_S, Box, Track, TrackState
from pixelrefer_ros.drawing import Overlay, name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pixelrefer_ros.core.types import Frame, Region
    from pixelrefer_ros.drawing import Palette
    from pixelrefer_ros.engine import Engine


class GivenTracks:
    """Make tracks of the regions that were given for a frame of one camera."""

    def __init__(self, engine: Engine, camera: str) -> None:
        """Ask this engine about this camera."""
        self._engine = engine
        self._camera = camera
        self._first_ns: dict[str, int] = {}

    def at(self, frame: Frame) -> tuple[Track, ...]:
        """Return one track per region given for this very frame.

        Each is NEW in the first frame it was asked about and TRACKED after that, with score 1.
        """
        seen = self._engine.regions_at(self._camera, frame.stamp_ns, max_age_s=0.0)
        regions = self.regions()
        for gone in self._first_ns.keys() - regions.keys() - seen.keys():
            del self._first_ns[gone]
        tracks = []
        for region_id, mask in seen.items():
            first_ns = self._first_ns.setdefault(region_id, frame.stamp_ns)
            region = regions.get(region_id)
            tracks.append(
                Track(
                    region_id=region_id,
                    camera=frame.camera,
                    stamp_ns=frame.stamp_ns,
                    state=TrackState.NEW if first_ns == frame.stamp_ns else TrackState.TRACKED,
                    score=1.0,
                    box=masks.bounding_box(mask),
                    mask=mask,
                    last_seen_ns=frame.stamp_ns,
                    label='' if region is None else region.label,
                )
            )
        return tuple(tracks)

    def regions(self) -> dict[str, Region]:
        """Return the regions that are known, as they were given last, by id."""
        return {region.region_id: region for region in self._engine.list_regions(self._camera)}

    def others(
        self, frame: Frame, shown: Collection[str], palette: Palette, words: Mapping[str, str]
    ) -> list[Overlay]:
        """Return how to draw the known regions that are not shown yet: where they were last."""
        return [
            Overlay(
                palette((frame.camera, region_id)),
                box=_last_box(region),
                label=f'{name_of(region_id, region.label)}  given '
                f'{(frame.stamp_ns - region.stamp_ns) / NS_PER_S:.1f} s ago',
                words=words.get(region_id, ''),
                faint=True,
            )
            for region_id, region in self.regions().items()
            if region_id not in shown
        ]


def _last_box(region: Region) -> Box | None:
    """Return the box around a region as it was given last."""
    if region.mask is not None:
        return masks.bounding_box(region.mask)
    if region.points:
        columns = [round(x) for x, _ in region.points]
        rows = [round(y) for _, y in region.points]
        x, y = min(columns), min(rows)
        return Box(x, y, max(columns) - x + 1, max(rows) - y + 1)
    return region.box
