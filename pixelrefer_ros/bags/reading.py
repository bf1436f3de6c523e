# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read any rosbag2 (sqlite3 or MCAP, compressed or not) as core types, in log-time order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.rosbag2 import Reader

from pixelrefer_ros.bags import from_messages
from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.topics import INPUTS, Role, Topic, assign_roles
from pixelrefer_ros.bags.typestore import PACKAGE, typestore
from pixelrefer_ros.core.types import (
    Answer,
    Description,
    ErrorCode,
    Frame,
    PixelReferError,
    Query,
    Region,
    Track,
)
from pixelrefer_ros.engine.texts import query_from_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from rosbags.interfaces import Connection


@dataclass(frozen=True, slots=True)
class Refusal:
    """Hold a query that cannot be served as it is; the node answers it with its error.

    Attributes:
        query: Only what an answer echoes: id, camera and stamp.
        frame_id: TF frame of the header.
        code: What is wrong.
        message: What is wrong, in words.
    """

    query: Query
    frame_id: str
    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class Tracks:
    """Hold where the regions of a camera were at one image."""

    camera: str
    stamp_ns: int
    tracks: tuple[Track, ...]


Value = Frame | tuple[Region, ...] | Query | Refusal | Description | Answer | Tracks


@dataclass(frozen=True, slots=True)
class Event:
    """Hold one message as what it means.

    Attributes:
        log_time_ns: When it was recorded.
        topic: Topic name.
        value: Frame, tuple of Region, Query, Refusal, Description, Answer or Tracks.
    """

    log_time_ns: int
    topic: str
    value: Value


def storage_path(path: Path) -> Path:
    """Return what to open: for a directory without metadata, the one file in it.

    Raises:
        FileError: The path is no rosbag2.
    """
    if not path.exists():
        raise FileError(f'no bag at {path}; give a rosbag2 directory, a .mcap or a .db3 file')
    if path.suffix == '.bag' and path.is_file():
        raise FileError(
            f'{path} is a ROS 1 bag; convert it with '
            f'`rosbags-convert --src {path} --dst {path.with_suffix("")}`'
        )
    if path.is_dir() and not (path / 'metadata.yaml').is_file():
        files = sorted([*path.glob('*.mcap'), *path.glob('*.db3')])
        if len(files) != 1:
            raise FileError(
                f'{path} has no metadata.yaml and {len(files)} bag files: rebuild it with '
                f'`ros2 bag reindex {path}`, or name one of the files'
            )
        return files[0]
    if path.is_file() and path.suffix not in ('.mcap', '.db3'):
        raise FileError(f'{path} is no bag; give a rosbag2 directory, a .mcap or a .db3 file')
    return path


