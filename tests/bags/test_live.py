# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the demo on small bags: player, node and listener as processes, through DDS."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from pixelrefer_ros.bags.reading import Bag, Tracks
from pixelrefer_ros.bags.topics import INPUTS, OUTPUTS, Role
from pixelrefer_ros.bags.truth import QueryTruth, Truth
from pixelrefer_ros.bags.video import make_bag, read_clip
from pixelrefer_ros.bags.writing import BagWriter
from pixelrefer_ros.core.types import (
    Answer,
    Box,
    Description,
    ErrorCode,
    Query,
    Region,
    RegionKind,
    Task,
)
from tests.bags.makers import Script, at, box_at, write_bag

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec('rclpy'), reason='no rclpy'),
    pytest.mark.skipif(
        not all((ROOT / f'pixelrefer_ros/models/{name}/model.safetensors').is_file()
                for name in ('tabletop', 'tabletop_grounding')),
        reason='no tabletop models',
    ),
]


def demo(*arguments):
    """Run the demo in a process; the marker of the ROS wheels must not be inherited."""
    environment = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    return subprocess.run(
        [sys.executable, '-m', 'demo.run', *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250, check=False,
    )


def outputs_of(path):
    with Bag(path) as bag:
        return [event.value for event in bag.events(OUTPUTS)]


def test_questions_that_nobody_can_answer_are_no_failure():
    from demo.run import _verdict

    story = SimpleNamespace(asked=[], said=[], observations=[])
    told = Console(file=io.StringIO())

    def failed(errors, *, grounds):
        summary = SimpleNamespace(
            questions=3, answered=2, errors=errors, latency_ms={'p50': 1, 'p95': 2}, frames_in=1,
            frames_dropped=0)
        return _verdict(story, summary, told, grounds=grounds)

    assert not failed({'UNSUPPORTED': 1}, grounds=False)
    assert failed({'UNSUPPORTED': 1}, grounds=True)
    assert not failed({'NOT_GROUNDED': 1}, grounds=True)
    assert failed({'MODEL_ERROR': 1}, grounds=False)


def test_whole_demo(tmp_path, ros_domain_id):
    script = Script(
        regions=[(k * 0.1 + 0.005, [box_at(k * 0.1)]) for k in range(30)],
        queries=[
            (1.01, Query('q1', 'what is {cup}?', stamp_ns=at(1.0))),
            (2.01, Query('q2', 'what is it?', stamp_ns=at(2.0), region_ids=('cup',))),
            (2.51, Query('g1', 'Which object fell?', Task.GROUND, stamp_ns=at(2.5))),
        ],
    )
    write_bag(tmp_path / 'bag.mcap', script)
    Truth(queries={
        'q1': QueryTruth(accept=('nothing a model would say',)), 'g1': QueryTruth(absent=True),
    }).save(tmp_path / 'bag.truth.json')
    done = demo('--bag', tmp_path / 'bag.mcap', '--out', tmp_path / 'out', '--device', 'cpu')
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == [
        'annotated.mp4', 'node.log', 'output.mcap', 'report.html', 'summary.json']
    summary = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    results = outputs_of(tmp_path / 'out' / 'output.mcap')
    answers = {one.query_id: one for one in results if isinstance(one, Answer)}
    assert set(answers) == {'q1', 'q2', 'g1'}
    # found or not, it is an answer: the demo has not failed
    found = answers['g1'].error_code == ErrorCode.OK
    assert found or answers['g1'].error_code == ErrorCode.NOT_GROUNDED
    assert (summary['questions'], summary['answered'], summary['right']) == (
        3, 2 + found, 1 - found)
    assert (summary['frames_in'], summary['frames_dropped']) == (30, 0)
    assert summary['descriptions'] >= 1
    assert 0 < summary['latency_ms']['p50'] <= summary['latency_ms']['p95']
    stamps = {at(k * 0.1) for k in range(30)}
    tracks = [one for one in results if isinstance(one, Tracks)]
    assert {one.stamp_ns for one in tracks} <= stamps
    assert {track.region_id for one in tracks for track in one.tracks} - {'found-g1'} == {'cup'}
    for one in results:
        if not isinstance(one, Tracks):
            assert set(one.frame_stamps_ns) <= stamps
            if one is not answers['g1']:  # it is followed on after what was shown
                assert one.stamp_ns == max(one.frame_stamps_ns)
    for words in ('q1', 'cup', 'report.html', 'questions: 0 of 1 right',
                  f'things to find in words: {1 - found} of 1 right'):
        assert words in done.stdout


def test_real_clips_run_through_the_node(tmp_path, media_dir, ros_domain_id):
    """Three clips are three cameras of one robot."""
    clips = {'blocks': '03_blocks.mp4', 'coffee': '04_coffee.mp4', 'arm': '16_robotarm.mp4'}
    sizes = {}
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        for camera, name in clips.items():
            if not (media_dir / name).is_file():
                pytest.skip(f'no {name} in {media_dir}')
            clip = list(read_clip([media_dir / name], end_s=2.0, rate_hz=10, max_side=320))
            sizes[camera] = clip[0][1].shape[:2]
            regions = [
                (t, Region(f'{camera}_{side}', RegionKind.BOX, box=Box(x + k, 20, 60, 50)))
                for k, (t, _) in enumerate(clip) for side, x in (('left', 10), ('right', 180))
            ]
            queries = [
                (1.5, Query(f'{camera}_one', f'what is {{{camera}_right}}?')),
                (1.6, Query(f'{camera}_all', 'what are they?')),
            ]
            made = tmp_path / f'{camera}.mcap'
            make_bag(iter(clip), made, camera=camera, regions=regions, queries=queries)
            with Bag(made) as bag:
                for topic, _, log_time_ns, data in bag.raw(INPUTS):
                    writer.write_raw(topic.name, topic.msgtype, data, log_time_ns)
    done = demo('--bag', tmp_path / 'bag.mcap', '--out', tmp_path / 'out', '--device', 'cpu',
                '--no-video')
    assert done.returncode == 0, done.stdout + done.stderr
    results = outputs_of(tmp_path / 'out' / 'output.mcap')
    answers = {one.query_id: one for one in results if isinstance(one, Answer)}
    assert {one.error_code for one in answers.values()} == {ErrorCode.OK}
    for camera in clips:
        assert answers[f'{camera}_one'].region_ids == (f'{camera}_right',)
        assert answers[f'{camera}_all'].region_ids == (f'{camera}_left', f'{camera}_right')
        assert answers[f'{camera}_all'].camera == camera
    described = [one for one in results if isinstance(one, Description)]
    assert {one.region_id for one in described} == {
        f'{camera}_{side}' for camera in clips for side in ('left', 'right')}
    stamps = set()
    with Bag(tmp_path / 'bag.mcap') as bag:
        for event in bag.events({Role.IMAGE}, decode=False):
            stamps.add((event.value.camera, event.value.stamp_ns))
    for one in described:
        height, width = sizes[one.camera]
        assert {(one.camera, stamp_ns) for stamp_ns in one.frame_stamps_ns} <= stamps
        assert 0 <= one.box.x < one.box.x + one.box.width <= width
        assert 0 <= one.box.y < one.box.y + one.box.height <= height


def test_failures_show_in_the_exit_status(tmp_path, ros_domain_id):
    done = demo('--bag', tmp_path / 'missing.mcap', '--out', tmp_path / 'out')
    assert done.returncode == 1
    assert 'no bag at' in done.stdout
    write_bag(tmp_path / 'bag.mcap')
    done = demo('--bag', tmp_path / 'bag.mcap', '--out', tmp_path / 'out', '--model', 'no/model')
    assert done.returncode == 1
    assert 'refused to configure' in done.stdout
    assert 'Traceback' not in done.stdout + done.stderr
    assert not (tmp_path / 'out' / 'output.mcap').exists()


def test_player_says_when_nobody_listens(tmp_path, ros_domain_id):
    write_bag(tmp_path / 'bag.mcap')
    done = subprocess.run(
        [sys.executable, '-m', 'demo.player', str(tmp_path / 'bag.mcap'), '--wait', '0.5'],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 1
    assert 'nobody subscribes to /camera/image/compressed' in done.stderr
