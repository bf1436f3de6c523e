# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that messages and core types turn into each other and back, and what is refused."""

from __future__ import annotations

import struct
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point32
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import RegionOfInterest

from pixelrefer_ros import msg as ros
from pixelrefer_ros.core import types
from pixelrefer_ros.core.types import ErrorCode, PixelReferError, RegionKind, Task, TrackState
from pixelrefer_ros.node import conversions, results
from pixelrefer_ros.node.images import stamp_to_ns


def as_float32(value: float) -> float:
    return float(struct.unpack('f', struct.pack('f', value))[0])


# Bags hold what is serialized, so round trips go through bytes.
def sent(message: Any) -> Any:
    return deserialize_message(serialize_message(message), type(message))


names = st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=12)
stamps_ns = st.integers(0, (1 << 31) * 1_000_000_000 - 1)
pixels = st.integers(0, (1 << 32) - 1)
sizes = st.integers(1, (1 << 32) - 1)
units = st.floats(0, 1, width=32)
# milliseconds are exact in nanoseconds, and so in both directions
durations_s = st.integers(0, 10_000_000).map(lambda ms: ms / 1000)
boxes = st.builds(types.Box, pixels, pixels, sizes, sizes)
counts = st.integers(0, 1 << 20)


@st.composite
def masks(draw: st.DrawFn) -> types.Mask:
    height, width = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    cuts = sorted(draw(st.lists(st.integers(0, height * width), max_size=5)))
    edges = [0, *cuts, height * width]
    return types.Mask(height, width, tuple(b - a for a, b in zip(edges, edges[1:], strict=False)))


@st.composite
def regions(draw: st.DrawFn) -> types.Region:
    kind = draw(st.sampled_from(RegionKind))
    shape: dict[str, Any] = {}
    if kind is RegionKind.BOX:
        shape['box'] = draw(boxes)
    elif kind is RegionKind.MASK:
        shape['mask'] = draw(masks())
    else:
        coordinate = st.floats(-1e4, 1e4, width=32)
        points = draw(st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=4))
        shape['points'] = tuple(points)
        if draw(st.booleans()):
            labels = st.lists(st.integers(0, 1), min_size=len(points), max_size=len(points))
            shape['point_labels'] = tuple(draw(labels))
    return types.Region(
        region_id=draw(names.filter(bool)),
        kind=kind,
        camera=draw(names),
        stamp_ns=draw(stamps_ns),
        label=draw(names),
        ttl_s=draw(durations_s),
        **shape,
    )


timings = st.builds(types.Timings, *[durations_s] * len(fields(types.Timings)))
tracks = st.builds(
    types.Track,
    region_id=names,
    camera=names,
    stamp_ns=st.just(5),
    state=st.sampled_from(TrackState),
    score=units,
    box=st.none() | boxes,
    mask=st.none() | masks(),
    last_seen_ns=stamps_ns,
    label=names,
)
evidences = st.builds(
    types.Evidence,
    camera=names,
    region_id=names,
    stamp_ns=stamps_ns,
    frame_id=names,
    box=st.none() | boxes,
    mask=st.none() | masks(),
    score=units,
    track_stamps_ns=st.tuples(stamps_ns, stamps_ns),
    track_masks=st.tuples(st.none() | masks(), st.none() | masks()),
    reasoning=names,
)
results_common = {
    'stamp_ns': stamps_ns,
    'frame_id': names,
    'camera': names,
    'text': names,
    'confidence': units,
    'frame_stamps_ns': st.lists(stamps_ns, max_size=3).map(tuple),
    'timings': timings,
    'tokens_in': counts,
    'tokens_out': counts,
    'model': names,
}


@given(stamps_ns)
def test_stamps(stamp_ns: int) -> None:
    assert stamp_to_ns(sent(conversions.ns_to_stamp(stamp_ns))) == stamp_ns


@given(durations_s)
def test_durations(seconds: float) -> None:
    assert conversions.seconds_from_msg(sent(conversions.seconds_to_msg(seconds))) == seconds


