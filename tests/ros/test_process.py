# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the node as a process of its own: parameters from a file, real model, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from sensor_msgs.msg import Image

from pixelrefer_ros import msg as ros
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from tests.ros.rig import WAIT_S, Client, box_region, image_msg, ns, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]


class Process:
    """Hold a node process and a client to talk to it."""

    def __init__(self, domain_id: int, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open('w') as out:
            self.process = subprocess.Popen(
                [sys.executable, '-m', 'pixelrefer_ros.node.node', '--ros-args', *arguments],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {
                    'OMP_NUM_THREADS': '1',
                    'PYTHONFAULTHANDLER': '1',
                    'ROS_DOMAIN_ID': str(domain_id),
                },
            )
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.client = Client(self.context)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def state(self) -> str:
        """Return the state; a process that has only just been discovered may miss a request."""
        tries = 4
        while True:
            try:
                response = self.client.call(
                    GetState, 'pixelrefer/get_state', GetState.Request(), WAIT_S / 4
                )
                return str(response.current_state.label)
            except AssertionError:
                tries -= 1
                if not tries:
                    raise

    def change(self, transition: int) -> bool:
        """Ask for a transition; fail with the log, which tells where each thread is."""
        self.state()
        request = ChangeState.Request(transition=Transition(id=transition))
        try:
            response = self.client.call(ChangeState, 'pixelrefer/change_state', request)
        except AssertionError as error:
            state = self.state()
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(WAIT_S)
            raise AssertionError(f'{error}; it is {state}\n{self.log}') from None
        return bool(response.success)

    def stop(self, *signals: int) -> int:
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.02)
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        self.client.close()
        rclpy.shutdown(context=self.context)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def start(ros_domain_id: int, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(ros_domain_id, tmp_path / f'node{len(started)}.log', *arguments))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize(
    'signals',
    [
        (signal.SIGINT,),
        (signal.SIGTERM,),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT),
    ],
    ids=lambda signals: '+'.join(number.name for number in signals),
)
def test_signals_end_it_cleanly(
    start: Callable[..., Process], signals: tuple[signal.Signals, ...]
) -> None:
    one = start()
    assert one.state() == 'unconfigured'
    assert one.stop(*signals) == 0, one.log
    assert 'Traceback' not in one.log


def test_a_parameter_of_the_wrong_type_is_named(start: Callable[..., Process]) -> None:
    one = start('-p', 'keep_rate_hz:=fast')
    assert one.process.wait(WAIT_S) == 1
    assert 'keep_rate_hz' in one.log
    assert 'Traceback' not in one.log


def test_a_parameter_out_of_range_is_named(start: Callable[..., Process]) -> None:
    one = start('-p', 'queue_size:=0')
    assert one.process.wait(WAIT_S) == 1
    assert 'queue_size' in one.log
    assert 'Traceback' not in one.log


def test_the_supplied_parameter_file_is_accepted(start: Callable[..., Process]) -> None:
    one = start('--params-file', str(ROOT / 'config' / 'pixelrefer.yaml'), '-p', 'model.name:=/no')
    assert one.state() == 'unconfigured'
    assert not one.change(Transition.TRANSITION_CONFIGURE)
    assert "no model '/no'" in one.log
    assert one.stop(signal.SIGINT) == 0


@pytest.fixture(params=['tabletop', 'random'])
def model_folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a model to load: the embedded one, and a random one in a folder."""
    from pixelrefer_ros.models.registry import resolve
    from tests.models.conftest import small_config, small_model, write_tokenizer

    if request.param == 'tabletop':
        try:
            resolve('tabletop')
        except PixelReferError as error:
            pytest.skip(str(error))
        return 'tabletop'
    write_tokenizer(tmp_path)
    small_model(small_config()).save_pretrained(tmp_path)
    return str(tmp_path)


def keep_sending(client: Client, ended: threading.Event) -> None:
    publisher = client.node.create_publisher(Image, 'image', 10)
    stamp_ns = ns(2)
    while not ended.is_set():
        stamp_ns += ns(0.01)
        publisher.publish(image_msg(stamp_ns))
        time.sleep(0.002)


def test_the_whole_job_with_a_real_model(
    start: Callable[..., Process], model_folder: str
) -> None:
    one = start(
        *('-p', f'model.name:={model_folder}', '-p', 'model.max_new_tokens:=8'),
        *('-p', 'describe.after_s:=0.2', '-p', 'model.device:=cpu'),
    )
    assert one.change(Transition.TRANSITION_CONFIGURE), one.log
    assert one.change(Transition.TRANSITION_ACTIVATE), one.log
    descriptions = one.client.listen('pixelrefer/descriptions', ros.Description)
    answers = one.client.listen('pixelrefer/answers', ros.Answer)
    for index in range(5):
        stamp_ns = ns(1 + index / 10)
        one.client.publish('image', image_msg(stamp_ns))
        regions = ros.RegionArray(regions=[box_region('a', stamp_ns)])
        one.client.publish('pixelrefer/regions', regions)
        time.sleep(0.05)
    wait_for(lambda: descriptions, 'a description')
    assert descriptions[0].region_id == 'a'
    one.client.publish(
        'pixelrefer/query', ros.Query(query_id='q', text='What is {a}?', task=ros.Query.TASK_ASK)
    )
    wait_for(lambda: answers, 'the answer')
    answer = answers[0]
    assert (answer.query_id, answer.error_code) == ('q', ErrorCode.OK), answer.error_msg
    assert 0 < answer.tokens_out <= 8
    assert answer.tokens_in > 0
    total = answer.timings.total
    assert total.sec + total.nanosec > 0
    # end it in the middle of things
    ended = threading.Event()
    stream = threading.Thread(target=keep_sending, args=(one.client, ended))
    stream.start()
    try:
        assert one.stop(signal.SIGINT, signal.SIGINT) == 0, one.log
    finally:
        ended.set()
        stream.join()
    assert 'Traceback' not in one.log
