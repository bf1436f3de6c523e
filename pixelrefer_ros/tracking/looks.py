# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Keep what a region looked like when it was given, and compare it with later frames.

Everything is kept in a small picture of the region with a margin, the reference. A pose is the
map from the reference to a frame. Colours are compared by histogram, texture by correlation of
lightness, the outline by how colours inside and around it differ. Comparing in the reference
keeps the costs independent of the region's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.tracking import colours, geometry
from pixelrefer_ros.tracking.alignment import Aligner, Light
from pixelrefer_ros.tracking.window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pixelrefer_ros.tracking.colours import Histogram
    from pixelrefer_ros.tracking.geometry import Affine

# Long side of the region in the reference, pixels.
_MIN_LONG_PX, _MAX_LONG_PX = 20, 60
_MARGIN = 0.22
# Lightness varies by this much (of 255) where texture begins to count, and where it counts fully.
_FAINT, _CLEAR = 2.0, 10.0
# Colours that overlap less are another thing's.
_FITS = 0.6
# What a frame adds to what is known of colours, and of whether texture is steady.
_LEARN_COLOUR, _LEARN_TEXTURE = 0.2, 0.3
# The colours of this part of the region, its rarest, are what else may look like.
_RARE = 0.03
# Share of the colours that stands for other light.
_RELIT = 0.3


@dataclass(frozen=True, slots=True)
class Match:
    """Say how well a pose fits a frame.

    Attributes:
        outline: Mean probability inside less that around, relative to the reference; up to 1.
        texture: Correlation of lightness inside, in [-1, 1].
        quality: Both, weighted by how much they tell of this region; 1 is as in the reference.
    """

    outline: float
    texture: float
    quality: float


