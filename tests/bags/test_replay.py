# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check lock-step replay: what comes out, that it is the same every time, and the edges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pixelrefer_ros.bags import to_messages
from pixelrefer_ros.bags.errors import FileError
from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.replay import replay
from pixelrefer_ros.bags.report import write_results
from pixelrefer_ros.bags.story import tell
from pixelrefer_ros.bags.summary import summarise
from pixelrefer_ros.bags.topics import INPUTS, OUTPUTS
from pixelrefer_ros.bags.writing import BagWriter
from pixelrefer_ros.core.types import (
    Answer,
    Box,
    Description,
    ErrorCode,
    Frame,
    Mask,
    Query,
    Region,
    RegionKind,
)
from pixelrefer_ros.engine import EngineConfig
from tests.bags.makers import Script, at, box_at, picture, write_bag
from tests.doubles import ScriptedDescriber


def run(bag_path, output, **options):
    with Bag(bag_path) as bag:
        return replay(bag, options.pop('describer', None) or ScriptedDescriber(), output,
                      **options)


def outputs_of(path):
    with Bag(path) as bag:
        return [(event.log_time_ns, event.value) for event in bag.events(OUTPUTS)]


def test_results_stamps_and_counts(tmp_path):
    result = run(write_bag(tmp_path / 'bag.mcap'), tmp_path / 'out.mcap')
    assert [answer.query_id for answer in result.answers] == ['q1', 'q2']
    assert [answer.error_code for answer in result.answers] == [ErrorCode.OK] * 2
    assert [answer.stamp_ns for answer in result.answers] == [at(0.5), at(0.5)]
    assert [answer.frame_stamps_ns for answer in result.answers] == [(at(0.1), at(0.5))] * 2
    assert [one.region_id for one in result.descriptions] == ['cup']
    assert result.descriptions[0].box == Box(14, 10, 12, 12)
    assert result.stats.cameras['camera'].frames_in == 30
    assert not result.problems
    assert {one.timings.total_s for one in (*result.descriptions, *result.answers)} == {0.0}
    written = outputs_of(tmp_path / 'out.mcap')
    assert [value for _, value in written if isinstance(value, Answer)] == list(result.answers)
    assert [value for _, value in written if isinstance(value, Description)] == list(
        result.descriptions)
    assert [t for t, value in written if isinstance(value, Answer)] == [at(1.01), at(2.01)]


@pytest.mark.parametrize('compressed', [False, True])
def test_same_bag_same_bytes(tmp_path, compressed):
    """The output bag, page, video and summary are equal to the byte."""
    bag_path = write_bag(tmp_path / 'bag.mcap', Script(compressed=compressed))
    for place in ('a', 'b'):
        folder = tmp_path / place
        with Bag(bag_path) as bag:
            result = replay(bag, ScriptedDescriber(), folder / 'output.mcap')
            story = tell(bag, folder / 'output.mcap')
            write_results(bag, story, folder, problems=result.problems)
    names = sorted(file.name for file in (tmp_path / 'a').iterdir())
    assert names == ['annotated.mp4', 'output.mcap', 'report.html', 'summary.json']
    for name in names:
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes(), name


def test_other_content_other_bytes(tmp_path):
    for name, x in (('a', 10), ('b', 11)):
        script = Script(regions=[(0.11, [box_at(0.1, x=x)])])
        run(write_bag(tmp_path / f'{name}.mcap', script), tmp_path / name / 'out.mcap')
    assert ((tmp_path / 'a' / 'out.mcap').read_bytes()
            != (tmp_path / 'b' / 'out.mcap').read_bytes())


def test_timings_are_measured_on_request(tmp_path):
    result = run(write_bag(tmp_path / 'bag.mcap'), tmp_path / 'out.mcap', measure=True)
    assert {round(one.timings.total_s, 6) for one in result.answers} == {0.006}
    plain = run(write_bag(tmp_path / 'bag2.mcap'), tmp_path / 'out2.mcap')
    assert [answer.text for answer in result.answers] == [answer.text for answer in plain.answers]


def test_inputs_are_copied_on_request(tmp_path):
    path = write_bag(tmp_path / 'bag.mcap')
    run(path, tmp_path / 'out.mcap', copy_inputs=True)
    with Bag(path) as bag, Bag(tmp_path / 'out.mcap') as copy:
        first = [(t.name, ns, data) for t, _, ns, data in bag.raw(INPUTS)]
        second = [(t.name, ns, data) for t, _, ns, data in copy.raw(INPUTS)]
        assert len(list(copy.events(OUTPUTS))) == 3
    assert first == second
    assert len(first) == 34


