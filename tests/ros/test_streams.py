# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the way from image, region and query topics to the results."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Point32
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import String

from pixelrefer_ros import msg as ros
from pixelrefer_ros.core.types import ErrorCode, Task
from pixelrefer_ros.node.conversions import mask_from_msg, ns_to_stamp
from pixelrefer_ros.node.images import stamp_to_ns
from tests.ros.rig import WAIT_S, box_region, image_msg, ns, picture, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ros.rig import Bench

pytestmark = pytest.mark.ros

ANSWERS = 'pixelrefer/answers'
QUERY = 'pixelrefer/query'
REGIONS = 'pixelrefer/regions'
TENTHS = [ns(1 + i / 10) for i in range(11)]


def jpeg_msg(stamp_ns: int, picture_format: str = 'jpeg') -> CompressedImage:
    message = CompressedImage(
        format=picture_format, data=cv2.imencode('.jpg', picture())[1].tobytes()
    )
    message.header.stamp = ns_to_stamp(stamp_ns)
    return message


def stamps(times: Any) -> list[int]:
    return [stamp_to_ns(time) for time in times]


def test_a_detectors_stream_is_described_over_all_its_stamps(bench: Callable[..., Bench]) -> None:
    one = bench()
    descriptions = one.client.listen('pixelrefer/descriptions', ros.Description)
    for index, stamp_ns in enumerate(TENTHS):
        one.send_image(image_msg(stamp_ns))
        one.client.publish(
            REGIONS,
            ros.RegionArray(regions=[box_region('cup', stamp_ns, (index, 5, 10, 8), label='red')]),
        )
    wait_for(lambda: descriptions, 'a description')
    first = descriptions[0]
    assert (first.region_id, first.label, first.header.frame_id) == ('cup', 'red', 'optical')
    seen = stamps(first.frame_stamps)
    assert len(seen) == one.describer.frames_per_region
    assert set(seen) <= set(TENTHS)
    assert seen[0] == TENTHS[0]
    # due when the image after_s later is there; its region may come after the job began
    assert stamp_to_ns(first.header.stamp) == seen[-1] >= TENTHS[-2]
    assert first.box.x_offset == TENTHS.index(seen[-1])
    assert 0 < first.confidence <= 1
    assert first.text


def test_the_stamp_of_an_array_is_that_of_its_regions(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.send_frames(TENTHS)
    array = ros.RegionArray(regions=[box_region('a')])
    array.header.stamp = ns_to_stamp(TENTHS[3])
    one.client.publish(REGIONS, array)
    engine = one.node._session.engine
    wait_for(lambda: engine.list_regions(), 'the region')
    assert engine.list_regions()[0].stamp_ns == TENTHS[3]


def test_masks_points_and_roi(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'describe.enabled': False})
    one.send_frames([ns(1)])
    height, width = picture().shape[:2]
    mask = ros.Mask(height=height, width=width, counts=[0, height * 2, height * (width - 2)])
    points = [Point32(x=30.0, y=20.0), Point32(x=60.0, y=40.0)]
    one.client.publish(
        REGIONS,
        ros.RegionArray(
            regions=[
                ros.Region(region_id='m', kind=2, mask=mask),
                ros.Region(region_id='p', kind=1, points=points, point_labels=[1, 0]),
            ]
        ),
    )
    roi = RegionOfInterest(x_offset=1, y_offset=2, width=3, height=4)
    one.client.publish('pixelrefer/roi', roi)
    engine = one.node._session.engine
    wait_for(lambda: len(engine.list_regions()) == 3, 'the regions')
    seen = engine.regions_at('', ns(1))
    assert set(seen) == {'m', 'p', 'roi'}
    assert seen['m'] == mask_from_msg(mask)
    assert sum(seen['roi'].counts[1::2]) == 12


