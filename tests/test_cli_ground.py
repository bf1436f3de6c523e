# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the commands that find things from words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from pixelrefer_ros import cli, cli_models
from pixelrefer_ros.bags.annotate import VideoFile
from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.topics import Role
from pixelrefer_ros.cli_ground import warn_stranger
from pixelrefer_ros.core import masks
from pixelrefer_ros.core.types import Answer, Box, ErrorCode, Evidence, Mask, Task
from pixelrefer_ros.grounding.chain import GroundingChain
from tests.bags.finding import ABSENT, PROFILE, box_line, frame_line, square
from tests.bags.test_grounding import write as write_questions
from tests.chat_doubles import ScriptedChatModel
from tests.doubles import ScriptedDescriber
from tests.scenes import HEIGHT, WIDTH, overlap, scene, truth
from tests.test_cli import fake_client, refused, run

FRAMES = 16
FOR_OTHERS = replace(PROFILE, name='for others')
FOUND = (frame_line(8), box_line(square(8)))


@pytest.fixture
def model(monkeypatch):
    """Put a scripted describer in the place of the real ones."""
    describer = ScriptedDescriber()
    monkeypatch.setattr(cli, 'load_describer', lambda model, device, quantization: describer)
    return describer


@pytest.fixture
def named(monkeypatch):
    """Put scripted chains in the place of the vision language models that are named."""
    calls = []

    def script(*said, profile=PROFILE):
        def load(*given):
            calls.append(given)
            return GroundingChain(ScriptedChatModel(said * 9), profile)

        for module in (cli, cli_models):
            monkeypatch.setattr(module, 'load_grounder', load)
        return calls

    return script


@pytest.fixture
def film(tmp_path):
    video = VideoFile(tmp_path / 'film.mp4', WIDTH, HEIGHT, 10.0)
    for step in range(FRAMES):
        video.write(scene(step))
    video.close()
    return video.path


@pytest.fixture(scope='module')
def random_model(tmp_path_factory):
    from tests.models.chat_models import write_model

    return write_model(tmp_path_factory.mktemp('model') / 'vlm', 'qwen2_5_vl')


def test_replay_answers_questions_in_words(tmp_path, model, named):
    calls = named(frame_line(12), box_line(square(15)))
    path = write_questions(tmp_path / 'bag.mcap')
    status, text, error = run(
        'replay', path, '--out', tmp_path / 'out', '--no-video', '--ground-model', 'some/vlm',
        '--ground-url', 'http://gpu:8000', '--ground-profile', 'revseg', '--ground-api-key-env',
        'KEY', '--device', 'cpu',
    )
    assert status == 0, error
    assert calls == [('some/vlm', 'http://gpu:8000', 'revseg', 'KEY', 'cpu')]
    assert 'g1  describe found-g1' in text
    assert '2 questions, 2 answered' in text
    assert 'class="card found"' in (tmp_path / 'out' / 'report.html').read_text()


def test_the_embedded_models_go_together(tmp_path, model, named):
    calls = named(frame_line(12), box_line(square(15)))
    path = write_questions(tmp_path / 'bag.mcap')
    options = ('--out', tmp_path / 'out', '--no-video', '--no-report')
    assert run('replay', path, *options)[0] == 0
    assert run('replay', path, *options, '--model', 'other/describer')[0] == 0
    assert run('replay', path, *options, '--ground-url', 'http://gpu:8000')[0] == 0
    assert [call[:2] for call in calls] == [('tabletop', ''), ('', ''), ('', 'http://gpu:8000')]


def test_replay_without_a_model_refuses_such_questions(tmp_path, model):
    path = write_questions(tmp_path / 'bag.mcap')
    status, text, error = run('replay', path, '--out', tmp_path / 'out', '--no-video',
                              '--no-report', '--model', 'other/describer')
    assert status == 0, error
    assert text.count('UNSUPPORTED') == 2
    assert '2 questions, 0 answered' in text