@given(masks())
def test_masks(mask: types.Mask) -> None:
    assert conversions.mask_from_msg(sent(conversions.mask_to_msg(mask))) == mask


@given(regions())
def test_regions(region: types.Region) -> None:
    assert conversions.region_from_msg(sent(conversions.region_to_msg(region))) == region


@given(
    st.builds(
        types.Query,
        query_id=names.filter(bool),
        text=names,
        task=st.sampled_from(Task),
        stamp_ns=stamps_ns,
        camera=names,
        region_ids=st.lists(names, max_size=3).map(tuple),
        window_s=durations_s,
        priority=st.integers(0, 255),
        deadline_s=durations_s,
    )
)
def test_queries(query: types.Query) -> None:
    assert conversions.query_from_msg(sent(conversions.query_to_msg(query)), 'made') == query


@given(timings)
def test_timings(value: types.Timings) -> None:
    assert results.timings_from_msg(sent(results.timings_to_msg(value))) == value


@given(
    st.builds(
        types.Description, region_id=names, label=names, box=st.none() | boxes, **results_common
    )
)
def test_descriptions(description: types.Description) -> None:
    message = sent(results.description_to_msg(description))
    same = ('camera', 'region_id', 'label', 'text', 'confidence')
    same += ('tokens_in', 'tokens_out', 'model')
    for name in same:
        assert getattr(message, name) == getattr(description, name)
    assert stamp_to_ns(message.header.stamp) == description.stamp_ns
    assert message.header.frame_id == description.frame_id
    assert conversions.box_from_msg(message.box) == description.box
    assert tuple(map(stamp_to_ns, message.frame_stamps)) == description.frame_stamps_ns
    assert results.timings_from_msg(message.timings) == description.timings


@given(tracks)
def test_tracks(track: types.Track) -> None:
    array = sent(results.tracks_to_msg([track], 'front', 5, 'optical'))
    assert (array.camera, array.header.frame_id) == ('front', 'optical')
    assert stamp_to_ns(array.header.stamp) == 5
    (message,) = array.tracks
    for name in ('region_id', 'label', 'camera', 'state', 'score'):
        assert getattr(message, name) == getattr(track, name)
    assert conversions.box_from_msg(message.box) == track.box
    assert conversions.mask_from_msg(message.mask) == track.mask
    assert stamp_to_ns(message.last_seen) == track.last_seen_ns


@given(
    st.builds(
        types.Answer,
        query_id=names,
        error_code=st.sampled_from(ErrorCode),
        error_msg=names,
        region_ids=st.lists(names, max_size=3).map(tuple),
        evidence=st.lists(evidences, max_size=2).map(tuple),
        window_start_ns=stamps_ns,
        window_end_ns=stamps_ns,
        **results_common,
    )
)
def test_answers(answer: types.Answer) -> None:
    assert results.answer_from_msg(sent(results.answer_to_msg(answer))) == answer


def test_a_thumbnail_becomes_a_jpeg_and_back() -> None:
    picture = np.full((16, 24, 3), (200, 40, 40), np.uint8)
    evidence = types.Evidence('c', 'r', 7, 'optical', None, None, 1.0, thumbnail=picture)
    message = sent(results.evidence_to_msg(evidence))
    assert message.thumbnail.format == 'jpeg'
    assert stamp_to_ns(message.thumbnail.header.stamp) == 7
    back = results.evidence_from_msg(message).thumbnail
    assert back is not None
    np.testing.assert_allclose(back.astype(int), picture.astype(int), atol=6)


@pytest.mark.parametrize('code', list(ErrorCode))
def test_error_codes_are_those_of_the_message(code: ErrorCode) -> None:
    assert getattr(ros.Answer, code.name) == code


def test_other_constants_are_those_of_the_messages() -> None:
    for kind in RegionKind:
        assert getattr(ros.Region, f'KIND_{kind.name}') == kind
    for task in Task:
        assert getattr(ros.Query, f'TASK_{task.name}') == task
    for state in TrackState:
        assert getattr(ros.Track, f'STATE_{state.name}') == state


