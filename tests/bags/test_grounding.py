# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check bags that ask for things in words: what replay answers, and what the page shows of it."""

from __future__ import annotations

import base64
from dataclasses import replace

import cv2
import numpy as np
import pytest

from pixelrefer_ros.bags import to_messages
from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.replay import replay
from pixelrefer_ros.bags.report import write_results
from pixelrefer_ros.bags.story import tell
from pixelrefer_ros.bags.topics import OUTPUTS
from pixelrefer_ros.bags.truth import QueryTruth, Spot, Truth
from pixelrefer_ros.bags.video import read_video
from pixelrefer_ros.bags.writing import BagWriter
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import ErrorCode, Frame, Query, Task
from pixelrefer_ros.engine import EngineConfig
from pixelrefer_ros.tracking.registry import tracker_factory
from tests.bags.finding import ABSENT, box_line, chain, frame_line, square
from tests.bags.makers import ORIGIN_NS, at
from tests.bags.test_report import parsed
from tests.doubles import ScriptedDescriber
from tests.scenes import HEIGHT, WIDTH, overlap, scene, truth

STEPS, ASKED, GONE = 24, 19, range(4, 8)
"""Steps: how many, when the questions come, when the square is out of sight."""
SHOWN = [0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 18, 19]
KEY = 12
"""Place of the key frame among those shown: step 15."""

QUERIES = (
    Query('g1', 'which one moved?', Task.GROUND, stamp_ns=at(ASKED / 10)),
    Query('g2', 'which one fell?', Task.GROUND, stamp_ns=at(ASKED / 10)),
)
SAID = (frame_line(KEY), box_line(square(15)), ABSENT)
TRUTH = Truth(
    ORIGIN_NS,
    queries={'g1': QueryTruth(track='square', kind='moved'), 'g2': QueryTruth(absent=True)},
    tracks={'square': (Spot(1.0, 70, 60, 40, 40), Spot(2.0, 110, 70, 40, 40))},
)


def write(path, queries=QUERIES):
    with BagWriter(path) as writer:
        for step in range(STEPS):
            stamp_ns = at(step / 10)
            picture = scene(step, visible=step not in GONE)
            writer.write('/image', to_messages.image_to(Frame('', stamp_ns, picture, 'optical')),
                         stamp_ns)
            for query in queries:
                if query.stamp_ns == stamp_ns:
                    writer.write('/pixelrefer/query', to_messages.query_to(query), stamp_ns + 2)
    return path


def run(folder, *said, tracker='anchored', config=None, **options):
    path = folder / 'bag.mcap'
    with Bag(path if path.exists() else write(path)) as bag:
        return replay(bag, ScriptedDescriber(), folder / 'out.mcap', config=config,
                      make_tracker=tracker_factory(tracker),
                      grounder=chain(*(said or SAID)), **options)


def tale(folder, given=TRUTH, video=False):
    with Bag(folder / 'bag.mcap') as bag:
        story = tell(bag, folder / 'out.mcap', given)
        return story, write_results(bag, story, folder / 'page', video=video)


