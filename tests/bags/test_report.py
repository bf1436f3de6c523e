# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what a run leaves for a person: page, video, summary."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from pixelrefer_ros.bags.annotate import VideoFile
from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.replay import replay
from pixelrefer_ros.bags.report import write_results
from pixelrefer_ros.bags.story import tell
from pixelrefer_ros.bags.summary import percentile_ms, summarise
from pixelrefer_ros.bags.truth import QueryTruth, RegionTruth, Truth
from pixelrefer_ros.bags.video import read_video
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Query
from tests.bags.makers import ORIGIN_NS, Script, at, box_at, write_bag
from tests.doubles import ScriptedDescriber

VOID = {'meta', 'img', 'br', 'link', 'input', 'hr'}


class Page(HTMLParser):
    """Check that tags nest, and collect texts and sources."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text, self.anchors, self.links = [], [], [], set(), []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.sources += [value for key, value in attrs if key in ('src', 'srcset', 'data')]
        if 'id' in attributes:
            self.anchors.add(attributes['id'])
        if tag == 'a':
            self.links.append(attributes['href'])
        assert tag not in ('script', 'link', 'iframe', 'object')
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


TRUTH = Truth(
    ORIGIN_NS,
    {'q1': QueryTruth(accept=('red',), kind='colour'), 'q2': QueryTruth(accept=('still',))},
    {'cup': (RegionTruth(0, 9, {'colour': ('red',), 'shape': ('mug',)}),)},
)


def results(tmp_path, truth=TRUTH, script=None, words=('A red cup.', 'It is red.', 'moving'),
            **options):
    with Bag(write_bag(tmp_path / 'bag.mcap', script)) as bag:
        replay(bag, ScriptedDescriber(words), tmp_path / 'out.mcap')
        story = tell(bag, tmp_path / 'out.mcap', truth)
        written = write_results(bag, story, tmp_path / 'out', **options)
    return story, written


def parsed(path):
    page = Page()
    page.feed(path.read_text(encoding='utf-8'))
    assert page.open == []
    return page


def test_story_and_summary(tmp_path):
    story, written = results(tmp_path)
    assert story.frames_in == 30
    assert story.region_ids == ('cup',)
    assert [asked.right for asked in story.asked] == [True, False]
    assert story.said[0].verdicts == {'colour': True, 'shape': False}
    mask = masks.decode(story.masks_at('camera', at(0.55), 48, 64)['cup'])
    assert mask.sum() == 144
    assert mask[10:22, 14:26].all()
    assert story.masks_at('camera', at(2.0), 48, 64) == {}
    assert story.masks_at('roof', at(0.5), 48, 64) == {}
    summary = json.loads(written.summary.read_text())
    assert summary == {
        'bag': 'bag.mcap', 'model': 'scripted', 'duration_s': 2.9,
        'questions': 2, 'answered': 2, 'right': 1, 'scored_questions': 2,
        'by_kind': {'colour': [1, 1], 'other': [0, 1]}, 'errors': {},
        'descriptions': 1, 'right_descriptions': 0, 'scored_descriptions': 1,
        'by_attribute': {'colour': [1, 1], 'shape': [0, 1]},
        'latency_ms': {'p50': None, 'p95': None}, 'frames_in': 30, 'frames_dropped': 0,
    }


def test_summary_without_truth_claims_nothing(tmp_path):
    story, written = results(tmp_path, truth=None, report=False, video=False)
    summary = json.loads(written.summary.read_text())
    assert (summary['right'], summary['right_descriptions']) == (None, None)
    assert written.report is None
    assert written.videos == ()
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['summary.json']
    assert summarise(story).questions == 2


def test_question_without_answer_counts_as_wrong(tmp_path):
    with Bag(write_bag(tmp_path / 'bag.mcap')) as bag:
        replay(bag, ScriptedDescriber(), tmp_path / 'out.mcap')
    with Bag(write_bag(tmp_path / 'more.mcap', Script(queries=[
            (1.0, Query('lost', 'what?', stamp_ns=at(1.0)))]))) as bag:
        truth = Truth(queries={'lost': QueryTruth(accept=('red',))})
        story = tell(bag, tmp_path / 'out.mcap', truth)
        write_results(bag, story, tmp_path / 'out', video=False)
    by_id = {a.query.query_id if a.query else a.answer.query_id: a for a in story.asked}
    assert by_id['lost'].answer is None
    assert by_id['lost'].right is False
    assert by_id['q1'].query is None
    text = ''.join(parsed(tmp_path / 'out' / 'report.html').text)
    assert 'no answer came' in text
    assert 'the question is not in the bag' in text


def test_page_stands_alone(tmp_path):
    _, written = results(tmp_path)
    page = parsed(written.report)
    assert page.sources
    assert all(source.startswith('data:') for source in page.sources)
    html = written.report.read_text(encoding='utf-8')
    assert not re.search(r'@import|url\(|https?:', html)
    assert 'prefers-color-scheme: dark' in html
    assert len(html) < 8_000_000
    text = ' '.join(''.join(page.text).split())
    for words in ('A red cup.', 'It is red.', 'what is cup?', 'expected: still', '✓ right',
                  '✗ wrong', '✗ shape', '1/2'):
        assert words in text, words
    assert all(link[1:] in page.anchors for link in page.links)
    assert len(page.links) == 3


def test_pictures_in_the_page_show_the_regions(tmp_path):
    _, written = results(tmp_path, video=False)
    uris = [source for source in parsed(written.report).sources if 'image/jpeg' in source]
    assert len(uris) == 5  # two frames for each of two answers, one for the description
    for uri in uris:
        data = np.frombuffer(base64.b64decode(uri.split(',')[1]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (48, 64, 3)


def test_words_of_a_model_cannot_break_the_page(tmp_path):
    evil = '<script>alert(1)</script> & "quoted" {{ 7 * 7 }}'
    script = Script(
        regions=[(0.11, [box_at(0.1, '<b>id</b>', label='"><i>')])],
        queries=[(1.01, Query('<q>', 'is {<b>id</b>} <u>red</u>?', stamp_ns=at(1.0)))],
    )
    _, written = results(tmp_path, None, script, (evil, evil))
    text = ''.join(parsed(written.report).text)
    assert text.count('<script>alert(1)</script>') == 2
    assert '{{ 7 * 7 }}' in text
    assert '<u>red</u>' in text


def test_page_stays_small_with_many_results(tmp_path, monkeypatch):
    monkeypatch.setattr('pixelrefer_ros.bags.pictures._BUDGET', 500)
    _, small = results(tmp_path, video=False)
    shown = len(parsed(small.report).sources)
    assert 0 < shown < 5


def test_large_video_is_linked(tmp_path, monkeypatch):
    monkeypatch.setattr('pixelrefer_ros.bags.report._VIDEO_BUDGET', 10)
    _, written = results(tmp_path)
    page = parsed(written.report)
    assert 'annotated.mp4' in page.links
    assert not any('video' in source for source in page.sources)


def test_bag_with_images_only(tmp_path):
    story, written = results(tmp_path, None, Script(regions=[], queries=[]))
    assert (story.said, story.asked) == ([], [])
    assert 'bag.mcap' in ''.join(parsed(written.report).text)


def test_video_plays_back_in_image_time(tmp_path):
    _, written = results(tmp_path)
    (path,) = written.videos
    frames = list(read_video(path))
    assert len(frames) == 30
    assert frames[-1][0] == pytest.approx(2.9, abs=0.15)
    height, width = frames[0][1].shape[:2]
    assert width == 64
    assert height > 48
    # the square is where it was drawn: red at its place, tinted where the region lies
    assert frames[20][1][12:20, 63 % 52 + 2:63 % 52 + 8, 0].mean() > 150


def test_video_of_a_slow_and_halting_camera(tmp_path):
    script = Script(frames=[0.0, 0.5, 1.0, 1.5, 9.5, 10.0], regions=[], queries=[])
    _, written = results(tmp_path, None, script)
    times = [time_s for time_s, _ in read_video(written.videos[0])]
    assert len(times) == 4 + 6 + 1  # the gap of eight seconds is shown as three


def test_video_falls_back_to_another_codec(tmp_path, monkeypatch):
    monkeypatch.setattr('pixelrefer_ros.bags.annotate.CODECS', (
        ('zzzz', '.mp4'), ('MJPG', '.avi')))
    video = VideoFile(tmp_path / 'film.mp4', 64, 48, 5.0)
    for _ in range(3):
        video.write(np.zeros((48, 64, 3), np.uint8))
    video.close()
    assert video.path.name == 'film.avi'
    assert len(list(read_video(video.path))) == 3
    monkeypatch.setattr('pixelrefer_ros.bags.annotate.CODECS', (('zzzz', '.mp4'),))
    with pytest.raises(OSError, match='zzzz'):
        VideoFile(tmp_path / 'film.mp4', 64, 48, 5.0)


def test_percentiles():
    assert percentile_ms([], 0.5) is None
    assert percentile_ms([0.0, 0.0], 0.5) is None
    assert percentile_ms([0.003, 0.001, 0.002], 0.5) == 2.0
    assert percentile_ms([k / 1000 for k in range(1, 101)], 0.95) == 95.0
