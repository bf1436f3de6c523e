# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Give regions once and check where the node says they are from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point32
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image

from pixelrefer_ros import msg as ros
from pixelrefer_ros import srv
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import ErrorCode
from pixelrefer_ros.node.conversions import box_from_msg, mask_from_msg
from pixelrefer_ros.node.images import stamp_to_ns
from tests.ros.rig import box_region, image_msg, ns, wait_for
from tests.scenes import HEIGHT, SIDE, WIDTH, corner, overlap, scene, truth

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ros.rig import Bench

pytestmark = pytest.mark.ros

REGIONS = 'pixelrefer/regions'
ANCHORED = {'tracking.backend': 'anchored', 'describe.enabled': False, 'keep_rate_hz': 0.0}


def at(step: int) -> int:
    return ns(1 + step / 10)


class Watch:
    """Collect what the node says about where the regions are."""

    def __init__(self, bench: Bench) -> None:
        self._messages = bench.client.listen('pixelrefer/tracks', ros.TrackArray)

    def newest(self) -> dict[int, dict[str, Any]]:
        """Return per stamp the tracks by id, as they were published last."""
        return {
            stamp_to_ns(message.header.stamp): {one.region_id: one for one in message.tracks}
            for message in list(self._messages)
        }

    def wait(self, stamp_ns: int, *region_ids: str) -> dict[str, Any]:
        """Wait for the tracks of these regions at a stamp."""
        def there() -> dict[str, Any]:
            tracks = self.newest().get(stamp_ns, {})
            return tracks if set(region_ids) <= set(tracks) else {}

        return wait_for(there, f'tracks of {region_ids} at {stamp_ns}')


def send(one: Bench, step: int, **options: bool) -> None:
    one.send_image(image_msg(at(step), scene(step, **options)))


def give(one: Bench, *regions: Any) -> None:
    one.client.publish(REGIONS, ros.RegionArray(regions=list(regions)))
    wait_for(
        lambda: {region.region_id for region in regions}
        <= {region.region_id for region in one.node._session.engine.list_regions()},
        'the regions',
    )


def square(step: int, region_id: str = 'square', **fields: Any) -> ros.Region:
    return box_region(region_id, at(step), (*corner(step), SIDE, SIDE), **fields)


def picture_of(track: ros.Track) -> np.ndarray:
    mask = mask_from_msg(track.mask)
    assert mask is not None
    return masks.decode(mask)


def test_a_region_given_once_is_followed(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=ANCHORED)
    watch = Watch(one)
    send(one, 0)
    give(one, square(0, label='a red square'))
    first = watch.wait(at(0), 'square')['square']
    assert first.state == ros.Track.STATE_NEW
    for step in range(1, 12):
        send(one, step)
        track = watch.wait(at(step), 'square')['square']
        assert track.state == ros.Track.STATE_TRACKED
        assert overlap(picture_of(track), truth(step)) > 0.8, step
        assert (track.label, track.camera) == ('a red square', '')
        assert 0.5 < track.score <= 1.0
        assert stamp_to_ns(track.last_seen) == at(step)
        assert box_from_msg(track.box) == masks.bounding_box(mask_from_msg(track.mask))


def test_it_is_described_over_the_frames_it_was_followed_through(
    bench: Callable[..., Bench],
) -> None:
    one = bench(parameters=ANCHORED | {'describe.enabled': True})
    descriptions = one.client.listen('pixelrefer/descriptions', ros.Description)
    watch = Watch(one)
    send(one, 0)
    give(one, square(0))
    for step in range(1, 12):
        send(one, step)
        watch.wait(at(step), 'square')
    wait_for(lambda: descriptions, 'a description')
    assert len(descriptions[0].frame_stamps) == one.describer.frames_per_region
    (clip,) = one.describer.calls[0].regions
    for stamp, mask in zip(descriptions[0].frame_stamps, clip.masks, strict=True):
        step = round((stamp_to_ns(stamp) - at(0)) / 1e8)
        assert overlap(np.asarray(mask, bool), truth(step)) > 0.8, step


