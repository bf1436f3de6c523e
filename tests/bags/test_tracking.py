# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check replays in which regions are given once and followed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pixelrefer_ros.bags import to_messages
from pixelrefer_ros.bags.describing import Look, describe_file
from pixelrefer_ros.bags.reading import Bag, Tracks
from pixelrefer_ros.bags.replay import replay
from pixelrefer_ros.bags.report import write_results
from pixelrefer_ros.bags.story import tell
from pixelrefer_ros.bags.topics import OUTPUTS, Role
from pixelrefer_ros.bags.track_log import Span, TrackLog
from pixelrefer_ros.bags.writing import TRACKS_TOPIC, BagWriter
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import (
    NS_PER_S,
    Box,
    ErrorCode,
    Frame,
    Query,
    Region,
    RegionKind,
    Task,
    Track,
    TrackState,
)
from pixelrefer_ros.drawing import Palette
from pixelrefer_ros.engine import EngineConfig
from pixelrefer_ros.tracking.registry import tracker_factory
from tests.bags.makers import at
from tests.doubles import ScriptedDescriber
from tests.scenes import SIDE, corner, overlap, scene, truth

GIVEN, HIDDEN, BACK, END = 4, 12, 22, 28
"""Steps: where the region is given, where it goes out of sight, where it is back, the end."""


def square(step, region_id='square', **fields):
    return Region(region_id, RegionKind.BOX, stamp_ns=at(step / 10),
                  box=Box(*corner(step), SIDE, SIDE), **fields)


def visible(step):
    return not HIDDEN <= step < BACK


def write(path, *, given=(GIVEN,), end=END, queries=()):
    """Write a bag with the square given in some steps only."""
    with BagWriter(path) as writer:
        for step in range(end):
            stamp_ns = at(step / 10)
            picture = scene(step, visible=visible(step))
            writer.write('/image', to_messages.image_to(Frame('', stamp_ns, picture, 'optical')),
                         stamp_ns)
            if step in given:
                message = to_messages.regions_to([square(step, label='red')], stamp_ns)
                writer.write('/pixelrefer/regions', message, stamp_ns + 1)
            for query in queries:
                if query.stamp_ns == stamp_ns:
                    writer.write('/pixelrefer/query', to_messages.query_to(query), stamp_ns + 2)
    return path


def run(path, output, backend='anchored'):
    describer = ScriptedDescriber()
    factory = None if backend == 'none' else tracker_factory(backend)
    with Bag(path) as bag:
        config = EngineConfig(describe_after_s=0.5)
        return replay(bag, describer, output, config=config, make_tracker=factory), describer


def tracks_of(path):
    with Bag(path) as bag:
        return [event.value for event in bag.events({Role.TRACKS})]


def step_of(stamp_ns):
    return round((stamp_ns - at(0)) * 10 / NS_PER_S)


def test_a_region_given_once_is_tracked_described_and_answered_about(tmp_path):
    query = Query('q', 'what is {square}?', Task.ASK, stamp_ns=at(1.1), window_s=2.0)
    path = write(tmp_path / 'bag.mcap', end=HIDDEN, queries=[query])
    result, describer = run(path, tmp_path / 'out.mcap')
    assert not result.problems
    arrays = tracks_of(tmp_path / 'out.mcap')
    # a second time when the region was given
    steps = [*range(GIVEN + 1), *range(GIVEN, HIDDEN)]
    assert [step_of(one.stamp_ns) for one in arrays] == steps
    for index, one in enumerate(arrays):
        step = step_of(one.stamp_ns)
        if index <= GIVEN:
            assert one.tracks == ()
            continue
        (track,) = one.tracks
        assert (track.region_id, track.label) == ('square', 'red')
        assert track.state == (TrackState.NEW if step == GIVEN else TrackState.TRACKED)
        assert overlap(masks.decode(track.mask), truth(step)) > 0.8, step
    assert result.descriptions
    (answer,) = result.answers
    assert len(answer.frame_stamps_ns) == describer.frames_per_region
    assert step_of(answer.frame_stamps_ns[0]) < GIVEN  # also back from where it was given
    (evidence,) = answer.evidence
    for stamp_ns, mask in zip(evidence.track_stamps_ns, evidence.track_masks, strict=True):
        assert overlap(masks.decode(mask), truth(step_of(stamp_ns))) > 0.8


def test_same_bag_same_bytes(tmp_path):
    """With a tracker too the output bag, page, video and summary are equal to the byte."""
    path = write(tmp_path / 'bag.mcap')
    for place in ('a', 'b'):
        folder = tmp_path / place
        result, _ = run(path, folder / 'output.mcap')
        with Bag(path) as bag:
            story = tell(bag, folder / 'output.mcap')
            write_results(bag, story, folder, problems=result.problems)
    names = sorted(file.name for file in (tmp_path / 'a').iterdir())
    assert names == ['annotated.mp4', 'output.mcap', 'report.html', 'summary.json']
    for name in names:
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes(), name


