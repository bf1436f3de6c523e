# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Describe one region of a picture, video or bag, or answer a question about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.topics import Role
from pixelrefer_ros.bags.video import ORIGIN_NS, is_picture, read_picture, read_video, video_length
from pixelrefer_ros.core.sampling import spread
from pixelrefer_ros.core.types import NS_PER_S, Answer, Frame, Query, Region, Task
from pixelrefer_ros.drawing import Overlay, Palette, draw_overlays
from pixelrefer_ros.engine import Engine, EngineConfig
from pixelrefer_ros.engine.results import failed_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.engine.grounding import Grounder

    Film = list[tuple[float, NDArray[np.uint8]]]  # seconds from the beginning, picture


@dataclass(frozen=True)
class Look:
    """Hold the frames of a file, and the one a region refers to.

    Attributes:
        frames: Oldest first.
        at: Index of the one a region refers to.
        start_s: When the first of them is, in the file.
    """

    frames: tuple[Frame, ...]
    at: int
    start_s: float = 0.0

    @property
    def frame(self) -> Frame:
        """Return the frame the region refers to."""
        return self.frames[self.at]

    @property
    def span_s(self) -> float:
        """Return the time from the first frame to the last, in seconds."""
        return (self.frames[-1].stamp_ns - self.frames[0].stamp_ns) / NS_PER_S

    def seconds(self, stamp_ns: int) -> float:
        """Return when a frame is, in seconds from the beginning of the file."""
        return self.start_s + (stamp_ns - self.frames[0].stamp_ns) / NS_PER_S


def look_at(
    path: Path,
    *,
    frames: int = 150,
    start_s: float = 0.0,
    end_s: float | None = None,
    at_s: float | None = None,
) -> Look:
    """Read a picture, or some frames of a video or of the first camera of a bag.

    Args:
        path: Picture, video file, or bag.
        frames: How many frames of a video at most, spread evenly. Fewer make it harder to
            follow something.
        start_s: Beginning of the part of the video looked at.
        end_s: End of it; None for the end of the video.
        at_s: When the region is where it is said to be; None for the newest frame.

    Raises:
        FileError: The file cannot be read, or ``at_s`` lies outside the part looked at.
    """
    if is_picture(path):
        return Look((Frame('', ORIGIN_NS, read_picture(path)),), 0)
    if path.is_dir() or path.suffix in ('.mcap', '.db3'):
        found, slack_s = _read_bag(path, frames, start_s, end_s), 0.05
    else:
        found, slack_s = _read_film(path, frames, start_s, end_s, at_s)
    at = len(found) - 1
    if at_s is not None:
        if not found[0][0] - slack_s <= at_s <= found[-1][0] + slack_s:
            raise FileError(
                f'second {at_s:g} is not between {found[0][0]:g} and {found[-1][0]:g}, the part '
                'of the video that is looked at'
            )
        at = _nearest(found, at_s)
    first_s = found[0][0]
    return Look(
        tuple(
            Frame('', ORIGIN_NS + round((time_s - first_s) * NS_PER_S), picture)
            for time_s, picture in found
        ),
        at,
        first_s,
    )


def _nearest(found: Film, at_s: float) -> int:
    return min(range(len(found)), key=lambda index: abs(found[index][0] - at_s))


def _read_film(
    path: Path, frames: int, start_s: float, end_s: float | None, at_s: float | None
) -> tuple[Film, float]:
    """Return frames of a video, the one at a time among them, and half the time between them."""
    rate_hz = 0.0
    length_s = video_length(path)
    if length_s:
        rate_hz = max(1, frames - 1) / max(1e-3, min(end_s or length_s, length_s) - start_s)
    found = list(read_video(path, start_s=start_s, end_s=end_s, rate_hz=rate_hz))
    slack_s = 0.5 / (rate_hz or 1)
    if at_s is not None and found[0][0] - slack_s <= at_s <= found[-1][0] + slack_s:
        exact = next(iter(read_video(path, start_s=min(at_s, length_s or at_s))), None)
        if exact is not None:
            found[_nearest(found, at_s)] = exact  # the frame the region was seen in
    return found, slack_s


