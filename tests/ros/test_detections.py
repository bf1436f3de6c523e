# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check detections in and tracks out as vision_msgs, with the package and without it.

vision_msgs is not on PyPI. Where it is missing, the conversions are checked on stand-ins that
have the fields of its message definitions, and what needs the messages themselves is skipped.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from std_msgs.msg import Header

from pixelrefer_ros import msg as ros
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Box, PixelReferError, RegionKind, Track, TrackState
from pixelrefer_ros.node import detections
from pixelrefer_ros.node.conversions import ns_to_stamp
from pixelrefer_ros.node.images import stamp_to_ns
from tests.ros.rig import image_msg, ns, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ros.rig import Bench


def plain(**fields: Any) -> Any:
    """Return a class whose objects get these fields, made anew, and then those given."""

    def make(**given: Any) -> SimpleNamespace:
        return SimpleNamespace(**{name: kind() for name, kind in fields.items()} | given)

    return make


_hypothesis = plain(class_id=str, score=float)
_point = plain(x=float, y=float)
_pose = plain(position=_point, theta=float)
STAND_INS = SimpleNamespace(
    Detection2DArray=plain(header=Header, detections=list),
    Detection2D=plain(
        header=Header, results=list, bbox=plain(center=_pose, size_x=float, size_y=float), id=str
    ),
    ObjectHypothesisWithPose=plain(hypothesis=_hypothesis, pose=SimpleNamespace),
)


