# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what topics are taken for."""

from __future__ import annotations

import pytest

from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.topics import Role, Topic, assign_roles, camera_of

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'


@pytest.mark.parametrize(('topic', 'camera'), [
    ('/image', ''),
    ('/image_raw', ''),
    ('image', ''),
    ('/image/compressed', ''),
    ('/image_raw/compressed', ''),
    ('/front/image_raw', 'front'),
    ('/front/image/compressed', 'front'),
    ('/robot/left/image_rect_color', 'robot/left'),
    ('/cam0', 'cam0'),
    ('/cam0/compressed', 'cam0'),
])
def test_camera_names(topic, camera):
    assert camera_of(topic) == camera


def roles(topics, overrides=None):
    return {topic.name: (topic.role, topic.camera) for topic in assign_roles(topics, overrides)}


def test_roles_by_type_and_name():
    found = roles([
        Topic('/front/image_raw', IMAGE, 9),
        Topic('/back/image/compressed', COMPRESSED, 9),
        Topic('/detector/regions', 'pixelrefer_ros/msg/RegionArray', 3),
        Topic('/pixelrefer/query', 'pixelrefer_ros/msg/Query', 3),
        Topic('/pixelrefer/query_text', 'std_msgs/msg/String', 3),
        Topic('/chatter', 'std_msgs/msg/String', 3),
        Topic('/pixelrefer/roi', 'sensor_msgs/msg/RegionOfInterest', 3),
        Topic('/pixelrefer/answers', 'pixelrefer_ros/msg/Answer', 3),
        Topic('/pixelrefer/descriptions', 'pixelrefer_ros/msg/Description', 3),
        Topic('/pixelrefer/image_annotated', IMAGE, 3),
        Topic('/front/depth/image_raw', IMAGE, 3),
        Topic('/tf', 'tf2_msgs/msg/TFMessage', 3),
    ])
    assert found == {
        '/front/image_raw': (Role.IMAGE, 'front'),
        '/back/image/compressed': (Role.IMAGE, 'back'),
        '/detector/regions': (Role.REGIONS, ''),
        '/pixelrefer/query': (Role.QUERY, ''),
        '/pixelrefer/query_text': (Role.QUERY_TEXT, ''),
        '/chatter': (Role.IGNORE, ''),
        '/pixelrefer/roi': (Role.ROI, ''),
        '/pixelrefer/answers': (Role.ANSWER, ''),
        '/pixelrefer/descriptions': (Role.DESCRIPTION, ''),
        '/pixelrefer/image_annotated': (Role.IGNORE, ''),
        '/front/depth/image_raw': (Role.IGNORE, ''),
        '/tf': (Role.IGNORE, ''),
    }


def test_one_topic_per_camera_the_fullest_and_raw_when_equal():
    raw, compressed = Topic('/a/image', IMAGE, 5), Topic('/a/image/compressed', COMPRESSED, 5)
    found = roles([compressed, raw])
    assert found['/a/image'][0] is Role.IMAGE
    assert found['/a/image/compressed'][0] is Role.IGNORE
    found = roles([Topic('/a/image/compressed', COMPRESSED, 6), raw])
    assert found['/a/image/compressed'] == (Role.IMAGE, 'a')
    assert found['/a/image'][0] is Role.IGNORE


def test_overrides():
    topics = [Topic('/chatter', 'std_msgs/msg/String', 1), Topic('/depth', IMAGE, 1),
              Topic('/a/image', IMAGE, 1)]
    found = roles(topics, {'/chatter': 'text', '/depth': 'image:top', '/a/image': 'ignore'})
    assert found == {'/chatter': (Role.QUERY_TEXT, ''), '/depth': (Role.IMAGE, 'top'),
                     '/a/image': (Role.IGNORE, '')}
    assert roles(topics, {'/a/image': 'image:'})['/a/image'] == (Role.IMAGE, '')


@pytest.mark.parametrize(('name', 'word', 'text'), [
    ('/nothing', 'image', 'no topic /nothing in the bag; it has /a/image'),
    ('/a/image', 'picture', 'must be one of image, regions'),
    ('/a/image', 'query', 'the role needs pixelrefer_ros/msg/Query'),
])
def test_wrong_overrides_say_what_is_right(name, word, text):
    with pytest.raises(FileError, match=text):
        assign_roles([Topic('/a/image', IMAGE, 1)], {name: word})
