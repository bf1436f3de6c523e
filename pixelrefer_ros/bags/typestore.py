# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Know the message types of ROS 2 Jazzy and our own, without ROS.

Our own are read from the .msg files: those of the source tree when the package runs from one,
else those installed in ``share/pixelrefer_ros/msg``.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore

import pixelrefer_ros
from pixelrefer_ros.bags.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rosbags.typesys.store import Typestore

PACKAGE = 'pixelrefer_ros'

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
REGION_OF_INTEREST = 'sensor_msgs/msg/RegionOfInterest'
STRING = 'std_msgs/msg/String'
REGION_ARRAY = f'{PACKAGE}/msg/RegionArray'
QUERY = f'{PACKAGE}/msg/Query'
DESCRIPTION = f'{PACKAGE}/msg/Description'
ANSWER = f'{PACKAGE}/msg/Answer'
TRACK_ARRAY = f'{PACKAGE}/msg/TrackArray'


def message_dir() -> Path:
    """Return the folder of our .msg files.

    Raises:
        FileError: There is none; the package is not installed whole.
    """
    searched = list(dict.fromkeys(_candidates()))
    for folder in searched:
        if (folder / 'RegionArray.msg').is_file():
            return folder
    raise FileError(
        'the message definitions of pixelrefer_ros are not installed; reinstall the package '
        f'(looked in {", ".join(map(str, searched))})'
    )


def _candidates() -> Iterator[Path]:
    package = Path(pixelrefer_ros.__file__).parent
    if (package.parent / 'package.xml').is_file():
        yield package.parent / 'msg'
    share = Path('share', PACKAGE, 'msg')
    yield package.parent / share  # pip install --target
    if len(package.parents) > 3:
        yield package.parents[3] / share  # <prefix>/lib/pythonX.Y/site-packages/pixelrefer_ros
    yield Path(sys.prefix) / share
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if prefix:
            yield Path(prefix) / share


@functools.cache
def typestore() -> Typestore:
    """Return the types of Jazzy and our own; made once.

    Raises:
        FileError: As ``message_dir``.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for path in sorted(message_dir().glob('*.msg')):
        text = path.read_text(encoding='utf-8')
        types.update(get_types_from_msg(text, f'{PACKAGE}/msg/{path.stem}'))
    store.register(types)
    return store


def message(name: str, **fields: Any) -> Any:
    """Make a message.

    Args:
        name: Type name such as 'std_msgs/msg/Header'.
        **fields: Every field of the type.
    """
    return typestore().types[name](**fields)