def test_the_label_image_agrees_with_the_tracks(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=ANCHORED)
    watch = Watch(one)
    labels = one.client.listen('pixelrefer/label_image', Image)
    send(one, 0)
    give(one, square(0), box_region('wall', at(0), (10, 120, 40, 40)))
    for step in range(1, 6):
        send(one, step)
        watch.wait(at(step), 'square', 'wall')
    wait_for(lambda: labels and stamp_to_ns(labels[-1].header.stamp) == at(5), 'the label image')
    tracks = watch.newest()[at(5)]
    assert (labels[-1].encoding, labels[-1].header.frame_id) == ('mono16', 'optical')
    values = np.frombuffer(labels[-1].data, np.uint16).reshape(HEIGHT, WIDTH)
    assert set(np.unique(values)) == {0, 1, 2}
    for value, track in enumerate(tracks.values(), start=1):
        np.testing.assert_array_equal(values == value, picture_of(track))


def test_a_lost_region_is_nowhere_until_it_is_seen_again(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=ANCHORED)
    watch = Watch(one)
    labels = one.client.listen('pixelrefer/label_image', Image)
    drawn = one.client.listen('pixelrefer/image_annotated', Image)
    send(one, 0)
    give(one, square(0))
    for step in range(1, 5):
        send(one, step)
    watch.wait(at(4), 'square')
    for step in range(5, 16):
        send(one, step, visible=False)
    track = watch.wait(at(15), 'square')['square']
    assert track.state == ros.Track.STATE_LOST
    assert mask_from_msg(track.mask) is None
    assert box_from_msg(track.box) is None
    assert track.score < 0.5
    assert at(3) <= stamp_to_ns(track.last_seen) <= at(8)
    wait_for(lambda: labels and stamp_to_ns(labels[-1].header.stamp) == at(15), 'the label image')
    assert not any(labels[-1].data)
    # a dashed frame where it was last, and no tint
    wait_for(lambda: drawn and stamp_to_ns(drawn[-1].header.stamp) == at(15), 'the drawing')
    pixels = np.frombuffer(drawn[-1].data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    changed = (pixels != scene(15, visible=False)).any(-1)
    x, y = corner(4)
    assert changed[y:y + SIDE, x - 8:x + SIDE + 8].any()
    assert changed[y + SIDE // 2, x + SIDE // 2 - 5:x + SIDE // 2 + 5].sum() == 0
    for step in range(16, 22):
        send(one, step)
    back = watch.wait(at(21), 'square')['square']
    assert back.state in (ros.Track.STATE_REACQUIRED, ros.Track.STATE_TRACKED)
    assert overlap(picture_of(back), truth(21)) > 0.6
    states = [tracks['square'].state for tracks in watch.newest().values() if tracks]
    assert ros.Track.STATE_REACQUIRED in states


def test_the_drawing_follows_the_region(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=ANCHORED)
    watch = Watch(one)
    drawn = one.client.listen('pixelrefer/image_annotated', Image)
    send(one, 0)
    give(one, square(0))
    for step in range(1, 9):
        send(one, step)
        watch.wait(at(step), 'square')
    wait_for(lambda: drawn and stamp_to_ns(drawn[-1].header.stamp) == at(8), 'the drawing')
    pixels = np.frombuffer(drawn[-1].data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    changed = (pixels != scene(8)).any(-1)
    assert changed[truth(8)].mean() > 0.9
    outside = changed & ~cv2.dilate(truth(8).astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert not outside[corner(8)[1]:].any()  # the plate is above


def test_remove_and_reset_reach_the_tracker(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=ANCHORED)
    watch = Watch(one)
    send(one, 0)
    give(one, square(0), box_region('wall', at(0), (10, 120, 40, 40)))
    send(one, 1)
    watch.wait(at(1), 'square', 'wall')
    removed = one.client.call(
        srv.RemoveRegions,
        'pixelrefer/remove_regions',
        srv.RemoveRegions.Request(region_ids=['square']),
    )
    assert removed.removed_ids == ['square']
    send(one, 2)
    assert set(watch.wait(at(2), 'wall')) == {'wall'}
    one.client.call(srv.Reset, 'pixelrefer/reset', srv.Reset.Request())
    send(one, 3)
    wait_for(lambda: watch.newest().get(at(3)) == {}, 'an empty array')
    one.assert_alive()


def test_without_a_tracker_regions_are_where_they_are_given(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=ANCHORED | {'tracking.backend': 'none'})
    watch = Watch(one)
    for step in range(4):
        send(one, step)
        if step == 1:
            give(one, square(1))
    send(one, 4)
    give(one, square(4))
    assert watch.wait(at(4), 'square')['square'].state == ros.Track.STATE_TRACKED
    assert set(watch.newest()) == {at(1), at(4)}
    assert one.node._session.tracks() == {}


def test_a_new_resolution_does_not_end_it(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=ANCHORED)
    watch = Watch(one)
    send(one, 0)
    give(one, square(0))
    for step in range(1, 4):
        send(one, step)
    watch.wait(at(3), 'square')
    for step in range(4, 8):
        large = cv2.resize(scene(step), (2 * WIDTH, 2 * HEIGHT))
        one.send_image(image_msg(at(step), large))
    track = watch.wait(at(7), 'square')['square']
    large_truth = np.kron(truth(7), np.ones((2, 2))).astype(bool)
    assert overlap(picture_of(track), large_truth) > 0.7
    one.assert_alive()


def test_many_regions_at_once(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=ANCHORED)
    watch = Watch(one)
    send(one, 0)
    names = [f'r{index}' for index in range(64)]
    give(
        one,
        *(
            box_region(name, at(0), (4 + 29 * (index % 8), 3 + 22 * (index // 8), 24, 18))
            for index, name in enumerate(names)
        ),
    )
    watch.wait(at(0), *names)
    send(one, 1)
    assert len(watch.wait(at(1), *names)) == 64
    one.assert_alive()


def test_regions_that_cannot_be_followed_are_refused_with_the_reason(
    bench: Callable[..., Bench],
) -> None:
    one = bench(parameters=ANCHORED | {'buffer.window_s': 1.0, 'buffer.full_rate_s': 1.0})
    watch = Watch(one)
    for step in range(14):
        send(one, step)
    empty = ros.Mask(height=HEIGHT, width=WIDTH, counts=[HEIGHT * WIDTH])
    points = [Point32(x=40.0, y=60.0)]
    bad = {
        'empty': ros.Region(kind=ros.Region.KIND_MASK, mask=empty),
        'outside': box_region('', at(13), (WIDTH, 10, 20, 20)),
        'negative': ros.Region(kind=ros.Region.KIND_POINTS, points=points, point_labels=[0]),
        'gone': square(0),
    }
    for region_id, region in bad.items():
        region.region_id = region_id
    request = srv.AddRegions.Request(regions=[*bad.values(), square(13)])
    response = one.client.call(srv.AddRegions, 'pixelrefer/add_regions', request)
    codes = [ErrorCode.BAD_REGION] * 3 + [ErrorCode.BAD_STAMP, ErrorCode.OK]
    assert list(response.error_codes) == codes
    for text, word in zip(
        response.error_msgs, ('empty', 'outside the image', 'label 1', 'older than'), strict=False
    ):
        assert word in text
    send(one, 14)
    assert set(watch.wait(at(14), 'square')) == {'square'}
    one.assert_alive()


@pytest.mark.parametrize(
    ('parameters', 'words'),
    [
        ({'tracking.backend': 'magic'}, 'anchored, sam2, auto, none'),
        ({'tracking.backend': 'sam2', 'tracking.model': 'org/never-fetched'},
         'pixelrefer fetch org/never-fetched'),
        ({'tracking.backend': 'auto', 'tracking.model': '/no/such/folder'}, '/no/such/folder'),
        ({'tracking.backend': 'sam2'}, 'pixelrefer fetch'),
    ],
)  # fmt: skip
def test_a_tracker_that_is_not_there_refuses_to_configure(
    bench: Callable[..., Bench],
    capfd: pytest.CaptureFixture[str],
    parameters: dict[str, Any],
    words: str,
) -> None:
    one = bench(activate=False, parameters=parameters)
    assert not one.change(Transition.TRANSITION_CONFIGURE)
    assert one.node.state() == 'unconfigured'
    assert words in capfd.readouterr().err
    one.assert_alive()


def test_diagnostics_tell_of_tracking(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=ANCHORED | {'diagnostics_period_s': 0.1})
    messages = one.client.listen('/diagnostics', DiagnosticArray)
    send(one, 0)
    give(one, square(0))
    for step in range(1, 4):
        send(one, step)

    def told() -> bool:
        values = {
            pair.key: pair.value
            for status in messages[-1].status
            if status.name == 'pixelrefer: tracking'
            for pair in status.values
        } if messages else {}
        return (
            values.get('tracker') == 'anchored'
            and values['tracked'] == '1'
            and values['lost'] == '0'
            and values['images behind'] == '0'
            and int(values['images tracked']) >= 3
        )

    wait_for(told, 'the tracker in the diagnostics')
