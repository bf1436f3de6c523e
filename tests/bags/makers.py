# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make small bags for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.bags import to_messages
from pixelrefer_ros.bags.typestore import message
from pixelrefer_ros.bags.writing import BagWriter
from pixelrefer_ros.core.types import NS_PER_S, Box, Frame, Query, Region, RegionKind, Task

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN_NS = 1_000 * NS_PER_S
HEIGHT, WIDTH = 48, 64


def at(seconds: float) -> int:
    """Return the stamp this many seconds after the beginning."""
    return ORIGIN_NS + round(seconds * NS_PER_S)


def picture(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a smooth picture with a square that moves with the index."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows * 2, columns * 2, np.full_like(rows, 90)], -1).astype(np.uint8)
    left = (3 * index) % (width - 12)
    image[10:22, left:left + 12] = (220, 30, 30)
    return image


def box_at(seconds: float, region_id: str = 'cup', x: int = 10, **fields) -> Region:
    """Return a box given for an image."""
    return Region(region_id, RegionKind.BOX, stamp_ns=at(seconds), box=Box(x, 10, 12, 12),
                  **fields)


@dataclass
class Script:
    """Hold what goes into a bag: (log time in seconds, what)."""

    frames: list[float] = field(default_factory=lambda: [k * 0.1 for k in range(30)])
    regions: list[tuple[float, list[Region]]] = field(
        default_factory=lambda: [(0.11, [box_at(0.1)]), (0.51, [box_at(0.5, x=14)])]
    )
    queries: list[tuple[float, Query]] = field(
        default_factory=lambda: [
            (1.01, Query('q1', 'what is {cup}?', Task.ASK, stamp_ns=at(1.0))),
            (2.01, Query('q2', '', Task.DESCRIBE, stamp_ns=at(2.0), region_ids=('cup',))),
        ]
    )
    compressed: bool = True
    topic: str = '/camera/image'


def write_bag(path: Path, script: Script | None = None, *, storage: str = 'mcap') -> Path:
    """Write a bag of a script and return its path."""
    script = script or Script()
    events = [(t, 0, ('frame', index, t)) for index, t in enumerate(script.frames)]
    events += [(t, 1, ('regions', regions, t)) for t, regions in script.regions]
    events += [(t, 2, ('query', query, t)) for t, query in script.queries]
    with BagWriter(path, storage=storage) as writer:
        for log_s, _, (kind, value, stamp_s) in sorted(events, key=lambda event: event[:2]):
            if kind == 'frame':
                frame = Frame('', at(stamp_s), picture(value), 'optical')
                if script.compressed:
                    writer.write(f'{script.topic}/compressed', to_messages.compressed_to(frame),
                                 at(log_s))
                else:
                    writer.write(script.topic, to_messages.image_to(frame), at(log_s))
            elif kind == 'regions':
                writer.write('/pixelrefer/regions', to_messages.regions_to(value, at(stamp_s)),
                             at(log_s))
            else:
                writer.write('/pixelrefer/query', to_messages.query_to(value), at(log_s))
    return path


def string_message(text: str):
    """Return a std_msgs/String."""
    return message('std_msgs/msg/String', data=text)
