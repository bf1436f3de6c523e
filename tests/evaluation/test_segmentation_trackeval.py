# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare J and F with those of TrackEval (developers only).

TrackEval asks for opencv-python, which cannot live beside opencv-python-headless, and needs
scikit-image without asking for it. So it is no dependency, not even of development; to run this:
pip install --no-deps trackeval==1.3.0 && pip install pycocotools scikit-image scipy tabulate
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from pixelrefer_ros.evaluation.segmentation import boundary_measure, region_similarity

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHY = 'compares with TrackEval: see the top of this file'
coco = pytest.importorskip('pycocotools.mask', reason=_WHY)
pytest.importorskip('skimage', reason=_WHY)
peer = pytest.importorskip('trackeval.metrics.j_and_f', reason=_WHY)

pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')
SIZES = ((480, 854), (288, 384), (1080, 1920), (40, 60))


def encoded(mask: np.ndarray) -> dict[str, Any]:
    rle: dict[str, Any] = coco.encode(np.asfortranarray(mask, np.uint8))
    return rle


def theirs(mask: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return J and F of a sequence of one frame with one object."""
    result = peer.JAndF().eval_sequence({
        'num_timesteps': 1, 'num_tracker_ids': 1, 'num_gt_ids': 1, 'gt_ids': [[0]],
        'tracker_ids': [[0]], 'gt_dets': [[encoded(truth)]], 'tracker_dets': [[encoded(mask)]]})
    return float(result['J-Mean']), float(result['F-Mean'])


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a ragged mask: smooth noise above a threshold, or one ellipse."""
    if rng.random() < 0.5:
        noise = rng.normal(0, 1, (height, width)).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(1, 12)))
        return smooth > np.quantile(smooth, rng.uniform(0.4, 0.95))
    canvas = np.zeros((height, width), np.uint8)
    centre = int(rng.integers(width)), int(rng.integers(height))
    axes = int(rng.integers(1, width // 3)), int(rng.integers(1, height // 3))
    cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return canvas > 0


def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(11)
    for height, width in SIZES:
        empty, full = np.zeros((2, height, width), np.bool_)
        full = ~full
        some = blob(rng, height, width)
        corner = empty.copy()
        corner[-1, -1] = True
        for special in (empty, full, corner):
            yield special, special
            yield special, some
            yield some, special
        for _ in range(6):
            truth = blob(rng, height, width)
            yield truth, truth
            yield blob(rng, height, width), truth
            shift = rng.integers(-8, 9, 2)
            yield np.roll(truth, shift, (0, 1)), truth


def test_j_and_f_equal_trackevals() -> None:
    worst_j = worst_f = 0.0
    partly = 0
    for mask, truth in pairs():
        j, f = theirs(mask, truth)
        own_f = boundary_measure(mask, truth)
        worst_j = max(worst_j, abs(region_similarity(mask, truth) - j))
        worst_f = max(worst_f, abs(own_f - f))
        partly += 0.0 < own_f < 1.0
    assert partly > 30  # the comparison was not of zeros and ones alone
    print(f'largest differences: J {worst_j:.1e}, F {worst_f:.1e}')
    assert worst_j <= 1e-9
    assert worst_f <= 1e-9