def test_replay_with_a_model_that_really_reads(tmp_path, model, random_model):
    """Random weights have nothing to say: that is an answer too."""
    path = write_questions(tmp_path / 'bag.mcap')
    status, text, error = run(
        'replay', path, '--out', tmp_path / 'out', '--no-video', '--no-report', '--ground-model',
        random_model, '--ground-profile', 'tabletop', '--device', 'cpu', '--tracker', 'none',
    )
    assert status == 0, error
    assert text.count('NOT_GROUNDED') == 2
    assert 'named no frame that shows it' in text


def test_replay_asks_a_server(tmp_path, model, monkeypatch):
    from tests.models.chat_server import replies, serving

    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setenv('SECRET', 'abc')
    path = write_questions(tmp_path / 'bag.mcap')
    lines = (frame_line(12), box_line(square(15)), ABSENT)
    with serving(*map(replies, lines)) as server:
        status, text, error = run(
            'replay', path, '--out', tmp_path / 'out', '--no-video', '--no-report',
            '--ground-url', server.url, '--ground-profile', 'tabletop', '--ground-api-key-env',
            'SECRET',
        )
    assert status == 0, error
    assert 'g1  describe found-g1' in text
    assert 'NOT_GROUNDED' in text
    assert len(server.asked) == 3
    assert all(headers.get('Authorization') == 'Bearer abc' for headers in server.headers)


@pytest.mark.parametrize(('options', 'words'), [
    (['--ground-model', 'some/vlm'], 'pixelrefer fetch some/vlm'),
    (['--ground-model', '/nowhere'], "no model '/nowhere'"),
    (['--ground-url', 'http://localhost:9'], 'name its profile'),
])
def test_models_that_cannot_be_are_refused(tmp_path, model, options, words):
    path = write_questions(tmp_path / 'bag.mcap')
    assert words in refused('replay', path, '--out', tmp_path / 'out', *options)
    assert not (tmp_path / 'out').exists()


def test_a_model_that_describes_regions_is_refused(tmp_path, model):
    path = write_questions(tmp_path / 'bag.mcap')
    (tmp_path / 'config.json').write_text('{"model_type": "pixelrefer_lite"}')
    error = refused('replay', path, '--out', tmp_path / 'out', '--ground-model', tmp_path)
    assert 'cannot find things from words' in error
    assert not (tmp_path / 'out').exists()


def test_bag_make_takes_what_to_find(tmp_path, film):
    status, text, error = run(
        'bag', 'make', film, '--out', tmp_path / 'bag.mcap', '--ask', 'what is there?',
        '--ground', 'the one that moved', '--ground', 'the last to move@0.5',
    )
    assert status == 0, error
    assert '3 questions' in text
    with Bag(tmp_path / 'bag.mcap') as bag:
        queries = [event.value for event in bag.events({Role.QUERY})]
    assert [(q.query_id, q.text, q.task) for q in queries] == [
        ('g02', 'the last to move', Task.GROUND), ('q01', 'what is there?', Task.ASK),
        ('g01', 'the one that moved', Task.GROUND)]


def track_of(path):
    content = json.loads(path.read_text())
    assert content['format'] == 'pixelrefer_ros track 1'
    return content, [
        frame['mask'] and masks.decode(Mask(*frame['mask']['size'],
                                            tuple(frame['mask']['counts'])))
        for frame in content['frames']]


