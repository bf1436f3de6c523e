# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Stand in for an OpenAI-compatible server that fails in every way servers fail."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    Answer = Callable[['Handler'], None]


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """See that no thread and no socket is left of what is done meanwhile."""
    gc.collect()  # what others left is not to be counted
    threads, open_sockets = threading.active_count(), _sockets()
    yield
    until = time.monotonic() + 10
    while (
        threading.active_count() > threads or _sockets() > open_sockets
    ) and time.monotonic() < until:
        time.sleep(0.01)  # the double's own side closes a moment later
    assert threading.active_count() <= threads
    assert _sockets() <= open_sockets


def _sockets() -> int:
    links = (os.readlink(link) for link in Path('/proc/self/fd').iterdir() if link.is_symlink())
    return sum(link.startswith('socket:') for link in links)


def event(text: str = '', **more: Any) -> bytes:
    """Return one line of a streamed reply."""
    choice = {'index': 0, 'delta': {'content': text}, **more}
    return b'data: ' + json.dumps({'choices': [choice]}).encode() + b'\n\n'


class Handler(BaseHTTPRequestHandler):
    """Answer each request as the server's list says, and remember what was asked."""

    protocol_version = 'HTTP/1.1'
    server: FaultyServer

    def do_GET(self) -> None:  # noqa: N802
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.models_answer(self)

    def do_POST(self) -> None:  # noqa: N802
        length = int(self.headers['content-length'])
        self.server.asked.append(json.loads(self.rfile.read(length)))
        self.server.headers.append(dict(self.headers))
        self.server.handlers.append(self)
        answers = self.server.answers
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def whole(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header('content-length', str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header('content-type', 'text/event-stream; charset=utf-8')
        self.send_header('transfer-encoding', 'chunked')
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f'{len(data):x}\r\n'.encode() + data + b'\r\n')
        self.wfile.flush()

    def cut(self) -> None:
        """Drop the connection as a killed process does."""
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class FaultyServer(ThreadingHTTPServer):
    """Answer on a free port.

    Attributes:
        answers: What is done for each request for a reply; the last one again and again.
        models: Names at /v1/models.
        models_answer: What is done for each request for them.
        asked: Bodies of the requests.
        headers: Their headers.
        handlers: What answers them.
        gone: Set once a client hung up in the middle of ``endless``, ``dripping``, ``silent`` or
            ``held``.
    """

    daemon_threads = False  # joined by server_close
    request_queue_size = 20

    def __init__(self, *answers: Answer, port: int = 0) -> None:
        super().__init__(('127.0.0.1', port), Handler)
        self.answers = list(answers) or [replies('fine')]
        self.models = ['tiny']
        self.models_answer: Answer = names_models
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.handlers: list[Handler] = []
        self.gone = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.port}'

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that end."""


@contextlib.contextmanager
def serving(
    *answers: Answer, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[FaultyServer]:
    """Run a server in a thread."""
    server = FaultyServer(*answers, port=port)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def names_models(handler: Handler) -> None:
    handler.whole(200, {'data': [{'id': name} for name in handler.server.models]})


def replies(*pieces: str, reason: str = 'stop', usage: dict[str, Any] | None = None) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin()
        handler.chunk(b': still here\n\n')
        for piece in pieces:
            log_probs = {'content': [{'token': piece, 'logprob': -0.5}]}
            asked = handler.server.asked[-1].get('logprobs')
            handler.chunk(event(piece, **({'logprobs': log_probs} if asked else {})))
        handler.chunk(event(finish_reason=reason))
        if usage:
            handler.chunk(
                b'data: ' + json.dumps({'choices': [], 'usage': usage}).encode() + b'\n\n'
            )
        handler.chunk(b'data: [DONE]\n\n')
        handler.chunk(b'')

    return answer


def streams(*lines: bytes) -> Answer:
    """Return these bytes as a stream that ends properly."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for line in lines:
            handler.chunk(line)
        handler.chunk(b'')

    return answer


def says(status: int, body: Any, **headers: str) -> Answer:
    return lambda handler: handler.whole(status, body, **headers)


def cut_after(*pieces: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.begin()
        for piece in pieces:
            handler.chunk(event(piece))
        handler.cut()

    return answer


def endless(handler: Handler) -> None:
    """Say one letter after another until the client hangs up."""
    handler.begin()
    try:
        while True:
            handler.chunk(event('a'))
            time.sleep(0.005)
    except OSError:
        handler.server.gone.set()
        raise


def dripping(handler: Handler) -> None:
    """Begin an answer and never come to its end, nor be silent for long, for up to 20 s."""
    handler.send_response(200)
    handler.send_header('content-length', '1000000')
    handler.end_headers()
    try:
        for _ in range(4000):
            handler.wfile.write(b' ')
            time.sleep(0.005)
        handler.cut()
    except OSError:
        handler.server.gone.set()
        raise


def silent(handler: Handler) -> None:
    """Say nothing until the client hangs up."""
    handler.connection.settimeout(30)
    if not handler.connection.recv(1):
        handler.server.gone.set()
    handler.close_connection = True


def held(gate: threading.Event, then: Answer) -> Answer:
    """Say nothing until the gate is opened or the client hangs up."""

    def answer(handler: Handler) -> None:
        connection = handler.connection
        while not gate.wait(0.005):
            readable, _, _ = select.select([connection], [], [], 0)
            if readable and not connection.recv(1, socket.MSG_PEEK):
                handler.server.gone.set()
                handler.close_connection = True
                return
        then(handler)

    return answer


def refuses_optional(handler: Handler) -> None:
    """Refuse fields as strict servers do."""
    extra = {'logprobs', 'stream_options'} & set(handler.server.asked[-1])
    if extra:
        handler.whole(422, {'detail': f'Unsupported fields: {sorted(extra)}'})
    else:
        replies('plain')(cast('Any', handler))
