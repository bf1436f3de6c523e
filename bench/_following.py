# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the anchored tracker over pictures, and draw what it said."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.core.types import NS_PER_S, Frame
from pixelrefer_ros.tracking.anchored import AnchoredTracker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pixelrefer_ros.core.tracker import Sighting
    from pixelrefer_ros.core.types import Region

_COLOURS = ((255, 40, 40), (40, 255, 40), (255, 255, 40), (40, 255, 255), (255, 40, 255),
            (255, 255, 255))  # fmt: skip
_COLUMNS = 6


@dataclass(frozen=True, slots=True)
class Run:
    """Hold what was said of one region.

    Attributes:
        sightings: One per frame, the first from the prompt.
        cpu_ms: Processor time per region, for each frame after the first.
    """

    sightings: list[Sighting]
    cpu_ms: list[float]


def follow(
    images: Sequence[NDArray[np.uint8]], regions: Sequence[Region], rate_hz: float
) -> dict[str, Run]:
    """Give regions in the first picture and follow them through the others, on one core.

    Args:
        images: (H, W, 3) uint8 RGB each.
        regions: Where they are in the first.
        rate_hz: Of the pictures.
    """
    cv2.setNumThreads(1)
    frames = [
        Frame('', NS_PER_S + round(number * NS_PER_S / rate_hz), image)
        for number, image in enumerate(images)
    ]
    tracker = AnchoredTracker()
    said = {region.region_id: [tracker.start(frames[0], region)] for region in regions}
    cpu_ms = []
    for frame in frames[1:]:
        began = time.process_time()
        sightings = tracker.step(frame)
        cpu_ms.append(1e3 * (time.process_time() - began) / len(regions))
        for sighting in sightings:
            said[sighting.region_id].append(sighting)
    return {region_id: Run(sightings, cpu_ms) for region_id, sightings in said.items()}


def draw_sheet(
    path: Path, images: Sequence[NDArray[np.uint8]], runs: dict[str, Run], every: int
) -> None:
    """Write a sheet of every so many pictures with outlines, states and scores."""
    tiles = []
    for number in range(0, len(images), every):
        picture = images[number].copy()
        for place, (region_id, run) in enumerate(runs.items()):
            colour = _COLOURS[place % len(_COLOURS)]
            sighting = run.sightings[number]
            if sighting.mask is not None:
                edges, _ = cv2.findContours(
                    sighting.mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
                )
                cv2.drawContours(picture, edges, -1, colour, 2)
            text = f'{region_id} {sighting.state.name} {sighting.score:.2f}'
            cv2.putText(picture, text, (6, 22 + 20 * place), 0, 0.6, colour, 2)
        tiles.append(cv2.resize(picture, (320, 320 * picture.shape[0] // picture.shape[1]),
                                interpolation=cv2.INTER_AREA))  # fmt: skip
    while len(tiles) % _COLUMNS:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[at : at + _COLUMNS]) for at in range(0, len(tiles), _COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