def test_describe_finds_in_a_video(tmp_path, film, model, named, monkeypatch):
    calls = named(*FOUND, profile=FOR_OTHERS)
    monkeypatch.chdir(tmp_path)
    status, text, error = run('describe', film, '--ground', 'the one that moves',
                              '--ground-model', 'x', '--save', 'key.png')
    assert status == 0, error
    assert 'note:' not in error
    assert calls == [('x', '', 'auto', '', 'auto')]
    box = square(8)
    assert 'describe found-file' in text
    assert f'found at 0.80 s, box {box.x},{box.y},{box.width},{box.height}, 50% sure' in text
    assert f'seen in {FRAMES} of {FRAMES} images: film.track.json' in text
    content, found = track_of(tmp_path / 'film.track.json')
    assert content['key_s'] == pytest.approx(0.8)
    assert content['reasoning'] == 'It moves to the right.'
    assert [frame['time_s'] for frame in content['frames']] == pytest.approx(
        [step / 10 for step in range(FRAMES)])
    for step, mask in enumerate(found):
        assert overlap(mask, truth(step)) > 0.8, step
    drawn = cv2.imread(str(tmp_path / 'key.png'))[..., ::-1].astype(int)
    assert np.abs(drawn - scene(8)).mean() < 12
    edge = np.s_[box.y + 6:box.y + 34, box.x]
    assert np.abs(drawn[edge] - scene(8)[edge]).mean() > 40


def test_describe_says_what_the_embedded_model_knows(tmp_path, film, model, named, monkeypatch):
    calls = named(*FOUND)
    monkeypatch.chdir(tmp_path)
    status, _, error = run('describe', film, '--ground', 'the one that moves')
    assert status == 0, error
    assert calls == [('tabletop', '', 'auto', '', 'auto')]
    assert 'knows simulated tabletops and nothing else' in ' '.join(error.split())


def test_describe_finds_in_a_bag(tmp_path, film, model, named):
    run('bag', 'make', film, '--out', tmp_path / 'bag.mcap')
    named(frame_line(5), box_line(square(9)))
    status, text, error = run(
        'describe', tmp_path / 'bag.mcap', '--ground', 'the one that moves', '--ground-model',
        'x', '--start', '0.35', '--json', '--track', tmp_path / 'deep' / 'track.json',
    )
    assert status == 0, error
    facts = json.loads(text)
    assert facts['key_s'] == pytest.approx(0.9)  # the sixth from 0.4 s on
    assert facts['box'] == [square(9).x, square(9).y, square(9).width, square(9).height]
    assert (facts['frames'], facts['seen']) == (12, 12)
    assert facts['track'] == str(tmp_path / 'deep' / 'track.json')
    content, _ = track_of(tmp_path / 'deep' / 'track.json')
    assert content['frames'][0]['time_s'] == pytest.approx(0.4)


def test_describe_a_region_of_a_bag(tmp_path, film, model):
    run('bag', 'make', film, '--out', tmp_path / 'bag.mcap')
    box = square(5)
    region = ['--box', f'{box.x},{box.y},{box.width},{box.height}']
    status, _, error = run('describe', tmp_path / 'bag.mcap', *region, '--at', '0.52',
                           '--tracker', 'none')
    assert status == 0, error
    (frame,) = model.calls[0].frames
    assert np.abs(frame.image.astype(int) - scene(5)).mean() < 12
    outside = refused('describe', tmp_path / 'bag.mcap', *region, '--at', '7')
    assert 'is not between 0 and 1.5' in outside
    assert 'no image from second 9' in refused('describe', tmp_path / 'bag.mcap', *region,
                                               '--start', '9')


