# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say what each topic of a bag is for, from its type and name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.typestore import (
    ANSWER,
    COMPRESSED_IMAGE,
    DESCRIPTION,
    IMAGE,
    QUERY,
    REGION_ARRAY,
    REGION_OF_INTEREST,
    STRING,
    TRACK_ARRAY,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Role(Enum):
    """Say what a topic is for; the values are the words of ``--topic NAME=ROLE``."""

    IMAGE = 'image'
    REGIONS = 'regions'
    ROI = 'roi'
    QUERY = 'query'
    QUERY_TEXT = 'text'
    DESCRIPTION = 'descriptions'
    ANSWER = 'answers'
    TRACKS = 'tracks'
    IGNORE = 'ignore'


INPUTS = frozenset({Role.IMAGE, Role.REGIONS, Role.ROI, Role.QUERY, Role.QUERY_TEXT})
OUTPUTS = frozenset({Role.DESCRIPTION, Role.ANSWER, Role.TRACKS})

TYPES = {
    Role.IMAGE: (IMAGE, COMPRESSED_IMAGE),
    Role.REGIONS: (REGION_ARRAY,),
    Role.ROI: (REGION_OF_INTEREST,),
    Role.QUERY: (QUERY,),
    Role.QUERY_TEXT: (STRING,),
    Role.DESCRIPTION: (DESCRIPTION,),
    Role.ANSWER: (ANSWER,),
    Role.TRACKS: (TRACK_ARRAY,),
}

# Pictures, but none a person would call one: measurements, and what the node itself draws.
_NOT_A_CAMERA = ('depth', 'disparity', 'label_image', 'image_annotated')


@dataclass(frozen=True, slots=True)
class Topic:
    """Hold what is known of a topic.

    Attributes:
        name: As recorded.
        msgtype: Such as 'sensor_msgs/msg/Image'.
        count: Messages.
        role: What it is taken for.
        camera: Camera name when it holds images; '' for the only camera.
        note: Why it is not used, when that is not plain from the type.
    """

    name: str
    msgtype: str
    count: int
    role: Role = Role.IGNORE
    camera: str = ''
    note: str = ''


def camera_of(topic: str) -> str:
    """Return the camera an image topic belongs to.

    A trailing '/compressed' and then a last part that begins with 'image' are dropped:
    '/image' gives '', '/front/image_raw' and '/front/image/compressed' give 'front'.
    """
    parts = [part for part in topic.split('/') if part]
    if parts and parts[-1] == 'compressed':
        parts.pop()
    if parts and parts[-1].startswith('image'):
        parts.pop()
    return '/'.join(parts)


def assign_roles(
    topics: Iterable[Topic], overrides: Mapping[str, str] | None = None
) -> tuple[Topic, ...]:
    """Give every topic its role, sorted by name.

    Types decide; a String counts as a question when the name ends in 'query_text'. Of several
    topics with images of one camera the one with most messages is used.

    Args:
        topics: Topics without a role.
        overrides: By topic name: a value of ``Role``, for images also 'image:CAMERA'.

    Raises:
        FileError: An override names no topic, no role, or a role its type cannot have.
    """
    by_name = {topic.name: topic for topic in sorted(topics, key=lambda topic: topic.name)}
    found = {name: _role(topic) for name, topic in by_name.items()}
    for name, word in (overrides or {}).items():
        if name not in by_name:
            raise FileError(f'no topic {name} in the bag; it has {", ".join(by_name) or "none"}')
        found[name] = _override(by_name[name], word)
    best: dict[str, Topic] = {}
    for topic in found.values():
        if topic.role is Role.IMAGE:
            rival = best.get(topic.camera)
            if rival is None or _rank(topic) > _rank(rival):
                best[topic.camera] = topic
    for name, topic in found.items():
        if topic.role is Role.IMAGE and best[topic.camera] is not topic:
            used = best[topic.camera].name
            note = f'{used} has the images of this camera'
            found[name] = replace(topic, role=Role.IGNORE, note=note)
    return tuple(found.values())


def _rank(topic: Topic) -> tuple[int, bool]:
    return topic.count, topic.msgtype == IMAGE


def _role(topic: Topic) -> Topic:
    if topic.msgtype in TYPES[Role.IMAGE]:
        if any(word in topic.name for word in _NOT_A_CAMERA):
            return replace(topic, note='no camera picture, by its name')
        return replace(topic, role=Role.IMAGE, camera=camera_of(topic.name))
    if topic.msgtype == STRING and not topic.name.endswith('query_text'):
        return replace(topic, note='no question, by its name; see --topic NAME=text')
    for role, msgtypes in TYPES.items():
        if topic.msgtype in msgtypes:
            return replace(topic, role=role)
    return topic


def _override(topic: Topic, word: str) -> Topic:
    name, _, camera = word.partition(':')
    try:
        role = Role(name)
    except ValueError:
        known = ', '.join(role.value for role in Role)
        raise FileError(
            f'{topic.name}={word}: the role must be one of {known}, or image:CAMERA'
        ) from None
    if role is not Role.IGNORE and topic.msgtype not in TYPES[role]:
        raise FileError(
            f'{topic.name}={word}: the topic holds {topic.msgtype}, the role needs '
            f'{" or ".join(TYPES[role])}'
        )
    if role is not Role.IMAGE:
        return replace(topic, role=role)
    return replace(topic, role=role, camera=camera if ':' in word else camera_of(topic.name))
