# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare masks with exact ones, as DAVIS does: region similarity J, boundary measure F.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation",
CVPR 2016. Means are over all the frames they are given; DAVIS' own semi-supervised protocol
leaves out the first and the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

TOLERANCE = 0.008
"""How far boundaries may lie apart, as a part of the diagonal of the image."""


@dataclass(frozen=True, slots=True)
class MaskScores:
    """Hold means over frames, each in [0, 1].

    Attributes:
        region: J, intersection over union.
        boundary: F, harmonic mean of the boundary's precision and recall.
        frames: How many.
    """

    region: float
    boundary: float
    frames: int

    @property
    def mean(self) -> float:
        """Return J&F."""
        return (self.region + self.boundary) / 2


def region_similarity(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return J: the intersection over union of two (H, W) masks; 1 when both are empty.

    Raises:
        ValueError: They differ in size.
    """
    _check(mask, truth)
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def boundary_measure(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return F of two (H, W) masks: 1 when both are empty, 0 when one is.

    A boundary pixel is right when a boundary pixel of the other lies within a disc of
    ``TOLERANCE`` of the diagonal, rounded up to pixels.

    Raises:
        ValueError: They differ in size.
    """
    _check(mask, truth)
    height, width = truth.shape
    disc = _disc(math.ceil(TOLERANCE * math.hypot(height, width)))
    found, wanted = boundary(mask), boundary(truth)
    precision = _share_near(found, wanted, disc)
    recall = _share_near(wanted, found, disc)
    if precision is None and recall is None:
        return 1.0
    if not precision or not recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels that differ from their right, lower or lower right neighbour, (H, W).

    The neighbours of the last row and column repeat it.
    """
    grown = np.pad(mask, ((0, 1), (0, 1)), mode='edge')
    right, below, across = grown[:-1, 1:], grown[1:, :-1], grown[1:, 1:]
    edges: NDArray[np.bool_] = (mask ^ right) | (mask ^ below) | (mask ^ across)
    return edges


def score_masks(
    pairs: Iterable[tuple[NDArray[np.bool_] | None, NDArray[np.bool_]]],
) -> MaskScores:
    """Return the means over frames of (mask, truth); a mask that is None is an empty one.

    Raises:
        ValueError: There are no frames, or sizes differ.
    """
    regions, boundaries = [], []
    for mask, truth in pairs:
        found = np.zeros_like(truth) if mask is None else mask
        regions.append(region_similarity(found, truth))
        boundaries.append(boundary_measure(found, truth))
    if not regions:
        raise ValueError('there are no frames to score')
    return MaskScores(float(np.mean(regions)), float(np.mean(boundaries)), len(regions))


def _check(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    if mask.shape != truth.shape:
        raise ValueError(f'a mask of {mask.shape} cannot be compared with one of {truth.shape}')


def _disc(radius_px: int) -> NDArray[np.uint8]:
    steps = np.arange(-radius_px, radius_px + 1)
    within = steps[:, None] ** 2 + steps[None, :] ** 2 <= radius_px**2
    return within.astype(np.uint8)


def _share_near(
    edges: NDArray[np.bool_], others: NDArray[np.bool_], disc: NDArray[np.uint8]
) -> float | None:
    """Return which share of edge pixels lies near others; None when there are none."""
    count = np.count_nonzero(edges)
    if not count:
        return None
    near = cv2.dilate(others.astype(np.uint8), disc)
    return np.count_nonzero(near[edges]) / count
