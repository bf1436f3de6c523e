# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compose, invert and measure 2x3 affine maps between pictures.

Maps take pixel-centre coordinates (the centre of the top-left pixel is 0, 0), as OpenCV's warps
do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Affine = NDArray[np.float64]


def shift(x: float, y: float) -> Affine:
    """Return the map that adds (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def zoom(x: float, y: float) -> Affine:
    """Return the map into a picture resized by these factors."""
    return np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])


def turn(angle_rad: float, scale: float, centre: NDArray[np.float64]) -> Affine:
    """Return the map that turns and scales about a point, (2,) x, y."""
    c, s = scale * math.cos(angle_rad), scale * math.sin(angle_rad)
    linear = np.array([[c, -s], [s, c]])
    return np.column_stack((linear, centre - linear @ centre))


def compose(outer: Affine, inner: Affine) -> Affine:
    """Return the map that does the inner one first."""
    # In plain numbers: numpy takes ten times as long for so few.
    (a, b, x), (c, d, y) = outer.tolist()
    (e, f, u), (g, h, v) = inner.tolist()
    return np.array(
        [
            [a * e + b * g, a * f + b * h, a * u + b * v + x],
            [c * e + d * g, c * f + d * h, c * u + d * v + y],
        ]
    )


def invert(affine: Affine) -> Affine:
    """Return the map back."""
    (a, b, x), (c, d, y) = affine.tolist()
    area = a * d - b * c
    e, f, g, h = d / area, -b / area, -c / area, a / area
    return np.array([[e, f, -e * x - f * y], [g, h, -g * x - h * y]])


def apply(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map (..., 2) points."""
    moved: NDArray[np.float64] = points @ affine[:, :2].T + affine[:, 2]
    return moved


def scale_of(affine: Affine) -> float:
    """Return by how much lengths grow."""
    (a, b, _), (c, d, _) = affine.tolist()
    return math.sqrt(abs(a * d - b * c))
