# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Show where the regions are: the tracks, the label image and the annotated image.

Tracks come from the engine, frame by frame as its tracker goes on, and are published as they come.
Where nothing follows the regions, tracks are those that were given: a frame is looked at a moment
after it came, because a detector's regions for it come after it, and again when more come later.

A thread of its own draws, so that neither the executor nor the tracker nor the model waits; when
it falls behind, the oldest frame is not drawn. Nothing is drawn that nobody subscribes to.
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
from pixelrefer_ros.drawing import Palette, draw_overlays, track_overlay
from pixelrefer_ros.node import outputs as out
from pixelrefer_ros.node.conversions import ns_to_stamp
from pixelrefer_ros.node.given import GivenTracks
from pixelrefer_ros.node.images import fill_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Box, Description, Frame, Track
    from pixelrefer_ros.engine import Engine
    from pixelrefer_ros.node.outputs import Outputs

_SETTLE_S = 0.1  # how long a frame waits for the regions given for it
_COALESCE_S = 0.02  # regions of one image may come in one message each
_WAITING_MAX = 8  # frames; the oldest gives way
_RECENT_MAX = 4  # shown frames that late regions are looked for on
_WORDS_MAX = 256  # regions of a camera whose words are remembered

_PICTURES = (out.IMAGE_ANNOTATED, out.LABEL_IMAGE)
_ALL = (*_PICTURES, out.TRACKS, out.DETECTIONS_TRACKED)


@dataclass
class _Waiting:
    """Hold a frame that is shown when it is due.

    Attributes:
        due_s: Steady seconds.
        frame: The frame.
        tracks: Its tracks, if they are known already.
    """

    due_s: float
    frame: Frame
    tracks: tuple[Track, ...] = ()


@dataclass
class _Shown:
    frame: Frame
    ids: frozenset[str]


@dataclass
class _Easel:
    """Hold the frames of one camera that wait or were shown lately, and what was said.

    Attributes:
        given: Makes tracks of what was given; None when a tracker makes them.
        waiting: Frames to be shown, in their order.
        recent: Frames shown lately, where ``given`` makes the tracks.
        late_s: When to look at those again.
        words: The newest words of each region.
        boxes: Where each region was when it was last seen.
    """

    given: GivenTracks | None
    waiting: deque[_Waiting] = field(default_factory=lambda: deque(maxlen=_WAITING_MAX))
    recent: deque[_Shown] = field(default_factory=lambda: deque(maxlen=_RECENT_MAX))
    late_s: float | None = None
    words: dict[str, str] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)


