# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draw regions on pictures: masks, boxes, and plates with what is known and was said of them.

What is in sight is tinted and has a solid outline. What is not, wholly or at all, has a dashed
one and a dark plate, so that nobody takes a guess for a sighting.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.core import masks as core_masks
from pixelrefer_ros.core.types import NS_PER_S, Box, TrackState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Track

    Rgb = tuple[int, int, int]
    Area = tuple[int, int, int, int]  # left, top, right, bottom; the last two lie outside

_DARK: Rgb = (24, 26, 30)
_LIGHT: Rgb = (236, 238, 240)
_COLOURS_MAX = 1000
_WORDS_LINES = 3
_WORDS_WIDTH = 0.4  # of the picture


class Palette:
    """Give every key a colour of its own, in the order the keys are first seen.

    Neighbouring colours are far apart: each hue is a golden-ratio turn from the one before. The
    oldest of a thousand keys is forgotten.
    """

    def __init__(self) -> None:
        """Start with no colours given."""
        self._colours: dict[object, Rgb] = {}
        self._given = 0

    def __call__(self, key: object) -> Rgb:
        """Return the key's colour as (red, green, blue), 0..255 each."""
        if key not in self._colours:
            hue = (0.57 + 0.618034 * self._given) % 1.0
            lightness = (0.55, 0.65, 0.47)[self._given // 5 % 3]
            self._given += 1
            if len(self._colours) == _COLOURS_MAX:
                del self._colours[next(iter(self._colours))]
            red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.9)
            self._colours[key] = (round(red * 255), round(green * 255), round(blue * 255))
        return self._colours[key]


@dataclass(frozen=True, slots=True)
class Overlay:
    """Hold one region to draw.

    Attributes:
        colour: (red, green, blue), 0..255 each.
        mask: (H, W) bool or uint8 0/1 of the picture's size; None to draw only the box.
        box: Drawn as a thin frame when given.
        label: One line, drawn above the region.
        words: Drawn beneath the label, on as many lines as they need, three at most.
        faint: Draw outlines dashed, because the region is not, or not wholly, in sight.
    """

    colour: Rgb
    mask: NDArray[np.generic] | None = None
    box: Box | None = None
    label: str = ''
    words: str = ''
    faint: bool = False

    def scaled(self, factor: float, size: tuple[int, int]) -> Overlay:
        """Return how to draw the region on the picture scaled by a factor.

        Args:
            factor: New width over old width, and height likewise.
            size: (width, height) of the scaled picture, which rounding settles.
        """
        mask, box = self.mask, self.box
        if mask is not None:
            pixels = np.asarray(mask, np.uint8)
            mask = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST))
        if box is not None:
            x, y, width, height = (
                round(value * factor) for value in (box.x, box.y, box.width, box.height)
            )
            box = Box(x, y, max(1, width), max(1, height))
        return replace(self, mask=mask, box=box)


def track_overlay(
    track: Track, colour: Rgb, *, last_box: Box | None = None, words: str = ''
) -> Overlay:
    """Return how to draw a track: its id, label, state and score, and what was said of it.

    Args:
        track: The track, with a mask of the size of the picture or none.
        colour: Of the region.
        last_box: Where it was when it was last seen; shown when it is out of sight.
        words: What was said of it.
    """
    state = f'{track.state.name.lower()} {track.score:.2f}'
    out_of_sight = track.mask is None
    if out_of_sight:
        state += f', seen {max(0, track.stamp_ns - track.last_seen_ns) / NS_PER_S:.1f} s ago'
    return Overlay(
        colour,
        mask=None if track.mask is None else core_masks.decode(track.mask),
        box=last_box if out_of_sight else None,
        label=f'{name_of(track.region_id, track.label)}  {state}',
        words=words,
        faint=out_of_sight or track.state in (TrackState.OCCLUDED, TrackState.LOST),
    )


def name_of(region_id: str, label: str) -> str:
    """Return the id of a region, and its label where that says more."""
    return region_id if label in ('', region_id) else f'{region_id} {label}'


