# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put the words of a prompt together: chat turns, region tokens, introductions of objects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

REGION_TOKEN = '<REGION>'
"""One per region token; its id is ``region_token_index``."""

IMAGE_TOKEN = '<image>'
"""One per token of a whole picture; its id is ``image_token_index``."""

ADDED_TOKENS = (IMAGE_TOKEN, '<|stream_start|>', '<|stream_end|>', REGION_TOKEN)
"""What PixelRefer adds to Qwen2's tokens, in the order of their ids."""

REGION_MARK = '<region>'
"""Plain text in a question that stands for one object."""

FORBIDDEN = re.compile(r'<image>|<video>|<REGION>|<region>|<\|[^|<>]*\|>')
"""What a person's question must not hold: it would be read as structure, not as words."""

NUMBER_WORDS = (
    'no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten',
    'eleven', 'twelve',
)  # fmt: skip

_OBJECT = re.compile(r'<(?:object|region)(\d+)>')
_NAME = re.compile(r'\{([^{}]*)\}')


def user_turn(text: str, *, strip: bool = True) -> str:
    """Return a prompt of one user turn, up to where the model answers."""
    content = text.strip() if strip else text
    return f'<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n'


def region_text(masks: int, tokens_per_mask: int, times_s: Sequence[float] | None) -> str:
    """Return what stands for one object in a prompt.

    Args:
        masks: How many masks the object has.
        tokens_per_mask: Region tokens of each.
        times_s: Per mask, seconds since the start of the video; None for a picture.
    """
    tokens = REGION_TOKEN * tokens_per_mask
    if times_s is None:
        return f'[{tokens * masks}]'
    return '[' + ','.join(f'Time {round(float(time), 1)}:{tokens}' for time in times_s) + ']'


def fill_regions(text: str, regions: Sequence[str]) -> str:
    """Replace each ``<region>`` of a text by its object's tokens, left to right.

    Raises:
        ValueError: The text speaks of more or fewer objects than there are.
    """
    pieces = text.split(REGION_MARK)
    if len(pieces) - 1 != len(regions):
        raise ValueError(
            f'the text has {len(pieces) - 1} {REGION_MARK} marks for {len(regions)} objects'
        )
    return pieces[0] + ''.join(
        region + piece for region, piece in zip(regions, pieces[1:], strict=True)
    )


def name_objects(text: str, region_ids: Sequence[str], noun: str = 'object') -> str:
    """Replace ``{region_id}`` by ``<objectK>``, K being its place among the regions.

    Args:
        text: The text.
        region_ids: The regions.
        noun: What the model calls them: 'object' or 'region'.

    Raises:
        ValueError: A name is no region, or the text holds marks that are not words.
    """
    forbidden = FORBIDDEN.search(text)
    if forbidden:
        raise ValueError(
            f'{forbidden[0]} must not be in the text; write {{region_id}} to name a region'
        )
    places = {region_id: place for place, region_id in enumerate(region_ids)}

    def replace(match: re.Match[str]) -> str:
        if match[1] not in places:
            known = ', '.join('{' + region_id + '}' for region_id in region_ids)
            raise ValueError(f'{match[0]} names no region of this question; it has {known}')
        return f'<{noun}{places[match[1]]}>'

    return _NAME.sub(replace, text)


def say_region_ids(text: str, region_ids: Sequence[str]) -> str:
    """Replace ``<objectK>`` or ``<regionK>`` in the model's words by region K's id, if any."""

    def replace(match: re.Match[str]) -> str:
        place = int(match[1])
        return region_ids[place] if place < len(region_ids) else match[0]

    return _OBJECT.sub(replace, text)


def introduction(one: str, many: str, count: int, noun: str = 'object') -> str:
    """Return the sentence that introduces ``count`` objects.

    Args:
        one: Template for a single object, with ``{objects}``.
        many: Template for several, with ``{count}`` and ``{objects}``.
        count: How many.
        noun: What the model calls them: 'object' or 'region'.
    """
    objects = ', '.join(f'<{noun}{place}>{REGION_MARK}' for place in range(count))
    word = NUMBER_WORDS[count] if count < len(NUMBER_WORDS) else str(count)
    template = one if count == 1 else many
    return template.replace('{count}', word).replace('{objects}', objects)