class Looks:
    """Hold the looks of one region in the frame it was given in.

    Attributes:
        area_px: Pixels of the region in that frame.
        colour: Its colours; follows slow changes of light.
        separable: How well its colours tell it from what was around it, in [0, 1].
        textured: How much texture it has, in [0, 1].
        mask: (h, w) float32 share of each reference pixel that belongs to it.
    """

    def __init__(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        """Measure a region.

        Args:
            image: (H, W, 3) uint8 RGB.
            mask: (H, W) bool, not empty.
        """
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        self.area_px = int(np.count_nonzero(mask))
        long = max(width, height)
        margin = max(4.0, _MARGIN * long)
        zoom = float(np.clip(long, _MIN_LONG_PX, _MAX_LONG_PX)) / long
        self._size = (round((width + 2 * margin) * zoom), round((height + 2 * margin) * zoom))
        self.first_pose = geometry.compose(
            geometry.shift(left - margin, top - margin), geometry.zoom(1 / zoom, 1 / zoom)
        )
        # The outline at full resolution, with a border so that warps fade out at its edge.
        cut = mask[top : top + height, left : left + width]
        self._outline = np.pad(cut.astype(np.uint8) * 255, 1)
        self._outline_to_reference = geometry.compose(
            geometry.invert(self.first_pose), geometry.shift(left - 1, top - 1)
        )
        soft = self._outline.astype(np.float32) / 255
        if zoom < 1:
            soft = cv2.GaussianBlur(soft, (0, 0), 0.4 / zoom)
        self.mask = self._warp_in(soft.astype(np.float32), self._outline_to_reference)
        self._centre = (np.array(self._size) - 1) / 2
        self._inside = self.mask > 0.5
        if not self._inside.any():
            self._inside = self.mask >= self.mask.max()
        solid = self._inside.astype(np.uint8)
        reach = max(2, round(0.15 * max(self._size)))
        near = cv2.dilate(solid, np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
        self._ring = near & ~(cv2.dilate(solid, np.ones((3, 3), np.uint8)) > 0)
        self._kernel = self._inside / self._inside.sum() - self._ring / max(self._ring.sum(), 1)
        window = Window.cut(image, self.window_box(self.first_pose))
        assert window is not None  # the mask lies in the image
        seen = self.mask_in(window, self.first_pose)
        self._lit = colours.relit(window.rgb[seen])
        self._lit_roots = np.sqrt(np.stack(self._lit))
        self.colour = self._lit[0]
        self._light = self.look(window.light, window, self.first_pose)
        core = cv2.erode(solid, np.ones((3, 3), np.uint8)) > 0
        core = core if core.sum() >= 12 else self._inside
        # Gain and offset of the light, and how well texture is kept as the region moves.
        self._light_then = (1.0, 0.0)
        self._texture_holds = 0.5
        self._soft_light = cv2.GaussianBlur(self._light, (3, 3), 0)
        values = self._soft_light[core]
        self.textured = float(np.clip((values.std() - _FAINT) / (_CLEAR - _FAINT), 0, 1))
        self._core = core
        self._told_light = Light(self._soft_light[core])
        chance = colours.probability(self.odds(window, self.first_pose))
        self._outline_then = self._contrast(self.look(chance, window, self.first_pose))
        self.separable = float(np.clip(1.6 * self._outline_then - 0.3, 0, 1))
        self._aligner = Aligner(
            self._soft_light, self.mask, self._core, self.textured, self.separable
        )

    def _warp_in(self, picture: NDArray[np.float32], to_reference: Affine) -> NDArray[np.float32]:
        warped: NDArray[np.float32] = cv2.warpAffine(
            picture, to_reference, self._size, flags=cv2.INTER_LINEAR
        )
        return warped

    def window_box(self, pose: Affine, reach_px: float = 0.0) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom of the reference in the frame, grown on all sides."""
        width, height = self._size
        corners = geometry.apply(
            pose,
            np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], float),
        )
        low, high = corners.min(0) - reach_px, corners.max(0) + reach_px
        return int(low[0]), int(low[1]), int(high[0]) + 2, int(high[1]) + 2

    def centre(self, pose: Affine) -> NDArray[np.float64]:
        """Return where the middle of the reference is in the frame, (2,) x, y."""
        return geometry.apply(pose, self._centre)

    def moved_to(self, pose: Affine, place: NDArray[np.float64]) -> Affine:
        """Return a pose moved so that its centre is at a place, (2,) x, y."""
        moved = pose.copy()
        moved[:, 2] += place - self.centre(pose)
        return moved

    def size_px(self, pose: Affine) -> float:
        """Return the long side of the region in the frame."""
        return max(self._outline.shape) * geometry.scale_of(
            geometry.compose(pose, self._outline_to_reference)
        )

    def look(
        self, picture: NDArray[np.float32], window: Window, pose: Affine
    ) -> NDArray[np.float32]:
        """Return a window's picture, (h, w) or (h, w, C), as the reference sees it at a pose."""
        to_window = geometry.compose(geometry.invert(window.to_frame), pose)
        seen: NDArray[np.float32] = cv2.warpAffine(
            picture, to_window, self._size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return seen

    def full_mask(self, shape: tuple[int, int], pose: Affine) -> NDArray[np.uint8]:
        """Return the outline at a pose on a frame of (height, width), 0..255, warped once."""
        warped: NDArray[np.uint8] = cv2.warpAffine(
            self._outline, geometry.compose(pose, self._outline_to_reference), shape[::-1],
            flags=cv2.INTER_LINEAR,
        )  # fmt: skip
        return warped

    def mask_in(self, window: Window, pose: Affine) -> NDArray[np.bool_]:
        """Return the outline at a pose on a window, (h, w) bool."""
        to_window = geometry.compose(geometry.invert(window.to_frame), pose)
        return self.full_mask(window.light.shape, to_window) > 127

    def odds(
        self, window: Window, pose: Affine | None, blocked: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Return the log odds that a pixel of a window is of the region, by its colour.

        Args:
            window: Where.
            pose: Where the region is thought to be: what is outside is taken for what is around
                it. None when it may be anywhere.
            blocked: (h, w) bool, pixels that are known to be another region's.
        """
        if pose is None:
            around = window.bins
        else:
            solid = self.mask_in(window, pose).astype(np.uint8)
            outside = cv2.dilate(solid, np.ones((5, 5), np.uint8)) == 0
            if blocked is not None:
                outside &= ~blocked
            around = window.bins[outside]
        table = colours.log_odds(self._wanted, colours.histogram(around))
        odds: NDArray[np.float32] = table[window.bins]
        if blocked is not None:
            odds[blocked] = -colours.MAX_LOG_ODDS
        return odds

    def foreign(self, window: Window) -> NDArray[np.float32]:
        """Return how rare the colours of a window are in the region, (h, w) from -3 to 0.

        Where colours do not tell the region from what is around, some may still tell what hides
        it.
        """
        wanted = self._wanted
        ordered = np.sort(wanted[wanted > 0])
        rare = ordered[np.searchsorted(np.cumsum(ordered), _RARE)]
        table = np.clip(np.log((wanted + 1e-9) / rare), -colours.MAX_LOG_ODDS, 0)
        return table.astype(np.float32)[window.bins]

    def _contrast(self, chance: NDArray[np.float32]) -> float:
        return float((self._kernel * chance).sum())

    def match(self, window: Window, chance: NDArray[np.float32], pose: Affine) -> Match:
        """Compare a frame with the reference at a pose.

        Args:
            window: Part of the frame around the pose.
            chance: Of the window: what ``odds`` says, as probabilities.
            pose: From the reference to the frame.
        """
        outline = self._contrast(self.look(chance, window, pose))
        same = min(1.0, outline / max(self._outline_then, 0.1))
        texture = self.texture(window, pose)
        return Match(same, texture, self._weigh(same, texture))

    def texture(
        self, window: Window, pose: Affine, seen: NDArray[np.bool_] | None = None
    ) -> float:
        """Return how the lightness inside correlates with the reference's, in [-1, 1].

        Args:
            window: Part of the frame around the pose.
            pose: From the reference to the frame.
            seen: (h, w) bool of the window: only what is seen counts.
        """
        part = self._core
        if seen is not None:
            part = part & (self.look(seen.astype(np.float32), window, pose) > 0.5)
        if np.count_nonzero(part) < 8:
            return 0.0
        light = cv2.GaussianBlur(self.look(window.light, window, pose), (3, 3), 0)
        return _correlation(light[part], self._soft_light[part])

    def agreement(self, match: Match, share: float, texture: float) -> float:
        """Return how well what is seen of the region agrees with the reference, up to 1.

        Args:
            match: Of all of it.
            share: Which part of it is seen.
            texture: Of that part.
        """
        return self._weigh(min(1.0, match.outline / max(share, 0.3)), texture)

    def _weigh(self, outline: float, texture: float) -> float:
        # Shading changes as a thing moves: texture counts where colours do not tell enough, and
        # else by half where it has proved steady.
        steady = 0.5 * max(0.0, 2 * self._texture_holds - 1)
        parts = (self.separable, self.textured * (1 - self.separable * (1 - steady)))
        if sum(parts) < 0.1:
            return 0.5
        return (parts[0] * outline + parts[1] * texture) / sum(parts)

    def unlike(self, window: Window, pose: Affine) -> NDArray[np.float32]:
        """Return how far the lightness inside is from the reference's, (h, w) of the reference.

        The unit is the standard deviation of the texture; gain and offset of the light are taken
        out first. 0 outside the region.
        """
        seen = cv2.GaussianBlur(self.look(window.light, window, pose), (3, 3), 0)
        told = self._soft_light
        now = self._told_light.fit(seen[self._core])
        spread = self._told_light.spread
        # The light of the last sure frame is better where much of the region is hidden now.
        aways = [
            np.abs((seen - np.float32(offset)) / np.float32(gain) - told) / np.float32(spread)
            for gain, offset in (now, self._light_then)
        ]
        away = min(aways, key=lambda one: float(np.minimum(one[self._core], 1).mean()))
        return np.where(self._inside, cv2.GaussianBlur(away, (5, 5), 0), 0).astype(np.float32)

    def align(
        self, window: Window, chance: NDArray[np.float32], pose: Affine, rigid: bool = False
    ) -> Affine:
        """Refine a pose until texture and outline lie on those of the reference.

        Args:
            window: Part of the frame around the pose.
            chance: Of the window.
            pose: Where to begin.
            rigid: Move only: neither turn nor grow.
        """
        both = cv2.merge((window.light, chance))

        def see(pose: Affine) -> Sequence[NDArray[np.float32]]:
            return cv2.split(self.look(both, window, pose))

        return self._aligner.refine(see, pose, rigid)

    def similarity_to(self, bins: NDArray[np.int32]) -> float:
        """Return how much the colours of pixels, by bin, are like the region's, in [0, 1].

        As in the last frames, or as in the first one under more or less light.
        """
        seen = colours.histogram(bins)
        return max(colours.overlap(self.colour, seen), *colours.overlaps(self._lit_roots, seen))

    @property
    def _wanted(self) -> Histogram:
        """Return its colours, with some room for sudden changes of light."""
        return (1 - _RELIT) * self.colour + _RELIT * np.mean(self._lit, 0, dtype=np.float32)

    def learn(self, window: Window, pose: Affine, seen: NDArray[np.bool_], texture: float) -> None:
        """Let the colours follow a change of light; called where the region surely is.

        Args:
            window: Part of the frame around the pose.
            pose: From the reference to the frame.
            seen: (h, w) bool of the window, what is seen of it.
            texture: Correlation of its lightness with the reference's.
        """
        self._texture_holds += _LEARN_TEXTURE * (texture - self._texture_holds)
        light = cv2.GaussianBlur(self.look(window.light, window, pose), (3, 3), 0)
        self._light_then = self._told_light.fit(light[self._core])
        share, bins = _LEARN_COLOUR, window.bins[seen]
        mixed = (1 - share) * self.colour + share * colours.histogram(bins)
        if max(colours.overlaps(self._lit_roots, mixed)) > _FITS:
            self.colour = mixed.astype(np.float32)

    def remember(self, known: Looks) -> None:
        """Keep the colours known from before where they fit those given now."""
        if colours.overlap(self.colour, known.colour) > _FITS:
            self.colour = ((self.colour + known.colour) / 2).astype(np.float32)

    def bounds(self, pose: Affine) -> tuple[float, float, float, float]:
        """Return left, top, right, bottom of the outline in the frame, in pixel centres' units."""
        height, width = self._outline.shape
        ys, xs = np.nonzero(self._outline[1 : height - 1, 1 : width - 1])
        points = np.stack((xs, ys), -1).astype(float) + 1
        moved = geometry.apply(geometry.compose(pose, self._outline_to_reference), points)
        low, high = moved.min(0) - 0.5, moved.max(0) + 0.5
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def kernel(self, pose_scale: float, angle_rad: float) -> NDArray[np.float32]:
        """Return the outline as a filter at a scale and angle, inside positive, around negative.

        Filtering ``chance`` with it gives the outline contrast of every place.

        Args:
            pose_scale: Filter pixels per reference pixel.
            angle_rad: Turn against the reference.
        """
        return self._filter(self._kernel.astype(np.float32), pose_scale, angle_rad)

    def patch(self, pose_scale: float, angle_rad: float) -> tuple[NDArray[np.float32], ...]:
        """Return lightness and mask of the reference at a scale and angle, float32."""
        return (
            self._filter(self._light, pose_scale, angle_rad),
            self._filter(self._core.astype(np.float32), pose_scale, angle_rad),
        )

    def _filter(
        self, picture: NDArray[np.float32], scale: float, angle_rad: float
    ) -> NDArray[np.float32]:
        width, height = self._size
        side = [2 * int(scale * s / 2) + 1 for s in (width, height)]
        place = geometry.turn(angle_rad, scale, np.zeros(2))
        centre = np.array([(s - 1) / 2 for s in side])
        place = geometry.compose(
            geometry.shift(*centre), geometry.compose(place, geometry.shift(*-self._centre))
        )
        if scale < 1:
            picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / scale)
        warped: NDArray[np.float32] = cv2.warpAffine(
            picture, place, side, flags=cv2.INTER_LINEAR
        )
        return warped


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-6 else 0.0
