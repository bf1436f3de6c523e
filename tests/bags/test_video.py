# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check bags made of videos and pictures, and what replay makes of real clips."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pixelrefer_ros.bags.annotate import VideoFile
from pixelrefer_ros.bags.describing import describe_file, drawn, look_at
from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.replay import replay
from pixelrefer_ros.bags.report import write_results
from pixelrefer_ros.bags.story import tell
from pixelrefer_ros.bags.video import (
    ORIGIN_NS,
    make_bag,
    read_clip,
    read_mask,
    read_picture,
    read_video,
)
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import NS_PER_S, Box, ErrorCode, Frame, Query, Region, RegionKind
from tests.bags.makers import picture
from tests.doubles import ScriptedDescriber


@pytest.fixture(scope='module')
def film(tmp_path_factory):
    """Return a video of three seconds at 10 Hz, 64x48."""
    video = VideoFile(tmp_path_factory.mktemp('film') / 'film.mp4', 64, 48, 10.0)
    for index in range(30):
        video.write(picture(index))
    video.close()
    return video.path


def save_picture(path, rgb):
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def box(region_id='cup', x=5, y=10):
    return Region(region_id, RegionKind.BOX, box=Box(x, y, 12, 12))


def test_read_video(film):
    frames = list(read_video(film))
    assert [round(time_s, 3) for time_s, _ in frames] == [round(k * 0.1, 3) for k in range(30)]
    assert frames[0][1].shape == (48, 64, 3)
    times = [time_s for time_s, _ in read_video(film, start_s=1.0, end_s=2.0)]
    assert (times[0], len(times)) == (pytest.approx(1.0), 10)
    assert len(list(read_video(film, rate_hz=2.0))) == 6
    assert next(iter(read_video(film, max_side=32)))[1].shape == (24, 32, 3)


def test_pictures_and_folders(tmp_path):
    for index in range(3):
        save_picture(tmp_path / f'{index}.png', picture(index))
    (tmp_path / 'notes.txt').touch()
    frames = list(read_clip([tmp_path], rate_hz=4.0))
    assert [time_s for time_s, _ in frames] == [0.0, 0.25, 0.5]
    np.testing.assert_array_equal(frames[2][1], picture(2))
    chosen = list(read_clip([tmp_path / '2.png', tmp_path / '0.png']))
    np.testing.assert_array_equal(chosen[1][1], picture(0))
    assert len(list(read_clip([tmp_path / '1.png']))) == 1


def test_files_that_cannot_be_used(tmp_path, film):
    (tmp_path / 'noise.mp4').write_bytes(b'no video' * 100)
    (tmp_path / 'noise.png').write_bytes(b'no picture' * 100)
    (tmp_path / 'empty').mkdir()
    for read, text in (
        (lambda: list(read_clip([tmp_path / 'missing.mp4'])), 'no picture or video'),
        (lambda: list(read_clip([tmp_path / 'noise.mp4'])), 'no video that OpenCV'),
        (lambda: list(read_clip([tmp_path / 'empty'])), 'holds no pictures'),
        (lambda: list(read_clip([film], start_s=99)), 'no frame from second 99'),
        (lambda: read_picture(tmp_path / 'missing.png'), 'cannot read'),
        (lambda: read_picture(tmp_path / 'noise.png'), 'is no picture'),
        (lambda: read_mask(tmp_path / 'missing.png'), 'cannot read'),
        (lambda: read_mask(tmp_path / 'noise.png'), 'is no picture'),
    ):
        with pytest.raises(FileError, match=text):
            read()


@pytest.mark.parametrize('channels', [1, 3, 4, 'alpha'])
def test_read_mask(tmp_path, channels):
    expected = np.zeros((48, 64), bool)
    expected[5:20, 8:30] = True
    grey = expected.astype(np.uint8) * 255
    if channels == 'alpha':
        image = np.full((48, 64, 4), 40, np.uint8)
        image[..., 3] = grey
    elif channels == 4:
        image = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    else:
        image = grey if channels == 1 else np.dstack([grey] * channels)
    cv2.imwrite(str(tmp_path / 'mask.png'), image)
    np.testing.assert_array_equal(read_mask(tmp_path / 'mask.png'), expected)


def test_empty_mask_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / 'mask.png'), np.zeros((4, 4), np.uint8))
    with pytest.raises(FileError, match='marks no pixel'):
        read_mask(tmp_path / 'mask.png')