class Painter:
    """Publish tracks, and draw in a thread, until stopped."""

    def __init__(
        self,
        engine: Engine,
        outputs: Outputs,
        on_problem: Callable[[str], None],
        *,
        tracking: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread.

        Args:
            engine: Asked for the regions of a frame, when it does not follow them.
            outputs: Where tracks and pictures go.
            on_problem: Called with text when something cannot be drawn.
            tracking: Whether the engine follows regions and calls ``tracked``.
            clock: Steady seconds.
        """
        self._engine = engine
        self._outputs = outputs
        self._on_problem = on_problem
        self._tracking = tracking
        self._clock = clock
        self._palette = Palette()
        self._easels: dict[str, _Easel] = {}
        self._newest_ns: dict[str, int] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='painter', daemon=True)
        self._thread.start()

    def tracked(self, frame: Frame, tracks: tuple[Track, ...]) -> None:
        """Publish the tracks of a frame, and have them drawn, if anybody watches."""
        self._outputs.tracks(frame, tracks)
        if any(map(self._outputs.watched, _PICTURES)):
            self._put(_Waiting(self._clock(), frame, tracks))

    def frame(self, frame: Frame) -> None:
        """Show a kept frame soon, if anybody watches; with a tracker ``tracked`` does it."""
        if not self._tracking and any(map(self._outputs.watched, _ALL)):
            self._put(_Waiting(self._clock() + _SETTLE_S, frame))

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
            words = self._easel(description.camera).words
            words.pop(description.region_id, None)  # the newest go last
            words[description.region_id] = description.text
            if len(words) > _WORDS_MAX:
                del words[next(iter(words))]

    def stop(self) -> None:
        """Stop the thread; frames that wait are not shown."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _put(self, one: _Waiting) -> None:
        camera, stamp_ns = one.frame.camera, one.frame.stamp_ns
        with self._wake:
            if self._newest_ns.get(camera, 0) > stamp_ns:
                # time went back: what was shown belongs to another run
                self._easels.pop(camera, None)
            self._newest_ns[camera] = stamp_ns
            waiting = self._easel(camera).waiting
            if waiting and waiting[-1].frame.stamp_ns == stamp_ns:
                waiting.pop()
            waiting.append(one)
            self._wake.notify()

    def _easel(self, camera: str) -> _Easel:
        if camera not in self._easels:
            given = None if self._tracking else GivenTracks(self._engine, camera)
            self._easels[camera] = _Easel(given)
        return self._easels[camera]

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closing and (delay := self._delay()) != 0.0:
                    self._wake.wait(delay)
                if self._closing:
                    return
                now = self._clock()
                easels = list(self._easels.values())
                due = [
                    (easel, easel.waiting.popleft())
                    for easel in easels
                    for _ in range(sum(one.due_s <= now for one in easel.waiting))
                ]
                late = [one for one in easels if one.late_s is not None and one.late_s <= now]
                for easel in late:
                    easel.late_s = None
            for easel, waiting in due:
                self._guarded(self._show, easel, waiting)
            for easel in late:
                self._guarded(self._show_late, easel)

    def _delay(self) -> float | None:
        """Return the seconds until something is due, 0 when it is, None for never."""
        times = [easel.waiting[0].due_s for easel in self._easels.values() if easel.waiting]
        times += [easel.late_s for easel in self._easels.values() if easel.late_s is not None]
        return max(0.0, min(times) - self._clock()) if times else None

    def _guarded(self, show: Callable[..., None], *args: object) -> None:
        try:
            show(*args)
        except Exception as error:  # drawing must not end the thread
            self._on_problem(f'regions cannot be drawn ({type(error).__name__}: {error})')

    def _show(self, easel: _Easel, waiting: _Waiting) -> None:
        frame, tracks = waiting.frame, waiting.tracks
        if easel.given is not None:
            tracks = easel.given.at(frame)
            easel.recent.append(_Shown(frame, frozenset(one.region_id for one in tracks)))
            if tracks:
                self._outputs.tracks(frame, tracks)
        if tracks or easel.given is None:  # what was not given may come late
            self._publish_labels(frame, tracks)
        self._publish_annotated(easel, frame, tracks)

    def _show_late(self, easel: _Easel) -> None:
        """Show frames again for which regions were given since."""
        if easel.given is None:
            return
        for shown in list(easel.recent):
            tracks = easel.given.at(shown.frame)
            ids = frozenset(one.region_id for one in tracks)
            if ids <= shown.ids:
                continue
            shown.ids = ids
            self._outputs.tracks(shown.frame, tracks)
            self._publish_labels(shown.frame, tracks)
            if shown is easel.recent[-1]:  # a picture of the past would look like a jump back
                self._publish_annotated(easel, shown.frame, tracks)

    def _publish_labels(self, frame: Frame, tracks: Sequence[Track]) -> None:
        """Publish the label image; a pixel's value is its track's place in the array, from 1."""
        if not self._outputs.watched(out.LABEL_IMAGE):
            return
        labels = np.zeros(frame.image.shape[:2], np.uint16)
        for value, track in enumerate(tracks, start=1):
            if track.mask is not None:
                labels[core_masks.decode(track.mask)] = value
        self._publish_image(out.LABEL_IMAGE, frame, labels, 'mono16')

    def _publish_annotated(self, easel: _Easel, frame: Frame, tracks: Sequence[Track]) -> None:
        """Publish the frame with every region, in sight or where it was last."""
        if not self._outputs.watched(out.IMAGE_ANNOTATED):
            return
        with self._wake:
            words = dict(easel.words)
        easel.boxes = {
            one.region_id: box
            for one in tracks
            if (box := one.box or easel.boxes.get(one.region_id)) is not None
        }
        overlays = [
            track_overlay(
                track,
                self._palette((frame.camera, track.region_id)),
                last_box=easel.boxes.get(track.region_id),
                words=words.get(track.region_id, ''),
            )
            for track in tracks
        ]
        if easel.given is not None:
            shown = [track.region_id for track in tracks]
            overlays += easel.given.others(frame, shown, self._palette, words)
        self._publish_image(out.IMAGE_ANNOTATED, frame, draw_overlays(frame.image, overlays))

    def _publish_image(
        self, topic: str, frame: Frame, pixels: NDArray[np.generic], encoding: str = 'rgb8'
    ) -> None:
        message = Image()
        message.header.stamp = ns_to_stamp(frame.stamp_ns)
        message.header.frame_id = frame.frame_id
        self._outputs.publish(topic, fill_image(message, pixels, encoding))
