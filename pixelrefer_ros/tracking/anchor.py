# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Follow one region: where it is, what is seen of it, what is known of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelrefer_ros.core import masks, regions
from pixelrefer_ros.core.tracker import Sighting
from pixelrefer_ros.core.types import NS_PER_S, RegionKind, TrackState
from pixelrefer_ros.tracking import colours, geometry, motion, search, visibility
from pixelrefer_ros.tracking.judged import Judged
from pixelrefer_ros.tracking.last_sight import LastSight
from pixelrefer_ros.tracking.looks import Looks
from pixelrefer_ros.tracking.prompts import prompt_mask
from pixelrefer_ros.tracking.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pixelrefer_ros.core.types import Box, Region
    from pixelrefer_ros.tracking.geometry import Affine
    from pixelrefer_ros.tracking.motion import Points
    from pixelrefer_ros.tracking.picture import Picture

# What nothing has been seen of for this long is lost; in frames where stamps do not tell.
LOST_NS, LOST_FRAMES = int(0.35 * NS_PER_S), 15
_POINTS = 44
_FEW_POINTS = 8
_MIN_SEEN, _MIN_TRACKED = 0.15, 0.5
_MIN_OVERLAP, _MIN_AGREEMENT = 0.6, 0.5
# What a place far from the last one has to show before it is taken for the region.
_FOUND_OVERLAP, _FOUND_AGREEMENT, _FOUND_SHARE = 0.72, 0.65, 0.6
_FOUND_QUALITY = 0.5
_BLIND, _FOUND_TEXTURE = 0.35, 0.8
_GOOD_QUALITY, _GOOD_SHARE = 0.7, 0.8
_SURE_QUALITY = 0.88
_SCALE_LIMITS = (0.35, 2.8)
# Looks are learned from every so many sure frames.
_LEARN_EVERY = 3
# A box corrects the outline that fills it by this much; where none does, it starts anew.
_FILLS = 0.6