def test_a_region_takes_the_stamp_of_its_array() -> None:
    region = ros.Region(region_id='a', box=RegionOfInterest(width=3, height=2))
    assert conversions.region_from_msg(region, 9).stamp_ns == 9
    region.header.stamp.nanosec = 4
    assert conversions.region_from_msg(region, 9).stamp_ns == 4


def test_roi_is_a_box_of_the_newest_image() -> None:
    region = conversions.roi_to_region(RegionOfInterest(x_offset=1, y_offset=2, width=3, height=4))
    assert region == types.Region('roi', RegionKind.BOX, box=types.Box(1, 2, 3, 4))


BOX = RegionOfInterest(width=4, height=4)
BAD_REGIONS = {
    'unknown kind': (ros.Region(kind=9), 'kind 9'),
    'box without pixels': (ros.Region(box=RegionOfInterest(width=4)), 'no pixels'),
    'mask without a size': (ros.Region(kind=2, box=BOX), 'no mask'),
    'runs that do not add up': (
        ros.Region(kind=2, mask=ros.Mask(height=2, width=2, counts=[1, 2])),
        'add up to 3 instead of 4',
    ),
    'counts without a size': (ros.Region(kind=2, mask=ros.Mask(counts=[1])), 'add up to 1'),
    'no points': (ros.Region(kind=1), 'no points'),
    'point that is no number': (
        ros.Region(kind=1, points=[Point32(x=float('nan'))]),
        'not finite',
    ),
    'labels missing': (
        ros.Region(kind=1, points=[Point32(), Point32()], point_labels=[1]),
        '1 point_labels for 2 points',
    ),
    'label of 2': (
        ros.Region(kind=1, points=[Point32()], point_labels=[2]),
        'neither 1',
    ),
}


@pytest.mark.parametrize('case', BAD_REGIONS)
def test_bad_regions_are_refused(case: str) -> None:
    message, match = BAD_REGIONS[case]
    with pytest.raises(PixelReferError, match=match) as caught:
        conversions.region_from_msg(message)
    assert caught.value.code is ErrorCode.BAD_REGION


def test_one_bad_region_does_not_hide_the_others() -> None:
    good = ros.Region(region_id='a', box=BOX)
    first, second = conversions.regions_from_msg([ros.Region(kind=9), good])
    assert isinstance(first, PixelReferError)
    assert isinstance(second, types.Region)


@pytest.mark.parametrize(
    ('query', 'match'),
    [
        (ros.Query(task=7), 'task 7'),
        (ros.Query(window=Duration(sec=-1)), 'window is negative'),
        (ros.Query(deadline=Duration(sec=-1)), 'deadline is negative'),
        (ros.Query(regions=[ros.Region(box=BOX, ttl=Duration(sec=-2))]), 'ttl'),
    ],
)
def test_bad_queries_are_refused(query: ros.Query, match: str) -> None:
    with pytest.raises(PixelReferError, match=match) as caught:
        conversions.query_from_msg(query, 'q')
    assert caught.value.code is ErrorCode.BAD_REQUEST


def test_a_query_without_ids_gets_some() -> None:
    query = conversions.query_from_msg(
        ros.Query(regions=[ros.Region(box=BOX), ros.Region(region_id='mine', box=BOX)]), 'query-1'
    )
    assert query.query_id == 'query-1'
    assert [region.region_id for region in query.regions] == ['query-1:0', 'mine']


def test_the_regions_of_a_query_take_its_stamp() -> None:
    message = ros.Query(regions=[ros.Region(box=BOX)])
    message.header.stamp.sec = 3
    query = conversions.query_from_msg(message, 'q')
    assert query.regions[0].stamp_ns == query.stamp_ns == 3_000_000_000


def test_a_refusal_echoes_the_query() -> None:
    message = ros.Query(camera='front')
    message.header.stamp.sec = 3
    message.header.frame_id = 'optical'
    answer = conversions.refusal(message, 'q', ErrorCode.BAD_REQUEST, 'why')
    assert (answer.query_id, answer.camera, answer.frame_id) == ('q', 'front', 'optical')
    assert (answer.stamp_ns, answer.error_code) == (3_000_000_000, ErrorCode.BAD_REQUEST)
