# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check requests, and put them into the words the model is asked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, PixelReferError, Task
from pixelrefer_ros.models.pixelrefer import prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pixelrefer_ros.core.describer import Request
    from pixelrefer_ros.core.types import RegionClip
    from pixelrefer_ros.models.pixelrefer.configuration import RegionModelConfig


@dataclass(frozen=True)
class Shown:
    """Hold all masks of a request, regions one after another.

    Attributes:
        masks: (H, W) each, 0 off the object.
        frames: Per mask, index of its frame.
        counts: How many masks each region has.
        times_s: Per mask, seconds since the first frame; None for a picture.
    """

    masks: tuple[NDArray[np.generic], ...]
    frames: tuple[int, ...]
    counts: tuple[int, ...]
    times_s: tuple[float, ...] | None


def check(request: Request) -> None:
    """Refuse clips that do not fit together.

    Raises:
        PixelReferError: BAD_REQUEST.
    """
    frames = request.frames
    if not frames:
        raise PixelReferError(ErrorCode.BAD_REQUEST, 'there are no frames to look at')
    for region in request.regions:
        indices = region.frame_indices
        if not indices or len(indices) != len(region.masks):
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f"region '{region.region_id}' has {len(region.masks)} masks for {len(indices)} "
                'frames; it needs one per frame, and at least one',
            )
        if min(indices) < 0 or max(indices) >= len(frames):
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f"region '{region.region_id}' speaks of frame {max(indices)} of {len(frames)}",
            )
        for frame, mask in zip(indices, region.masks, strict=True):
            height, width = frames[frame].image.shape[:2]
            if mask.shape != (height, width):
                raise PixelReferError(
                    ErrorCode.BAD_REQUEST,
                    f"a mask of region '{region.region_id}' is "
                    f'{"x".join(map(str, mask.shape[::-1]))} pixels and its frame '
                    f'{width}x{height}',
                )


def shown(request: Request) -> Shown:
    """Return the masks of a request that has passed ``check``.

    Video prompts list only the frames where a region is to be seen; a picture's region always
    has its tokens.
    """
    video = len(request.frames) > 1
    masks: list[NDArray[np.generic]] = []
    mask_frames: list[int] = []
    counts = []
    for region in request.regions:
        before = len(masks)
        for frame, mask in zip(region.frame_indices, region.masks, strict=True):
            if not video or np.any(mask):
                masks.append(mask)
                mask_frames.append(frame)
        counts.append(len(masks) - before)
    start_ns = request.frames[0].stamp_ns
    times_s = tuple((request.frames[i].stamp_ns - start_ns) / NS_PER_S for i in mask_frames)
    return Shown(tuple(masks), tuple(mask_frames), tuple(counts), times_s if video else None)


def question(request: Request, config: RegionModelConfig, *, needs_regions: bool = True) -> str:
    """Return what to ask the model, with one ``<region>`` per region.

    Args:
        request: The request.
        config: Holds the model's wording.
        needs_regions: Whether a question without regions is refused; else it is asked as it is.

    Raises:
        PixelReferError: BAD_REQUEST.
    """
    video = len(request.frames) > 1
    noun = config.object_noun_video if video else config.object_noun_image
    if request.task == Task.DESCRIBE:
        text = config.describe_prompt_video if video else config.describe_prompt_image
        if prompts.REGION_MARK not in text:
            text = f'{introduction(config, 1, video=video)} {text}'
        if request.text:
            text = f'{text} {named(request.text, request.regions, noun)}'
        return text
    if not request.text.strip():
        raise PixelReferError(ErrorCode.BAD_REQUEST, 'the question is empty')
    words = named(request.text, request.regions, noun)
    if request.regions:
        return f'{introduction(config, len(request.regions), video=video)} {words}'
    if needs_regions:
        raise PixelReferError(ErrorCode.BAD_REQUEST, 'the question needs at least one region')
    return words


def introduction(config: RegionModelConfig, count: int, *, video: bool) -> str:
    """Return the model's sentence that introduces ``count`` objects."""
    one, many, noun = (
        (config.one_object_prefix_video, config.many_objects_prefix_video,
         config.object_noun_video)
        if video
        else (config.one_object_prefix_image, config.many_objects_prefix_image,
              config.object_noun_image)
    )
    return prompts.introduction(one, many, count, noun)


def named(text: str, regions: Sequence[RegionClip], noun: str = 'object') -> str:
    """Put ``<objectK>`` for the regions a text names.

    Raises:
        PixelReferError: BAD_REQUEST for a name that is no region, or for marks in the text.
    """
    try:
        return prompts.name_objects(
            text.strip(), [region.region_id for region in regions], noun)
    except ValueError as error:
        raise PixelReferError(ErrorCode.BAD_REQUEST, str(error)) from error