def test_several_regions_of_one_message_give_one_array(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        writer.write('/image', to_messages.image_to(Frame('', at(0), scene(0))), at(0))
        both = [square(0, 'a'), square(0, 'b'), square(0, 'c')]
        writer.write('/pixelrefer/regions', to_messages.regions_to(both, at(0)), at(0) + 1)
    run(tmp_path / 'bag.mcap', tmp_path / 'out.mcap')
    arrays = tracks_of(tmp_path / 'out.mcap')
    assert [len(one.tracks) for one in arrays] == [0, 3]


def test_without_a_tracker_no_tracks_are_written(tmp_path):
    result, _ = run(write(tmp_path / 'bag.mcap'), tmp_path / 'out.mcap', 'none')
    with Bag(tmp_path / 'out.mcap') as bag:
        assert TRACKS_TOPIC not in {topic.name for topic in bag.topics}
        assert bag.count(*OUTPUTS) == len(result.descriptions)


def test_the_story_knows_where_it_was_and_when_it_was_not(tmp_path):
    path = write(tmp_path / 'bag.mcap')
    run(path, tmp_path / 'out.mcap')
    with Bag(path) as bag:
        story = tell(bag, tmp_path / 'out.mcap')
        written = write_results(bag, story, tmp_path / 'out')
    height, width = scene(0).shape[:2]
    seen = story.masks_at('', at(0.8), height, width)['square']
    assert overlap(masks.decode(seen), truth(8)) > 0.8
    gone = at((BACK - 1) / 10)
    assert story.masks_at('', gone, height, width) == {}
    (overlay,) = story.overlays_at('', gone, height, width, Palette())
    assert re.fullmatch(r'square red  lost \d\.\d\d, seen \d\.\d s ago', overlay.label)
    assert overlay.faint
    assert overlay.box is not None
    (overlay,) = story.overlays_at('', at(0.8), height, width, Palette())
    assert re.fullmatch(r'square red  tracked \d\.\d\d', overlay.label)
    assert story.overlays_at('', at(0.8), height, width, Palette(), ['other']) == []
    spans = story.spans('square')
    assert step_of(spans[0].start_ns) == GIVEN
    assert not any(span.start_ns <= gone <= span.end_ns for span in spans)
    assert 'as they were followed' in written.report.read_text(encoding='utf-8')


@pytest.mark.parametrize('given', [0, 6, 11])
def test_a_region_of_a_video_is_followed_both_ways(given):
    frames = tuple(Frame('', at(step / 10), scene(step)) for step in range(HIDDEN))
    describer = ScriptedDescriber(frames_per_region=HIDDEN)
    answer = describe_file(describer, Look(frames, given), square(given),
                           make_tracker=tracker_factory('anchored'))
    assert answer.error_code == ErrorCode.OK
    (clip,) = describer.calls[0].regions
    assert len(clip.masks) >= HIDDEN - 1
    for stamp_ns, mask in zip(describer.calls[0].stamps_ns, clip.masks, strict=True):
        step = step_of(stamp_ns)
        assert overlap(np.asarray(mask, bool), truth(step)) > 0.8, step


def track(step, state=TrackState.TRACKED, box=None):
    mask = None if box is None else masks.encode_box(box, 20, 30)
    return Track('a', 'front', at(step), state, 0.5, box, mask, at(step))


def test_the_log_finds_tracks_by_time():
    log = TrackLog()
    assert not log
    boxes = {3: Box(1, 2, 3, 4), 1: Box(0, 0, 2, 2), 2: Box(5, 5, 5, 5)}
    for step, box in boxes.items():  # as after a clock that went back
        log.add('front', Tracks('front', at(step), (track(step, box=box),)))
    log.add('front', Tracks('front', at(4), (track(4, TrackState.LOST),)))
    assert log
    for step, box in boxes.items():
        assert log.at('front', at(step), 0) == (track(step, box=box),)
        assert log.last_box('front', 'a', at(step)) == box
    assert log.at('front', at(2.5), NS_PER_S) == (track(2, box=boxes[2]),)
    assert log.at('front', at(2.5), NS_PER_S // 4) == ()
    assert log.at('front', at(0.5), NS_PER_S) == ()
    assert log.at('left', at(2), NS_PER_S) == ()
    assert log.at('front', at(4), 0) == (track(4, TrackState.LOST),)
    assert log.last_box('front', 'a', at(9)) == boxes[3]
    assert log.last_box('front', 'a', at(0)) is None
    # later tracks of the same image stand in for the earlier
    log.add('front', Tracks('front', at(3), ()))
    assert log.at('front', at(3), 0) == ()


def test_spans_part_where_it_was_not_seen_and_where_it_was_hidden():
    log = TrackLog()
    box = Box(1, 1, 4, 4)
    for step in (0, 1, 2, 3, 7, 8):
        state = TrackState.OCCLUDED if step in (2, 3) else TrackState.TRACKED
        log.add('', Tracks('', at(step), (track(step, state, box),)))
    assert log.spans('a', NS_PER_S) == [
        Span(at(0), at(2), False), Span(at(2), at(3), True), Span(at(7), at(8), False)]
    assert log.spans('b', NS_PER_S) == []
