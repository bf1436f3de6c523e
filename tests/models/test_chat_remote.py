# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Show that conversations with a server end well, or with a clear error, and leave nothing."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from pixelrefer_ros.core.chat import Decoding, Picture, Turn, Video
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.chat.load import load_chat
from pixelrefer_ros.models.chat.remote import RemoteChat
from pixelrefer_ros.models.chat.settings import ChatSettings
from tests.models import chat_server as server_double
from tests.models.chat_models import picture
from tests.models.chat_server import (
    cut_after,
    dripping,
    endless,
    event,
    nothing_left,
    refuses_optional,
    replies,
    says,
    serving,
    silent,
    streams,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.models.chat_server import FaultyServer

QUESTION = [Turn('user', (Picture(picture(1)), 'What fell?'))]
SHORT = Decoding(max_new_tokens=20)


@pytest.fixture(autouse=True)
def nothing_leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See that no thread and no socket is left of a test."""
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with nothing_left():
        yield


def chat(server: FaultyServer | str, **settings: Any) -> RemoteChat:
    url = server if isinstance(server, str) else server.url
    fast = {'backoff_s': 0.01, 'read_timeout_s': 5.0, 'retries': 2}
    made = load_chat(ChatSettings(url=url, **(fast | settings)))
    assert isinstance(made, RemoteChat)
    return made


def free_port() -> int:
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return int(one.getsockname()[1])


def test_streams_a_reply_with_all_that_is_known_of_it() -> None:
    told: list[str] = []
    usage = {
        'prompt_tokens': 90,
        'completion_tokens': 3,
        'prompt_tokens_details': {'cached_tokens': 64},
    }
    with serving(replies('the ', 'red ', 'cup', usage=usage)) as server:
        reply = chat(server).reply(QUESTION, SHORT, on_text=told.append)
    assert told == ['the ', 'the red ', 'the red cup']
    assert reply.text == 'the red cup'
    assert reply.complete
    assert (reply.tokens_in, reply.tokens_reused, reply.tokens_out) == (90, 64, 3)
    assert reply.log_prob == pytest.approx(-0.5)


@pytest.mark.parametrize('form', ['jpeg', 'png'])
def test_shows_pictures_and_turns_as_they_are(form: str) -> None:
    shown = picture(1)
    turns = [
        Turn('system', ('Be ', 'brief.')),
        Turn('user', ('Look:', Picture(shown), 'What?')),
        Turn('assistant', ('A cup.',)),
        Turn('user', ('Where?',)),
    ]
    with serving() as server:
        chat(server, picture_format=form, extra={'top_k': 1}).reply(turns, Decoding(7, 0.5))
        asked = server.asked[0]
    assert (asked['max_tokens'], asked['temperature'], asked['stream']) == (7, 0.5, True)
    assert (asked['model'], asked['top_k']) == ('tiny', 1)
    messages = asked['messages']
    assert [message['role'] for message in messages] == ['system', 'user', 'assistant', 'user']
    assert messages[0]['content'] == 'Be brief.'
    assert messages[2]['content'] == 'A cup.'
    assert [part['type'] for part in messages[1]['content']] == ['text', 'image_url', 'text']
    head, data = messages[1]['content'][1]['image_url']['url'].split(',')
    assert head == f'data:image/{form};base64'
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), dtype=int)
    assert seen.shape == shown.shape
    assert np.abs(seen - shown).mean() < (4.0 if form == 'jpeg' else 1e-9)


def test_further_fields_take_precedence_over_what_is_asked_anyway() -> None:
    extra = {'temperature': 0.9, 'logprobs': False, 'stream_options': {'mine': 1}}
    with serving() as server:
        chat(server, extra=extra).reply(QUESTION, Decoding(7, 0.5))
        asked = server.asked[0]
    assert {name: asked[name] for name in extra} == extra
    assert asked['max_tokens'] == 7


def test_a_reply_at_the_limit_is_not_complete() -> None:
    with serving(replies('cut off', reason='length')) as server:
        assert not chat(server).reply(QUESTION, SHORT).complete


def test_reasoning_told_apart_comes_first() -> None:
    lines = [
        event(delta={'reasoning_content': 'It '}),
        event(delta={'reasoning_content': 'fell.'}),
        event('[1]'),
        event(finish_reason='stop'),
    ]
    told: list[str] = []
    with serving(streams(*lines)) as server:
        reply = chat(server).reply(QUESTION, SHORT, on_text=told.append)
    assert reply.text == '<think>It fell.</think>\n[1]'
    assert told[:2] == ['<think>It ', '<think>It fell.']


def test_lines_end_at_line_feeds_alone_wherever_the_stream_is_split() -> None:
    text = 'caf\u00e9\u2028\u0085 \U0001f600'
    choice = {'index': 0, 'delta': {'content': text}, 'finish_reason': 'stop'}
    data = f'data: {json.dumps({"choices": [choice]}, ensure_ascii=False)}\r\n\r\n'.encode()
    with serving(streams(*(data[i : i + 1] for i in range(len(data))))) as server:
        assert chat(server).reply(QUESTION, SHORT).text == text


def test_takes_a_reply_that_comes_whole() -> None:
    body = {
        'choices': [{'message': {'content': 'all'}, 'finish_reason': 'stop'}],
        'usage': {'prompt_tokens': 5, 'completion_tokens': 1},
    }
    with serving(says(200, body, content_type='application/json')) as server:
        reply = chat(server).reply(QUESTION, SHORT)
    assert (reply.text, reply.complete, reply.tokens_in) == ('all', True, 5)
    assert math.isnan(reply.log_prob)


def test_asks_a_strict_server_without_what_it_refuses() -> None:
    with serving(refuses_optional) as server:
        asking = chat(server)
        for _ in range(2):
            reply = asking.reply(QUESTION, SHORT)
            assert reply.text == 'plain'
            assert math.isnan(reply.log_prob)
        assert ['logprobs' in asked for asked in server.asked] == [True, False, False]


def test_another_refusal_does_not_make_it_ask_for_less() -> None:
    with serving(*[says(400, {'error': {'message': 'too long'}})] * 2, replies('a')) as server:
        asking = chat(server)
        with pytest.raises(PixelReferError, match='too long'):
            asking.reply(QUESTION, SHORT)
        assert asking.reply(QUESTION, SHORT).log_prob == pytest.approx(-0.5)


@pytest.mark.parametrize(
    'fault',
    [
        says(429, {'error': {'message': 'busy'}}),
        says(408, b''),
        says(500, b'oops'),
        says(503, {'detail': 'loading'}, retry_after='0'),
        cut_after(),
        cut_after('half a '),
        streams(event('half a ')),
    ],
)
def test_tries_again_when_the_server_is_away_or_busy(fault: server_double.Answer) -> None:
    told: list[str] = []
    with serving(fault, fault, replies('whole', ' reply')) as server:
        asking = chat(server)
        reply = asking.reply(QUESTION, SHORT, on_text=told.append)
        assert len(server.asked) == 3
    assert reply.text == 'whole reply'
    assert told[-2:] == ['whole', 'whole reply']
    assert asking.state().reachable is True
    assert asking.state().reason == asking.trouble() == ''


@pytest.mark.parametrize(
    ('fault', 'match'),
    [
        (says(429, {'error': {'message': 'quota of today'}}), '429: quota of today'),
        (says(500, {'error': 'engine dead'}), '500: engine dead'),
        (cut_after('half a '), 'connection|middle of a reply'),
    ],
)
def test_gives_up_with_a_clear_error(fault: server_double.Answer, match: str) -> None:
    with serving(fault) as server:
        asking = chat(server)
        with pytest.raises(PixelReferError, match=match) as caught:
            asking.reply(QUESTION, SHORT)
        assert len(server.asked) == 3
        assert server.url in str(caught.value)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    assert asking.state().reachable is False
    assert asking.state().reason


def test_no_server_is_a_clear_error_and_a_state() -> None:
    asking = chat(f'http://127.0.0.1:{free_port()}')
    assert asking.state().reachable is None
    assert asking.trouble() == ''
    with pytest.raises(PixelReferError, match='see that the server') as caught:
        asking.reply(QUESTION, SHORT)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    first = asking.state()
    assert first.reachable is False
    assert 'no connection' in first.reason
    assert asking.check().since_s == first.since_s
    assert asking.trouble().startswith(first.reason)


def test_a_server_killed_in_the_middle_and_started_again_is_found_again() -> None:
    port = free_port()
    asking = chat(f'http://127.0.0.1:{port}', retries=100, backoff_s=0.02)
    result: list[Any] = []
    begun, told = threading.Event(), []

    def on_text(text: str) -> None:
        told.append(text)
        begun.set()

    def ask() -> None:
        result.append(asking.reply(QUESTION, SHORT, on_text=on_text))

    thread = threading.Thread(target=ask)
    with serving(endless, port=port) as server:
        thread.start()
        assert begun.wait(20)
        server.answers[:] = [cut_after()]
        for one in list(server_sockets(server)):
            one.shutdown(socket.SHUT_RDWR)
    while asking.state().reachable is not False:
        thread.join(0.01)
    with serving(replies('back'), port=port):
        thread.join(20)
    assert result[0].text == 'back'
    assert told[0] == 'a'
    assert asking.state().reachable is True


def server_sockets(server: FaultyServer) -> list[socket.socket]:
    return [handler.connection for handler in server.handlers]


@pytest.mark.parametrize(
    ('status', 'match'),
    [
        (400, 'too many pictures'),
        (401, 'see the key in TEST_CHAT_KEY'),
        (403, 'too many pictures'),
        (404, 'too many pictures'),
        (413, 'too many pictures'),
    ],
)
def test_what_the_server_refuses_is_a_bad_request(
    status: int, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TEST_CHAT_KEY', 'k-123')
    answer = says(status, {'error': {'message': 'too many pictures'}})
    with serving(answer) as server:
        asking = chat(server, model='tiny', api_key_env='TEST_CHAT_KEY')
        with pytest.raises(PixelReferError, match=match) as caught:
            asking.reply(QUESTION, SHORT)
    assert caught.value.code == ErrorCode.BAD_REQUEST
    assert asking.state().reachable is True


@pytest.mark.parametrize(
    ('answer', 'match'),
    [
        (streams(b'data: {"choices": [\n\n'), 'OpenAI-compatible'),
        (streams(b'data: {"choices": 7}\n\n'), 'OpenAI-compatible'),
        (streams(b'data: []\n\n'), 'OpenAI-compatible'),
        (says(200, b'<html>hello</html>'), 'OpenAI-compatible'),
        (says(307, b'', location='http://127.0.0.1:9/'), 'give the URL'),
        (streams(event('a'), b'data: {"error": {"message": "lost the GPU"}}\n\n'), 'lost the GPU'),
        (streams(b'data: {"error": "lost the GPU"}\n\n'), 'lost the GPU'),
    ],
)
def test_nonsense_is_a_model_error_at_once(answer: server_double.Answer, match: str) -> None:
    with serving(answer) as server:
        with pytest.raises(PixelReferError, match=match) as caught:
            chat(server).reply(QUESTION, SHORT)
        assert len(server.asked) == 1
    assert caught.value.code == ErrorCode.MODEL_ERROR


def test_stop_hangs_up_in_the_middle_of_a_reply() -> None:
    told: list[str] = []
    with serving(endless) as server:
        reply = chat(server).reply(
            QUESTION, SHORT, should_stop=lambda: len(told) >= 3, on_text=told.append
        )
        assert server.gone.wait(20)
    assert reply.text == told[-1]
    assert len(told) == 3
    assert not reply.complete


def test_stop_hangs_up_while_the_server_is_silent() -> None:
    with serving(silent) as server:
        asking = chat(server, read_timeout_s=60.0)
        reply = asking.reply(QUESTION, SHORT, should_stop=lambda: bool(server.asked))
        assert server.gone.wait(20)
    assert (reply.text, reply.complete) == ('', False)


def test_stop_ends_the_wait_for_another_try() -> None:
    with serving(says(503, b'', retry_after='3600')) as server:
        reply = chat(server).reply(QUESTION, SHORT, should_stop=lambda: bool(server.asked))
        assert len(server.asked) == 1
    assert not reply.complete


class Resolver:
    """Stand in for the system's: it knows one name, and says nothing before the gate is open.

    Attributes:
        gate: Open at first.
        asked: Names that were asked for.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []
        self._real = socket.getaddrinfo

    def __call__(self, host: bytes | str, *what: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        assert self.gate.wait(30)
        if name != 'robot.test':
            raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
        return self._real('127.0.0.1', *what, **more)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """Put the double in the place of the system's."""
    monkeypatch.setenv('NO_PROXY', '*')
    one = Resolver()
    monkeypatch.setattr(socket, 'getaddrinfo', one)
    yield one
    one.gate.set()


def test_a_name_is_looked_up(resolver: Resolver) -> None:
    with serving() as server:
        asking = chat(f'http://robot.test:{server.port}')
        assert asking.reply(QUESTION, SHORT).text == 'fine'
        assert asking.reply(QUESTION, SHORT).text == 'fine'
    assert set(resolver.asked) == {'robot.test'}


def test_a_name_that_nobody_knows_is_a_clear_error(resolver: Resolver) -> None:
    with pytest.raises(PixelReferError, match='no connection to http://nobody.test') as caught:
        chat('http://nobody.test').reply(QUESTION, SHORT)
    assert caught.value.code == ErrorCode.MODEL_ERROR
    assert len(resolver.asked) == 3


def test_stop_does_not_wait_for_a_name(resolver: Resolver) -> None:
    resolver.gate.clear()
    asking = chat('http://robot.test')
    for _ in range(3):
        reply = asking.reply(QUESTION, SHORT, should_stop=lambda: bool(resolver.asked))
        assert (reply.text, reply.complete) == ('', False)
    # here the resolver still hangs, and in one thread only
    assert resolver.asked == ['robot.test']
    assert [thread.name for thread in threading.enumerate()].count('look up') == 1


def test_a_name_counts_as_connecting(resolver: Resolver) -> None:
    with serving() as server:
        resolver.gate.clear()
        asking = chat(f'http://robot.test:{server.port}', connect_timeout_s=0.05, retries=1)
        with pytest.raises(PixelReferError, match=r'silent for 0\.05 s'):
            asking.reply(QUESTION, SHORT)
        assert asking.check().reachable is False
        assert resolver.asked == ['robot.test']
        resolver.gate.set()
        patient = chat(f'http://robot.test:{server.port}')
        assert patient.reply(QUESTION, SHORT).text == 'fine'


def test_a_name_is_looked_up_again_when_there_was_no_thread_for_it(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    refused: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        if thread.name == 'look up' and len(refused) < 4:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, 'start', refuse)
    with serving() as server:
        asking = chat(f'http://robot.test:{server.port}', retries=2)
        with pytest.raises(PixelReferError, match='no connection to .* start new thread'):
            asking.reply(QUESTION, SHORT)
        assert len(refused) == 3
        assert asking.reply(QUESTION, SHORT).text == 'fine'
    assert len(refused) == 4


def test_stop_ends_the_making_of_pictures() -> None:
    turns = [Turn('user', (*[Picture(picture(1))] * 9, 'What fell?'))]
    asked = iter([False, False, True])
    reply = chat('http://127.0.0.1:9').reply(turns, SHORT, should_stop=lambda: next(asked))
    assert not reply.complete


def test_silence_has_a_limit() -> None:
    with serving(silent) as server:
        asking = chat(server, read_timeout_s=0.1, retries=0)
        with pytest.raises(PixelReferError, match=r'silent for 0\.1 s') as caught:
            asking.reply(QUESTION, SHORT)
    assert caught.value.code == ErrorCode.MODEL_ERROR


@pytest.mark.parametrize('drip', [False, True])
def test_a_check_does_not_wait_for_an_answer_for_long(drip: bool) -> None:
    with serving() as server:
        server.models_answer = dripping if drip else silent
        asking = chat(server, connect_timeout_s=0.2, read_timeout_s=60.0)
        began_s = time.monotonic()
        assert asking.check().reachable is False
        assert time.monotonic() - began_s < 20.0
        assert server.gone.wait(20)
    assert asking.state().reason == f'the server at {asking.name} did not answer within 0.2 s'


def test_an_error_of_the_caller_hangs_up() -> None:
    def on_text(text: str) -> None:
        raise KeyError('mine')

    with serving(endless) as server:
        with pytest.raises(KeyError, match='mine'):
            chat(server).reply(QUESTION, SHORT, on_text=on_text)
        assert server.gone.wait(20)


def test_the_key_is_sent_and_never_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv('TEST_CHAT_KEY', 'k-secret-1')
    said = {'error': {'message': 'wrong key k-secret-1'}}
    with serving(says(503, said), says(401, said)) as server:
        asking = chat(server, api_key_env='TEST_CHAT_KEY')
        with pytest.raises(PixelReferError, match=r'wrong key \*\*\*') as caught:
            asking.reply(QUESTION, SHORT)
        assert server.headers[0]['Authorization'] == 'Bearer k-secret-1'
    assert 'k-secret-1' not in caplog.text + str(caught.value) + asking.state().reason
    assert 'k-secret-1' not in repr(asking)


def test_takes_the_only_model_or_asks_which() -> None:
    with serving() as server:
        asking = chat(server)
        assert asking.name == f'{server.url}/v1'
        assert asking.check().reachable is True
        assert asking.name == 'tiny'
        server.models = ['a', 'b']
        with pytest.raises(PixelReferError, match='set the model name') as caught:
            chat(server).reply(QUESTION, SHORT)
        assert caught.value.code == ErrorCode.MODEL_ERROR
        assert chat(server, model='b').reply(QUESTION, SHORT).text == 'fine'
        assert server.asked[-1]['model'] == 'b'


@pytest.mark.parametrize('ending', ['', '/', '/v1', '/v1/'])
def test_the_version_may_be_left_out_of_the_url(ending: str) -> None:
    with serving() as server:
        assert chat(server.url + ending).reply(QUESTION, SHORT).text == 'fine'


@pytest.mark.parametrize(
    ('settings', 'match'),
    [
        ({'url': 'robot:8000'}, 'no URL'),
        ({'url': 'ftp://robot'}, 'no URL'),
        ({'url': 'http://me:pw@robot'}, 'environment variable'),
        ({'url': 'http://robot', 'api_key_env': 'TEST_NO_SUCH_KEY'}, 'TEST_NO_SUCH_KEY'),
        ({'url': 'https://robot', 'ca_file': '/no/such.pem'}, r'/no/such\.pem'),
        ({'url': 'http://robot', 'picture_format': 'gif'}, 'jpeg'),
        ({'url': 'http://robot', 'extra': {'model': 'other'}}, "name .'model'., which are set"),
        ({'url': 'http://robot', 'extra': {'stream': False, 'n': 2}}, "'n', 'stream'"),
    ],
)
def test_refuses_settings_that_cannot_be(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(PixelReferError, match=match) as caught:
        load_chat(ChatSettings(**settings))
    assert caught.value.code == ErrorCode.MODEL_ERROR
    assert 'pw' not in str(caught.value)


@pytest.mark.skipif(shutil.which('openssl') is None, reason='makes a certificate with openssl')
def test_checks_the_certificate_of_the_server(tmp_path: Path) -> None:
    key, certificate = tmp_path / 'key.pem', tmp_path / 'certificate.pem'
    subprocess.run(
        ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2']
        + ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1']
        + ['-keyout', str(key), '-out', str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(tls=context) as server:
        url = f'https://127.0.0.1:{server.port}'
        assert chat(url, ca_file=str(certificate)).reply(QUESTION, SHORT).text == 'fine'
        assert chat(url, verify=False).reply(QUESTION, SHORT).text == 'fine'
        asking = chat(url)
        with pytest.raises(PixelReferError, match='authority that signed') as caught:
            asking.reply(QUESTION, SHORT)
        assert len(server.asked) == 2
    assert caught.value.code == ErrorCode.MODEL_ERROR
    assert asking.state().reachable is False


def test_refuses_clips_and_conversations_that_do_not_end_with_the_user() -> None:
    asking = chat('http://127.0.0.1:9')
    for turns in ([], [Turn('assistant', ('a',))], [Turn('user', (Video((picture(1),), 2.0),))]):
        with pytest.raises(PixelReferError) as caught:
            asking.reply(turns, SHORT)
        assert caught.value.code == ErrorCode.BAD_REQUEST
    assert not asking.shows_video
