# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Send what a robot should not: each gets its error, and the node goes on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import String

from pixelrefer_ros import msg as ros
from pixelrefer_ros.core.types import ErrorCode, Task
from pixelrefer_ros.node.conversions import ns_to_stamp
from pixelrefer_ros.srv import AddRegions
from tests.ros.rig import box_region, image_msg, ns, picture, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ros.rig import Bench

pytestmark = pytest.mark.ros

ANSWERS = 'pixelrefer/answers'
QUERY = 'pixelrefer/query'
HEIGHT, WIDTH = picture().shape[:2]


def query_at(stamp_ns: int = 0, **fields: Any) -> ros.Query:
    fields.setdefault('text', 'what is it?')
    fields.setdefault('task', int(Task.ASK))
    query = ros.Query(query_id='bad', **fields)
    query.header.stamp = ns_to_stamp(stamp_ns)
    return query


def mask_region(**mask: Any) -> ros.Region:
    return ros.Region(region_id='m', kind=2, mask=ros.Mask(**mask))


BAD_QUERIES: dict[str, tuple[Any, ErrorCode]] = {
    'region outside the image': (
        query_at(regions=[box_region('a', box=(WIDTH, 0, 4, 4))]),
        ErrorCode.BAD_REGION,
    ),
    'unknown camera': (query_at(camera='attic'), ErrorCode.UNKNOWN_CAMERA),
    'region of an unknown camera': (
        query_at(regions=[box_region('a', camera='attic')]),
        ErrorCode.UNKNOWN_CAMERA,
    ),
    'empty mask': (
        query_at(regions=[mask_region(height=HEIGHT, width=WIDTH, counts=[HEIGHT * WIDTH])]),
        ErrorCode.BAD_REGION,
    ),
    'mask of another size': (
        query_at(regions=[mask_region(height=2, width=2, counts=[0, 4])]),
        ErrorCode.BAD_REGION,
    ),
    'broken mask': (
        query_at(regions=[mask_region(height=HEIGHT, width=WIDTH, counts=[7])]),
        ErrorCode.BAD_REGION,
    ),
    'unknown id': (query_at(region_ids=['nobody']), ErrorCode.UNKNOWN_REGION),
    'no region at all': (query_at(), ErrorCode.BAD_REQUEST),
    'stamp in the future': (
        query_at(ns(1000), regions=[box_region('a')]),
        ErrorCode.BAD_STAMP,
    ),
    'stamp before the window': (
        query_at(1, regions=[box_region('a')]),
        ErrorCode.BAD_STAMP,
    ),
    'unknown task': (query_at(task=200), ErrorCode.BAD_REQUEST),
    'task of another build': (
        query_at(task=int(Task.GROUND), regions=[box_region('a')]),
        ErrorCode.UNSUPPORTED,
    ),
    'no text': (query_at(text='', regions=[box_region('a')]), ErrorCode.BAD_REQUEST),
}


@pytest.mark.parametrize('case', BAD_QUERIES)
def test_bad_queries_are_answered(bench: Callable[..., Bench], case: str) -> None:
    message, code = BAD_QUERIES[case]
    one = bench(parameters={'describe.enabled': False})
    answers = one.client.listen(ANSWERS, ros.Answer)
    one.send_frames([ns(10), ns(10.1)])
    one.client.publish(QUERY, message)
    one.client.publish(QUERY, ros.Query(query_id='good', text='?', regions=[box_region('a')]))
    wait_for(lambda: len(answers) == 2, 'both answers')
    by_id = {answer.query_id: answer for answer in answers}
    assert by_id['bad'].error_code == code, by_id['bad'].error_msg
    assert len(by_id['bad'].error_msg) > 15
    assert not by_id['bad'].text
    assert by_id['good'].error_code == 0
    one.assert_alive()


def test_a_question_without_frames(bench: Callable[..., Bench]) -> None:
    one = bench()
    answers = one.client.listen(ANSWERS, ros.Answer)
    one.client.publish(QUERY, query_at(regions=[box_region('a')]))
    one.client.publish('pixelrefer/query_text', String(data='what do you see?'))
    wait_for(lambda: len(answers) == 2, 'both answers')
    assert answers[0].error_code == ErrorCode.NO_FRAMES
    assert answers[1].error_code in (ErrorCode.NO_FRAMES, ErrorCode.BAD_REQUEST)
    one.assert_alive()


def test_a_full_queue(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'queue_size': 2, 'describe.enabled': False})
    one.describer.gate = threading.Event()
    answers = one.client.listen(ANSWERS, ros.Answer)
    one.send_frames([ns(1)])
    ask = {'text': '?', 'regions': [box_region('a')]}
    one.client.publish(QUERY, ros.Query(query_id='0', **ask))
    wait_for(one.describer.started.is_set, 'the model')
    for index in range(1, 4):
        one.client.publish(QUERY, ros.Query(query_id=str(index), **ask))
    wait_for(lambda: answers, 'the refusal')
    assert (answers[0].query_id, answers[0].error_code) == ('3', ErrorCode.QUEUE_FULL)
    one.describer.gate.set()
    wait_for(lambda: len(answers) == 4, 'the others')
    assert {answer.error_code for answer in answers[1:]} == {0}