def _read_bag(path: Path, frames: int, start_s: float, end_s: float | None) -> Film:
    """Return frames of the first camera of a bag; seconds count from its first image."""
    with Bag(path) as bag:
        bag.require_images()
        camera = bag.cameras[0]

        def images(*, decode: bool) -> Iterator[Frame]:
            for event in bag.events({Role.IMAGE}, decode=decode):
                if isinstance(event.value, Frame) and event.value.camera == camera:
                    yield event.value

        stamps = sorted({frame.stamp_ns for frame in images(decode=False)})
        seconds = {stamp_ns: (stamp_ns - stamps[0]) / NS_PER_S for stamp_ns in stamps}
        part = [
            stamp_ns
            for stamp_ns, time_s in seconds.items()
            if time_s >= start_s and (end_s is None or time_s < end_s)
        ]
        if not part:
            raise FileError(f'{path} has no image from second {start_s:g} on')
        wanted = set(spread(part, frames))
        found = {
            frame.stamp_ns: frame.image for frame in images(decode=True)
            if frame.stamp_ns in wanted
        }
    return [(seconds[stamp_ns], found[stamp_ns]) for stamp_ns in sorted(found)]


def describe_file(
    describer: RegionDescriber,
    look: Look,
    region: Region | None,
    question: str = '',
    *,
    make_tracker: Callable[[], RegionTracker] | None = None,
) -> Answer:
    """Describe a region, or answer a question about it.

    Args:
        describer: The model.
        look: What ``look_at`` read.
        region: Where to look, in the frame ``look.frame``; its stamp is filled in. None for a
            question about all there is, which only some models take.
        question: Empty for a description.
        make_tracker: Makes what follows the region through the frames; None looks at it in
            ``look.frame`` alone.

    Returns:
        The answer; when it has an error code, what went wrong is in its words.
    """
    answers: list[Answer] = []
    engine = engine_for(look, describer, answers.append, make_tracker)
    query = Query(
        query_id='file',
        text=question,
        task=Task.ASK if question else Task.DESCRIBE,
        stamp_ns=look.frames[-1].stamp_ns,
        region_ids=() if region is None else (region.region_id,),
    )
    given = [] if region is None else [replace(region, stamp_ns=look.frame.stamp_ns)]
    for error in engine.add_regions(given):
        if error is not None:
            return failed_answer(query, '', error.code, str(error))
    engine.submit(query)
    engine.run_until_idle()
    (answer,) = answers
    return answer


def engine_for(
    look: Look,
    describer: RegionDescriber,
    on_answer: Callable[[Answer], None],
    make_tracker: Callable[[], RegionTracker] | None,
    grounder: Grounder | None = None,
) -> Engine:
    """Return an engine that has seen all frames of a file, and looks at all of them."""
    span_s = look.span_s + 1.0
    config = EngineConfig(
        keep_rate_hz=0.0,
        buffer_window_s=span_s,
        buffer_full_rate_s=span_s,
        buffer_max_mib=4096.0,
        window_s=span_s,
        ground_window_s=span_s,
        describe_enabled=False,
        deadline_s=24 * 3600.0,
        region_ttl_s=span_s,
    )
    engine = Engine(
        describer,
        config,
        on_description=lambda description: None,
        on_answer=on_answer,
        make_tracker=make_tracker,
        grounder=grounder,
    )
    for frame in look.frames:
        engine.add_frame(frame)
    return engine


def drawn(look: Look, region: Region, mask: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return the frame with the region drawn, (H, W, 3) uint8 RGB."""
    overlay = Overlay(Palette()(region.region_id), mask, label=region.region_id)
    return draw_overlays(look.frame.image, [overlay])