def test_questions_by_topic(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'describe.enabled': False, 'tracking.backend': 'none'})
    answers = one.client.listen(ANSWERS, ros.Answer)
    one.send_frames(TENTHS)
    one.client.publish(REGIONS, ros.RegionArray(regions=[box_region('cup', TENTHS[4])]))
    one.client.publish('pixelrefer/query_text', String(data='what colour is {cup}?'))
    wait_for(lambda: answers, 'the answer')
    assert answers[0].error_code == 0
    assert answers[0].query_id == 'query-1'
    assert list(answers[0].region_ids) == ['cup']
    assert stamp_to_ns(answers[0].header.stamp) == TENTHS[4]
    assert one.describer.calls[-1].text == 'what colour is {cup}?'

    message = ros.Query(query_id='mine', task=int(Task.DESCRIBE), region_ids=['cup'])
    message.header.stamp = ns_to_stamp(TENTHS[6])
    one.client.publish(QUERY, message)
    wait_for(lambda: len(answers) == 2, 'the second answer')
    assert (answers[1].query_id, answers[1].error_code) == ('mine', 0)
    assert stamp_to_ns(answers[1].window_end) == TENTHS[6]
    assert answers[1].evidence[0].region_id == 'cup'


def test_several_cameras_keep_apart(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'cameras': ['front', 'left'], 'describe.enabled': False})
    answers = one.client.listen(ANSWERS, ros.Answer)
    one.send_frames([ns(1)], 'front/image')
    one.send_frames([ns(2)], 'left/image')
    for camera in ('front', 'left', ''):
        one.client.publish(
            QUERY, ros.Query(query_id=camera, text='?', regions=[box_region('a', camera=camera)])
        )
    wait_for(lambda: len(answers) == 3, 'the answers')
    by_id = {answer.query_id: answer for answer in answers}
    assert by_id['front'].header.stamp.sec == 1
    assert by_id['left'].header.stamp.sec == 2
    assert by_id[''.join(i for i in by_id if i.startswith('query-'))].camera == 'front'


def test_names_follow_namespace_and_remaps(bench: Callable[..., Bench]) -> None:
    one = bench(
        namespace='/robot',
        cli_args=['--ros-args', '-r', 'image:=/cam/color/image_raw'],
        parameters={'image_transport': 'compressed'},
    )
    topics = {name for name, _ in one.node.get_topic_names_and_types()}
    assert '/cam/color/image_raw/compressed' in topics
    assert '/robot/pixelrefer/answers' in topics
    one.client.publish('/cam/color/image_raw/compressed', jpeg_msg(ns(1)))
    one.wait_for_frame(ns(1))


def test_a_remap_of_the_compressed_topic_itself_wins(bench: Callable[..., Bench]) -> None:
    one = bench(
        cli_args=['--ros-args', '-r', 'image/compressed:=/jpegs'],
        parameters={'image_transport': 'compressed'},
    )
    one.client.publish('/jpegs', jpeg_msg(ns(1)))
    one.wait_for_frame(ns(1))


def test_compressed_images_keep_their_order(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'image_transport': 'compressed', 'keep_rate_hz': 0.0})
    for stamp_ns in TENTHS:
        one.client.publish('image/compressed', jpeg_msg(stamp_ns, 'bgr8; jpeg compressed bgr8'))
        one.wait_for_frame(stamp_ns)
    frame = one.node._session.engine.snapshot('')
    assert frame.image.shape == picture().shape
    assert one.node._session.engine.stats().cameras[''].clock_jumps == 0


@pytest.mark.parametrize('first', ['raw', 'compressed'])
def test_transport_auto_follows_what_is_published(
    bench: Callable[..., Bench], first: str
) -> None:
    one = bench(parameters={'image_transport': 'auto'})
    topic, message = {
        'raw': ('image', image_msg(ns(1))),
        'compressed': ('image/compressed', jpeg_msg(ns(1))),
    }[first]
    one.client.publish(topic, message)
    one.wait_for_frame(ns(1))
    assert one.node.count_subscribers('/image') == (first == 'raw')