def test_describe_says_what_was_not_found(tmp_path, film, model, named, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named(ABSENT, profile=FOR_OTHERS)
    error = refused('describe', film, '--ground', 'the cup', '--ground-model', 'x')
    assert "NOT_GROUNDED: 'the cup' was not found: it is not in the video" in error
    assert not (tmp_path / 'film.track.json').exists()


def test_describe_refuses_what_does_not_go_together(film, model):
    assert run('describe', film, '--ground', 'a', '--box', '1,1,5,5')[0] == 2
    assert run('describe', film, '--ground', 'a', '--ask', 'b', '--ground-model', 'x')[0] == 2
    assert run('describe', film, '--ground', 'a', '--at', '1', '--ground-model', 'x')[0] == 2
    error = refused('describe', film, '--ground', 'the cup', '--model', 'other/describer')
    assert 'pixelrefer fetch Qwen/' in error
    assert '--ground-url' in error


def test_ask_the_node_to_find(monkeypatch):
    asked = []
    evidence = Evidence('', 'found-q', 12_300_000_000, '', Box(1, 2, 3, 4), None, 0.9)
    fake_client(monkeypatch, Answer('q', text='a cup', evidence=(evidence,)), asked)
    status, text, error = run('ask', 'the cup that moved', '--ground')
    assert (status, text) == (0, 'a cup\n  found-q at 12.300, box 1,2,3,4\n'), error
    assert asked[0][1].task == Task.GROUND
    failed = Answer('q', error_code=ErrorCode.UNSUPPORTED, error_msg='set grounding.model')
    fake_client(monkeypatch, failed, [])
    assert 'set grounding.model' in refused('ask', 'the cup', '--ground')


# Evaluation


def clips(count, seed, *, held_out, between, ahead):
    """Give clips of the square, in place of rendered ones."""
    from pixelrefer_ros.evaluation.reasoning import BETWEEN
    from pixelrefer_ros.simulation.reasoning_clips import Actor, ReasoningClip, measure
    from pixelrefer_ros.simulation.reasoning_questions import ReasoningQuestion

    assert (held_out, between, ahead) == (True, BETWEEN, True)
    numbers = np.stack([truth(step) for step in range(FRAMES)]).astype(np.uint8)
    images = np.stack([scene(step) for step in range(FRAMES)])
    areas, boxes = measure(numbers, 1)
    actor = Actor('red', 'box', 'large', 'push', 1, -1, (True,) * FRAMES, np.zeros(FRAMES))
    clip = ReasoningClip(seed, 'moved', False, images, numbers,
                         np.arange(FRAMES, dtype=np.float32) / 10, tuple(range(FRAMES)), (actor,),
                         (), areas, boxes)
    for _ in range(count):
        yield clip, ReasoningQuestion('moved', 'which one moved?', 0, 'moved', '', 15)


def single_line(number, box):
    """Return a single turn: the box is in pixels of the small frames."""
    x, y = PROFILE.frame_size[0] / WIDTH, PROFILE.frame_size[1] / HEIGHT
    corners = [box.x * x, box.y * y, (box.x + box.width) * x, (box.y + box.height) * y]
    answer = [{'frame_idx': number, 'object description': 'red', 'bbox_2d': corners}]
    return f'<think>It moves.</think><answer>{json.dumps(answer)}</answer>'


def test_evaluate_grounding(tmp_path, named, monkeypatch):
    monkeypatch.setattr('pixelrefer_ros.evaluation.reasoning.examples', clips)
    calls = named(*FOUND, single_line(8, Box(square(8).x + 30, square(8).y, 40, 40)),
                  profile=FOR_OTHERS)
    path = tmp_path / 'deep' / 'scores.json'
    status, text, error = run(
        'evaluate', 'grounding', '--clips', '2', '--seed', '3', '--json', path, '--model',
        'some/vlm', '--single-turn', '--held-out', '--device', 'cpu',
    )
    assert status == 0, error
    assert calls == [('some/vlm', '', 'auto', '', 'cpu')]  # loaded once, asked both ways
    assert 'was not made for simulated tabletops' in ' '.join(error.split())
    assert re.search(r'two turns: 2 clips, .* prompt tokens needed no second reading', text)
    assert 'single turn: 2 clips' in text
    assert text.count('answers: 2 grounded') == 2
    assert '…' not in text
    written = json.loads(path.read_text())
    assert (written['clips'], written['seed'], written['model']) == (2, 3, 'some/vlm')
    two, one = written['two_turns'], written['single_turn']
    assert (two['key_frame'], two['box'], one['box']) == (1.0, 1.0, 0.0)
    assert two['j_and_f'] > 0.85 > 0.6 > one['j_and_f']
    assert two['tokens']['reused'] > 0 == one['tokens']['reused']


@pytest.mark.parametrize(('name', 'profile', 'made_for'), [
    ('tabletop', PROFILE, True), ('tabletop', FOR_OTHERS, True), ('my own', PROFILE, True),
    ('some/vlm', FOR_OTHERS, False),
])
def test_who_was_made_for_tabletops_goes_by_name_or_profile(name, profile, made_for, capsys):
    chain = SimpleNamespace(name=name, profile=profile)
    warn_stranger(chain, to_tabletops=True)
    assert ('was not made for simulated tabletops' in capsys.readouterr().err) != made_for
    warn_stranger(chain, to_tabletops=False)
    assert ('knows simulated tabletops' in capsys.readouterr().err) == made_for


def test_answers_that_cannot_be_used_are_counted(named, monkeypatch):
    monkeypatch.setattr('pixelrefer_ros.evaluation.reasoning.examples', clips)
    calls = named('I see a square.')
    status, text, error = run('evaluate', 'grounding', '--clips', '3', '--held-out', '--tracker',
                              'none')
    assert (status, error) == (0, '')
    assert calls == [('tabletop', '', 'auto', '', 'auto')]  # unless another is named
    assert 'answers: 3 turn1_unparsable' in text


def test_evaluation_of_a_missing_model_says_what_to_run():
    assert 'pixelrefer fetch some/vlm' in refused('evaluate', 'grounding', '--model', 'some/vlm')


@pytest.fixture
def mevis(tmp_path):
    folder = tmp_path / 'mevis' / 'valid_u'
    (folder / 'JPEGImages' / 'room').mkdir(parents=True)
    names = [f'{step:05d}' for step in range(FRAMES)]
    for step, name in enumerate(names):
        cv2.imwrite(str(folder / 'JPEGImages' / 'room' / f'{name}.jpg'), scene(step)[..., ::-1])
    expressions = {'0': {'exp': 'the red square that moves', 'anno_id': [1]},
                   '1': {'exp': 'nothing', 'anno_id': []}}
    (folder / 'meta_expressions.json').write_text(json.dumps(
        {'videos': {'room': {'frames': names, 'expressions': expressions}}}))
    lengths = [{'size': [HEIGHT, WIDTH], 'counts': list(masks.encode(truth(step)).counts)}
               for step in range(FRAMES)]
    (folder / 'mask_dict.json').write_text(json.dumps({'1': lengths}))
    return tmp_path / 'mevis'


def test_evaluate_a_data_set(tmp_path, mevis, named):
    named(*FOUND, ABSENT, profile=FOR_OTHERS)
    path = tmp_path / 'scores.json'
    status, text, error = run('evaluate', 'dataset', 'mevis', mevis, '--model', 'x', '--json',
                              path)
    assert status == 0, error
    assert 'MeViS: 2 expressions, all annotated frames' in text
    assert 'note:' not in error
    written = json.loads(path.read_text())
    assert (written['data_set'], written['split'], written['expressions']) == (
        'mevis', 'valid_u', 2)
    assert [one['status'] for one in written['scores']] == ['grounded', 'not present']
    first, second = written['scores']
    assert first['region'] > 0.9
    assert (second['region'], second['boundary']) == (1.0, 1.0)


def test_evaluate_the_first_of_a_data_set(mevis, named):
    named(*FOUND)
    status, text, error = run('evaluate', 'dataset', 'mevis', mevis, '--model', 'tabletop-vl',
                              '--limit', '1', '--single-turn', '--split', 'valid_u')
    assert status == 0, error
    assert 'MeViS: 1 expressions' in text
    assert 'knows simulated tabletops and nothing else' in ' '.join(error.split())


def test_evaluate_a_data_set_refuses(mevis, named, tmp_path):
    assert 'pixelrefer fetch Qwen/' in refused('evaluate', 'dataset', 'mevis', mevis)
    assert 'there is no data set' in refused('evaluate', 'dataset', 'nothing', mevis)
    assert 'get it from' in refused('evaluate', 'dataset', 'revos', tmp_path / 'none')
    named(*FOUND)
    assert run('evaluate', 'dataset', 'mevis', mevis, '--model', 'x', '--tracker', 'none')[0] == 2