@pytest.mark.parametrize('raw', [False, True])
def test_make_bag(tmp_path, film, raw):
    made = make_bag(
        read_clip([film]), tmp_path / 'bag.mcap', camera='front', raw=raw,
        regions=[(0.0, box()), (0.0, box('lid')), (1.234, box(x=9)), (99.0, box(x=20))],
        queries=[(0.5, Query('q1', 'what?')), (0.5, Query('q2', 'and?'))],
    )
    assert (made.frames, made.regions, made.queries) == (30, 4, 2)
    with Bag(tmp_path / 'bag.mcap') as bag:
        assert bag.cameras == ('front',)
        events = list(bag.events())
    frames = [event.value for event in events if isinstance(event.value, Frame)]
    assert frames[0].stamp_ns == ORIGIN_NS
    assert frames[-1].stamp_ns == ORIGIN_NS + round(2.9 * NS_PER_S)
    regions = [event.value for event in events if isinstance(event.value, tuple)]
    assert [[r.region_id for r in group] for group in regions] == [['cup', 'lid'], ['cup'],
                                                                   ['cup']]
    assert [(group[0].stamp_ns - ORIGIN_NS) / NS_PER_S for group in regions] == [
        0.0, pytest.approx(1.3), pytest.approx(2.9)]
    queries = [event.value for event in events if isinstance(event.value, Query)]
    assert [(q.query_id, q.camera) for q in queries] == [('q1', 'front'), ('q2', 'front')]
    assert {q.stamp_ns for q in queries} == {ORIGIN_NS + NS_PER_S // 2}


def test_make_bag_without_frames_leaves_nothing(tmp_path):
    with pytest.raises(FileError, match='no frames'):
        make_bag(iter(()), tmp_path / 'bag.mcap')
    assert list(tmp_path.iterdir()) == []


def test_describe_a_picture(tmp_path):
    look = look_at(save_picture(tmp_path / 'a.png', picture(0)))
    describer = ScriptedDescriber(['a red square', 'red'])
    answer = describe_file(describer, look, box())
    assert (answer.text, answer.error_code) == ('a red square', ErrorCode.OK)
    mask = describer.calls[0].regions[0].masks[0]
    assert np.asarray(mask).sum() == 144
    answer = describe_file(describer, look, box(), 'what colour is {cup}?')
    assert answer.text == 'red'
    assert describer.calls[1].kind == 'answer'
    picture_drawn = drawn(look, box(), masks.decode(masks.encode(np.asarray(mask))))
    assert not np.array_equal(picture_drawn, look.frame.image)


def test_describe_a_video(film):
    look = look_at(film, frames=4)
    assert len(look.frames) == 4
    assert look.at == 3
    describer = ScriptedDescriber()
    answer = describe_file(describer, look, box())
    assert answer.error_code == ErrorCode.OK
    assert answer.stamp_ns == look.frames[3].stamp_ns
    look = look_at(film, frames=4, at_s=1.0)
    assert (look.frame.stamp_ns - look.frames[0].stamp_ns) / NS_PER_S == pytest.approx(1.0)
    describe_file(describer, look, box())
    assert describer.calls[-1].stamps_ns[-1] == look.frame.stamp_ns
    with pytest.raises(FileError, match='second 9 is not between'):
        look_at(film, at_s=9.0)


def test_describe_reports_a_region_outside(tmp_path):
    look = look_at(save_picture(tmp_path / 'a.png', picture(0)))
    answer = describe_file(ScriptedDescriber(), look, box(x=500))
    assert answer.error_code == ErrorCode.BAD_REGION


@pytest.mark.parametrize('name', ['03_blocks.mp4', '04_coffee.mp4', '16_robotarm.mp4'])
def test_real_clips_run_without_a_fault(tmp_path, media_dir, name):
    if not (media_dir / name).is_file():
        pytest.skip(f'no {name} in {media_dir}')
    clip = list(read_clip([media_dir / name], end_s=2.0, rate_hz=10, max_side=320))
    height, width = clip[0][1].shape[:2]
    blob = np.zeros((height, width), bool)
    blob[height // 4:height // 2, width // 4:width // 2] = True
    regions = [
        *((t, Region('box', RegionKind.BOX, box=Box(10 + k, 10, 60, 50)))
          for k, (t, _) in enumerate(clip)),
        (0.5, Region('mask', RegionKind.MASK, mask=masks.encode(blob))),
        (0.5, Region('points', RegionKind.POINTS, points=((width / 2, height / 2),))),
    ]
    queries = [(1.5, Query('q1', 'what is {box}?')), (1.5, Query('q2', 'what are they?'))]
    made = make_bag(iter(clip), tmp_path / 'bag.mcap', regions=regions, queries=queries)
    describer = ScriptedDescriber()
    with Bag(tmp_path / 'bag.mcap') as bag:
        result = replay(bag, describer, tmp_path / 'out.mcap')
        story = tell(bag, tmp_path / 'out.mcap')
        write_results(bag, story, tmp_path / 'out', video=False)
    stamps = {frame.stamp_ns for call in describer.calls for frame in call.frames}
    assert stamps <= set(story.stamps_ns['camera'])
    assert made.frames == story.frames_in == len(clip)
    assert result.problems == ()
    answers = {answer.query_id: answer for answer in result.answers}
    assert answers['q1'].region_ids == ('box',)
    assert set(answers['q2'].region_ids) == {'box', 'mask', 'points'}
    assert all(answer.error_code == ErrorCode.OK for answer in answers.values())
    assert {one.region_id for one in result.descriptions} == {'box', 'mask', 'points'}
    for one in result.descriptions:
        assert one.stamp_ns == max(one.frame_stamps_ns)
        assert 0 <= one.box.x < width
        assert one.box.x + one.box.width <= width
    assert all(frame.image.shape == (height, width, 3)
               for call in describer.calls for frame in call.frames)