def test_pixels_are_not_touched_for_frames_that_are_not_kept(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixelrefer_ros.node import camera

    converted = []
    original = camera.to_frame
    monkeypatch.setattr(
        camera, 'to_frame', lambda m, c: converted.append(m.header.stamp) or original(m, c)
    )
    one = bench(parameters={'keep_rate_hz': 2.0})
    for stamp_ns in TENTHS:
        one.send_image(image_msg(stamp_ns))
    # every half second, and a quarter of that early still counts
    wait_for(lambda: stamps(converted) == [ns(1), ns(1.4), ns(1.9)], 'the kept ones')
    report = one.node._session.cameras[0].report()
    assert (report.received, report.kept) == (11, 3)


def test_a_slow_decoder_gives_up_the_oldest(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'image_transport': 'compressed', 'keep_rate_hz': 0.0})
    camera = one.node._session.cameras[0]
    busy, go_on = threading.Event(), threading.Event()
    offered = []

    def slow(frame: Any) -> bool:
        offered.append(frame.stamp_ns)
        busy.set()
        return go_on.wait(WAIT_S)

    camera._offer = slow
    one.client.publish('image/compressed', jpeg_msg(TENTHS[0]))
    wait_for(busy.is_set, 'the decoder')
    for stamp_ns in TENTHS[1:]:
        one.send_image(jpeg_msg(stamp_ns), 'image/compressed')
    assert camera.report().behind == 6
    go_on.set()
    wait_for(lambda: camera.report().kept == 5, 'the rest')
    assert offered == [TENTHS[0], *TENTHS[-4:]]


# Pictures for people


def test_tracks_and_pictures_of_given_regions(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'describe.after_s': 0.0, 'tracking.backend': 'none'})
    tracks = one.client.listen('pixelrefer/tracks', ros.TrackArray)
    labels = one.client.listen('pixelrefer/label_image', Image)
    drawn = one.client.listen('pixelrefer/image_annotated', Image)
    for stamp_ns in TENTHS[:2]:
        one.send_frames([stamp_ns])
        one.client.publish(
            REGIONS,
            ros.RegionArray(
                regions=[
                    box_region('a', stamp_ns, (4, 4, 10, 10), label='cup'),
                    box_region('b', stamp_ns, (30, 20, 8, 6)),
                ]
            ),
        )
        wait_for(
            lambda at=stamp_ns: tracks and stamp_to_ns(tracks[-1].header.stamp) == at, 'tracks'
        )
    assert [track.region_id for track in tracks[0].tracks] == ['a', 'b']
    assert {track.state for track in tracks[0].tracks} == {ros.Track.STATE_NEW}
    assert {track.state for track in tracks[-1].tracks} == {ros.Track.STATE_TRACKED}
    cup = tracks[0].tracks[0]
    assert (cup.label, cup.score, stamp_to_ns(cup.last_seen)) == ('cup', 1.0, TENTHS[0])
    assert (cup.box.x_offset, cup.box.y_offset, cup.box.width, cup.box.height) == (4, 4, 10, 10)

    wait_for(lambda: labels, 'a label image')
    height, width = picture().shape[:2]
    assert (labels[0].encoding, labels[0].step) == ('mono16', 2 * width)
    values = np.frombuffer(labels[0].data, np.uint16).reshape(height, width)
    assert set(np.unique(values)) == {0, 1, 2}
    assert (values[4:14, 4:14] == 1).all()
    assert (values == 1).sum() == 100

    wait_for(lambda: drawn and stamp_to_ns(drawn[-1].header.stamp) == TENTHS[1], 'the drawing')
    pixels = np.frombuffer(drawn[-1].data, np.uint8).reshape(height, width, 3)
    assert (pixels[20:26, 30:38] != picture()[20:26, 30:38]).any()
    assert drawn[-1].header.frame_id == 'optical'


