# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that every kind of bag is read, and that bad ones are refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg

from pixelrefer_ros.bags import to_messages
from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.topics import INPUTS, OUTPUTS, Role
from pixelrefer_ros.bags.typestore import message, typestore
from pixelrefer_ros.bags.writing import BagWriter
from pixelrefer_ros.core.types import Answer, Box, Frame, Query, Region, Task
from tests.bags.makers import Script, at, box_at, picture, string_message, write_bag


def events(path, **options):
    with Bag(path, **options) as bag:
        return list(bag.events())


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('name', ['bag.mcap', 'bag.db3', 'mcap', 'sqlite3'])
def test_every_storage(tmp_path, name, compressed):
    storage = name if '.' not in name else 'mcap'
    path = write_bag(tmp_path / name, Script(compressed=compressed), storage=storage)
    assert path.is_dir() == ('.' not in name)
    with Bag(path) as bag:
        assert bag.cameras == ('camera',)
        assert bag.start_ns == at(0.0)
        assert bag.end_ns == at(2.9)
        assert bag.count(Role.IMAGE) == 30
        found = list(bag.events())
    assert [event.log_time_ns for event in found] == sorted(e.log_time_ns for e in found)
    frames = [event.value for event in found if isinstance(event.value, Frame)]
    assert [frame.stamp_ns for frame in frames] == [at(k * 0.1) for k in range(30)]
    assert {(f.camera, f.frame_id, f.image.shape) for f in frames} == {
        ('camera', 'optical', (48, 64, 3))}
    assert np.abs(frames[7].image.astype(int) - picture(7)).mean() < (4 if compressed else 1e-9)
    regions = [event.value for event in found if isinstance(event.value, tuple)]
    assert regions == [(box_at(0.1),), (box_at(0.5, x=14),)]
    assert [e.value.query_id for e in found if isinstance(e.value, Query)] == ['q1', 'q2']


@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize('mode', [CompressionMode.FILE, CompressionMode.MESSAGE,
                                  CompressionMode.STORAGE])
