# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take regions and queries from topics, and serve the region services."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import String

from pixelrefer_ros import msg as ros
from pixelrefer_ros import srv
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.engine.texts import query_from_text
from pixelrefer_ros.node import detections, qos
from pixelrefer_ros.node.conversions import (
    query_from_msg,
    refusal,
    region_to_msg,
    regions_from_msg,
    roi_to_region,
)
from pixelrefer_ros.node.images import stamp_to_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node
    from rclpy.qos import QoSProfile

    from pixelrefer_ros.core.types import Answer, Region
    from pixelrefer_ros.engine import Engine


class Ids:
    """Make ids for queries that come without one."""

    def __init__(self) -> None:
        """Start at 1."""
        self._numbers = count(1)

    def __call__(self) -> str:
        """Return 'query-1', 'query-2', ..."""
        return f'query-{next(self._numbers)}'


def take_regions(
    engine: Engine, candidates: Sequence[Region | PixelReferError]
) -> list[PixelReferError | None]:
    """Give regions to the engine; return one outcome per candidate, in order."""
    given = [item for item in candidates if not isinstance(item, PixelReferError)]
    outcomes = iter(engine.add_regions(given) if given else [])
    return [
        item if isinstance(item, PixelReferError) else next(outcomes) for item in candidates
    ]


