# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read videos and pictures, and make bags of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.bags import to_messages
from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.writing import BagWriter
from pixelrefer_ros.core.types import NS_PER_S, Frame, Query, Region
from pixelrefer_ros.imaging import decode_compressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')

# Bags made here begin at this stamp: 0 would mean 'the newest image' in every message.
ORIGIN_NS = 1_767_225_600 * NS_PER_S  # 2026-01-01 00:00 UTC

REGIONS_TOPIC = '/pixelrefer/regions'
QUERY_TOPIC = '/pixelrefer/query'


def is_picture(path: Path) -> bool:
    """Return whether a file name is that of a still picture."""
    return path.suffix.lower() in PICTURES


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture upright, as a person sees it.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileError: It is missing or no picture.
    """
    try:
        return decode_compressed(path.read_bytes(), use_orientation=True)
    except OSError as error:
        raise FileError(f'cannot read {path}: {error.strerror or error}') from error
    except ValueError as error:
        raise FileError(f'{path} is no picture: {error}') from error


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask picture: what is not black (or, with alpha, not transparent) is the region.

    Returns:
        (H, W) bool.

    Raises:
        FileError: It is missing, no picture, or empty.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise FileError(f'cannot read {path}: {error.strerror or error}') from error
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if picture is None:
        raise FileError(f'{path} is no picture; give a mask as PNG')
    if picture.ndim == 3 and picture.shape[2] == 4:
        mask = (picture[..., 3] > 0) & (picture[..., :3].any(-1) | (picture[..., 3] < 255).any())
    else:
        mask = picture.reshape(*picture.shape[:2], -1).any(-1)
    if not mask.any():
        raise FileError(f'{path} marks no pixel; paint the region in white on black')
    return np.asarray(mask, np.bool_)


def read_video(
    path: Path,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    rate_hz: float = 0.0,
    max_side: int = 0,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Iterate over the frames of a video file.

    Args:
        path: Anything OpenCV plays.
        start_s: Skip what comes before.
        end_s: Stop before this time; None for the end.
        rate_hz: Frames wanted a second; 0 for all.
        max_side: Shrink frames so that no side is longer; 0 leaves them.

    Yields:
        Seconds from the beginning of the video, (H, W, 3) uint8 RGB.

    Raises:
        FileError: It is missing or no video, or has no frame in that range.
    """
    capture = _open_video(path)
    try:
        rate = capture.get(cv2.CAP_PROP_FPS) or 30.0
        index = -1
        count = 0
        due_s = start_s
        while capture.grab():
            index += 1
            time_s = index / rate
            if end_s is not None and time_s >= end_s:
                break
            if time_s < due_s - 0.5 / rate:
                continue
            done, picture = capture.retrieve()
            if not done:
                continue
            due_s = due_s + 1.0 / rate_hz if rate_hz else 0.0
            count += 1
            yield time_s, _shrink(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), max_side)
        if not count:
            raise FileError(f'{path} has no frame from second {start_s:g} on')
    finally:
        capture.release()


def video_length(path: Path) -> float:
    """Return the length of a video in seconds as its header states it; 0 when it does not.

    Raises:
        FileError: It is missing or no video.
    """
    capture = _open_video(path)
    try:
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return max(0.0, frames - 1) / (capture.get(cv2.CAP_PROP_FPS) or 30.0)
    finally:
        capture.release()


def _open_video(path: Path) -> cv2.VideoCapture:
    if not path.is_file():
        raise FileError(f'no picture or video at {path}')
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        capture.release()
        raise FileError(f'{path} is no video that OpenCV can play')
    return capture


