# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make a video a person can follow: regions drawn, and beneath them what was said of them."""

from __future__ import annotations

import bisect
import statistics
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.core.types import NS_PER_S, ErrorCode
from pixelrefer_ros.drawing import Palette, draw_overlays, draw_text, text_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.bags.story import Story
    from pixelrefer_ros.core.types import Frame

# Tried in turn. VP9 plays in browsers as well as in players; the others are there for builds of
# OpenCV without it. H.264 is left out: the builds on PyPI cannot write it.
CODECS = (('vp09', '.mp4'), ('mp4v', '.mp4'), ('MJPG', '.avi'))

_MAX_WIDTH = 720
_MAX_RATE_HZ = 10.0
_MAX_HOLD_S = 3.0
_MAX_LINES = 8
_ASKED_SHOWN_NS = 3 * NS_PER_S
_BACK = (24, 26, 30)
_INK = (236, 238, 240)
_FAINT = (150, 156, 164)


class VideoFile:
    """Write RGB pictures to a video; the suffix is that of the first codec that works."""

    def __init__(self, path: Path, width: int, height: int, rate_hz: float) -> None:
        """Open the file.

        Args:
            path: Where, the suffix being replaced when need be.
            width: Of the pictures; even.
            height: Of the pictures; even.
            rate_hz: Pictures a second.

        Raises:
            OSError: OpenCV can write none of ``CODECS``.
        """
        for code, suffix in CODECS:
            self.path = path.with_suffix(suffix)
            fourcc = cv2.VideoWriter.fourcc(*code)
            self._writer = cv2.VideoWriter(str(self.path), fourcc, rate_hz, (width, height))
            if self._writer.isOpened():
                return
            self.path.unlink(missing_ok=True)
        raise OSError(
            f'OpenCV can write none of {", ".join(code for code, _ in CODECS)}; install '
            'opencv-python-headless from PyPI'
        )

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Append a (H, W, 3) uint8 RGB picture."""
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()


class Annotator:
    """Draw the frames of one camera into a video, in the order they come."""

    def __init__(self, story: Story, camera: str, path: Path, palette: Palette) -> None:
        """Prepare; the file is made with the first frame.

        Args:
            story: What was said.
            camera: Whose frames will come.
            path: Where; the suffix depends on the codec.
            palette: Gives each region its colour.
        """
        self._story = story
        self._camera = camera
        self._path = path
        self._palette = palette
        stamps = story.stamps_ns.get(camera, [])
        gaps = [b - a for a, b in zip(stamps, stamps[1:], strict=False) if b > a]
        rate_hz = NS_PER_S / statistics.median(gaps) if gaps else 1.0
        self._rate_hz = min(max(1.0, rate_hz), _MAX_RATE_HZ)
        said = sorted(
            (one.description for one in story.said if one.description.camera == camera),
            key=lambda description: description.stamp_ns,
        )
        self._said = {
            region_id: [one for one in said if one.region_id == region_id]
            for region_id in story.region_ids
            if any(one.region_id == region_id for one in said)
        }
        self._answers = sorted(
            (one for one in story.asked if one.answer and one.answer.camera == camera),
            key=lambda one: one.answer.stamp_ns if one.answer else 0,
        )
        self._file: VideoFile | None = None
        self._first_ns = 0
        self._written = 0

    @property
    def path(self) -> Path | None:
        """Return where the video is; None before the first frame."""
        return self._file.path if self._file else None

    def add(self, frame: Frame) -> None:
        """Draw a frame, and hold it or pass over it so that the video runs in image time."""
        if self._file is None:
            self._first_ns = frame.stamp_ns
        elapsed_s = (frame.stamp_ns - self._first_ns) / NS_PER_S
        if elapsed_s < 0:  # the bag begins anew: so does the clock of the video
            self._first_ns = frame.stamp_ns - round(self._written / self._rate_hz * NS_PER_S)
            elapsed_s = self._written / self._rate_hz
        # frame k of the video shows the newest image at k / rate
        copies = round(elapsed_s * self._rate_hz) + 1 - self._written
        if copies < 1:
            return
        if copies > _MAX_HOLD_S * self._rate_hz:
            skipped = copies - round(_MAX_HOLD_S * self._rate_hz)
            self._first_ns += round(skipped / self._rate_hz * NS_PER_S)
            copies -= skipped
        picture = self._draw(frame)
        if self._file is None:
            height, width = picture.shape[:2]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = VideoFile(self._path, width, height, self._rate_hz)
            self._shape = picture.shape
        if picture.shape != self._shape:  # a camera that changes its size
            height, width = self._shape[:2]
            picture = np.asarray(cv2.resize(picture, (width, height)), np.uint8)
        for _ in range(copies):
            self._file.write(picture)
        self._written += copies

    def close(self) -> None:
        """Finish the video."""
        if self._file is not None:
            self._file.close()

    def _draw(self, frame: Frame) -> NDArray[np.uint8]:
        height, width = frame.image.shape[:2]
        overlays = self._story.overlays_at(
            self._camera, frame.stamp_ns, height, width, self._palette
        )
        # hardly any tint: the words are often about colour
        drawn = draw_overlays(frame.image, overlays, alpha=0.08)
        scale = min(1.0, _MAX_WIDTH / width)
        # even sides: most codecs halve the colour picture
        size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
        if size != (width, height):
            drawn = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8)
        return np.vstack([drawn, self._caption(frame.stamp_ns, size[0])])

    def _caption(self, stamp_ns: int, width: int) -> NDArray[np.uint8]:
        """Draw what had been said by then: a line per region, then the last answer."""
        scale = max(0.38, width / 1400)
        line = round(text_size('Ag', scale)[1] * 1.45)
        rows = min(len(self._said), _MAX_LINES) + (3 if self._answers else 0) + 1
        height = (rows * line + line) // 2 * 2
        strip = np.full((height, width, 3), _BACK, np.uint8)
        left = line
        elapsed_s = (stamp_ns - self._story.start_ns) / NS_PER_S
        draw_text(strip, f'{elapsed_s:6.2f} s', left, line // 2, scale, _FAINT)
        y = line // 2 + line
        for region_id, said in list(self._said.items())[:_MAX_LINES]:
            colour = self._palette(region_id)
            cv2.rectangle(strip, (left, y + 2), (left + line // 2, y + 2 + line // 2), colour,
                          cv2.FILLED)
            index = bisect.bisect_right(said, stamp_ns, key=lambda one: one.stamp_ns)
            words = said[index - 1].text if index else '...'
            text = _fit(f'{region_id}: {words}', width - 3 * left, scale)
            draw_text(strip, text, left + line, y, scale, _INK if index else _FAINT)
            y += line
        for text, colour in self._dialogue(stamp_ns):
            draw_text(strip, _fit(text, width - 2 * left, scale), left, y + line // 4, scale,
                      colour)
            y += line
        return strip

    def _dialogue(self, stamp_ns: int) -> list[tuple[str, tuple[int, int, int]]]:
        """Return the last question and answer, for as long as they are shown."""
        past = [one for one in self._answers if one.answer and one.answer.stamp_ns <= stamp_ns]
        if not past or past[-1].answer is None:
            return []
        answer = past[-1].answer
        if stamp_ns - answer.stamp_ns > _ASKED_SHOWN_NS:
            return []
        query = past[-1].query
        question = query.text.replace('{', '').replace('}', '') if query else answer.query_id
        ok = answer.error_code == ErrorCode.OK
        mark = {True: (96, 211, 148), False: (240, 113, 103), None: _INK}[past[-1].right]
        words = answer.text if ok else answer.error_msg
        return [(f'Q  {question or "describe"}', _FAINT), (f'A  {words}', mark)]


def _fit(text: str, width: int, scale: float) -> str:
    """Shorten a text to one line of this many pixels."""
    flat = ' '.join(text.split())
    while len(flat) > 4 and text_size(flat, scale)[0] > width:
        flat = textwrap.shorten(flat, int(len(flat) * 0.92), placeholder='...')
    return flat
