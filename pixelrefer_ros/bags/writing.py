# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Write rosbag2 files; the same messages give the same bytes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.rosbag2 import StoragePlugin, Writer

from pixelrefer_ros.bags import to_messages
from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.typestore import ANSWER, DESCRIPTION, TRACK_ARRAY, typestore

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from rosbags.interfaces import Connection

    from pixelrefer_ros.core.types import Answer, Description, Frame, Track

DESCRIPTIONS_TOPIC = '/pixelrefer/descriptions'
ANSWERS_TOPIC = '/pixelrefer/answers'
TRACKS_TOPIC = '/pixelrefer/tracks'

_STORAGE = {'.mcap': StoragePlugin.MCAP, '.db3': StoragePlugin.SQLITE3}


class BagWriter:
    """Write a bag; use it in a ``with`` statement.

    Nothing is at ``path`` before the end, and nothing is left there after an error.
    """

    def __init__(
        self, path: Path | str, *, storage: str = 'mcap', overwrite: bool = False
    ) -> None:
        """Say where.

        Args:
            path: With the suffix .mcap or .db3 one file, else a rosbag2 directory.
            storage: 'mcap' or 'sqlite3', for a directory.
            overwrite: Replace what is there.

        Raises:
            FileError: Something is there already, or the storage is unknown.
        """
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise FileError(f'{self.path} exists already; remove it or choose another name')
        plugin = _STORAGE.get(self.path.suffix)
        if plugin is None:
            try:
                plugin = StoragePlugin[storage.upper()]
            except KeyError:
                raise FileError(f"storage {storage!r} is neither 'mcap' nor 'sqlite3'") from None
        self._plugin = plugin
        self._connections: dict[str, Connection] = {}
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        """Begin to write."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = tempfile.TemporaryDirectory(prefix='.bag-', dir=self.path.parent)
        self._written = Path(self._scratch.name) / self._name
        self._writer = Writer(self._written, version=9, storage_plugin=self._plugin)
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the bag and put it in its place; after an error leave nothing."""
        if self._scratch is None:
            return
        with self._scratch:
            if kind is not None:
                self._writer.abort()
                return
            self._writer.close()
            source = self._written
            if self.path.suffix in _STORAGE:
                source = source / f'{self._name}{self.path.suffix}'
            if self.path.is_dir():
                shutil.rmtree(self.path)
            elif self.path.exists():
                self.path.unlink()
            source.rename(self.path)

    @property
    def _name(self) -> str:
        return self.path.stem if self.path.suffix in _STORAGE else self.path.name

    def add_topic(self, topic: str, msgtype: str) -> None:
        """Make a topic appear in the bag even when no message comes."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=typestore()
            )

    def write(self, topic: str, msg: Any, log_time_ns: int) -> None:
        """Write a message made by ``to_messages`` or ``typestore.message``."""
        msgtype = msg.__msgtype__
        data = typestore().serialize_cdr(msg, msgtype)
        self.write_raw(topic, msgtype, bytes(data), log_time_ns)

    def write_raw(self, topic: str, msgtype: str, data: bytes, log_time_ns: int) -> None:
        """Write a serialized message of a type of Jazzy or our own."""
        self.add_topic(topic, msgtype)
        self._writer.write(self._connections[topic], log_time_ns, data)

    def add_output_topics(self, *, tracks: bool = False) -> None:
        """Make the topics of descriptions, answers and perhaps tracks appear, in this order."""
        self.add_topic(DESCRIPTIONS_TOPIC, DESCRIPTION)
        self.add_topic(ANSWERS_TOPIC, ANSWER)
        if tracks:
            self.add_topic(TRACKS_TOPIC, TRACK_ARRAY)

    def description(self, description: Description, log_time_ns: int) -> None:
        """Write a description."""
        self.write(DESCRIPTIONS_TOPIC, to_messages.description_to(description), log_time_ns)

    def answer(self, answer: Answer, log_time_ns: int) -> None:
        """Write an answer."""
        self.write(ANSWERS_TOPIC, to_messages.answer_to(answer), log_time_ns)

    def tracks(self, frame: Frame, tracks: Iterable[Track], log_time_ns: int) -> None:
        """Write where the regions of a camera are in a frame."""
        self.write(TRACKS_TOPIC, to_messages.tracks_to(frame, tracks), log_time_ns)
