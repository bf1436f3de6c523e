# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that core types survive the way through messages, and that both worlds agree on them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pixelrefer_ros.bags import from_messages, to_messages, typestore
from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import (
    Answer,
    Box,
    Description,
    ErrorCode,
    Evidence,
    Frame,
    PixelReferError,
    Query,
    Region,
    RegionKind,
    Task,
    Timings,
    Track,
    TrackState,
)

MASK = masks.encode(np.eye(5, 7, dtype=bool))
TIMINGS = Timings(0.5, 0.25, 1.0, 2.0, 0.0, 3.75)


def through(msg):
    """Serialize a message and read it again."""
    store = typestore.typestore()
    return store.deserialize_cdr(store.serialize_cdr(msg, msg.__msgtype__), msg.__msgtype__)


def tracks():
    frame = Frame('front', 5_000_000_007, np.zeros((5, 7, 3), np.uint8), 'optical')
    return frame, (
        Track('cup', 'front', 5_000_000_007, TrackState.TRACKED, 0.75, Box(1, 0, 3, 4), MASK,
              5_000_000_007, 'a cup'),
        Track('gone', 'front', 5_000_000_007, TrackState.LOST, 0.0, None, None, 9),
    )


def test_tracks():
    frame, both = tracks()
    message = through(to_messages.tracks_to(frame, both))
    assert (message.camera, message.header.frame_id) == ('front', 'optical')
    assert from_messages.tracks_from(message) == both
    message.tracks[0].state = 77
    with pytest.raises(ValueError, match='77'):
        from_messages.tracks_from(message)


def description():
    return Description('front', 'cup', 'a cup', 5_000_000_007, 'optical', 'A red cup — rouge.',
                       0.5, Box(1, 2, 3, 4), (1, 5_000_000_007), TIMINGS, 12, 34, 'tabletop')


def answer(thumbnail=None):
    evidence = Evidence('front', 'cup', 9, 'optical', Box(0, 1, 2, 3), MASK, 0.75, (7, 9),
                        (None, MASK), 'because', thumbnail)
    return Answer('q1', 9, 'optical', 'front', 'Yes.', ErrorCode.OK, '', 0.25, ('cup', 'box'),
                  (evidence,), 1, 9, (1, 9), TIMINGS, 5, 6, 'tabletop', 0.25)


@pytest.mark.parametrize('region', [
    Region('a', RegionKind.BOX, 'front', 12_345_678_901, 'label', box=Box(3, 4, 5, 6), ttl_s=1.5),
    Region('b', RegionKind.POINTS, points=((1.5, 2.5), (3.0, 4.0)), point_labels=(1, 0)),
    Region('c', RegionKind.MASK, mask=MASK),
])
def test_regions(region):
    assert from_messages.region_from(through(to_messages.region_to(region))) == region


def test_region_takes_the_stamp_of_its_array():
    regions = [Region('a', RegionKind.BOX, box=Box(0, 0, 1, 1)),
               Region('b', RegionKind.BOX, stamp_ns=7, box=Box(0, 0, 1, 1))]
    found, problems = from_messages.regions_from(through(to_messages.regions_to(regions, 3)))
    assert [region.stamp_ns for region in found] == [3, 7]
    assert not problems


def test_one_bad_region_does_not_take_the_others_along():
    good = Region('a', RegionKind.BOX, box=Box(0, 0, 1, 1))
    msg = to_messages.regions_to([good, good, good], 3)
    msg.regions[0].kind = 9
    msg.regions[1] = to_messages.region_to(replace(good, kind=RegionKind.MASK, mask=MASK))
    msg.regions[1].mask.counts = np.array([1, 2], np.uint32)
    found, problems = from_messages.regions_from(through(msg))
    assert [region.region_id for region in found] == ['a']
    assert [problem.code for problem in problems] == [ErrorCode.BAD_REGION] * 2


def test_queries():
    query = Query('q', 'is {a} red?', Task.GROUND, 5, 'front', ('a',),
                  (Region('b', RegionKind.BOX, stamp_ns=5, box=Box(1, 1, 2, 2)),), 1.5, 7, 2.25)
    assert from_messages.query_from(through(to_messages.query_to(query)), 'x') == query