def image(uri):
    data = np.frombuffer(base64.b64decode(uri.split(',')[1]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def test_a_thing_asked_for_in_words_is_found_followed_and_described(tmp_path):
    result = run(tmp_path, config=EngineConfig(describe_after_s=0.3))
    assert result.problems == ()
    found, refused = result.answers
    assert (found.error_code, found.region_ids) == (ErrorCode.OK, ('found-g1',))
    assert found.text.startswith('describe found-g1')
    assert found.frame_stamps_ns == tuple(at(step / 10) for step in SHOWN)
    (evidence,) = found.evidence
    assert (evidence.stamp_ns, evidence.box) == (at(1.5), square(15))
    steps = [round((stamp - at(0)) / 1e8) for stamp in evidence.track_stamps_ns]
    assert set(steps) >= set(range(8, ASKED + 1))
    assert not set(steps) & set(GONE)
    for step, mask in zip(steps, evidence.track_masks, strict=True):
        assert overlap(masks.decode(mask), truth(step)) > 0.8, step
    assert refused.error_code == ErrorCode.NOT_GROUNDED
    assert 'is not in the video' in refused.error_msg
    # in the bag as given out, and described later as other regions are
    with Bag(tmp_path / 'out.mcap') as bag:
        values = [event.value for event in bag.events(OUTPUTS)]
    assert [v.query_id for v in values if hasattr(v, 'query_id')] == ['g1', 'g2']
    assert any(getattr(v, 'region_id', '') == 'found-g1' for v in values)


def test_replay_is_the_same_to_the_byte(tmp_path):
    files = []
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        run(tmp_path / name)
        tale(tmp_path / name, video=True)
        files.append([(tmp_path / name / file).read_bytes()
                      for file in ('out.mcap', 'page/report.html', 'page/annotated.mp4')])
    assert files[0] == files[1]


def test_without_a_tracker_what_is_found_is_known_in_its_key_frame(tmp_path):
    run(tmp_path, tracker='none')
    story, _ = tale(tmp_path)
    (evidence,) = story.asked[0].answer.evidence
    assert evidence.track_stamps_ns == (at(1.5),)
    assert masks.bounding_box(evidence.mask) == square(15)
    assert story.asked[0].right is True


def test_timings_tell_the_time_of_both_models(tmp_path):
    result = run(tmp_path, measure=True)
    timings = result.answers[0].timings
    assert timings.tracking_s > 0
    assert timings.language_s > 0
    assert timings.total_s >= timings.tracking_s + timings.language_s


def test_without_a_model_such_questions_are_refused(tmp_path):
    with Bag(write(tmp_path / 'bag.mcap')) as bag:
        result = replay(bag, ScriptedDescriber(), tmp_path / 'out.mcap')
    assert [answer.error_code for answer in result.answers] == [ErrorCode.UNSUPPORTED] * 2


def test_the_story_knows_what_was_found(tmp_path):
    run(tmp_path)
    story, written = tale(tmp_path)
    first, second = story.asked
    assert (first.right, first.kind, second.right) == (True, 'moved', True)
    assert first.overlap == pytest.approx(1.0)
    assert second.overlap is None
    assert story.region_ids == ('found-g1',)
    # seen before it was found, because the answer rests on it; and then as it was followed
    spans = story.spans('found-g1')
    assert spans[-1].end_ns == at((STEPS - 1) / 10)
    assert spans[-1].start_ns <= at(0.8)
    assert '"right": 2' in written.summary.read_text()


def test_what_is_found_elsewhere_is_wrong(tmp_path):
    run(tmp_path, frame_line(KEY), box_line(replace(square(15), x=10)), frame_line(KEY),
        box_line(square(15)))
    story, written = tale(tmp_path)
    assert [asked.right for asked in story.asked] == [False, False]
    assert story.asked[0].overlap < 0.1
    text = ' '.join(''.join(parsed(written.report).text).split())
    assert 'expected: the place of square' in text
    assert 'expected: to hear that it is not there' in text


def test_the_page_shows_how_it_was_found(tmp_path):
    run(tmp_path, measure=True)
    _, written = tale(tmp_path)
    html = written.report.read_text(encoding='utf-8')
    page = parsed(written.report)
    text = ' '.join(''.join(page.text).split())
    for words in ('which one moved?', 'Frame 13 of 16, at 1.50 s', 'with 50 % certainty',
                  'It moves to the right.', 'scripted-chat + scripted', 'tracking',
                  '100 % overlap', 'NOT_GROUNDED', 'is not in the video', '✓ right'):
        assert words in text, words
    assert html.count('<figure class="chosen">') == 1
    tiles = html.split('<div class="film">')[1].split('</div>\n<p')[0].split('<figure')[1:]
    assert len(tiles) == 16
    for number, (step, tile) in enumerate(zip(SHOWN, tiles, strict=True)):
        assert tile.startswith(' class="chosen"') == (number == KEY)
        assert f'>{step / 10:.2f} s<' in tile
        if step in GONE:
            assert 'not seen' in tile
            assert tile.count('<img') == 1
        elif step > max(GONE):
            assert tile.count('<img') == 2
    assert len(html) < 8_000_000


def test_the_pictures_show_box_and_mask(tmp_path):
    run(tmp_path)
    _, written = tale(tmp_path)
    html = written.report.read_text(encoding='utf-8')
    card = html.split('class="card found"')[1]
    uris = [part.split('"')[0] for part in card.split('src="')[1:]]
    big, plain, masked = image(uris[0]), *(
        image(tile.split('src="')[n].split('"')[0])
        for tile in [card.split('<figure class="chosen">')[1]] for n in (1, 2))
    assert big.shape == (HEIGHT, WIDTH, 3)
    box = square(15)
    outside = (slice(0, 20), slice(0, 20))
    # what is not the thing is dimmed, but for what the model was shown
    assert masked[outside].mean() < 0.75 * plain[outside].mean()
    assert big[outside].mean() < 0.75 * scene(15)[outside].mean()
    inside = (slice(box.y + 8, box.y + 32), slice(box.x + 8, box.x + 32))
    assert abs(big[inside].mean() - scene(15)[inside].mean()) < 12
    edge = big[box.y + 4:box.y + 36, box.x - 2:box.x + 3]
    assert np.abs(edge - scene(15)[box.y + 4:box.y + 36, box.x - 2:box.x + 3]).max() > 60


def test_the_video_draws_what_was_found_as_other_regions(tmp_path):
    run(tmp_path)
    _, written = tale(tmp_path, video=True)
    frames = [picture.astype(int) for _, picture in read_video(written.videos[0])]
    for step in (10, 22):  # before and after it was found
        box = square(step)
        edge = np.s_[box.y + 6:box.y + 34, box.x - 1:box.x + 2]
        assert np.abs(frames[step][edge] - scene(step)[edge]).mean() > 25, step


def test_an_answer_that_is_old_says_so(tmp_path):
    early = Query('g1', 'which one moved?', Task.GROUND, stamp_ns=at(1.9))
    path = tmp_path / 'bag.mcap'
    with BagWriter(path) as writer:
        for step in range(STEPS):
            frame = Frame('', at(step / 10), scene(step), 'optical')
            writer.write('/image', to_messages.image_to(frame), frame.stamp_ns)
        writer.write('/pixelrefer/query', to_messages.query_to(early), at(2.31))
    run(tmp_path, *SAID[:2], config=EngineConfig(describe_enabled=False))
    _, written = tale(tmp_path, None)
    assert 'was 0.40 s old' in ''.join(parsed(written.report).text)