def test_bag_without_images_is_refused_and_nothing_written(tmp_path):
    path = write_bag(tmp_path / 'bag.mcap', Script(frames=[]))
    with pytest.raises(FileError, match='has no images'):
        run(path, tmp_path / 'out.mcap')
    assert not (tmp_path / 'out.mcap').exists()


def test_bag_that_is_played_twice_over(tmp_path):
    """Stamps that jump back end open queries with CLOCK_JUMP, and the rest goes on."""
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        for lap in range(2):
            for k in range(12):
                frame = Frame('', at(k * 0.1), picture(k))
                log = at(lap * 2.0 + k * 0.1)
                writer.write('/image', to_messages.image_to(frame), log)
                if k == 5:
                    writer.write('/regions', to_messages.regions_to([box_at(0.5)], 0), log + 1)
                if k == 8:
                    query = Query(f'lap{lap}', 'what?', stamp_ns=at(0.8))
                    writer.write('/query', to_messages.query_to(query), log + 1)
                if k == 11 and lap == 0:  # its image never comes
                    query = Query('ahead', 'what?', stamp_ns=at(1.4), region_ids=('cup',))
                    writer.write('/query', to_messages.query_to(query), log + 1)
    result = run(tmp_path / 'bag.mcap', tmp_path / 'out.mcap',
                 config=EngineConfig(pending_s=5.0))
    codes = {answer.query_id: answer.error_code for answer in result.answers}
    assert codes == {'lap0': ErrorCode.OK, 'ahead': ErrorCode.CLOCK_JUMP, 'lap1': ErrorCode.OK}
    assert result.stats.cameras[''].clock_jumps == 1
    assert any('jumped back' in problem for problem in result.problems)
    again = run(tmp_path / 'bag.mcap', tmp_path / 'again' / 'out.mcap',
                config=EngineConfig(pending_s=5.0))
    assert again.answers == result.answers


def test_query_that_waits_for_an_image_at_the_end_is_answered(tmp_path):
    script = Script(queries=[(2.95, Query('late', 'what?', stamp_ns=at(3.2)))])
    result = run(write_bag(tmp_path / 'bag.mcap', script), tmp_path / 'out.mcap')
    assert [answer.query_id for answer in result.answers] == ['late']


def test_every_query_gets_one_answer_and_every_fault_a_reason(tmp_path):
    outside = Region('far', RegionKind.BOX, stamp_ns=at(0.3), box=Box(900, 0, 5, 5))
    script = Script(
        regions=[(0.11, [box_at(0.1)]), (0.31, [outside, box_at(0.3, camera='roof')])],
        queries=[
            (0.01, Query('early', 'what is {cup}?', stamp_ns=at(0.0))),
            (1.01, Query('unknown', 'what is {ghost}?', stamp_ns=at(1.0))),
            (1.02, Query('camera', 'what?', stamp_ns=at(1.0), camera='roof')),
            (1.03, Query('future', 'what?', stamp_ns=at(60.0))),
            (1.04, Query('past', 'what?', stamp_ns=at(-60.0))),
            (1.05, Query('region', 'what?', stamp_ns=at(1.0), regions=(
                replace(outside, stamp_ns=at(1.0)),))),
            (1.06, Query('good', 'what?', stamp_ns=at(1.0))),
        ],
    )
    result = run(write_bag(tmp_path / 'bag.mcap', script), tmp_path / 'out.mcap')
    codes = {answer.query_id: answer.error_code for answer in result.answers}
    assert codes == {
        'early': ErrorCode.UNKNOWN_REGION,
        'unknown': ErrorCode.UNKNOWN_REGION,
        'camera': ErrorCode.UNKNOWN_CAMERA,
        'future': ErrorCode.BAD_STAMP,
        'past': ErrorCode.BAD_STAMP,
        'region': ErrorCode.BAD_REGION,
        'good': ErrorCode.OK,
    }
    assert len(result.answers) == 7
    assert sum('outside the image' in problem for problem in result.problems) == 1
    assert sum('roof' in problem for problem in result.problems) == 1


