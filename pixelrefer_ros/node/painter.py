# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Show regions on kept frames: the annotated image, the label image and the tracks.

A thread of its own draws, so that neither the executor nor the model waits. A frame is shown a
moment after it came, because a detector's regions for it come after it; regions that come later
still are shown again with the frame they belong to. Nothing is drawn that nobody subscribes to.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import Image

from pixelrefer_ros.core import masks as core_masks
from pixelrefer_ros.core.types import NS_PER_S, Box, Track, TrackState
from pixelrefer_ros.imaging import Overlay, Palette, draw_overlays
from pixelrefer_ros.node import outputs as out
from pixelrefer_ros.node.conversions import ns_to_stamp
from pixelrefer_ros.node.images import fill_image
from pixelrefer_ros.node.results import tracks_to_msg

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Description, Frame, Mask, Region
    from pixelrefer_ros.engine import Engine
    from pixelrefer_ros.node.outputs import Outputs

_SETTLE_S = 0.1  # how long a frame waits for its regions
_COALESCE_S = 0.02  # regions of one image may come in one message each
_WAITING_MAX = 8  # frames; the oldest gives way
_RECENT_MAX = 4  # shown frames that late regions are looked for on
_WORDS_MAX = 72  # characters of a label

_TOPICS = (out.IMAGE_ANNOTATED, out.LABEL_IMAGE, out.TRACKS)


@dataclass
class _Shown:
    frame: Frame
    ids: frozenset[str]


@dataclass
class _Easel:
    """Hold the frames of one camera that wait or were shown lately, and what was said."""

    waiting: deque[tuple[float, Frame]] = field(
        default_factory=lambda: deque(maxlen=_WAITING_MAX)
    )
    recent: deque[_Shown] = field(default_factory=lambda: deque(maxlen=_RECENT_MAX))
    late_s: float | None = None
    first_ns: dict[str, int] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


