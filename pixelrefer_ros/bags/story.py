# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put together what was seen, asked and said: an input bag, an output bag and the truth."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pixelrefer_ros.bags.reading import Bag, Tracks
from pixelrefer_ros.bags.topics import INPUTS, OUTPUTS
from pixelrefer_ros.bags.track_log import Span, TrackLog, joined
from pixelrefer_ros.bags.truth import Truth
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.regions import region_mask
from pixelrefer_ros.core.types import (
    NS_PER_S,
    Answer,
    Description,
    Frame,
    Mask,
    PixelReferError,
    Query,
    Region,
    Track,
)
from pixelrefer_ros.drawing import Overlay, track_overlay

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pixelrefer_ros.drawing import Palette

# A region is drawn on images up to this much younger than its last observation.
_SHOWN_NS = NS_PER_S // 2


@dataclass(frozen=True, slots=True)
class Said:
    """Hold a description and how it was judged.

    Attributes:
        description: What was said.
        verdicts: Right or wrong per attribute; empty without ground truth.
    """

    description: Description
    verdicts: dict[str, bool]

    @property
    def right(self) -> bool | None:
        """Return whether all attributes are right; None without ground truth."""
        return all(self.verdicts.values()) if self.verdicts else None


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold a question, its answer and how that was judged.

    Attributes:
        query: The question; None for an answer whose question is not in the bag.
        answer: The answer; None when none came.
        right: Right or wrong; None without ground truth.
        expected: What would be right, in words.
        kind: Of the question, from the ground truth.
        overlap: How far what was found is where it should be, in [0, 1]; None where the ground
            truth does not say where.
    """

    query: Query | None
    answer: Answer | None
    right: bool | None = None
    expected: str = ''
    kind: str = ''
    overlap: float | None = None


@dataclass
class Story:
    """Hold everything that report, video and summary tell.

    Attributes:
        name: Of the input bag.
        cameras: Camera names; the first is the one an empty name means.
        stamps_ns: Per camera the stamps of its images in the order they came.
        observations: Per (camera, region_id) the regions given, by stamp.
        tracks: Where the regions were followed to; empty when nothing followed them.
        looked: Per (camera, stamp, region_id) the mask an answer rests on.
        said: Descriptions, oldest first.
        asked: Questions in the order they were asked.
        frames_in: Images in the input bag.
        frames_unreadable: Those that could not be decoded.
        models: Names of the models that spoke.
        has_truth: Whether there is a ground truth.
    """

    name: str
    cameras: tuple[str, ...]
    stamps_ns: dict[str, list[int]] = field(default_factory=dict)
    observations: dict[tuple[str, str], list[Region]] = field(default_factory=dict)
    tracks: TrackLog = field(default_factory=TrackLog)
    looked: dict[tuple[str, int, str], Mask] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    frames_in: int = 0
    frames_unreadable: int = 0
    models: tuple[str, ...] = ()
    has_truth: bool = False

    @property
    def start_ns(self) -> int:
        """Return the first image stamp, 0 when there is none."""
        return min((stamps[0] for stamps in self.stamps_ns.values() if stamps), default=0)

    @property
    def duration_s(self) -> float:
        """Return the image time from the first to the last image."""
        newest = max((max(stamps) for stamps in self.stamps_ns.values() if stamps), default=0)
        return (newest - self.start_ns) / NS_PER_S

    @property
    def region_ids(self) -> tuple[str, ...]:
        """Return all region ids in the order they first came."""
        described = (said.description.region_id for said in self.said)
        found = (one.region_id for asked in self.asked if asked.answer
                 for one in asked.answer.evidence)
        return tuple(dict.fromkeys([*(key[1] for key in self.observations), *described, *found]))

    def camera(self, name: str) -> str:
        """Return the camera a name means: '' is the only or first."""
        return name or (self.cameras[0] if self.cameras else '')

    def spans(self, region_id: str) -> list[Span]:
        """Return when a region was in sight, as it was followed or else given.

        What words have found was never given: it is known from what the answer rests on.
        """
        followed = self.tracks.sightings(region_id)
        given = sorted(
            (region.stamp_ns, False)
            for (_, name), regions in self.observations.items()
            if name == region_id
            for region in regions
        )
        if given:
            return joined(followed or given, NS_PER_S)
        rests = {stamp_ns: False for _, stamp_ns, name in self.looked if name == region_id}
        return joined(sorted((rests | dict(followed)).items()), NS_PER_S)

    def masks_at(
        self, camera: str, stamp_ns: int, height: int, width: int
    ) -> dict[str, Mask]:
        """Return where the regions are, by id: followed there, given there, or looked at there.

        What is up to half a second older counts too. A region that was followed is not there
        when it was not seen.
        """
        followed = self.tracks.at(camera, stamp_ns, _SHOWN_NS)
        return self._masks_at(camera, stamp_ns, height, width, followed)

    def _masks_at(
        self, camera: str, stamp_ns: int, height: int, width: int, followed: tuple[Track, ...]
    ) -> dict[str, Mask]:
        found: dict[str, Mask] = {}
        for track in followed:
            if track.mask is not None and (track.mask.height, track.mask.width) == (height, width):
                found[track.region_id] = track.mask
        known = {track.region_id for track in followed}
        for (name, region_id), regions in self.observations.items():
            if name != camera or region_id in known:
                continue
            index = bisect.bisect_right(regions, stamp_ns, key=lambda region: region.stamp_ns)
            if not index or stamp_ns - regions[index - 1].stamp_ns > _SHOWN_NS:
                continue
            try:
                found[region_id] = region_mask(regions[index - 1], height, width)
            except PixelReferError:
                continue  # the engine refused it too, with a reason
        for region_id in self.region_ids:
            mask = self.looked.get((camera, stamp_ns, region_id))
            if region_id not in known and mask is not None:
                found.setdefault(region_id, mask)
        return found

    def overlays_at(
        self,
        camera: str,
        stamp_ns: int,
        height: int,
        width: int,
        palette: Palette,
        region_ids: Collection[str] | None = None,
    ) -> list[Overlay]:
        """Return how to draw the regions: with state and score where they were followed.

        Args:
            camera: Whose image.
            stamp_ns: Of the image.
            height: Of the image.
            width: Of the image.
            palette: Gives each region its colour.
            region_ids: Which; None for all.
        """
        followed = self.tracks.at(camera, stamp_ns, _SHOWN_NS)
        found = self._masks_at(camera, stamp_ns, height, width, followed)
        tracks = {one.region_id: one for one in followed}
        overlays = []
        for region_id in dict.fromkeys([*tracks, *found]):
            if region_ids is not None and region_id not in region_ids:
                continue
            colour = palette(region_id)
            if region_id in tracks:
                track = replace(tracks[region_id], mask=found.get(region_id))
                last_box = None
                if track.mask is None:
                    last_box = self.tracks.last_box(camera, region_id, stamp_ns)
                overlays.append(track_overlay(track, colour, last_box=last_box))
            else:
                mask = masks.decode(found[region_id])
                overlays.append(Overlay(colour, mask=mask, label=region_id))
        return overlays


def tell(inputs: Bag, outputs: Path, truth: Truth | None = None) -> Story:
    """Read both bags, without decoding images.

    Args:
        inputs: The bag that was played.
        outputs: The bag with the descriptions, answers and tracks.
        truth: What is true of the input bag.

    Raises:
        FileError: One of them is broken.
    """
    story = Story(
        name=inputs.path.name, cameras=inputs.cameras, has_truth=truth is not None
    )
    truth = truth or Truth()
    queries: list[Query] = []
    newest: dict[str, int] = {}
    for event in inputs.events(INPUTS, decode=False):
        value = event.value
        if isinstance(value, Frame):
            story.frames_in += 1
            story.stamps_ns.setdefault(value.camera, []).append(value.stamp_ns)
            newest[value.camera] = value.stamp_ns
        elif isinstance(value, Query):
            queries.append(value)
            _observe(story, value.regions, newest)
        elif isinstance(value, tuple):
            _observe(story, value, newest)
    for regions in story.observations.values():
        regions.sort(key=lambda region: region.stamp_ns)

    answers: dict[str, Answer] = {}
    with Bag(outputs) as bag:
        for event in bag.events(OUTPUTS):
            if isinstance(event.value, Description):
                verdicts = truth.judge_description(event.value)
                story.said.append(Said(event.value, verdicts))
            elif isinstance(event.value, Answer):
                answers[event.value.query_id] = event.value
                _remember(story, event.value)
            elif isinstance(event.value, Tracks):
                story.tracks.add(story.camera(event.value.camera), event.value)
    for query in queries:
        story.asked.append(_judge(query, answers.pop(query.query_id, None), truth))
    story.asked += [_judge(None, answer, truth) for answer in answers.values()]
    spoken = [said.description.model for said in story.said]
    spoken += [asked.answer.model for asked in story.asked if asked.answer]
    story.models = tuple(dict.fromkeys(model for model in spoken if model))
    return story


def _remember(story: Story, answer: Answer) -> None:
    """Keep the masks an answer rests on, to be drawn on the images it looked at."""
    for one in answer.evidence:
        for stamp_ns, mask in zip(one.track_stamps_ns, one.track_masks, strict=False):
            if mask is not None:
                story.looked[story.camera(one.camera), stamp_ns, one.region_id] = mask


def _observe(story: Story, regions: tuple[Region, ...], newest: dict[str, int]) -> None:
    for region in regions:
        camera = story.camera(region.camera)
        stamp_ns = region.stamp_ns or newest.get(camera, 0)
        known = story.observations.setdefault((camera, region.region_id), [])
        known.append(replace(region, camera=camera, stamp_ns=stamp_ns))


def _judge(query: Query | None, answer: Answer | None, truth: Truth) -> Asked:
    query_id = query.query_id if query else answer.query_id if answer else ''
    expected = truth.queries.get(query_id)
    if expected is None:
        return Asked(query, answer)
    right = bool(answer and truth.judge_answer(answer))
    overlap = truth.overlap(answer) if answer else None
    return Asked(query, answer, right, expected.words, expected.kind, overlap)
