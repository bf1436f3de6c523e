# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn a conversation into what a vision language model reads, and compare it with another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

from pixelrefer_ros.core.chat import Picture, Video
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.chat.clips import ClipPatches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pixelrefer_ros.core.chat import Turn

Kind = Literal['image', 'video']
_TYPE_IDS: dict[Kind, int] = {'image': 1, 'video': 2}
"""What ``mm_token_type_ids`` holds where a token stands for something seen."""

PIXELS: dict[Kind, str] = {'image': 'pixel_values', 'video': 'pixel_values_videos'}
GRIDS: dict[Kind, str] = {'image': 'image_grid_thw', 'video': 'video_grid_thw'}


@dataclass(frozen=True, slots=True)
class Sight:
    """Say where in a prompt a picture or clip is: tokens ``start`` up to ``end``.

    ``digest`` is the same for the same pixels, size and frame rate.
    """

    kind: Kind
    start: int
    end: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Prompt:
    """Hold a conversation as a model reads it.

    Attributes:
        ids: Its tokens.
        inputs: What the processor made of it, on the CPU; (1, n) and pixels.
        sights: Its pictures and clips by ``start``; None when it cannot be said which tokens are
            theirs.
    """

    ids: tuple[int, ...]
    inputs: dict[str, Any]
    sights: tuple[Sight, ...] | None

    def pixels_from(self, start: int, kind: Kind) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return pixels and grid of the pictures, or clips, from a token on; None without any."""
        count = sum(s.kind == kind and s.start >= start for s in self.sights or ())
        if not count:
            return None
        grid = self.inputs[GRIDS[kind]]
        patches = int(grid[: len(grid) - count].prod(dim=1).sum())
        return self.inputs[PIXELS[kind]][patches:], grid[len(grid) - count :]


def shared_tokens(
    ids: Sequence[int],
    sights: Sequence[Sight],
    other_ids: Sequence[int],
    other_sights: Sequence[Sight],
) -> int:
    """Return how many tokens two prompts have in common from the start on.

    A picture counts as a whole or not at all, and only where its pixels are the same.
    """
    length = next(
        (i for i, (a, b) in enumerate(zip(ids, other_ids, strict=False)) if a != b),
        min(len(ids), len(other_ids)),
    )
    known = set(other_sights)
    for sight in sights:
        if sight.start < length and (sight.end > length or sight not in known):
            return sight.start
    return length


def read(processor: Any, turns: Sequence[Turn]) -> Prompt:
    """Turn a conversation into a prompt for the assistant's next turn.

    Text cannot speak as another role or stand for a picture: what looks like a special token in
    it is read as plain letters.

    Args:
        processor: See ``clips.load_processor``.
        turns: The last is the user's.

    Raises:
        PixelReferError: BAD_REQUEST when a picture has a size the model would change, or there
            is a clip and the model takes none.
        jinja2.TemplateError, ValueError: The chat template refuses the conversation.
    """
    if not turns or turns[-1].role != 'user':
        raise PixelReferError(ErrorCode.BAD_REQUEST, "the last turn must be the user's")
    multiple = picture_multiple(processor)
    seen: dict[Kind, list[bytes]] = {'image': [], 'video': []}
    metadata: list[VideoMetadata] = []
    messages = []
    for turn in turns:
        content: list[dict[str, Any]] = []
        for part in turn.parts:
            if isinstance(part, str):
                content.append({'type': 'text', 'text': part})
            elif isinstance(part, Picture):
                _check(part.image, multiple)
                seen['image'].append(_digest([part.image]))
                content.append({'type': 'image', 'image': Image.fromarray(part.image)})
            else:
                metadata.append(_metadata(processor, part, multiple))
                seen['video'].append(_digest(part.images, part.fps))
                content.append({'type': 'video', 'video': np.stack(part.images)})
        messages.append({'role': turn.role, 'content': content})
    options: dict[str, Any] = {}
    if multiple is not None:
        options['images_kwargs'] = {'do_resize': False}
    if metadata:
        options['videos_kwargs'] = {'do_sample_frames': False, 'video_metadata': [metadata]}
    inputs = dict(
        processor.apply_chat_template(
            messages,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors='pt',
            sanitize_control_tokens=True,
            processor_kwargs=options,
        )
    )
    inputs.pop('video_metadata', None)
    if 'second_per_grid_ts' in inputs:
        inputs['second_per_grid_ts'] = torch.as_tensor(inputs['second_per_grid_ts'])
    sights = _find(inputs, seen, processor) if multiple is not None else None
    return Prompt(tuple(inputs['input_ids'][0].tolist()), inputs, sights)


def picture_multiple(processor: Any) -> int | None:
    """Return what sides of pictures are multiples of; None when the processor sizes them."""
    images = processor.image_processor
    if 'image_grid_thw' not in getattr(images, 'model_input_names', ()):
        return None
    return int(images.patch_size * images.merge_size)


def _check(image: NDArray[np.uint8], multiple: int | None) -> None:
    """Refuse a picture the model cannot see as it is."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST,
            f'a picture must be (H, W, 3) uint8, is {image.shape} {image.dtype}',
        )
    height, width = image.shape[:2]
    if multiple and (not height or not width or height % multiple or width % multiple):
        raise PixelReferError(
            ErrorCode.BAD_REQUEST,
            f'a picture has {width}x{height} pixels, the model sees multiples of {multiple}: '
            'set the sizes and the size multiple of its profile so',
        )


def _metadata(processor: Any, clip: Video, multiple: int | None) -> VideoMetadata:
    """Say what the processor must know of a clip; refuse one that cannot be shown."""
    if not isinstance(getattr(processor, 'video_processor', None), ClipPatches):
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, 'the model is shown no clips here: show it pictures'
        )
    count = len(clip.images)
    if not count or clip.fps <= 0.0 or len({image.shape for image in clip.images}) != 1:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, 'a clip needs frames of one size and a frame rate above 0'
        )
    _check(clip.images[0], multiple)
    return VideoMetadata(
        total_num_frames=count,
        fps=clip.fps,
        duration=count / clip.fps,
        frames_indices=list(range(count)),
    )


def _digest(images: Sequence[NDArray[np.uint8]], fps: float = 0.0) -> bytes:
    digest = hashlib.blake2b(repr((fps, len(images), images[0].shape)).encode(), digest_size=16)
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _find(
    inputs: dict[str, Any], seen: dict[Kind, list[bytes]], processor: Any
) -> tuple[Sight, ...] | None:
    """Find the tokens of each picture and clip; a clip's may have text in between."""
    if 'mm_token_type_ids' not in inputs:
        return None
    types = inputs['mm_token_type_ids'][0]
    to_a_token = processor.image_processor.merge_size**2
    sights = []
    for kind, digests in seen.items():
        places = (types == _TYPE_IDS[kind]).nonzero().flatten().tolist()
        grids = inputs.get(GRIDS[kind], torch.zeros((0, 3), dtype=torch.int64))
        counts = [int(grid.prod()) // to_a_token for grid in grids]
        if len(counts) != len(digests) or sum(counts) != len(places):
            return None
        for count, digest in zip(counts, digests, strict=True):
            sights.append(Sight(kind, places[0], places[count - 1] + 1, digest))
            places = places[count:]
    return tuple(sorted(sights, key=lambda sight: sight.start))