class Painter:
    """Draw and publish in a thread, until stopped."""

    def __init__(
        self,
        engine: Engine,
        outputs: Outputs,
        on_problem: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread.

        Args:
            engine: Asked for the regions of a frame.
            outputs: Where the pictures go.
            on_problem: Called with text when something cannot be drawn.
            clock: Steady seconds.
        """
        self._engine = engine
        self._outputs = outputs
        self._on_problem = on_problem
        self._clock = clock
        self._palette = Palette()
        self._easels: dict[str, _Easel] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='painter', daemon=True)
        self._thread.start()

    def frame(self, frame: Frame) -> None:
        """Show a kept frame soon, if anybody watches."""
        if not self._watched():
            return
        with self._wake:
            easel = self._easel(frame.camera)
            if easel.recent and easel.recent[-1].frame.stamp_ns >= frame.stamp_ns:
                # time went back: what was shown belongs to another run
                self._easels[frame.camera] = easel = _Easel(words=easel.words)
            easel.waiting.append((self._clock() + _SETTLE_S, frame))
            self._wake.notify()

    def regions_changed(self) -> None:
        """Look again at the frames shown lately."""
        with self._wake:
            for easel in self._easels.values():
                if easel.recent and easel.late_s is None:
                    easel.late_s = self._clock() + _COALESCE_S
            self._wake.notify()

    def described(self, description: Description) -> None:
        """Remember the newest words of a region."""
        with self._wake:
            self._easel(description.camera).words[description.region_id] = description.text

    def stop(self) -> None:
        """Stop the thread; frames that wait are not shown."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _watched(self) -> bool:
        return any(self._outputs.watched(topic) for topic in _TOPICS)

    def _easel(self, camera: str) -> _Easel:
        return self._easels.setdefault(camera, _Easel())

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closing and (delay := self._delay()) != 0.0:
                    self._wake.wait(delay)
                if self._closing:
                    return
                now = self._clock()
                easels = list(self._easels.items())
                due = [
                    (camera, easel, easel.waiting.popleft()[1])
                    for camera, easel in easels
                    for _ in range(sum(due_s <= now for due_s, _ in easel.waiting))
                ]
                late = [pair for pair in easels if (pair[1].late_s or now + 1) <= now]
                for _, easel in late:
                    easel.late_s = None
            for camera, easel, frame in due:
                self._guarded(self._show, camera, easel, frame)
            for camera, easel in late:
                self._guarded(self._show_late, camera, easel)

    def _delay(self) -> float | None:
        """Return the seconds until something is due, 0 when it is, None for never."""
        times = [easel.waiting[0][0] for easel in self._easels.values() if easel.waiting]
        times += [easel.late_s for easel in self._easels.values() if easel.late_s is not None]
        return max(0.0, min(times) - self._clock()) if times else None

    def _guarded(self, show: Callable[..., None], *args: object) -> None:
        try:
            show(*args)
        except Exception as error:  # drawing must not end the thread
            self._on_problem(f'regions cannot be drawn ({type(error).__name__}: {error})')

    def _show(self, camera: str, easel: _Easel, frame: Frame) -> None:
        masks = self._engine.regions_at(camera, frame.stamp_ns, max_age_s=0.0)
        regions = {region.region_id: region for region in self._engine.list_regions(camera)}
        for region_id in easel.first_ns.keys() - regions.keys() - masks.keys():
            del easel.first_ns[region_id]
        self._publish_regions(easel, frame, masks, regions)
        self._publish_annotated(easel, frame, masks, regions)
        easel.recent.append(_Shown(frame, frozenset(masks)))

    def _show_late(self, camera: str, easel: _Easel) -> None:
        regions = {region.region_id: region for region in self._engine.list_regions(camera)}
        for shown in list(easel.recent):
            masks = self._engine.regions_at(camera, shown.frame.stamp_ns, max_age_s=0.0)
            if masks.keys() <= shown.ids:
                continue
            shown.ids = frozenset(masks)
            self._publish_regions(easel, shown.frame, masks, regions)
            if shown is easel.recent[-1]:  # a picture of the past would look like a jump back
                self._publish_annotated(easel, shown.frame, masks, regions)

    def _publish_regions(
        self,
        easel: _Easel,
        frame: Frame,
        masks: Mapping[str, Mask],
        regions: Mapping[str, Region],
    ) -> None:
        """Publish tracks and label image; the pixel value is the place in the tracks, from 1."""
        if not masks:
            return
        if self._outputs.watched(out.TRACKS):
            tracks = [
                _track(region_id, mask, frame, easel, regions.get(region_id))
                for region_id, mask in masks.items()
            ]
            self._outputs.publish(
                out.TRACKS, tracks_to_msg(tracks, frame.camera, frame.stamp_ns, frame.frame_id)
            )
        if self._outputs.watched(out.LABEL_IMAGE):
            labels = np.zeros(frame.image.shape[:2], np.uint16)
            for value, mask in enumerate(masks.values(), start=1):
                labels[core_masks.decode(mask)] = value
            self._publish_image(out.LABEL_IMAGE, frame, labels, 'mono16')

    def _publish_annotated(
        self,
        easel: _Easel,
        frame: Frame,
        masks: Mapping[str, Mask],
        regions: Mapping[str, Region],
    ) -> None:
        """Publish the frame with masks where regions were seen in it, else their last box."""
        if not self._outputs.watched(out.IMAGE_ANNOTATED):
            return
        overlays = []
        for region_id in dict.fromkeys([*masks, *regions]):
            region = regions.get(region_id)
            mask = masks.get(region_id)
            name = region.label if region is not None and region.label else region_id
            age = ''
            if mask is None and region is not None:
                age = f' ({(frame.stamp_ns - region.stamp_ns) / NS_PER_S:.1f} s ago)'
            words = easel.words.get(region_id, '')
            label = f'{name}{age}: {words}' if words else f'{name}{age}'
            overlays.append(
                Overlay(
                    self._palette((frame.camera, region_id)),
                    mask=None if mask is None else core_masks.decode(mask),
                    box=_last_box(region) if mask is None else None,
                    label=label if len(label) <= _WORDS_MAX else f'{label[:_WORDS_MAX]}...',
                )
            )
        self._publish_image(out.IMAGE_ANNOTATED, frame, draw_overlays(frame.image, overlays))

    def _publish_image(
        self, topic: str, frame: Frame, pixels: NDArray[np.generic], encoding: str = 'rgb8'
    ) -> None:
        message = Image()
        message.header.stamp = ns_to_stamp(frame.stamp_ns)
        message.header.frame_id = frame.frame_id
        self._outputs.publish(topic, fill_image(message, pixels, encoding))


def _track(
    region_id: str,
    mask: Mask,
    frame: Frame,
    easel: _Easel,
    region: Region | None,
) -> Track:
    """Return what is known of a region that was given for this frame."""
    first_ns = easel.first_ns.setdefault(region_id, frame.stamp_ns)
    return Track(
        region_id=region_id,
        camera=frame.camera,
        stamp_ns=frame.stamp_ns,
        state=TrackState.NEW if first_ns == frame.stamp_ns else TrackState.TRACKED,
        score=1.0,
        box=core_masks.bounding_box(mask),
        mask=mask,
        last_seen_ns=frame.stamp_ns,
        label='' if region is None else region.label,
    )


def _last_box(region: Region | None) -> Box | None:
    """Return the box around a region as it was given last."""
    if region is None:
        return None
    if region.mask is not None:
        return core_masks.bounding_box(region.mask)
    if region.points:
        columns = [round(x) for x, _ in region.points]
        rows = [round(y) for _, y in region.points]
        x, y = min(columns), min(rows)
        return Box(x, y, max(columns) - x + 1, max(rows) - y + 1)
    return region.box
