# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Talk to a real server, `transformers serve`, that runs a tiny model with random weights."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from transformers.utils.import_utils import is_serve_available

from pixelrefer_ros.core.chat import Decoding, Picture, Turn
from pixelrefer_ros.core.types import PixelReferError
from pixelrefer_ros.models.chat.load import load_chat
from pixelrefer_ros.models.chat.local import LocalChat
from pixelrefer_ros.models.chat.remote import RemoteChat
from pixelrefer_ros.models.chat.settings import ChatSettings
from tests.models.chat_models import picture, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_serve_available(), reason='needs the extra transformers[serving]'),
]

QUESTION = Turn('user', (Picture(picture(1, 56, 56)), 'What fell?'))
_MAIN = 'from transformers.cli.transformers import app; app()'
# no check for newer releases, no downloads
_ENVIRONMENT = {'HF_HUB_OFFLINE': '1', 'HF_HUB_DISABLE_UPDATE_CHECK': '1'}


@pytest.fixture(scope='module')
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The processors of the Qwen-VL models need torchvision there, LLaVA's does not.
    return write_model(tmp_path_factory.mktemp('served'), 'llava')


@pytest.fixture(scope='module')
def port() -> int:
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return int(one.getsockname()[1])


def asking(directory: Path, port: int, retries: int) -> RemoteChat:
    made = load_chat(
        ChatSettings(
            url=f'http://127.0.0.1:{port}',
            model=str(directory),
            picture_format='png',
            retries=retries,
            backoff_s=0.2,
        )
    )
    assert isinstance(made, RemoteChat)
    return made


@contextlib.contextmanager
def served(directory: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server until the block ends, once it answers."""
    arguments = ['serve', str(directory), '--device', 'cpu', '--host', '127.0.0.1']
    # it lists what is in the cache, and fails when there is none
    cache = directory / 'cache'
    cache.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, '-c', _MAIN, *arguments, '--port', str(port)],
        env={**os.environ, **_ENVIRONMENT, 'HF_HUB_CACHE': str(cache)},
        cwd=directory,
    )
    try:
        client = asking(directory, port, 0)
        while not client.check().reachable:
            assert process.poll() is None, 'the server ended'
            time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')


def test_says_what_the_model_says_here_and_survives_a_kill(directory: Path, port: int) -> None:
    here = LocalChat.load(str(directory), device='cpu')
    expected = here.reply([QUESTION], Decoding(24))
    turns = [QUESTION, Turn('assistant', (expected.text,)), Turn('user', ('And then?',))]
    expected_next = here.reply(turns, Decoding(24))
    long = Decoding(3000)

    with served(directory, port) as process:
        told: list[str] = []
        there = asking(directory, port, 0)
        reply = there.reply([QUESTION], Decoding(24), on_text=told.append)
        assert reply.text == expected.text
        assert (reply.tokens_in, reply.tokens_out) == (expected.tokens_in, expected.tokens_out)
        assert reply.complete == expected.complete
        assert len(told) > 3
        assert there.reply(turns, Decoding(24)).text == expected_next.text

        del told[:]
        stopped = there.reply(
            [QUESTION], long, should_stop=lambda: len(told) > 2, on_text=told.append
        )
        assert not stopped.complete
        assert stopped.text.startswith(expected.text[:2])

        # killed while it speaks: an error for who does not wait, a reply for who does
        patient = asking(directory, port, 10_000)
        results: dict[str, object] = {}
        speaking = [threading.Event(), threading.Event()]

        def ask(number: int, client: RemoteChat, limit: Decoding) -> None:
            try:
                results[str(number)] = client.reply(
                    [QUESTION], limit, on_text=lambda text: speaking[number].set()
                )
            except PixelReferError as error:
                results[str(number)] = error

        threads = [
            threading.Thread(target=ask, args=(0, there, long)),
            threading.Thread(target=ask, args=(1, patient, long)),
        ]
        for thread in threads:
            thread.start()
        assert speaking[0].wait(60)
        process.kill()
        threads[0].join(60)
        assert isinstance(results['0'], PixelReferError)
        assert 'see that the server' in str(results['0'])
        assert there.state().reachable is False

    with served(directory, port):
        threads[1].join(200)
        assert not threads[1].is_alive()
        assert results['1'].text.startswith(expected.text)  # type: ignore[attr-defined]
        assert patient.state().reachable