def test_a_region_of_the_past_is_drawn_with_its_last_box(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'describe.enabled': False, 'tracking.backend': 'none'})
    drawn = one.client.listen('pixelrefer/image_annotated', Image)
    one.send_frames([TENTHS[0]])
    one.client.publish(REGIONS, ros.RegionArray(regions=[box_region('a', TENTHS[0])]))
    wait_for(lambda: one.node._session.engine.list_regions(), 'the region')
    one.send_frames([TENTHS[5]])
    wait_for(lambda: drawn and stamp_to_ns(drawn[-1].header.stamp) == TENTHS[5], 'the drawing')
    pixels = np.frombuffer(drawn[-1].data, np.uint8).reshape(picture().shape)
    assert (pixels[8, 8:24] != picture()[8, 8:24]).any()  # a side of the box
    np.testing.assert_array_equal(pixels[40:], picture()[40:])  # beneath the plate


def test_nothing_is_drawn_for_nobody(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixelrefer_ros.node import painter

    def refuse(*args: Any) -> None:
        raise AssertionError('drawn')

    monkeypatch.setattr(painter, 'draw_overlays', refuse)
    one = bench(parameters={'describe.enabled': False})
    one.send_frames(TENTHS[:3])
    one.client.publish(REGIONS, ros.RegionArray(regions=[box_region('a', TENTHS[0])]))
    wait_for(lambda: one.node._session.engine.list_regions(), 'the region')
    assert not one.node._session.painter._easels
    assert one.node._session.problems() == (0, '')


# Time


def test_images_that_go_back_start_anew(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'describe.enabled': False})
    one.describer.gate = threading.Event()
    answers = one.client.listen(ANSWERS, ros.Answer)
    one.send_frames(TENTHS)
    one.client.publish(QUERY, ros.Query(query_id='open', text='?', regions=[box_region('a')]))
    wait_for(one.describer.started.is_set, 'the model')
    one.send_frames([ns(0.5)])  # the bag starts again
    wait_for(lambda: answers, 'the answer')
    assert (answers[0].query_id, answers[0].error_code) == ('open', ErrorCode.CLOCK_JUMP)
    one.describer.gate.set()
    one.send_frames([ns(0.6)])
    one.client.publish(QUERY, ros.Query(query_id='next', text='?', regions=[box_region('a')]))
    wait_for(lambda: len(answers) == 2, 'the next answer')
    assert answers[1].error_code == 0
    assert stamp_to_ns(answers[1].header.stamp) == ns(0.6)


def test_a_clock_that_goes_back_starts_anew(bench: Callable[..., Bench]) -> None:
    one = bench(activate=False)
    one.node.set_parameters([Parameter('use_sim_time', value=True)])
    assert one.change(Transition.TRANSITION_CONFIGURE)
    assert one.change(Transition.TRANSITION_ACTIVATE)

    def tick(stamp_ns: int) -> None:
        one.client.publish('/clock', Clock(clock=ns_to_stamp(stamp_ns)))
        wait_for(
            lambda: one.node.get_clock().now().nanoseconds == stamp_ns, f'the clock at {stamp_ns}'
        )

    tick(ns(2))
    one.send_frames(TENTHS)
    engine = one.node._session.engine
    tick(ns(3))
    assert engine.snapshot('') is not None
    tick(ns(0.5))
    wait_for(lambda: engine.snapshot('') is None, 'the reset')
    # a camera that went back already keeps its new frames
    one.send_frames([ns(1.9)])
    tick(ns(4))
    one.send_frames([ns(0.7)])
    tick(ns(0.8))
    time.sleep(0.1)
    assert engine.snapshot('').stamp_ns == ns(0.7)
    one.assert_alive()


def test_deadlines_do_not_wait_for_a_paused_bag(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'use_sim_time': True, 'deadline_s': 0.2, 'describe.enabled': False})
    one.describer.gate = threading.Event()
    answers = one.client.listen(ANSWERS, ros.Answer)
    one.client.publish('/clock', Clock(clock=ns_to_stamp(ns(2))))  # and no more
    one.send_frames(TENTHS)
    one.client.publish(QUERY, ros.Query(text='?', regions=[box_region('a')]))
    wait_for(lambda: answers, 'the answer')
    assert answers[0].error_code == ErrorCode.TIMEOUT
