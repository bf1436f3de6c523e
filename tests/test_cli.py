# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the command line: what it prints, what it writes, and what it says when it cannot."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import pixelrefer_ros
from pixelrefer_ros import cli
from pixelrefer_ros.bags.annotate import VideoFile
from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.topics import Role
from pixelrefer_ros.bags.truth import QueryTruth, Truth
from pixelrefer_ros.core.types import Answer, ErrorCode, PixelReferError
from tests.bags.makers import Script, picture, string_message, write_bag
from tests.doubles import ScriptedDescriber


@pytest.fixture
def model(monkeypatch):
    """Put a scripted model in the place of the real ones."""
    describer = ScriptedDescriber()
    monkeypatch.setattr(cli, 'load_describer', lambda model, device, quantization: describer)
    return describer


def run(*arguments):
    """Run a command; return (exit status, standard output, standard error)."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, re.sub(r'\x1b\[[0-9;]*m', '', result.stderr)


def refused(*arguments):
    """Run a command that must fail; return its one line."""
    status, _, error = run(*arguments)
    assert status == 1
    assert error.startswith('error: ')
    assert 'Traceback' not in error
    assert len(error.strip().splitlines()) == 1
    return error


def test_version_and_help():
    assert run('--version')[:2] == (0, f'pixelrefer {pixelrefer_ros.__version__}\n')
    status, text, _ = run('--help')
    assert status == 0
    for command in ('replay', 'report', 'describe', 'ask', 'bag', 'fetch', 'train', 'evaluate'):
        assert command in text


def test_import_is_light():
    """Neither torch nor OpenCV nor rclpy is loaded for the help."""
    code = (
        'import sys, pixelrefer_ros.cli\n'
        "heavy = {'torch', 'transformers', 'cv2', 'rclpy', 'rosbags', 'jinja2'}\n"
        'print(*heavy & set(sys.modules))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, '\n', '')


def test_as_a_process(tmp_path):
    path = write_bag(tmp_path / 'bag.mcap')
    command = [sys.executable, '-m', 'pixelrefer_ros.cli']
    done = subprocess.run([*command, 'bag', 'info', str(path)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0
    assert '/camera/image/compressed' in done.stdout
    failed = subprocess.run([*command, 'bag', 'info', str(tmp_path / 'none')],
                            capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, '')
    assert failed.stderr.startswith('error: no bag at')


def test_replay(tmp_path, model, monkeypatch):
    path = write_bag(tmp_path / 'bag.mcap')
    Truth(queries={'q1': QueryTruth(accept=('answer cup',))}).save(tmp_path / 'bag.truth.json')
    monkeypatch.chdir(tmp_path)
    status, text, error = run('replay', path, '--tracker', 'none')
    assert status == 0, error
    assert 'q1  answer cup in 2 frames' in text
    assert '2 questions, 2 answered, 1 of 1 right; 1 descriptions' in text
    assert sorted(file.name for file in (tmp_path / 'bag_replay').iterdir()) == [
        'annotated.mp4', 'output.mcap', 'report.html', 'summary.json']
    assert json.loads((tmp_path / 'bag_replay' / 'summary.json').read_text())['right'] == 1


def test_replay_options(tmp_path, model):
    path = write_bag(tmp_path / 'bag', Script(queries=[]))
    other = tmp_path / 'other.json'
    Truth(queries={'q1': QueryTruth(accept=('x',))}).save(other)
    status, _, error = run(
        'replay', path, '--out', tmp_path / 'out', '--no-report', '--no-video', '--copy-inputs',
        '--ground-truth', other, '--set', 'describe_period_s=0.5', '--set', 'describe_after_s=0',
        '--topic', '/camera/image/compressed=image:top', '--tracker', 'none',
    )
    assert status == 0, error
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == [
        'output.mcap', 'summary.json']
    with Bag(tmp_path / 'out' / 'output.mcap') as bag:
        assert bag.count(Role.IMAGE) == 30
        assert bag.count(Role.DESCRIPTION) == 2
    assert model.calls[0].frames[0].camera == 'top'


def test_replay_tells_what_it_could_not_use(tmp_path, model):
    script = Script(queries=[], regions=[(0.1, Script().regions[0][1] * 7)])
    for _, regions in script.regions:
        script.regions[0] = (0.1, [
            type(region)(f'r{k}', region.kind, 'roof', box=region.box)
            for k, region in enumerate(regions)])
    status, _, error = run('replay', write_bag(tmp_path / 'bag.mcap', script), '--out',
                           tmp_path / 'out', '--no-video')
    assert status == 0
    assert error.count('note:') == 6
    assert 'and 2 more' in error


@pytest.mark.parametrize('setting', ['nothing=1', 'window_s=long', 'window_s=-1', 'window_s',
                                     'cameras=a', 'describe_enabled=maybe'])
def test_wrong_settings_are_wrong_usage(tmp_path, model, setting):
    status, _, error = run('replay', write_bag(tmp_path / 'bag.mcap'), '--set', setting)
    assert status == 2
    assert 'Traceback' not in error


def test_replay_refuses(tmp_path, model):
    assert 'no bag at' in refused('replay', tmp_path / 'none')
    no_images = write_bag(tmp_path / 'text.mcap', Script(frames=[]))
    assert 'has no images; its topics: /pixelrefer/query' in refused('replay', no_images)
    path = write_bag(tmp_path / 'bag.mcap')
    (tmp_path / 'bag.truth.json').write_text('{}')
    assert 'must say "format"' in refused('replay', path)
    (tmp_path / 'file').touch()
    (tmp_path / 'bag.truth.json').unlink()
    assert 'file' in refused('replay', path, '--out', tmp_path / 'file' / 'out')


def test_replay_follows_regions(tmp_path, model):
    path = write_bag(tmp_path / 'bag.mcap')
    status, text, error = run('replay', path, '--out', tmp_path / 'out', '--no-video')
    assert status == 0, error
    assert 'q1  answer cup in 4 frames' in text  # as many as the model wants
    with Bag(tmp_path / 'out' / 'output.mcap') as bag:
        assert bag.count(Role.TRACKS) >= 30


def test_missing_models_say_what_to_run(tmp_path):
    path = write_bag(tmp_path / 'bag.mcap')
    error = refused('replay', path, '--tracker', 'sam2', '--tracker-model', 'some/tracker')
    assert 'pixelrefer fetch some/tracker' in error
    assert run('replay', path, '--tracker', 'magic')[0] == 2
    assert 'pixelrefer fetch some/model' in refused('replay', path, '--model', 'some/model')


def test_report_of_a_recorded_run(tmp_path, model):
    path = write_bag(tmp_path / 'bag.mcap')
    run('replay', path, '--out', tmp_path / 'a')
    status, text, _ = run('report', path, tmp_path / 'a' / 'output.mcap', '--out', tmp_path / 'b')
    assert status == 0
    assert 'report.html' in text
    assert ((tmp_path / 'a' / 'summary.json').read_text()
            == (tmp_path / 'b' / 'summary.json').read_text())


def film(path):
    video = VideoFile(path, 64, 48, 10.0)
    for index in range(20):
        video.write(picture(index))
    video.close()
    return video.path


def test_bag_make_and_info(tmp_path):
    status, text, error = run(
        'bag', 'make', film(tmp_path / 'film.mp4'), '--out', tmp_path / 'bag.mcap', '--camera',
        'front', '--end', '1.0', '--box', 'cup=1,2,10,10', '--box', 'cup=3,2,10,10@0.5', '--ask',
        'mail me @ home: is {cup} red?@0.6', '--ask', 'and now?',
    )
    assert status == 0, error
    assert '10 images over 0.90 s, 2 regions, 2 questions' in text
    with Bag(tmp_path / 'bag.mcap') as bag:
        queries = [event.value for event in bag.events({Role.QUERY})]
    assert [(q.query_id, q.text) for q in queries] == [
        ('q01', 'mail me @ home: is {cup} red?'), ('q02', 'and now?')]
    status, text, _ = run('bag', 'info', tmp_path / 'bag.mcap')
    assert status == 0
    assert re.search(r"/front/image/compressed +10 .*image of camera 'front'", text)
    refused('bag', 'make', tmp_path / 'film.mp4', '--out', tmp_path / 'bag.mcap')
    assert run('bag', 'make', tmp_path / 'film.mp4', '--out', tmp_path / 'bag.mcap',
               '--overwrite', '--raw')[0] == 0
    assert 'no picture or video' in refused('bag', 'make', tmp_path / 'x.mp4', '--out',
                                            tmp_path / 'y.mcap')


@pytest.mark.parametrize('box', ['cup', 'cup=1,2,3', 'cup=a,b,c,d', '=1,2,3,4'])
def test_wrong_boxes_are_wrong_usage(tmp_path, box):
    assert run('bag', 'make', film(tmp_path / 'f.mp4'), '--out', tmp_path / 'b.mcap', '--box',
               box)[0] == 2


def test_describe(tmp_path, model):
    cv2.imwrite(str(tmp_path / 'a.png'), picture(0))
    model.script = ['a red square']
    status, text, _ = run('describe', tmp_path / 'a.png', '--box', '2,10,12,12', '--save',
                          tmp_path / 'drawn.png')
    assert (status, text) == (0, 'a red square\n')
    assert cv2.imread(str(tmp_path / 'drawn.png')).shape == (48, 64, 3)
    model.script = ['red']
    status, text, _ = run('describe', tmp_path / 'a.png', '--box', '2,10,12,12', '--ask',
                          'what colour is {region}?', '--json')
    assert json.loads(text)['text'] == 'red'
    assert model.calls[-1].text == 'what colour is {region}?'


def test_describe_with_a_mask_and_a_video(tmp_path, model):
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 5:15] = 255
    cv2.imwrite(str(tmp_path / 'mask.png'), mask)
    command = ['describe', film(tmp_path / 'film.mp4'), '--mask', tmp_path / 'mask.png', '--at',
               '0.5', '--frames', '5']
    status, _, error = run(*command, '--tracker', 'none')
    assert status == 0, error
    (mask,) = model.calls[0].regions[0].masks
    assert np.asarray(mask).sum() == 100
    status, _, error = run(*command)
    assert status == 0, error
    assert len(model.calls[1].regions[0].masks) > 1


def test_a_question_without_a_region(tmp_path, model):
    command = ['describe', film(tmp_path / 'film.mp4'), '--ask', 'what happens?']
    assert 'send a region' in refused(*command)
    model.needs_regions = False
    model.script = ['a square moves']
    status, text, error = run(*command)
    assert (status, text) == (0, 'a square moves\n'), error
    assert model.calls[-1].regions == ()
    assert len(model.calls[-1].frames) == model.frames_per_region
    assert run(*command, '--at', '0.5')[0] == 2
    assert run(*command, '--save', tmp_path / 'a.png')[0] == 2


def test_smaller_weights_are_asked_for(tmp_path, monkeypatch):
    from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber

    asked = []

    def load(name, **options):
        asked.append((name, options))
        return ScriptedDescriber()

    monkeypatch.setattr(PixelReferDescriber, 'load', load)
    cv2.imwrite(str(tmp_path / 'a.png'), picture(0))
    command = ['describe', tmp_path / 'a.png', '--box', '2,10,12,12']
    for options, kind in (([], 'none'), (['--quantization', 'torchao-int4'], 'torchao-int4')):
        status, _, error = run(*command, *options)
        assert status == 0, error
        assert asked.pop() == ('tabletop', {'device': 'auto', 'quantization': kind})
    assert run(*command, '--quantization', 'int4')[0] == 2


def test_describe_refuses(tmp_path, model):
    cv2.imwrite(str(tmp_path / 'a.png'), picture(0))
    cv2.imwrite(str(tmp_path / 'mask.png'), np.ones((4, 4), np.uint8))
    assert run('describe', tmp_path / 'a.png')[0] == 2
    assert run('describe', tmp_path / 'a.png', '--box', '1,2,3')[0] == 2
    assert run('describe', tmp_path / 'a.png', '--box', '1,1,2,2', '--save', 'x.gif')[0] == 2
    assert 'outside the image' in refused('describe', tmp_path / 'a.png', '--box', '99,1,3,3')
    assert 'mask' in refused('describe', tmp_path / 'a.png', '--mask', tmp_path / 'mask.png')
    assert 'cannot read' in refused('describe', tmp_path / 'b.png', '--box', '1,1,2,2')
    assert 'no picture or video' in refused('describe', tmp_path / 'b.mp4', '--box', '1,1,2,2')


def fake_client(monkeypatch, answer, asked):
    def ask_node(node, query, timeout_s, on_progress):
        asked.append((node, query, timeout_s))
        on_progress('loo[king')
        return answer

    monkeypatch.setitem(sys.modules, 'rclpy', SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'pixelrefer_ros.node.client',
                        SimpleNamespace(ask_node=ask_node))


def test_ask(monkeypatch):
    asked = []
    fake_client(monkeypatch, Answer('q', text='[red]'), asked)
    status, text, error = run('ask', 'what is {cup}?', '--region', 'cup', '--box', '1,2,3,4',
                              '--timeout', '5', '--node', '/eyes')
    assert (status, text) == (0, '[red]\n'), error
    node, query, timeout_s = asked[0]
    assert (node, timeout_s, query.text) == ('/eyes', 5.0, 'what is {cup}?')
    assert query.region_ids == ('cup',)
    assert query.regions[0].box.height == 4


def test_ask_reports_errors_of_the_node(monkeypatch):
    failed = Answer('q', error_code=ErrorCode.NO_FRAMES, error_msg='no image yet')
    fake_client(monkeypatch, failed, [])
    assert 'NO_FRAMES: no image yet' in refused('ask', 'what?')


def test_ask_without_ros(monkeypatch):
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    assert 'needs ROS 2' in refused('ask', 'what?')


def test_fetch(monkeypatch):
    from pixelrefer_ros.models import registry

    def fetch(name, tell):
        tell('fetching [it]')
        if name == 'bad/one':
            raise PixelReferError(ErrorCode.MODEL_ERROR, 'sha256 differs')
        return '/cache/' + name

    monkeypatch.setattr(registry, 'fetch', fetch)
    status, text, error = run('fetch', 'org/name')
    assert (status, text) == (0, '/cache/org/name\n')
    assert 'fetching [it]' in error
    assert 'sha256 differs' in run('fetch', 'bad/one')[2]


@pytest.mark.parametrize(
    ('what', 'recipe_name', 'train_name'),
    [('tabletop', 'Recipe', 'train'), ('grounding', 'GroundingRecipe', 'train_grounding')],
)
def test_train(what, recipe_name, train_name, monkeypatch, tmp_path):
    calls = []

    def recipe(**given):
        if given.get('clips') == 1:
            raise ValueError('clips is 1, must be at least 1000')
        return given

    def train(out, recipe, on_log):
        calls.append((out, recipe))
        on_log('vision', 5, 10, {'loss': 0.5})
        return out / 'model'

    monkeypatch.setitem(sys.modules, f'pixelrefer_ros.training.{what}',
                        SimpleNamespace(**{recipe_name: recipe, train_name: train}))
    status, text, error = run('train', what, '--out', tmp_path, '--clips', '2000', '--seed', '3')
    assert status == 0, error
    assert calls == [(tmp_path, {'clips': 2000, 'seed': 3})]
    assert text == f'vision 5/10  loss 0.500\nmodel: {tmp_path}/model\n'
    assert 'must be at least 1000' in refused('train', what, '--clips', '1')
    assert run('train', 'nothing')[0] == 2


def test_all_of_a_recipe_can_be_given():
    pytest.importorskip('mujoco', reason='needs the extra [sim]')
    from pixelrefer_ros import cli_models
    from pixelrefer_ros.training.grounding import GroundingRecipe

    options = inspect.signature(cli_models.train_grounding).parameters
    assert {field.name for field in fields(GroundingRecipe)} == set(options) - {'out_dir'}


def test_evaluate(monkeypatch, tmp_path):
    def evaluate(model, clips, seed, *, device, quantization, on_clip):
        on_clip(clips)
        return {'colour': 0.991, 'heldout_wording': {'colour': 0.95}, 'clips': clips,
                'seed': seed, 'model': model, 'quantization': quantization}

    def write_json(result, path):
        path.write_text(json.dumps(result))

    monkeypatch.setitem(
        sys.modules, 'pixelrefer_ros.evaluation.tabletop',
        SimpleNamespace(KEYS=('colour',), evaluate=evaluate, write_json=write_json))
    status, text, error = run('evaluate', 'tabletop', '--clips', '7', '--seed', '2',
                              '--quantization', 'torchao-int8', '--json',
                              tmp_path / 'scores.json')
    assert status == 0, error
    assert re.search(r'colour +99\.1% +95\.0%', text)
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert (scores['clips'], scores['quantization']) == (7, 'torchao-int8')
    assert run('evaluate', 'tabletop', '--quantization', 'int8')[0] == 2


def test_missing_extra_says_what_to_install(monkeypatch):
    def missing(*_, **__):
        raise ModuleNotFoundError("No module named 'mujoco'", name='mujoco')

    monkeypatch.setitem(
        sys.modules, 'pixelrefer_ros.evaluation.tabletop',
        SimpleNamespace(KEYS=(), evaluate=missing, write_json=None))
    assert "pip install 'pixelrefer-ros[sim]'" in refused('evaluate', 'tabletop')


def test_string_topic_becomes_questions(tmp_path, model):
    from pixelrefer_ros.bags.writing import BagWriter

    source = write_bag(tmp_path / 'bag.mcap', Script(queries=[]))
    with Bag(source) as bag, BagWriter(tmp_path / 'text.mcap') as writer:
        for topic, _, log_time_ns, data in bag.raw({Role.IMAGE, Role.REGIONS}):
            writer.write_raw(topic.name, topic.msgtype, data, log_time_ns)
        writer.write('/operator', string_message('what is it?'), bag.end_ns)
    status, text, _ = run('replay', tmp_path / 'text.mcap', '--out', tmp_path / 'out',
                          '--no-video', '--topic', '/operator=text')
    assert status == 0
    assert 'operator-1  answer cup' in text