@pytest.fixture(params=['vision_msgs', 'stand-ins'])
def vision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the messages, as the module under test sees them."""
    if request.param == 'vision_msgs':
        return pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not installed')
    monkeypatch.setattr(detections, 'vision', STAND_INS)
    return STAND_INS


def detection(
    vision: Any,
    region_id: str = '7',
    box: tuple[float, float, float, float] = (20.0, 30.0, 10.0, 8.0),
    classes: tuple[tuple[str, float], ...] = (('cup', 0.4), ('mug', 0.6)),
    theta: float = 0.0,
) -> Any:
    """Return a detection; the box is centre x, y, size x, y."""
    one = vision.Detection2D(id=region_id)
    one.bbox.center.position.x, one.bbox.center.position.y, one.bbox.size_x, one.bbox.size_y = box
    one.bbox.center.theta = theta
    for class_id, score in classes:
        result = vision.ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = class_id, score
        one.results.append(result)
    return one


def array(vision: Any, *found: Any, stamp_ns: int = ns(2), frame_id: str = 'optical') -> Any:
    message = vision.Detection2DArray(detections=list(found))
    message.header.stamp, message.header.frame_id = ns_to_stamp(stamp_ns), frame_id
    return message


def test_detections_become_regions(vision: Any) -> None:
    message = array(vision, detection(vision), detection(vision, 'x', classes=()))
    first, second = detections.detections_to_regions(message, 'front')
    assert not isinstance(first, PixelReferError)
    assert not isinstance(second, PixelReferError)
    assert (first.region_id, first.kind, first.camera) == ('7', RegionKind.BOX, 'front')
    assert (first.stamp_ns, first.label) == (ns(2), 'mug')  # the likelier class
    assert first.box == Box(15, 26, 10, 8)
    assert second.label == ''


def test_the_stamp_of_the_detection_stands_in_for_that_of_the_array(vision: Any) -> None:
    one = detection(vision)
    one.header.stamp = ns_to_stamp(ns(3))
    (region,) = detections.detections_to_regions(array(vision, one, stamp_ns=0), '')
    assert region.stamp_ns == ns(3)


def test_a_turned_box_becomes_the_upright_one_around_it(vision: Any) -> None:
    quarter = detection(vision, theta=math.pi / 2)
    eighth = detection(vision, box=(50.0, 50.0, 20.0, 20.0), theta=math.pi / 4)
    first, second = detections.detections_to_regions(array(vision, quarter, eighth), '')
    assert first.box == Box(16, 25, 8, 10)
    assert second.box == Box(36, 36, 28, 28)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'region_id': ''}, 'let the detector track'),
        ({'box': (20.0, 30.0, 0.0, 8.0)}, 'size above 0'),
        ({'box': (20.0, 30.0, 10.0, -8.0)}, 'size above 0'),
        ({'box': (math.nan, 30.0, 10.0, 8.0)}, 'finite'),
        ({'box': (20.0, 30.0, math.inf, 8.0)}, 'finite'),
        ({'theta': math.nan}, 'finite'),
    ],
)
def test_bad_detections_are_refused_and_the_others_taken(
    vision: Any, changes: dict[str, Any], words: str
) -> None:
    message = array(vision, detection(vision, **changes), detection(vision))
    refused, taken = detections.detections_to_regions(message, '')
    assert isinstance(refused, PixelReferError)
    assert words in str(refused)
    assert not isinstance(taken, PixelReferError)


def track(region_id: str, state: TrackState, box: Box | None, score: float = 0.5) -> Track:
    mask = None if box is None else masks.encode_box(box, 48, 64)
    return Track(region_id, '', ns(1), state, score, box, mask, ns(1), 'cup')


def test_tracks_in_sight_become_detections(vision: Any) -> None:
    tracks = [
        track('a', TrackState.TRACKED, Box(3, 4, 11, 6), 0.75),
        track('b', TrackState.LOST, None),
        track('c', TrackState.OCCLUDED, Box(0, 0, 2, 2)),
        track('d', TrackState.OCCLUDED, None),
    ]
    message = detections.tracks_to_detections(tracks, ns(1), 'optical')
    assert (stamp_to_ns(message.header.stamp), message.header.frame_id) == (ns(1), 'optical')
    assert [one.id for one in message.detections] == ['a', 'c']
    first = message.detections[0]
    assert stamp_to_ns(first.header.stamp) == ns(1)
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (8.5, 7.0)
    assert (first.bbox.size_x, first.bbox.size_y) == (11.0, 6.0)
    (result,) = first.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ('cup', 0.75)
    # what goes out comes in as the same box
    back, _ = detections.detections_to_regions(message, '')
    assert (back.region_id, back.box, back.label) == ('a', Box(3, 4, 11, 6), 'cup')


@pytest.mark.ros
@pytest.mark.skipif(detections.vision is not None, reason='vision_msgs is installed')
def test_without_vision_msgs_the_topics_are_missing(bench: Callable[..., Bench]) -> None:
    one = bench()
    topics = {name for name, _ in one.node.get_topic_names_and_types()}
    assert '/pixelrefer/tracks' in topics
    assert not {'/pixelrefer/detections', '/pixelrefer/detections_tracked'} & topics


@pytest.mark.ros
def test_a_detectors_stream_is_followed(bench: Callable[..., Bench]) -> None:
    vision = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not installed')
    one = bench(parameters={'tracking.backend': 'anchored'})
    tracked = one.client.listen('pixelrefer/detections_tracked', vision.Detection2DArray)
    one.send_frames([ns(1)])
    found = [detection(vision, 'cup', (16.0, 16.0, 16.0, 16.0)), detection(vision, '')]
    one.client.publish('pixelrefer/detections', array(vision, *found, stamp_ns=ns(1)))
    engine = one.node._session.engine
    wait_for(lambda: engine.list_regions(), 'the region')
    assert [region.region_id for region in engine.list_regions()] == ['cup']
    assert 'let the detector track' in one.node._session.problems()[1]
    one.send_frames([ns(1.1), ns(1.2)])
    wait_for(lambda: any(message.detections for message in tracked), 'a tracked detection')
    seen = next(message for message in tracked if message.detections).detections[0]
    assert (seen.id, seen.results[0].hypothesis.class_id) == ('cup', 'mug')
    assert abs(seen.bbox.center.position.x - 16) <= 4
    one.assert_alive()


@pytest.mark.ros
def test_detections_belong_to_the_camera_with_their_frame(bench: Callable[..., Bench]) -> None:
    vision = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not installed')
    one = bench(parameters={'cameras': ['front', 'left'], 'tracking.backend': 'none'})
    one.send_image(image_msg(ns(1), frame_id='front_optical'), 'front/image')
    one.send_image(image_msg(ns(1), frame_id='left_optical'), 'left/image')
    one.wait_for_frame(ns(1), 'left')
    for frame_id in ('attic_optical', 'left_optical'):
        message = array(vision, detection(vision), stamp_ns=ns(1), frame_id=frame_id)
        one.client.publish('pixelrefer/detections', message)
    engine = one.node._session.engine
    wait_for(lambda: engine.list_regions(), 'the region')
    assert [region.camera for region in engine.list_regions()] == ['left']
    assert 'attic_optical' in one.node._session.problems()[1]


def test_states_are_those_of_the_message() -> None:
    assert {state.name: int(state) for state in TrackState} == {
        name.removeprefix('STATE_'): getattr(ros.Track, name)
        for name in ('STATE_NEW', 'STATE_TRACKED', 'STATE_OCCLUDED', 'STATE_LOST',
                     'STATE_REACQUIRED')
    }  # fmt: skip