def _shrink(picture: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if not max_side or max(height, width) <= max_side:
        return picture
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def read_clip(
    paths: Sequence[Path],
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    rate_hz: float = 0.0,
    max_side: int = 0,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Iterate over one video, one folder of pictures, or pictures in the order given.

    Args:
        paths: One video, one folder, or pictures.
        start_s: As ``read_video``.
        end_s: As ``read_video``.
        rate_hz: As ``read_video``; for pictures how fast they follow each other, 0 for 10.
        max_side: As ``read_video``.

    Yields:
        Seconds from the beginning, (H, W, 3) uint8 RGB.

    Raises:
        FileError: As ``read_video`` and ``read_picture``.
    """
    if len(paths) == 1 and paths[0].is_dir():
        folder = paths[0]
        paths = sorted(path for path in folder.iterdir() if is_picture(path))
        if not paths:
            raise FileError(f'{folder} holds no pictures ({", ".join(PICTURES)})')
    if len(paths) == 1 and not is_picture(paths[0]):
        yield from read_video(
            paths[0], start_s=start_s, end_s=end_s, rate_hz=rate_hz, max_side=max_side
        )
        return
    for index, path in enumerate(paths):
        time_s = index / (rate_hz or 10.0)
        if time_s >= start_s and (end_s is None or time_s < end_s):
            yield time_s, _shrink(read_picture(path), max_side)


@dataclass(frozen=True, slots=True)
class MadeBag:
    """Say what a bag made here holds."""

    frames: int
    regions: int
    queries: int
    duration_s: float


def make_bag(
    frames: Iterator[tuple[float, NDArray[np.uint8]]],
    path: Path,
    *,
    camera: str = 'camera',
    regions: Sequence[tuple[float, Region]] = (),
    queries: Sequence[tuple[float, Query]] = (),
    raw: bool = False,
    quality: int = 90,
    overwrite: bool = False,
    on_frame: Callable[[int], None] | None = None,
) -> MadeBag:
    """Write frames, and what to ask about them, to a bag.

    Regions and queries go right after the first frame at or after their time and take its
    stamp, so that they are never ahead of their image; what is later than the last frame goes
    after that one. Regions of the same frame are one message.

    Args:
        frames: (seconds, (H, W, 3) uint8 RGB), as ``read_clip`` yields them.
        path: As ``BagWriter``.
        camera: Camera name; decides the topic, such as /camera/image/compressed.
        regions: (seconds, region); the camera and stamp of the region are filled in.
        queries: (seconds, query); likewise.
        raw: Write uncompressed Image messages on /camera/image.
        quality: Of the JPEG pictures, 0..100.
        overwrite: As ``BagWriter``.
        on_frame: Called with the number of frames written.
    """
    image_topic = '/'.join(['', *([camera] if camera else []), 'image'])
    waiting: list[tuple[float, Region | Query]] = [*regions, *queries]
    waiting.sort(key=lambda pair: pair[0])
    count = 0
    first_s = last_s = 0.0
    frame: Frame | None = None
    with BagWriter(path, overwrite=overwrite) as writer:

        def put(until_s: float) -> None:
            due = [item for at_s, item in waiting if at_s <= until_s]
            del waiting[: len(due)]
            if due and frame is not None:
                _put(writer, due, frame)

        for time_s, picture in frames:
            first_s = time_s if not count else first_s
            last_s = time_s
            stamp_ns = ORIGIN_NS + round((time_s - first_s) * NS_PER_S)
            frame = Frame(camera, stamp_ns, picture, f'{camera or "camera"}_optical')
            if raw:
                writer.write(image_topic, to_messages.image_to(frame), stamp_ns)
            else:
                msg = to_messages.compressed_to(frame, quality)
                writer.write(f'{image_topic}/compressed', msg, stamp_ns)
            count += 1
            put(time_s)
            if on_frame:
                on_frame(count)
        put(float('inf'))
        if not count:
            raise FileError('no frames to write')
    return MadeBag(count, len(regions), len(queries), last_s - first_s)


def _put(writer: BagWriter, items: Sequence[Region | Query], frame: Frame) -> None:
    """Write regions, in one message, and then queries a little after their image."""
    log_time_ns = frame.stamp_ns + 1_000_000
    regions = [
        replace(item, camera=frame.camera, stamp_ns=frame.stamp_ns)
        for item in items
        if isinstance(item, Region)
    ]
    if regions:
        msg = to_messages.regions_to(regions, frame.stamp_ns, frame.frame_id)
        writer.write(REGIONS_TOPIC, msg, log_time_ns)
    for item in items:
        if isinstance(item, Query):
            query = replace(item, camera=frame.camera, stamp_ns=frame.stamp_ns)
            log_time_ns += 1_000_000
            writer.write(QUERY_TOPIC, to_messages.query_to(query), log_time_ns)