def test_queries_that_are_not_whole_get_one_answer_each(tmp_path):
    """A query the node would refuse is answered in the output, in its place, with the error."""
    path = tmp_path / 'bag.mcap'
    short = Region('cup', RegionKind.MASK, mask=Mask(48, 64, (5, 5)))
    with BagWriter(path) as writer:
        for k in range(12):
            writer.write('/image', to_messages.image_to(Frame('', at(k * 0.1), picture(k))),
                         at(k * 0.1))
        writer.write('/regions', to_messages.regions_to([box_at(1.1)], 0), at(1.11))
        queries = [
            to_messages.query_to(Query('task', 'what?', stamp_ns=at(1.1), camera='front')),
            to_messages.query_to(Query('counts', 'what?', stamp_ns=at(1.1), regions=(short,))),
            to_messages.query_to(Query('', 'what?', regions=(box_at(1.1),))),
            to_messages.query_to(Query('good', 'what?', stamp_ns=at(1.1))),
        ]
        queries[0].task = 200
        queries[0].header.frame_id = 'optical'
        queries[2].regions[0].kind = 9
        for k, query in enumerate(queries):
            writer.write('/query', query, at(1.12 + k * 0.01))
    seen = []
    result = run(path, tmp_path / 'out.mcap', on_event=seen.append)
    assert [(answer.query_id, answer.error_code) for answer in result.answers] == [
        ('task', ErrorCode.BAD_REQUEST),
        ('counts', ErrorCode.BAD_REGION),
        ('query-3', ErrorCode.BAD_REGION),
        ('good', ErrorCode.OK),
    ]
    first, second, third, _ = result.answers
    assert (first.stamp_ns, first.camera, first.frame_id) == (at(1.1), 'front', 'optical')
    assert 'unknown task 200' in first.error_msg
    assert 'must add up to 3072; these add up to 10' in second.error_msg
    assert 'unknown kind 9' in third.error_msg
    assert len(seen) == 17
    written = [one for one in outputs_of(tmp_path / 'out.mcap') if isinstance(one[1], Answer)]
    assert [value for _, value in written] == list(result.answers)
    assert [t for t, _ in written] == [at(1.12), at(1.13), at(1.14), at(1.15)]
    with Bag(path) as bag:
        story = tell(bag, tmp_path / 'out.mcap')
    assert sorted(asked.answer.query_id for asked in story.asked) == [
        'counts', 'good', 'query-3', 'task']
    summary = summarise(story)
    assert (summary.questions, summary.answered) == (4, 1)
    assert summary.errors == {'BAD_REGION': 2, 'BAD_REQUEST': 1}


def test_unreadable_images_are_counted(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        for k in range(6):
            msg = to_messages.compressed_to(Frame('', at(k * 0.1), picture(k)))
            if k in (2, 4):
                msg.data = msg.data[:40]
            writer.write('/image/compressed', msg, at(k * 0.1))
    result = run(tmp_path / 'bag.mcap', tmp_path / 'out.mcap')
    assert result.frames_unreadable == 2
    assert result.stats.cameras[''].frames_in == 4
    with Bag(tmp_path / 'bag.mcap') as bag:
        story = tell(bag, tmp_path / 'out.mcap')
        write_results(bag, story, tmp_path, frames_dropped=result.frames_unreadable)
    assert '"frames_dropped": 2' in (tmp_path / 'summary.json').read_text()


def test_two_cameras(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as writer:
        for k in range(20):
            for camera in ('left', 'right'):
                msg = to_messages.image_to(Frame('', at(k * 0.1), picture(k)))
                writer.write(f'/{camera}/image_raw', msg, at(k * 0.1))
        both = [box_at(1.9, 'a', camera='left'), box_at(1.9, 'b', camera='right')]
        writer.write('/regions', to_messages.regions_to(both, 0), at(1.91))
        for name, camera in (('q1', 'right'), ('q2', '')):
            writer.write('/query', to_messages.query_to(Query(name, 'what?', camera=camera)),
                         at(1.92))
    result = run(tmp_path / 'bag.mcap', tmp_path / 'out.mcap')
    assert [(a.query_id, a.camera, a.region_ids) for a in result.answers] == [
        ('q1', 'right', ('b',)), ('q2', 'left', ('a',))]
    with Bag(tmp_path / 'bag.mcap') as bag:
        written = write_results(bag, tell(bag, tmp_path / 'out.mcap'), tmp_path)
    assert [path.name for path in written.videos] == ['annotated_left.mp4', 'annotated_right.mp4']