def test_query_without_ids_gets_them():
    query = Query('', regions=(Region('', RegionKind.BOX, stamp_ns=1, box=Box(1, 1, 2, 2)),))
    found = from_messages.query_from(through(to_messages.query_to(query)), 'query-4')
    assert found.query_id == 'query-4'
    assert found.regions[0].region_id == 'query-4:0'
    msg = to_messages.query_to(query)
    msg.task = 77
    with pytest.raises(PixelReferError, match='unknown task 77'):
        from_messages.query_from(msg, 'x')


def test_descriptions_and_answers():
    msg = through(to_messages.description_to(description()))
    assert from_messages.description_from(msg) == description()
    assert from_messages.answer_from(through(to_messages.answer_to(answer()))) == answer()
    failed = Answer('q', error_code=ErrorCode.BAD_STAMP, error_msg='too late')
    assert from_messages.answer_from(through(to_messages.answer_to(failed))) == failed


def test_thumbnails_survive_as_pictures():
    thumbnail = np.full((16, 16, 3), (200, 40, 40), np.uint8)
    msg = through(to_messages.answer_to(answer(thumbnail)))
    found = from_messages.answer_from(msg).evidence[0].thumbnail
    assert np.abs(found.astype(int) - thumbnail).max() < 8


def test_images():
    image = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    frame = Frame('front', 5_000_000_001, image, 'optical')
    found = from_messages.frame_from(through(to_messages.image_to(frame)), 'front', 99)
    np.testing.assert_array_equal(found.image, image)
    assert (found.stamp_ns, found.frame_id, found.camera) == (5_000_000_001, 'optical', 'front')
    assert from_messages.frame_from(
        through(to_messages.image_to(replace(frame, stamp_ns=0))), '', 99).stamp_ns == 99


def test_red_and_blue_of_image_transport_pictures():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    msg = to_messages.compressed_to(Frame('', 1, red[..., ::-1]))
    msg.format = 'rgb8; jpeg compressed rgb8'
    assert from_messages.frame_from(msg, '', 1).image[8, 8, 0] > 200
    msg = to_messages.compressed_to(Frame('', 1, red))
    msg.format = 'rgb8; jpeg compressed bgr8'
    assert from_messages.frame_from(msg, '', 1).image[8, 8, 0] > 200


def test_rclpy_reads_what_is_written_and_the_other_way_round():
    serialization = pytest.importorskip('rclpy.serialization')
    ros = pytest.importorskip('pixelrefer_ros.msg')
    store = typestore.typestore()
    for msg, convert in (
        (to_messages.description_to(description()), from_messages.description_from),
        (to_messages.answer_to(answer()), from_messages.answer_from),
        (to_messages.tracks_to(*tracks()), from_messages.tracks_from),
    ):
        name = msg.__msgtype__.rsplit('/', 1)[-1]
        data = bytes(store.serialize_cdr(msg, msg.__msgtype__))
        read = serialization.deserialize_message(data, getattr(ros, name))
        assert convert(read) == convert(msg)
        back = store.deserialize_cdr(serialization.serialize_message(read), msg.__msgtype__)
        assert convert(back) == convert(msg)


def test_message_files_are_found_where_they_are_installed(monkeypatch, tmp_path):
    source = typestore.message_dir()
    assert (source / 'Answer.msg').is_file()
    monkeypatch.setattr(typestore.pixelrefer_ros, '__file__',
                        str(tmp_path / 'lib/python3/site-packages/pixelrefer_ros/__init__.py'))
    monkeypatch.setattr(typestore.sys, 'prefix', str(tmp_path / 'elsewhere'))
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    with pytest.raises(FileError, match='reinstall the package'):
        typestore.message_dir()
    for prefix in ('lib/python3/site-packages', '.', 'elsewhere', 'overlay'):
        monkeypatch.setenv('AMENT_PREFIX_PATH', os.pathsep.join(['', str(tmp_path / 'overlay')]))
        folder = tmp_path / prefix / 'share/pixelrefer_ros/msg'
        folder.mkdir(parents=True)
        (folder / 'RegionArray.msg').touch()
        assert typestore.message_dir() == Path(folder)
        (folder / 'RegionArray.msg').unlink()
