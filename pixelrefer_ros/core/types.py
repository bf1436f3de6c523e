# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Define the vocabulary every other module speaks: frames, masks, regions, queries, answers.

Stamps are image time in integer nanoseconds. Pixel coordinates have their origin at the
top-left corner of the image, x right, y down. Images are HWC uint8 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

NS_PER_S = 1_000_000_000


class ErrorCode(IntEnum):
    """Say why there is no answer; the values are those of ``Answer.msg``."""

    OK = 0
    QUEUE_FULL = 1
    TIMEOUT = 2
    CANCELED = 3
    NO_FRAMES = 4
    UNKNOWN_REGION = 5
    CLOCK_JUMP = 6
    OUT_OF_MEMORY = 7
    MODEL_ERROR = 8
    BAD_REQUEST = 9
    NOT_GROUNDED = 10
    UNSUPPORTED = 11
    UNKNOWN_CAMERA = 12
    BAD_REGION = 13
    BAD_STAMP = 14
    NOT_ACTIVE = 15


class PixelReferError(Exception):
    """Report a request that cannot be served, with its code and what to do about it."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        """Keep the code beside the message."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Frame:
    """Hold one camera image.

    Attributes:
        camera: Camera name, '' for the only camera.
        stamp_ns: Image stamp in nanoseconds.
        image: (H, W, 3) uint8 RGB, not to be written to.
        frame_id: TF frame of the image header.
    """

    camera: str
    stamp_ns: int
    image: NDArray[np.uint8]
    frame_id: str = ''


@dataclass(frozen=True, slots=True)
class Box:
    """Hold an axis-aligned box in pixels: columns x..x+width-1, rows y..y+height-1."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Mask:
    """Hold COCO uncompressed run lengths: column-major, background first, sum H*W.

    ``core.masks`` makes and reads them.
    """

    height: int
    width: int
    counts: tuple[int, ...]


class RegionKind(IntEnum):
    """Say which field of a region holds it; the values are those of ``Region.msg``."""

    BOX = 0
    POINTS = 1
    MASK = 2


@dataclass(frozen=True, slots=True)
class Region:
    """Point at something in one camera at one stamp.

    Attributes:
        region_id: Name of the region; the same id at several stamps is one region through time.
        kind: Which of box, points, mask holds it.
        camera: Camera name; '' for the only (or first) camera.
        stamp_ns: Stamp of the image it refers to; 0 for the newest.
        label: Free text carried to the outputs.
        box: For BOX.
        points: For POINTS, (x, y) in pixels.
        point_labels: For POINTS, 1 on the object, 0 off it; empty for all 1.
        mask: For MASK, of the size of the image.
        ttl_s: Seconds of image time after the newest stamp before it is forgotten; 0 for the
            default.
    """

    region_id: str
    kind: RegionKind
    camera: str = ''
    stamp_ns: int = 0
    label: str = ''
    box: Box | None = None
    points: tuple[tuple[float, float], ...] = ()
    point_labels: tuple[int, ...] = ()
    mask: Mask | None = None
    ttl_s: float = 0.0


class TrackState(IntEnum):
    """Say what is known of a region at a stamp; the values are those of ``Track.msg``."""

    NEW = 0
    TRACKED = 1
    OCCLUDED = 2
    LOST = 3
    REACQUIRED = 4


@dataclass(frozen=True, slots=True)
class Track:
    """Say where a region is at one stamp."""

    region_id: str
    camera: str
    stamp_ns: int
    state: TrackState
    score: float
    box: Box | None
    mask: Mask | None
    last_seen_ns: int
    label: str = ''


@dataclass(frozen=True, slots=True)
class Timings:
    """Split the seconds one result took; ``total_s`` runs from queue entry to result."""

    queue_s: float = 0.0
    preprocess_s: float = 0.0
    vision_s: float = 0.0
    language_s: float = 0.0
    tracking_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Description:
    """Say what a region is, in words.

    ``stamp_ns`` and ``frame_id`` are those of the newest frame looked at, ``frame_stamps_ns``
    of all of them, oldest first.
    """

    camera: str
    region_id: str
    label: str
    stamp_ns: int
    frame_id: str
    text: str
    confidence: float
    box: Box | None
    frame_stamps_ns: tuple[int, ...]
    timings: Timings
    tokens_in: int
    tokens_out: int
    model: str


class Task(IntEnum):
    """Say what a query wants; the values are those of ``Query.msg``."""

    DESCRIBE = 0
    ASK = 1
    GROUND = 2


@dataclass(frozen=True, slots=True)
class Query:
    """Ask something about regions.

    Attributes:
        query_id: Echoed in the answer.
        text: The question; '{region_id}' in it names a region. For GROUND, what to find.
        task: What is wanted.
        stamp_ns: As-of image time; 0 for the newest frame.
        camera: '' for the regions' camera, or the first.
        region_ids: Known regions in the order the question speaks of them. When empty, and no
            regions are given: those named in the text, else all of the camera.
        regions: Regions that come with the question; they follow ``region_ids``.
        window_s: How far back to look from the as-of time; 0 for the default.
        priority: Higher goes first; the engine's own descriptions have 0.
        deadline_s: Give up after this long on the steady clock; 0 for the default.
    """

    query_id: str
    text: str = ''
    task: Task = Task.ASK
    stamp_ns: int = 0
    camera: str = ''
    region_ids: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    window_s: float = 0.0
    priority: int = 1
    deadline_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Hold what an answer rests on: key frame, box, mask track, reasoning."""

    camera: str
    region_id: str
    stamp_ns: int
    frame_id: str
    box: Box | None
    mask: Mask | None
    score: float
    track_stamps_ns: tuple[int, ...] = ()
    track_masks: tuple[Mask | None, ...] = ()
    reasoning: str = ''
    thumbnail: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a query, or say why not (``error_code``, ``error_msg``).

    ``age_s`` says how much older ``stamp_ns``, the newest frame looked at, is than the newest
    frame there was when the answer was given.
    """

    query_id: str
    stamp_ns: int = 0
    frame_id: str = ''
    camera: str = ''
    text: str = ''
    error_code: ErrorCode = ErrorCode.OK
    error_msg: str = ''
    confidence: float = 0.0
    region_ids: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    window_start_ns: int = 0
    window_end_ns: int = 0
    frame_stamps_ns: tuple[int, ...] = ()
    timings: Timings = field(default_factory=Timings)
    tokens_in: int = 0
    tokens_out: int = 0
    model: str = ''
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RegionClip:
    """Show a describer one region through some of a clip's frames.

    Attributes:
        region_id: Name of the region.
        frame_indices: Ascending indices into the clip's frames.
        masks: One per index, (H, W) bool or uint8 0/1 of that frame's size.
    """

    region_id: str
    frame_indices: tuple[int, ...]
    masks: Sequence[NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Utterance:
    """Hold what a describer said.

    Attributes:
        text: The words.
        tokens_in: Prompt length in tokens, region tokens included.
        tokens_out: Generated tokens, the end token included.
        mean_logprob: Mean natural-log probability of the generated tokens.
        preprocess_s: Crops, masks and prompt.
        vision_s: Vision tower and region encoder.
        language_s: Prefill and decoding.
        canceled: True when ``should_stop`` ended it early.
    """

    text: str
    tokens_in: int
    tokens_out: int
    mean_logprob: float
    preprocess_s: float = 0.0
    vision_s: float = 0.0
    language_s: float = 0.0
    canceled: bool = False