def draw_overlays(
    image: NDArray[np.uint8],
    overlays: Sequence[Overlay],
    *,
    alpha: float = 0.35,
    dim: float = 0.0,
) -> NDArray[np.uint8]:
    """Draw regions on a copy of a picture: tinted masks with outlines, boxes, plates.

    Args:
        image: (H, W, 3) uint8 RGB.
        overlays: Drawn in order; plates go on top of everything.
        alpha: How strongly masks are tinted, 0..1; 0 leaves their colours as they are. Faint
            ones are tinted half as much.
        dim: How much darker and greyer everything outside the masks becomes, 0..1; only where
            there is a mask.

    Raises:
        ValueError: A mask of another size than the picture.
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    line = max(1, round(min(height, width) / 240))
    if dim:
        _dim_outside(canvas, [o.mask for o in overlays if o.mask is not None], dim)
    anchors: list[tuple[Overlay, Area]] = []
    for overlay in overlays:
        area: Area | None = None
        if overlay.box is not None:
            box = overlay.box
            area = (box.x, box.y, box.x + box.width, box.y + box.height)
            _outline(canvas, [_corners(area)], overlay, line, cv2.LINE_8)
        if overlay.mask is not None:
            mask = np.ascontiguousarray(overlay.mask, dtype=np.uint8)
            if mask.shape != (height, width):
                raise ValueError(f'mask of shape {mask.shape} on an image of {(height, width)}')
            x, y, w, h = cv2.boundingRect(mask)
            if w and h:
                area = area or (x, y, x + w, y + h)
                window, inside = canvas[y:y + h, x:x + w], mask[y:y + h, x:x + w].astype(bool)
                strength = alpha / 2 if overlay.faint else alpha
                tint = np.asarray(overlay.colour, np.float32) * strength
                window[inside] = (window[inside] * (1.0 - strength) + tint).round()
                contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                _outline(canvas, contours, overlay, line, cv2.LINE_AA)
        if overlay.label and area is not None:
            anchors.append((overlay, area))
    taken: list[Area] = []
    for overlay, area in anchors:
        taken.append(_draw_plate(canvas, overlay, area, taken))
    return canvas


def _corners(area: Area) -> NDArray[np.int32]:
    left, top, right, bottom = area
    return np.array(
        [[left, top], [right - 1, top], [right - 1, bottom - 1], [left, bottom - 1]], np.int32
    )


def _outline(
    canvas: NDArray[np.uint8],
    contours: Sequence[NDArray[np.int32]],
    overlay: Overlay,
    line: int,
    kind: int,
) -> None:
    """Draw closed lines, in place; dashed when the overlay is faint."""
    if not overlay.faint:
        cv2.polylines(canvas, contours, True, overlay.colour, line, kind)
        return
    for contour in contours:
        points = contour.reshape(-1, 2)
        closed = np.vstack([points, points[:1]]).astype(np.float64)
        far = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
        along = np.arange(0.0, far[-1], 1.0)
        every = np.stack([np.interp(along, far, closed[:, axis]) for axis in (0, 1)], 1)
        dash = 3 + 2 * line
        for start in range(0, len(every), 2 * dash):
            piece = every[start:start + dash].round().astype(np.int32)
            cv2.polylines(canvas, [piece], False, overlay.colour, line, kind)


def _dim_outside(
    canvas: NDArray[np.uint8], masks: Sequence[NDArray[np.generic]], dim: float
) -> None:
    """Darken, in place, what lies outside all masks."""
    outside = np.ones(canvas.shape[:2], bool)
    for mask in masks:
        if mask.shape == outside.shape:
            outside &= np.asarray(mask) == 0
    if outside.all():
        return
    grey = cv2.cvtColor(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    faint = cv2.addWeighted(canvas, 1.0 - dim, grey, 0.4 * dim, 0.0)
    canvas[outside] = faint[outside]


def text_size(text: str, scale: float) -> tuple[int, int]:
    """Return the (width, height) in pixels of a line drawn with ``draw_text``."""
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    return math.ceil(width), height + baseline


def draw_text(
    image: NDArray[np.uint8], text: str, x: int, y: int, scale: float, colour: Rgb
) -> None:
    """Draw one line into the picture, its top-left corner at (x, y)."""
    (_, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.putText(image, text, (x, y + height), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1,
                cv2.LINE_AA)


def _draw_plate(
    image: NDArray[np.uint8], overlay: Overlay, area: Area, taken: Sequence[Area]
) -> Area:
    """Draw label and words on a plate beside a region; return where.

    The plate is kept inside the picture: above the region, else below, else where it covers
    no other one.
    """
    height, width = image.shape[:2]
    scale = max(0.35, min(height, width) / 1000)
    pad = max(2, round(6 * scale))
    words = _wrapped(overlay.words, round(_WORDS_WIDTH * width), scale)
    sizes = [text_size(text, scale) for text in (overlay.label, *words)]
    line = max(size[1] for size in sizes) + pad
    wide = max(size[0] for size in sizes) + 2 * pad
    high = line * len(sizes) + pad
    left = min(max(0, area[0]), max(0, width - wide))
    lowest = max(0, height - high)
    tops = [area[1] - high, area[3], *(other[3] for other in taken), max(0, area[1])]
    places = [(left, top, left + wide, top + high) for top in tops if 0 <= top <= lowest]
    free = (place for place in places if not any(_overlap(place, other) for other in taken))
    top = next(free, places[0] if places else (left, 0))[1]
    right, bottom = left + wide, top + high
    plate, ink = overlay.colour, _ink_on(overlay.colour)
    if overlay.faint:
        red, green, blue = overlay.colour
        plate, ink = _DARK, ((red + 255) // 2, (green + 255) // 2, (blue + 255) // 2)
    if words:
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), _DARK, cv2.FILLED)
    head = (right - 1, top + line + (0 if words else pad) - 1)
    cv2.rectangle(image, (left, top), head, plate, cv2.FILLED)
    if overlay.faint:
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), overlay.colour, 1)
    draw_text(image, overlay.label, left + pad, top + pad, scale, ink)
    for index, text in enumerate(words, start=1):
        draw_text(image, text, left + pad, top + index * line + pad, scale, _LIGHT)
    return left, top, right, bottom


def _overlap(one: Area, other: Area) -> bool:
    return (one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3])


def _ink_on(colour: Rgb) -> Rgb:
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def _wrapped(text: str, width: int, scale: float) -> list[str]:
    """Break a text into lines of this many pixels; one that is too long ends in '...'."""
    lines: list[str] = []
    for word in text.split():
        longer = f'{lines[-1]} {word}' if lines else word
        if lines and text_size(longer, scale)[0] <= width:
            lines[-1] = longer
        elif len(lines) < _WORDS_LINES:
            lines.append(word)
        else:
            lines[-1] += '...'
            break
    return lines