def test_compressed_bags(tmp_path, plugin, mode):
    if plugin is StoragePlugin.SQLITE3 and mode is CompressionMode.STORAGE:
        pytest.skip('sqlite3 has no compression of its own')
    writer = Writer(tmp_path / 'bag', version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        msg = to_messages.image_to(Frame('', at(1), picture(1)))
        connection = writer.add_connection('/image', msg.__msgtype__, typestore=typestore())
        writer.write(connection, at(1), typestore().serialize_cdr(msg, msg.__msgtype__))
    (event,) = events(tmp_path / 'bag')
    np.testing.assert_array_equal(event.value.image, picture(1))


def test_roi_and_text(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        roi = message('sensor_msgs/msg/RegionOfInterest', x_offset=1, y_offset=2, height=3,
                      width=4, do_rectify=False)
        writer.write('/pixelrefer/roi', roi, 10)
        writer.write('/pixelrefer/query_text', string_message('what is it?'), 20)
        writer.write('/pixelrefer/query_text', string_message('and now?'), 30)
        writer.write('/pixelrefer/query_text', string_message('find: the cup'), 40)
    found = [event.value for event in events(tmp_path / 'bag.mcap')]
    assert found[0][0].box == Box(1, 2, 4, 3)
    assert (found[0][0].region_id, found[0][0].stamp_ns) == ('roi', 0)
    assert found[1] == Query('query_text-1', 'what is it?')
    assert found[2] == Query('query_text-2', 'and now?')
    assert found[3] == Query('query_text-3', 'the cup', Task.GROUND)


def test_outputs_are_read_on_request_only(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        writer.answer(Answer('q1', text='yes'), 5)
    assert events(tmp_path / 'bag.mcap') == []
    with Bag(tmp_path / 'bag.mcap') as bag:
        (event,) = bag.events(OUTPUTS)
    assert event.value.text == 'yes'


def test_unknown_topics_are_left_out(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        stamp = message('builtin_interfaces/msg/Time', sec=1, nanosec=0)
        writer.write('/clock', message('rosgraph_msgs/msg/Clock', clock=stamp), 5)
        writer.write('/image', to_messages.image_to(Frame('', at(1), picture(1))), 6)
    with Bag(tmp_path / 'bag.mcap') as bag:
        assert {topic.name: topic.role for topic in bag.topics} == {
            '/clock': Role.IGNORE, '/image': Role.IMAGE}
        assert len(list(bag.events())) == 1


def test_bag_without_images_names_its_topics(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        writer.write('/chatter', string_message('hello'), 5)
    with Bag(tmp_path / 'bag.mcap') as bag, pytest.raises(FileError) as caught:
        bag.require_images()
    assert '/chatter (std_msgs/msg/String, 1)' in str(caught.value)
    assert '--topic' in str(caught.value)


def test_empty_bag(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        writer.add_output_topics()
    with Bag(tmp_path / 'bag.mcap') as bag:
        assert (bag.start_ns, bag.end_ns, bag.cameras) == (0, 0, ())
        assert list(bag.events(INPUTS | OUTPUTS)) == []


def test_broken_messages_are_reported_and_left_out(tmp_path):
    bad = to_messages.image_to(Frame('', at(1), picture(1)))
    bad.data = bad.data[:100]
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        writer.write('/image', bad, 1)
        writer.write_raw('/image', 'sensor_msgs/msg/Image', b'\0\1\0\0\1', 2)
        writer.write('/image', to_messages.image_to(Frame('', at(2), picture(2))), 3)
    problems = []
    with Bag(tmp_path / 'bag.mcap') as bag:
        found = list(bag.events(on_problem=lambda topic, text: problems.append((topic, text))))
    assert [event.value.stamp_ns for event in found] == [at(2)]
    assert [topic for topic, _ in problems] == ['/image', '/image']
    assert 'message 1: image data is truncated' in problems[0][1]
    assert 'message 2: its data are no sensor_msgs/msg/Image' in problems[1][1]


def test_without_decoding_only_the_stamps_are_read(tmp_path):
    path = write_bag(tmp_path / 'bag.mcap')
    with Bag(path) as bag:
        frames = [e.value for e in bag.events({Role.IMAGE}, decode=False)]
    assert [frame.stamp_ns for frame in frames] == [at(k * 0.1) for k in range(30)]
    assert frames[0].image.size == 0


def test_directory_without_metadata(tmp_path):
    path = write_bag(tmp_path / 'bag')
    (path / 'metadata.yaml').unlink()
    assert len(events(path)) == 34
    (path / 'more.mcap').touch()
    with pytest.raises(FileError, match='reindex'):
        Bag(path)


@pytest.mark.parametrize(('name', 'text'), [
    ('missing', 'no bag at'),
    ('missing.mcap', 'no bag at'),
    ('old.bag', 'rosbags-convert'),
    ('notes.txt', 'is no bag'),
    ('noise.mcap', 'cannot be read as a bag'),
    ('noise.db3', 'cannot be read as a bag'),
    ('empty.mcap', 'cannot be read as a bag'),
    ('folder', 'no metadata.yaml and 0 bag files'),
])
def test_what_is_no_bag_is_refused(tmp_path, name, text):
    (tmp_path / 'folder').mkdir()
    for file in ('old.bag', 'notes.txt', 'noise.mcap', 'noise.db3'):
        (tmp_path / file).write_bytes(b'no bag at all, whatever its name says' * 40)
    (tmp_path / 'empty.mcap').touch()
    with pytest.raises(FileError, match=text):
        Bag(tmp_path / name)


def test_cut_off_recording_is_refused(tmp_path):
    path = write_bag(tmp_path / 'bag.mcap')
    data = path.read_bytes()
    for share in (0.3, 0.9):
        cut = tmp_path / f'cut{share}.mcap'
        cut.write_bytes(data[:int(len(data) * share)])
        with pytest.raises(FileError, match='repair it'), Bag(cut) as bag:
            list(bag.events())


def test_damage_inside_is_an_error_not_a_crash(tmp_path):
    path = write_bag(tmp_path / 'bag.db3')
    data = bytearray(path.read_bytes())
    data[8192:20000] = b'\xff' * (20000 - 8192)
    path.write_bytes(data)
    with pytest.raises(FileError, match=r'broken|cannot be read'), Bag(path) as bag:
        list(bag.events())


def test_other_version_of_our_messages_is_refused(tmp_path):
    store = typestore()
    other = get_types_from_msg('string what\n', 'pixelrefer_ros/msg/Query')
    foreign = type(store)()
    foreign.register(other)
    writer = Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        writer.add_connection('/query', 'pixelrefer_ros/msg/Query', typestore=foreign)
    with pytest.raises(FileError, match='another version of pixelrefer_ros'):
        Bag(tmp_path / 'bag')


def test_region_values_are_plain_python(tmp_path):
    path = write_bag(tmp_path / 'bag.mcap')
    regions = [e.value for e in events(path) if isinstance(e.value, tuple)]
    assert isinstance(regions[0][0], Region)
    assert type(regions[0][0].box.x) is int