class Bag:
    """Open a rosbag2 for reading; use it in a ``with`` statement.

    Attributes:
        path: What was opened.
        topics: All topics with their roles, sorted by name.
        cameras: Names of the cameras with images, sorted.
        start_ns: Log time of the first message, 0 when there is none.
        end_ns: Log time of the last message, 0 when there is none.
    """

    def __init__(self, path: Path | str, roles: Mapping[str, str] | None = None) -> None:
        """Open a bag.

        Args:
            path: A rosbag2 directory, or a .mcap or .db3 file.
            roles: What to take topics for; see ``topics.assign_roles``.

        Raises:
            FileError: It is missing, broken, or recorded with other versions of our messages.
        """
        self.path = Path(path)
        file = storage_path(self.path)
        try:
            self._reader = Reader(file)
            self._reader.open()
        except Exception as error:  # a broken file breaks the parser in any of its many places
            raise FileError(
                f'{self.path} cannot be read as a bag ({_words(error)}); if the recording was '
                'cut off, repair it with `ros2 bag reindex` or `mcap recover`'
            ) from error
        try:
            self.topics = assign_roles(
                (Topic(c.topic, c.msgtype, c.msgcount) for c in self._reader.connections), roles
            )
            self._check_versions()
        except PixelReferError:
            self.close()
            raise
        self._roles = {topic.name: topic for topic in self.topics}
        self.cameras = tuple(sorted(t.camera for t in self.topics if t.role is Role.IMAGE))
        empty = not self._reader.message_count
        self.start_ns = 0 if empty else self._reader.start_time
        self.end_ns = 0 if empty else self._reader.end_time - 1

    def __enter__(self) -> Self:
        """Return the bag, which is open already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bag."""
        self.close()

    def close(self) -> None:
        """Close the bag; a second call does nothing."""
        if self._reader.is_open:
            self._reader.close()

    def count(self, *roles: Role) -> int:
        """Return how many messages the topics with these roles hold."""
        return sum(topic.count for topic in self.topics if topic.role in roles)

    def require_images(self) -> None:
        """Check that there is something to look at.

        Raises:
            FileError: No topic holds images; the topics that there are, are named.
        """
        if self.count(Role.IMAGE):
            return
        found = ', '.join(f'{t.name} ({t.msgtype}, {t.count})' for t in self.topics) or 'none'
        raise FileError(
            f'{self.path} has no images; its topics: {found}. Record a sensor_msgs/Image or '
            'CompressedImage topic, or name one with --topic NAME=image'
        )

    def raw(self, roles: Collection[Role]) -> Iterator[tuple[Topic, Connection, int, bytes]]:
        """Iterate over serialized messages in log-time order.

        Args:
            roles: Of the topics wanted.

        Yields:
            Topic, connection, log time in nanoseconds, CDR bytes.

        Raises:
            FileError: The file is broken from here on.
        """
        wanted = [c for c in self._reader.connections if self._roles[c.topic].role in roles]
        if not wanted:
            return
        messages = self._reader.messages(wanted)
        while True:
            try:
                connection, log_time_ns, data = next(messages)
            except StopIteration:
                return
            except Exception as error:  # as in __init__
                raise FileError(
                    f'{self.path} is broken ({_words(error)}); repair it with '
                    '`ros2 bag reindex` or `mcap recover`'
                ) from error
            yield self._roles[connection.topic], connection, log_time_ns, bytes(data)

    def events(
        self,
        roles: Collection[Role] = INPUTS,
        on_problem: Callable[[str, str], None] | None = None,
        *,
        decode: bool = True,
    ) -> Iterator[Event]:
        """Iterate over messages as core types, in log-time order.

        A query without an id is called after its topic and its place there, such as
        'query_text-3'. One that is not whole comes as a Refusal, because it needs an answer too.

        Args:
            roles: Of the topics wanted; ``topics.INPUTS``, ``topics.OUTPUTS``, or any of theirs.
            on_problem: Called with (topic, text) for a message or region that cannot be used;
                it is left out.
            decode: False leaves images as (0, 0, 3), where only their stamps are wanted.

        Raises:
            FileError: The file is broken from here on.
        """
        tell = on_problem or (lambda topic, text: None)
        counts: dict[str, int] = {}
        for topic, connection, log_time_ns, data in self.raw(roles):
            index = counts[topic.name] = counts.get(topic.name, 0) + 1
            query_id = f'{topic.name.rsplit("/", 1)[-1]}-{index}'
            try:
                msg = _deserialize(data, connection.msgtype)
                value, problems = _value(topic, msg, log_time_ns, query_id, decode)
            except (PixelReferError, ValueError) as error:
                tell(topic.name, f'message {index}: {error}')
                continue
            for problem in problems:
                tell(topic.name, problem)
            yield Event(log_time_ns, topic.name, value)

    def _check_versions(self) -> None:
        for connection in self._reader.connections:
            kind = connection.msgtype
            if not kind.startswith(f'{PACKAGE}/msg/') or not connection.digest:
                continue
            if kind not in typestore().types or typestore().hash_rihs01(kind) != connection.digest:
                raise FileError(
                    f'{connection.topic} holds a {kind} of another version of {PACKAGE}; read '
                    'the bag with the version that recorded it, or leave the topic out'
                )


def _deserialize(data: bytes, msgtype: str) -> Any:
    try:
        return typestore().deserialize_cdr(data, msgtype)
    except Exception as error:  # bytes that are no such message break the parser anywhere
        raise ValueError(f'its data are no {msgtype} ({_words(error)})') from error


def _value(
    topic: Topic, msg: Any, log_time_ns: int, query_id: str, decode: bool
) -> tuple[Value, list[str]]:
    """Return what a message means, and what is wrong with parts of it."""
    role = topic.role
    if role is Role.IMAGE:
        return from_messages.frame_from(msg, topic.camera, log_time_ns, decode=decode), []
    if role is Role.REGIONS:
        regions, problems = from_messages.regions_from(msg)
        return tuple(regions), list(map(str, problems))
    if role is Role.ROI:
        return (from_messages.roi_from(msg),), []
    if role is Role.QUERY:
        return _query(msg, query_id), []
    if role is Role.QUERY_TEXT:
        return query_from_text(query_id, msg.data), []
    if role is Role.DESCRIPTION:
        return from_messages.description_from(msg), []
    if role is Role.TRACKS:
        stamp_ns = from_messages.stamp_ns(msg.header.stamp)
        return Tracks(msg.camera, stamp_ns, from_messages.tracks_from(msg)), []
    return from_messages.answer_from(msg), []


def _query(msg: Any, query_id: str) -> Query | Refusal:
    """Return a query, or why it cannot be one."""
    try:
        return from_messages.query_from(msg, query_id)
    except (PixelReferError, ValueError) as error:
        code = error.code if isinstance(error, PixelReferError) else ErrorCode.BAD_REQUEST
        echo = Query(
            msg.query_id or query_id,
            stamp_ns=from_messages.stamp_ns(msg.header.stamp),
            camera=msg.camera,
        )
        return Refusal(echo, msg.header.frame_id, code, _words(error))


def _words(error: BaseException) -> str:
    """Return an error as one line; some have no text."""
    return ' '.join(str(error).split()) or type(error).__name__
