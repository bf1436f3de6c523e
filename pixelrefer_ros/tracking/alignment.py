# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Refine poses to fractions of a pixel (inverse compositional Gauss-Newton).

Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 2004: what changes with the pose is worked
out once, in the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.tracking import geometry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pixelrefer_ros.tracking.geometry import Affine

    Picture = NDArray[np.float32]

# A pose is refined until it moves by less than this in the reference, or so often.
_ALIGNED_PX, _ALIGN_STEPS = 0.06, 6
_MAX_STEP_PX = 3.0
# A residual of this size counts half: lightness in standard deviations, or probability.
_ROBUST = 0.5
# Pixels that gain and offset of the light are fitted to.
_LIGHT_SAMPLES = 300


@dataclass(frozen=True, slots=True)
class _Guide:
    """Hold a picture that poses are refined by, at the N pixels that tell something.

    Attributes:
        used: (N,) which pixels, by flat index.
        template: (N,) what is there in the reference.
        weights: (N,)
        descents: (4, N) how it changes as the pose grows, turns, moves right, moves down.
    """

    used: NDArray[np.intp]
    template: Picture
    weights: Picture
    descents: Picture


class Aligner:
    """Refine poses of one region by its lightness inside and by its outline."""

    def __init__(
        self,
        light: Picture,
        mask: Picture,
        core: NDArray[np.bool_],
        textured: float,
        separable: float,
    ) -> None:
        """Work out how both pictures change with the pose.

        Args:
            light: (h, w) lightness of the reference.
            mask: (h, w) share of each pixel that belongs to the region.
            core: (h, w) bool, pixels that do in full.
            textured: Weight of the lightness.
            separable: Weight of the outline.
        """
        inside = light[core]
        normal = (light - inside.mean()) / max(float(inside.std()), 1.0)
        self._core = np.flatnonzero(core)
        self._light = Light(normal[core])
        height, width = mask.shape
        y, x = np.mgrid[:height, :width].astype(np.float32)
        self._centre = np.array([(width - 1) / 2, (height - 1) / 2])
        x, y = x - np.float32(self._centre[0]), y - np.float32(self._centre[1])
        # Parameters in pixels at the region's edge, so that all four are of one size.
        self._lever = float(max(self._centre))
        self._guides: list[_Guide] = []
        for template, weights in (
            (normal, core * textured),
            (cv2.GaussianBlur(mask, (5, 5), 0), np.full(mask.shape, separable)),
        ):
            gy, gx = np.gradient(template)
            turn, grow = x * gy - y * gx, x * gx + y * gy
            descents = np.stack((grow / self._lever, turn / self._lever, gx, gy))
            # What is flat tells nothing.
            used = (weights > 0.05) & (np.hypot(gx, gy) > 0.02)
            self._guides.append(
                _Guide(
                    np.flatnonzero(used),
                    template[used],
                    weights[used].astype(np.float32),
                    descents[:, used].astype(np.float32),
                )
            )

    def refine(
        self, see: Callable[[Affine], Sequence[Picture]], pose: Affine, rigid: bool
    ) -> Affine:
        """Return a pose near another at which both pictures fit best.

        Residuals are weighted so that what hides the region counts little.

        Args:
            see: Lightness, and probability of the region, as the reference sees them at a pose.
            pose: Where to begin.
            rigid: Move only: neither turn nor grow.
        """
        first = 2 if rigid else 0
        for _ in range(_ALIGN_STEPS):
            hessian, slope = np.zeros((4, 4)), np.zeros(4)
            for guide, seen in zip(self._guides, self._comparable(*see(pose)), strict=True):
                away = seen.ravel()[guide.used] - guide.template
                weighted = guide.descents * (guide.weights / (1 + (away / _ROBUST) ** 2))
                hessian += weighted @ guide.descents.T
                slope += weighted @ away
            hessian += np.eye(4) * (1e-2 * np.trace(hessian) + 1e-3)
            step = np.zeros(4)
            step[first:] = np.linalg.solve(hessian[first:, first:], slope[first:])
            length = float(np.abs(step).max())
            if length > _MAX_STEP_PX:
                step *= _MAX_STEP_PX / length
            grow, angle = step[:2] / self._lever
            linear = np.array([[1 + grow, -angle], [angle, 1 + grow]])
            change = np.column_stack((linear, self._centre - linear @ self._centre + step[2:]))
            pose = geometry.compose(pose, geometry.invert(change))
            if length < _ALIGNED_PX:
                break
        return pose

    def _comparable(self, light: Picture, chance: Picture) -> tuple[Picture, Picture]:
        """Return lightness and outline as seen, in the units of the templates."""
        if len(self._guides[0].template):
            light = cv2.GaussianBlur(light, (3, 3), 0)
            gain, offset = self._light.fit(light.ravel()[self._core])
            light = (light - np.float32(offset)) / np.float32(gain)
        return light, cv2.GaussianBlur(chance, (5, 5), 0)


class Light:
    """Fit gain and offset of the light to lightness that was told."""

    def __init__(self, told: NDArray[np.float32]) -> None:
        """Measure the lightness of the reference, (N,)."""
        self._step = max(1, len(told) // _LIGHT_SAMPLES)
        sample = told[:: self._step]
        self._rank = len(sample) // 2
        self._middle = float(np.partition(sample, self._rank)[self._rank])
        self.spread = max(float(np.abs(sample - self._middle).mean()), 1e-3)

    def fit(self, seen: NDArray[np.float32]) -> tuple[float, float]:
        """Return gain and offset of the same pixels now, robust against a hidden part."""
        sample = seen[:: self._step]
        middle = float(np.partition(sample, self._rank)[self._rank])
        gain = float(np.abs(sample - middle).mean()) / self.spread
        return max(gain, 1e-3), middle - gain * self._middle
