# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tell colours apart: smoothed CIELAB histograms and what they say about pixels.

Lightness has fewer bins than hue and chroma, and all are blurred, so that noise, shading and
modest changes of light do not make a thing look like another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Histogram = NDArray[np.float32]

# Light in a shadow, or in the sun, relative to that in which a thing was first seen.
_GAINS = (1.0, 0.5, 0.7, 0.85, 1.2)
_LIGHT, _CHROMA = 8, 32
_BINS = _LIGHT * _CHROMA * _CHROMA
# Odds of a colour count for at most e^3, however rare it is elsewhere.
MAX_LOG_ODDS = 3.0
# Shares below these count as chance. A colour that neither has is rather not the region's.
_FLOOR_WANTED, _FLOOR_OTHER = 2e-4, 1.5e-3


def _light_blur() -> NDArray[np.float32]:
    steps = np.subtract.outer(np.arange(_LIGHT), np.arange(_LIGHT))
    weights = np.exp(-0.5 * (steps / 0.7) ** 2)
    return (weights / weights.sum(0)).astype(np.float32)


_LIGHT_BLUR = _light_blur()


def to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an RGB picture in 8-bit CIELAB."""
    lab: NDArray[np.uint8] = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)
    return lab


def bins_of(lab: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the number of the colour bin of every pixel of a CIELAB picture."""
    # all three at once, in one word a pixel: lightness is its lowest byte
    word = cv2.cvtColor(lab, cv2.COLOR_RGB2RGBA).view('<u4')[..., 0]
    numbers = (word & 0xE0) << 5 | word >> 6 & 0x3E0 | word >> 19 & 0x1F
    return numbers.astype(np.int32)


def histogram(bins: NDArray[np.int32]) -> Histogram:
    """Return the shares of the bins, blurred; their sum is 1, or 0 without pixels."""
    counts = np.bincount(bins.reshape(-1), minlength=_BINS).astype(np.float32)
    planes = _LIGHT_BLUR @ counts.reshape(_LIGHT, -1)
    planes = cv2.GaussianBlur(
        planes.reshape(-1, _CHROMA), (5, 1), 1.0, borderType=cv2.BORDER_REPLICATE
    )
    across = planes.reshape(_LIGHT, _CHROMA, _CHROMA).transpose(1, 0, 2).reshape(_CHROMA, -1)
    across = cv2.GaussianBlur(
        np.ascontiguousarray(across), (1, 5), 1.0, borderType=cv2.BORDER_REPLICATE
    )
    flat = across.reshape(_CHROMA, _LIGHT, _CHROMA).transpose(1, 0, 2).reshape(-1)
    shares: Histogram = flat / max(float(flat.sum()), 1.0)
    return shares


def relit(rgb: NDArray[np.uint8]) -> list[Histogram]:
    """Return the histograms of pixels (N, 3) as they are, then under other light.

    Light that is multiplied, as by a shadow, changes all three channels by one factor.
    """
    return [
        histogram(bins_of(to_lab(np.clip(rgb * np.float32(g), 0, 255).astype(np.uint8)[None])))
        for g in _GAINS
    ]


def overlap(a: Histogram, b: Histogram) -> float:
    """Return the Bhattacharyya coefficient: 1 for the same colours, 0 for none in common."""
    return min(1.0, float(np.sqrt(a * b).sum()))


def overlaps(roots: NDArray[np.float32], seen: Histogram) -> list[float]:
    """Return the overlaps of one histogram with several, given as (K, bins) square roots."""
    return [min(1.0, float(value)) for value in roots @ np.sqrt(seen)]


def log_odds(wanted: Histogram, other: Histogram) -> NDArray[np.float32]:
    """Return per bin the log of how much likelier it is in one than in the other, clipped."""
    odds = np.log((wanted + np.float32(_FLOOR_WANTED)) / (other + np.float32(_FLOOR_OTHER)))
    return np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS).astype(np.float32)


def probability(odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probability that belongs to log odds."""
    return (1 / (1 + np.exp(-odds))).astype(np.float32)
