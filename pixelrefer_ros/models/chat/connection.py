# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find the way to an OpenAI-compatible server: its URL, whom to trust, the lines it sends.

The system's resolver cannot be interrupted, and may take half a minute to say that no name server
answers. Names are looked up in threads of their own, so that nobody has to wait for that.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from pixelrefer_ros.models.chat.settings import ChatSettings

_T = TypeVar('_T')


class _LookUps:
    """Look names up, each once at a time, however many ask."""

    def __init__(self) -> None:
        """Start with nothing under way."""
        self._lock = threading.Lock()
        self._under_way: dict[tuple[Any, ...], Future[Any]] = {}

    def begin(self, *what: Any) -> Future[Any]:
        """Return what ``socket.getaddrinfo`` is going to say.

        Raises:
            OSError: There is no thread to ask it in.
        """
        with self._lock:
            result = self._under_way.get(what)
            if result is None:
                result = Future()
                result.set_running_or_notify_cancel()  # who leaves does not end it for others
                thread = threading.Thread(
                    target=self._look_up, args=(what, result), name='look up', daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    raise OSError(f'cannot look the name up: {error}') from error
                self._under_way[what] = result
        return result

    def _look_up(self, what: tuple[Any, ...], result: Future[Any]) -> None:
        try:
            said, error = socket.getaddrinfo(*what), None
        except Exception as raised:
            said, error = [], raised
        with self._lock:
            del self._under_way[what]
        if error is None:
            result.set_result(said)
        else:
            result.set_exception(error)


_look_ups = _LookUps()


class _Loop(asyncio.SelectorEventLoop):
    """Leave a name that is still looked up when the work ends."""

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Return what ``socket.getaddrinfo`` says."""
        return await asyncio.wrap_future(
            _look_ups.begin(host, port, family, type, proto, flags), loop=self
        )


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Do work that connects to servers; a look-up that it no longer waits for holds up nothing."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)


async def lines(answer: httpx2.Response) -> AsyncIterator[str]:
    """Return the lines of an event stream; ``aiter_lines`` would also part words at U+2028."""
    rest = b''
    async for data in answer.aiter_bytes():
        *whole, rest = (rest + data).split(b'\n')
        for line in whole:
            yield line.decode(errors='replace')
    yield rest.decode(errors='replace')


def base_url(url: str) -> str:
    """Return a base URL with its version, without a slash at the end.

    Raises:
        PixelReferError: MODEL_ERROR when it is none, or holds a password.
    """
    try:
        parts = httpx2.URL(url.strip())
    except (httpx2.InvalidURL, ValueError) as error:
        raise PixelReferError(ErrorCode.MODEL_ERROR, f"'{url}' is no URL: {error}") from error
    if parts.scheme not in ('http', 'https') or not parts.host:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR, f"'{url}' is no URL of a server like http://host:8000/v1"
        )
    if parts.userinfo:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f'the URL of {parts.host} holds a user or password: put the API key into an '
            'environment variable and name that',
        )
    base = str(parts.copy_with(query=None, fragment=None)).rstrip('/')
    return base if re.search(r'/v\d+$', base) else f'{base}/v1'


def trust(server: ChatSettings) -> ssl.SSLContext:
    """Return what is trusted; reading the system's certificates takes a while, so once will do.

    Raises:
        PixelReferError: MODEL_ERROR when the certificates cannot be read.
    """
    file = server.ca_file if server.verify else ''
    try:
        if file:
            return ssl.create_default_context(cafile=os.path.expanduser(file))
        return httpx2.create_ssl_context(verify=server.verify)
    except OSError as error:  # an SSLError is one
        where = f" from '{file}'" if file else ''
        raise PixelReferError(
            ErrorCode.MODEL_ERROR, f'cannot read certificates{where}: {error}'
        ) from error