class RequestTopics:
    """Subscribe to regions and queries until closed.

    One callback group holds them all, so that a query is not handled before the regions that
    were sent ahead of it.
    """

    def __init__(
        self,
        node: Node,
        engine: Engine,
        next_id: Callable[[], str],
        *,
        cameras: Sequence[str],
        on_answer: Callable[[Answer], None],
        on_regions: Callable[[], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """Subscribe.

        Args:
            node: The node to subscribe with.
            engine: Gets the regions and queries.
            next_id: Makes ids for queries that have none.
            cameras: Names of the cameras.
            on_answer: Gets the answers to queries that cannot be read.
            on_regions: Called when regions came.
            on_refused: Called with the reason when a region is refused.
        """
        self._node = node
        self._engine = engine
        self._next_id = next_id
        self._cameras = cameras
        self._on_answer = on_answer
        self._on_regions = on_regions
        self._on_refused = on_refused
        self.mismatch = ''
        group = MutuallyExclusiveCallbackGroup()
        topics: list[tuple[type, str, Callable[[Any], None], QoSProfile]] = [
            (ros.RegionArray, '~/regions', self._regions, qos.request_input()),
            (RegionOfInterest, '~/roi', self._roi, qos.request_input()),
            (ros.Query, '~/query', self._query, qos.request_input()),
            (String, '~/query_text', self._query_text, qos.request_input()),
        ]
        array = detections.array_type()
        if array is not None:
            topics.append((array, '~/detections', self._detections, qos.detection_input()))
        self._subscriptions = [
            qos.subscribe(
                node,
                kind,
                topic,
                self._guarded(callback),
                profile,
                group,
                on_mismatch=self._mismatched,
            )
            for kind, topic, callback, profile in topics
        ]

    def close(self) -> None:
        """Stop receiving."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _guarded(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return the callback with everything it raises logged: it must not end the node."""

        def guarded(message: Any) -> None:
            try:
                callback(message)
            except PixelReferError as error:
                self._on_refused(str(error))
            except Exception as error:
                self._on_refused(f'a {type(message).__name__} was dropped ({error!r})')

        return guarded

    def _mismatched(self, explanation: str) -> None:
        self.mismatch = explanation
        self._node.get_logger().warning(explanation)

    def _add(self, candidates: Sequence[Region | PixelReferError]) -> None:
        outcomes = take_regions(self._engine, candidates)
        for error in outcomes:
            if error is not None:
                self._on_refused(str(error))
        if None in outcomes:
            self._on_regions()

    def _regions(self, message: ros.RegionArray) -> None:
        self._add(regions_from_msg(message.regions, stamp_to_ns(message.header.stamp)))

    def _roi(self, message: RegionOfInterest) -> None:
        self._add([roi_to_region(message)])

    def _detections(self, message: Any) -> None:
        camera = self._camera_of(message.header.frame_id)
        self._add(detections.detections_to_regions(message, camera))

    def _camera_of(self, frame_id: str) -> str:
        """Return the camera whose images have this TF frame; an only camera is always meant.

        Raises:
            PixelReferError: UNKNOWN_CAMERA.
        """
        if len(self._cameras) == 1:
            return self._cameras[0]
        for camera in self._cameras:
            frame = self._engine.snapshot(camera)
            if frame is not None and frame.frame_id == frame_id:
                return camera
        raise PixelReferError(
            ErrorCode.UNKNOWN_CAMERA,
            f'detections with frame_id {frame_id!r} were dropped: no camera sends images with it; '
            'let the detector copy the header of the image',
        )

    def _query(self, message: ros.Query) -> None:
        query_id = message.query_id or self._next_id()
        try:
            query = query_from_msg(message, query_id)
        except PixelReferError as error:
            self._on_answer(refusal(message, query_id, error.code, str(error)))
            return
        self._engine.submit(query)

    def _query_text(self, message: String) -> None:
        self._engine.submit(query_from_text(self._next_id(), message.data))


class RegionServices:
    """Serve the region services as long as the node lives; inactive they say NOT_ACTIVE."""

    def __init__(
        self, node: Node, engine: Callable[[], Engine], on_regions: Callable[[], None]
    ) -> None:
        """Start serving.

        Args:
            node: The node.
            engine: Returns the engine; raises PixelReferError NOT_ACTIVE when there is none.
            on_regions: Called when regions came.
        """
        self._engine = engine
        self._on_regions = on_regions
        self._log = node.get_logger()
        group = MutuallyExclusiveCallbackGroup()
        services: list[tuple[type, str, Callable[[Any, Any], Any]]] = [
            (srv.AddRegions, '~/add_regions', self._add),
            (srv.RemoveRegions, '~/remove_regions', self._remove),
            (srv.ListRegions, '~/list_regions', self._list),
            (srv.Reset, '~/reset', self._reset),
        ]
        for kind, name, handler in services:
            node.create_service(kind, name, self._guarded(handler), callback_group=group)

    def _guarded(self, handler: Callable[[Any, Any], None]) -> Callable[[Any, Any], Any]:
        """Return the handler with what it raises turned into the response's error."""

        def guarded(request: Any, response: Any) -> Any:
            try:
                handler(request, response)
            except PixelReferError as error:
                _fail(request, response, error)
            except Exception as error:  # a callback must not end the node
                self._log.error(f'{type(request).__name__}: {error!r}')
                _fail(request, response, PixelReferError(ErrorCode.MODEL_ERROR, repr(error)))
            return response

        return guarded

    def _add(self, request: Any, response: Any) -> None:
        outcomes = take_regions(self._engine(), regions_from_msg(request.regions))
        response.error_codes = [int(error.code) if error else 0 for error in outcomes]
        response.error_msgs = [str(error or '') for error in outcomes]
        if None in outcomes:
            self._on_regions()

    def _remove(self, request: Any, response: Any) -> None:
        response.removed_ids = self._engine().remove_regions(
            list(request.region_ids), request.camera or None
        )
        unknown = [name for name in request.region_ids if name not in response.removed_ids]
        if unknown:
            raise PixelReferError(
                ErrorCode.UNKNOWN_REGION,
                f'not known: {", ".join(unknown)}; ~/list_regions lists those that are',
            )

    def _list(self, request: Any, response: Any) -> None:
        regions = self._engine().list_regions(request.camera or None)
        response.regions = [region_to_msg(region) for region in regions]

    def _reset(self, request: Any, response: Any) -> None:
        self._engine().reset(request.camera or None, message='~/reset was called')


def _fail(request: Any, response: Any, error: PixelReferError) -> None:
    if hasattr(response, 'error_codes'):  # AddRegions answers for each region
        response.error_codes = [int(error.code)] * len(request.regions)
        response.error_msgs = [str(error)] * len(request.regions)
    else:
        response.error_code = int(error.code)
        response.error_msg = str(error)