BAD_REGIONS = {
    'outside': (box_region('a', box=(0, HEIGHT, 4, 4)), ErrorCode.BAD_REGION),
    'without pixels': (box_region('a', box=(0, 0, 0, 4)), ErrorCode.BAD_REGION),
    'without an id': (box_region(''), ErrorCode.BAD_REGION),
    'of no kind': (ros.Region(region_id='a', kind=3), ErrorCode.BAD_REGION),
    'of the future': (box_region('a', ns(1000)), ErrorCode.BAD_STAMP),
    'of the past': (box_region('a', 1), ErrorCode.BAD_STAMP),
    'of the attic': (box_region('a', camera='attic'), ErrorCode.UNKNOWN_CAMERA),
    'of another size': (mask_region(height=2, width=2, counts=[0, 4]), ErrorCode.BAD_REGION),
}


@pytest.mark.parametrize('case', BAD_REGIONS)
def test_bad_regions_are_refused(bench: Callable[..., Bench], case: str) -> None:
    region, code = BAD_REGIONS[case]
    one = bench(parameters={'describe.enabled': False})
    one.send_frames([ns(10)])
    response = one.client.call(
        AddRegions,
        'pixelrefer/add_regions',
        AddRegions.Request(regions=[region, box_region('good')]),
    )
    assert list(response.error_codes) == [code, 0]
    assert len(response.error_msgs[0]) > 15
    # the same by topic: counted, and the good one is taken
    one.client.publish('pixelrefer/regions', ros.RegionArray(regions=[region, box_region('two')]))
    session = one.node._session
    wait_for(lambda: len(session.engine.list_regions()) == 2, 'the good ones')
    count, last = session.problems()
    assert count == 1
    assert last == response.error_msgs[0]


def test_a_roi_without_pixels(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.send_frames([ns(1)])
    one.client.publish('pixelrefer/roi', RegionOfInterest())
    wait_for(lambda: one.node._session.problems()[0] == 1, 'the refusal')
    one.client.publish('pixelrefer/roi', RegionOfInterest(width=4, height=4))
    wait_for(lambda: one.node._session.engine.list_regions(), 'the region')


def broken(**changes: Any) -> Image:
    message = image_msg(ns(1))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


BAD_IMAGES = {
    'wrong encoding': (broken(encoding='hdr10'), 'unknown encoding'),
    'depth encoding of short data': (broken(encoding='32FC1'), 'step'),
    'zero size': (broken(width=0, height=0), '0x0'),
    'truncated': (broken(data=bytes(10)), 'truncated'),
    'no data': (broken(data=b''), 'truncated'),
    'short step': (broken(step=3), 'step'),
    'no stamp': (image_msg(0), 'header.stamp'),
}


@pytest.mark.parametrize('case', BAD_IMAGES)
def test_bad_images_are_counted_and_dropped(bench: Callable[..., Bench], case: str) -> None:
    message, reason = BAD_IMAGES[case]
    one = bench()
    camera = one.node._session.cameras[0]
    one.client.publish('image', message)
    wait_for(lambda: camera.report().bad == 1, 'the refusal')
    assert reason in camera.report().last_bad
    one.send_frames([ns(1)])
    assert (camera.report().received, camera.report().kept) == (2, 1)
    one.assert_alive()


def test_bad_compressed_images(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'image_transport': 'compressed'})
    camera = one.node._session.cameras[0]
    message = CompressedImage(format='jpeg', data=b'no picture')
    message.header.stamp = ns_to_stamp(ns(1))
    one.client.publish('image/compressed', message)
    wait_for(lambda: camera.report().bad == 1, 'the refusal')
    assert 'cannot be decoded' in camera.report().last_bad
    one.assert_alive()


def test_an_error_in_the_engine_does_not_end_the_node(bench: Callable[..., Bench]) -> None:
    one = bench()
    session = one.node._session

    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError('unforeseen')

    session.engine.add_regions = fail
    session.cameras[0]._offer = fail
    one.client.publish('pixelrefer/regions', ros.RegionArray(regions=[box_region('a')]))
    wait_for(lambda: 'unforeseen' in session.problems()[1], 'the problem')
    one.client.publish('image', image_msg(ns(1)))
    wait_for(lambda: 'unforeseen' in session.cameras[0].report().last_bad, 'the refusal')
    response = one.client.call(
        AddRegions, 'pixelrefer/add_regions', AddRegions.Request(regions=[box_region('a')])
    )
    assert list(response.error_codes) == [ErrorCode.MODEL_ERROR]
    one.assert_alive()