class Anchor:
    """Hold one region through the frames.

    Attributes:
        region_id: Name of the region.
        serial: Its number among those of one tracker, from 1.
        looks: What it looked like when it was given.
        state: Of the last frame.
        score: Of the last frame.
        unsearched_frames: How long a lost region has been waiting to be searched for.
        told: (N, 2) float32 points on it, in the reference.
        places: The same in the last frame.
    """

    def __init__(
        self, region_id: str, serial: int, picture: Picture, mask: NDArray[np.bool_]
    ) -> None:
        """Begin to follow what a mask, not an empty one, shows in a frame."""
        self.region_id = region_id
        self.serial = serial
        self.state = TrackState.NEW
        self._begin(picture, mask)

    def _begin(self, picture: Picture, mask: NDArray[np.bool_]) -> None:
        self.looks = Looks(picture.image, mask)
        self.score = 1.0
        # Size and angle come from the last frame in which they were sure.
        self._pose = self._expected = self._sure_pose = self.looks.first_pose
        self._first_scale = geometry.scale_of(self._pose)
        self._velocity = np.zeros(2)
        self._mask: NDArray[np.bool_] | None = mask
        self._share = 1.0
        self._seen_ns, self._unseen_frames = picture.stamp_ns, 0
        self._sure_frames = 0
        self.unsearched_frames = 0
        self.told = self.places = np.zeros((0, 2), np.float32)
        self._seed(picture, mask)
        self._last_sight = LastSight(picture, self._pose)
        self._friends = [0, self.serial]
        picture.claim(self.serial, mask)

    def sighting(self) -> Sighting:
        """Say what is known after the last frame."""
        return Sighting(self.region_id, self.state, self.score, self._mask)

    def correct(self, picture: Picture, region: Region) -> Sighting:
        """Learn where the region is in the last frame from somebody who knows.

        A box moves the known outline into it, and starts anew only where that does not fit what
        is there. Points or a mask start anew. Colours that still fit are kept.

        Raises:
            PixelReferError: BAD_REGION, as ``prompt_mask``.
        """
        returned = self.state in (TrackState.OCCLUDED, TrackState.LOST)
        if region.kind == RegionKind.BOX:
            fitted = self._fit_box(picture, region)
            if fitted is not None:
                self._settle(picture, fitted)
                self.state = TrackState.REACQUIRED if returned else TrackState.TRACKED
                return self.sighting()
        mask = prompt_mask(region, picture.image)
        known = self.looks
        self._begin(picture, mask)
        self.looks.remember(known)
        self.state = TrackState.REACQUIRED if returned else TrackState.TRACKED
        return self.sighting()

    def join(self, picture: Picture, serial: int) -> None:
        """Go on from a picture of its last frame that does not know of it, under a number."""
        self.serial = serial
        if self._mask is not None:
            picture.claim(serial, self._mask)

    def _fit_box(self, picture: Picture, region: Region) -> Judged | None:
        """Return the pose, where it was or in the box, at which the region fills the box."""
        box = masks.bounding_box(regions.region_mask(region, *picture.gray.shape))
        assert box is not None  # region_mask gives no empty ones
        there, looks = self._pose, self.looks
        bounds = looks.bounds(there)
        size = np.array([bounds[2] - bounds[0], bounds[3] - bounds[1]])
        grow = math.sqrt(float(np.prod(np.array([box.width, box.height]) / size)))
        middle = (np.array(bounds[:2]) + np.array(bounds[2:])) / 2
        there = geometry.compose(geometry.turn(0.0, grow, middle), there)
        there[:, 2] += [box.x + box.width / 2 - 0.5, box.y + box.height / 2 - 0.5] - middle
        best = self._best(picture, [self._pose, there], lambda one: self._fills(one, box))
        if best is None or self._fills(best, box) < _FILLS or not self._is_seen(best):
            return None
        return best

    def _fills(self, judged: Judged, box: Box) -> float:
        """Return how much the outline's bounds and a box overlap, as intersection over union."""
        left, top, right, bottom = self.looks.bounds(judged.pose)
        wide = min(right, box.x + box.width - 0.5) - max(left, box.x - 0.5)
        high = min(bottom, box.y + box.height - 0.5) - max(top, box.y - 0.5)
        both = max(wide, 0.0) * max(high, 0.0)
        return both / ((right - left) * (bottom - top) + box.width * box.height - both)

    def resize(self, x: float, y: float, shape: tuple[int, ...]) -> None:
        """Go on in frames that are x times as wide and y times as high, (height, width)."""
        change = geometry.zoom(x, y)
        self._pose = geometry.compose(change, self._pose)
        self._expected = geometry.compose(change, self._expected)
        self._sure_pose = geometry.compose(change, self._sure_pose)
        self._first_scale *= math.sqrt(x * y)
        self._velocity = self._velocity * (x, y)
        self.places = geometry.apply(change, self.places.astype(float)).astype(np.float32)
        self._last_sight.resize(change)
        if self._mask is not None:
            self._mask = cv2.resize(
                self._mask.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST
            ).astype(np.bool_)

    # The three steps of a frame: expect, (all points are followed together), resolve.

    def expect(self, picture: Picture) -> Points:
        """Return where the points should be in the next frame, (N, 2) float32."""
        self._expected = self._pose.copy()
        self._expected[:, 2] += self._velocity
        steady = len(self.places) >= _POINTS // 2 and self.state == TrackState.TRACKED
        if self.looks.separable >= search.COLOUR_TELLS and not steady:
            reach = 0.6 * self.looks.size_px(self._pose) + float(np.abs(self._velocity).max())
            box = self.looks.window_box(self._expected, reach)
            window = Window.cut(picture.image, box, 96)
            if window is not None:
                chance = colours.probability(self.looks.odds(window, None))
                moved = search.shift_to_best(self.looks, window, chance, self._expected)
                if moved is not None:
                    self._expected = moved
        change = geometry.compose(self._expected, geometry.invert(self._pose))
        return geometry.apply(change, self.places.astype(float)).astype(np.float32)

    def resolve(
        self, before: Picture, picture: Picture, moved: Points, good: NDArray[np.bool_]
    ) -> None:
        """Decide where the region is in a frame, and what is seen of it."""
        self._friends = before.friends(self.serial)
        poses = []
        fitted = self._fit(before, picture, moved, good)
        if fitted is not None:
            poses.append(fitted)
        if fitted is None or self._far(fitted, self._expected):
            poses.append(self._expected)
        best = self._best(picture, poses)
        if best is None or not self._is_seen(best):
            if self._unseen_frames == 0:
                self._last_sight = LastSight(before, self._pose)
            best = self._search(picture)
        if best is None:
            self._unseen(picture)
        else:
            self._settle(picture, best)

    def _fit(
        self, before: Picture, picture: Picture, moved: Points, good: NDArray[np.bool_]
    ) -> Affine | None:
        told, places = self.told[good], moved[good]
        unit = geometry.scale_of(self._pose)
        if len(told) < _FEW_POINTS and self._mask is not None and self.looks.textured > 0.2:
            reach = int(0.5 * self.looks.size_px(self._pose)) + 8
            sampled, flown = motion.sample_flow(before.gray, picture.gray, self._mask, reach)
            back = geometry.invert(self._pose)
            told = np.concatenate((told, geometry.apply(back, sampled.astype(float))))
            told = told.astype(np.float32)
            places = np.concatenate((places, flown))
        fitted = motion.fit_similarity(told, places, unit)
        if fitted is None or fitted[1].sum() < 4:
            self.told, self.places = self.told[good], moved[good]
            return None
        affine, inliers = fitted
        kept = inliers[: int(good.sum())]
        self.told, self.places = self.told[good][kept], moved[good][kept]
        if not self._possible(affine):
            return None
        return affine

    def _possible(self, pose: Affine) -> bool:
        scale = geometry.scale_of(pose)
        low, high = (limit * self._first_scale for limit in _SCALE_LIMITS)
        step = scale / geometry.scale_of(self._sure_pose)
        return bool(low < scale < high and 0.55 < step < 1.8)

    def _far(self, a: Affine, b: Affine) -> bool:
        gap = np.abs(self.looks.centre(a) - self.looks.centre(b)).max()
        return bool(gap > 0.08 * self.looks.size_px(self._pose) + 1)

    def _judge(self, picture: Picture, pose: Affine, sized: bool) -> Judged | None:
        """Refine a pose and weigh it; ``sized`` when the region's size is known about."""
        looks = self.looks
        window = Window.cut(picture.image, looks.window_box(pose, 4))
        if window is None:
            return None
        blocked = self._blocked(picture, window)
        odds = looks.odds(window, pose, blocked)
        chance = colours.probability(odds)
        judged = self._weigh(window, odds, chance, pose, looks.align(window, chance, pose))
        if judged.match.quality >= _SURE_QUALITY or not sized:
            return judged
        # Either it has changed, or something hides part of it: then its size has not.
        moved = looks.moved_to(self._sure_pose, looks.centre(pose))
        moved = looks.align(window, chance, moved, rigid=True)
        hidden = self._weigh(window, odds, chance, moved, moved)
        return max((judged, hidden), key=lambda one: one.agreement * one.seen.overlap)

    def _weigh(
        self,
        window: Window,
        odds: NDArray[np.float32],
        chance: NDArray[np.float32],
        pose: Affine,
        aligned: Affine,
    ) -> Judged:
        """Return what speaks for the better of a pose and what it was aligned to."""
        looks = self.looks
        match = looks.match(window, chance, aligned)
        if match.quality < _GOOD_QUALITY or not self._possible(aligned):
            unaligned = looks.match(window, chance, pose)
            if unaligned.quality > match.quality + 0.01 or not self._possible(aligned):
                aligned, match = pose, unaligned
        seen = visibility.seen_part(looks, window, odds, aligned)
        agreement = looks.agreement(match, seen.share, seen.texture)
        return Judged(aligned, window, match, seen, agreement)

    def _blocked(self, picture: Picture, window: Window) -> NDArray[np.bool_] | None:
        """Return where on a window other regions are that do not overlap with this one."""
        if not picture.strangers(self._friends, window.part):
            return None
        owners = window.shrink(picture.owners)
        blocked = owners != 0
        for friend in self._friends:
            blocked &= owners != friend
        return blocked if blocked.any() else None

    def _best(
        self,
        picture: Picture,
        poses: list[Affine],
        value: Callable[[Judged], float] = Judged.value,
        sized: bool = True,
    ) -> Judged | None:
        judged = [one for pose in poses if (one := self._judge(picture, pose, sized)) is not None]
        return max(judged, key=value, default=None)

    def _is_seen(self, judged: Judged) -> bool:
        seen = judged.seen
        if seen.share < _MIN_SEEN or seen.overlap < _MIN_OVERLAP:
            return False
        if self._unseen_frames == 0:
            # The little that is seen of a region that only texture tells agrees by chance.
            blind = _BLIND * (1 - self.looks.separable) * (seen.share < _MIN_TRACKED)
            return judged.agreement >= _MIN_AGREEMENT + blind
        return self._is_found(judged)

    def _is_found(self, judged: Judged) -> bool:
        """Tell whether this is surely the region, when it was not seen in the last frame."""
        share = max(judged.seen.share, _MIN_TRACKED)
        # Where only texture tells, all of it has to be seen: parts look alike by chance.
        blind = 1 - self.looks.separable
        least = _FOUND_QUALITY * share * (1 - blind) + _FOUND_TEXTURE * blind
        return judged.agreement >= _FOUND_AGREEMENT and judged.match.quality >= least

    def _search(self, picture: Picture) -> Judged | None:
        """Look for the region in the whole frame, if that has not been done too often yet."""
        if not picture.searches_left:
            self.unsearched_frames += 1
            return None
        picture.searches_left -= 1
        self.unsearched_frames = 0
        looks = self.looks
        window = search.shrunk(picture.image, looks.size_px(self._sure_pose))
        chance = colours.probability(looks.odds(window, None, self._blocked(picture, window)))
        found = search.places(looks, window, chance, self._sure_pose)
        best = self._best(picture, found, sized=False)
        if best is None:
            return None
        seen = best.seen
        if (
            seen.share < _FOUND_SHARE
            or self._overlap_all(best) < _FOUND_OVERLAP
            or not self._is_found(best)
            or not search.is_its_shape(
                looks, best.window, best.pose, self._sure_pose, self._blocked(picture, best.window)
            )
            or self._is_taken(picture, best)
            or self._last_sight.shows(self.looks, best.pose, best.match.quality)
        ):
            return None
        self.told = self.places = np.zeros((0, 2), np.float32)
        return best

    def _overlap_all(self, judged: Judged) -> float:
        """Return how much the colours of all that the outline covers are like the region's."""
        covered = judged.window.bins[self.looks.mask_in(judged.window, judged.pose)]
        return self.looks.similarity_to(covered) if len(covered) else 0.0

    def _is_taken(self, picture: Picture, judged: Judged) -> bool:
        mask = judged.window.whole(judged.seen.mask, picture.gray.shape)
        others = ~np.isin(picture.owners[mask], self._friends)
        return bool(others.mean() > 0.3)

    def _settle(self, picture: Picture, judged: Judged) -> None:
        seen = judged.seen
        centre = self.looks.centre(judged.pose)
        step = centre - self.looks.centre(self._pose)
        self._velocity = step if self._unseen_frames == 0 else np.zeros(2)
        self._pose, self._share = judged.pose, seen.share
        self._mask = judged.window.whole(judged.seen.mask, picture.gray.shape)
        picture.claim(self.serial, self._mask)
        returned = self.state in (TrackState.OCCLUDED, TrackState.LOST)
        if seen.share < _MIN_TRACKED:
            self.state = TrackState.OCCLUDED
        else:
            self.state = TrackState.REACQUIRED if returned else TrackState.TRACKED
        self._seen_ns, self._unseen_frames = picture.stamp_ns, 0
        if seen.share > _GOOD_SHARE and judged.match.quality > _GOOD_QUALITY:
            self._sure_pose = self._pose
            self._sure_frames += 1
            if self._sure_frames % _LEARN_EVERY == 1:
                self.looks.learn(judged.window, judged.pose, seen.mask, judged.match.texture)
            self._seed(picture, self._mask)
        self.score = seen.overlap * min(1.0, seen.share / _MIN_TRACKED)

    def _unseen(self, picture: Picture) -> None:
        self._unseen_frames += 1
        self._mask = None
        self._velocity = 0.5 * self._velocity
        self.told = self.places = np.zeros((0, 2), np.float32)
        gone_ns = abs(picture.stamp_ns - self._seen_ns)
        lost = gone_ns >= LOST_NS or self._unseen_frames >= LOST_FRAMES
        if self.state == TrackState.LOST or lost:
            self.state = TrackState.LOST
        else:
            self.state = TrackState.OCCLUDED
            self._pose = self._expected
        self.score = 0.0

    def _seed(self, picture: Picture, mask: NDArray[np.bool_]) -> None:
        """Add points where there are few, on what is seen."""
        if len(self.places) >= _POINTS // 2:
            return
        new = motion.corners_in(picture.gray, mask, _POINTS - len(self.places), self.places)
        back = geometry.invert(self._pose)
        told = geometry.apply(back, new.astype(float)).astype(np.float32)
        self.told = np.concatenate((self.told, told))
        self.places = np.concatenate((self.places, new))
