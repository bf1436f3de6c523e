# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold conversations with a vision language model behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import httpx2

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.chat import wire
from pixelrefer_ros.models.chat.connection import base_url, lines, run, trust
from pixelrefer_ros.models.chat.settings import PictureFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from pixelrefer_ros.core.chat import Decoding, Reply, Turn
    from pixelrefer_ros.models.chat.settings import ChatSettings

logger = logging.getLogger(__name__)

_T = TypeVar('_T')

STOP_PERIOD_S = 0.02
"""How often ``should_stop`` is asked while the server is silent."""

MAX_WAIT_S = 8.0
"""Longest wait before another try, whatever a server asks for."""

_LATER = (408, 429)
_REFUSED_FIELDS = (400, 422)
_UNTRUSTED = 'CERTIFICATE_VERIFY_FAILED'


@dataclass(frozen=True, slots=True)
class ServerState:
    """Say how a server was found.

    Attributes:
        reachable: None before it was first asked.
        reason: What went wrong last; '' when nothing did.
        since_s: Since when it is so, in seconds of ``time.monotonic``.
    """

    reachable: bool | None
    reason: str
    since_s: float


class RemoteChat:
    """Reply to conversations with pictures; implements ``core.chat.ChatModel``.

    Each reply has its own connection, closed when it ends, however it ends. The server keeps what
    it read, or not (vLLM: ``--enable-prefix-caching``). Not to be called from a running event
    loop.

    Attributes:
        name: Model name, as it appears in the results; the URL until the server told it.
        shows_video: False: servers choose frames of a clip in ways of their own.
        picture_multiple: 1: a server does not say what its model needs.
        remote: True.
    """

    shows_video = False
    picture_multiple = 1
    remote = True

    def __init__(self, server: ChatSettings) -> None:
        """Get ready to talk; the server is first asked by ``check`` or ``reply``.

        Args:
            server: Those of its fields that are of a server.

        Raises:
            PixelReferError: MODEL_ERROR when a setting cannot be.
        """
        self._server = server
        self._url = base_url(server.url)
        self._model = server.model
        self.name = server.model or self._url
        self._optional: dict[str, Any] = dict(wire.OPTIONAL)
        self._tls = trust(server)
        self._state = ServerState(None, '', time.monotonic())
        if server.picture_format not in get_args(PictureFormat):
            raise PixelReferError(
                ErrorCode.MODEL_ERROR,
                f"picture format is '{server.picture_format}', must be 'jpeg' or 'png'",
            )
        if own := sorted(wire.OWN & set(server.extra)):
            raise PixelReferError(
                ErrorCode.MODEL_ERROR,
                f'extra fields of the request name {own}, which are set here: leave them out',
            )
        self._headers()

    def state(self) -> ServerState:
        """Return how the server was found last; may be called by any thread."""
        return self._state

    def check(self) -> ServerState:
        """Ask the server for its models, once; see how it is in what is returned.

        Takes ``connect_timeout_s`` at most: there is nothing to think about.
        """
        # what goes wrong is told by the state
        with contextlib.suppress(PixelReferError, _AwayError):
            run(self._check())
        return self._state

    def reply(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Say the assistant's next turn; see ``ChatModel``.

        When the server goes away in the middle of a reply, the reply begins anew.
        """
        stop = should_stop or (lambda: False)
        tell = on_text or (lambda text: None)
        body = wire.request(
            turns, decoding, self._server.picture_format, self._server.extra, stop
        )
        if body is None:
            return wire.Gathering().reply(stopped=True)
        return run(self._watched(body, stop, tell))

    def trouble(self) -> str:
        """Return why the server could not be used last; '' when it could, or was not asked."""
        state = self._state
        if state.reachable is not False:
            return state.reason
        return f'{state.reason} (for {time.monotonic() - state.since_s:.0f} s)'

    def forget(self) -> None:
        """Do nothing: what is kept is the server's."""

    async def _check(self) -> None:
        limit_s = self._server.connect_timeout_s
        try:
            await asyncio.wait_for(self._with_client(self._ask_models), limit_s)
        except TimeoutError:
            self._found(False, f'the server at {self._url} did not answer within {limit_s:g} s')

    async def _watched(
        self, body: dict[str, Any], stop: Callable[[], bool], tell: Callable[[str], None]
    ) -> Reply:
        """Run the tries, and end them within ``STOP_PERIOD_S`` when told to stop."""
        so_far = [wire.Gathering()]
        work = asyncio.create_task(self._tries(body, stop, tell, so_far))
        try:
            while not work.done():
                if stop():
                    return so_far[0].reply(stopped=True)
                await asyncio.wait({work}, timeout=STOP_PERIOD_S)
            return work.result()
        finally:
            work.cancel()
            await asyncio.wait({work})
            if not work.cancelled():
                work.exception()  # seen, or else asyncio complains of it

    async def _tries(
        self,
        body: dict[str, Any],
        stop: Callable[[], bool],
        tell: Callable[[str], None],
        so_far: list[wire.Gathering],
    ) -> Reply:
        """Try until there is a reply or tries are used up."""
        tries = 0
        while True:
            try:
                so_far[0] = wire.Gathering()
                return await self._with_client(
                    lambda client: self._once(client, body, stop, tell, so_far[0])
                )
            except _AwayError as away:
                tries += 1
                if tries > self._server.retries:
                    raise PixelReferError(
                        ErrorCode.MODEL_ERROR,
                        f'{away} (tried {tries} times); see that the server at {self._url} runs '
                        'and is not overloaded',
                    ) from away
                wait_s = self._wait_s(tries, away.wait_s)
                logger.warning('%s; trying again in %.1f s', away, wait_s)
                await asyncio.sleep(wait_s)

    def _wait_s(self, tries: int, asked_s: float | None) -> float:
        """Return how long to wait before another try.

        Drawn at random (full jitter), so that clients of a server that was away do not all come
        back at once.
        """
        if asked_s is not None:
            return min(asked_s, MAX_WAIT_S)
        return random.uniform(
            0.0, min(self._server.backoff_s * 2.0 ** min(tries - 1, 30), MAX_WAIT_S)
        )

    async def _with_client(
        self, use: Callable[[httpx2.AsyncClient], Coroutine[Any, Any, _T]]
    ) -> _T:
        """Use a client that is closed afterwards; remember how the server was.

        Raises:
            _AwayError: The server is not there, busy, or went away.
            PixelReferError: It is there and refuses, or talks nonsense.
        """
        server = self._server
        timeout = httpx2.Timeout(server.read_timeout_s, connect=server.connect_timeout_s)
        try:
            async with httpx2.AsyncClient(
                headers=self._headers(), timeout=timeout, verify=self._tls
            ) as client:
                result = await use(client)
                self._found(True, '')
                return result
        except httpx2.TimeoutException as error:
            connecting = isinstance(error, httpx2.ConnectTimeout)
            limit_s = server.connect_timeout_s if connecting else server.read_timeout_s
            away = _AwayError(f'the server at {self._url} was silent for {limit_s:g} s')
        except (httpx2.TransportError, OSError) as error:
            if _UNTRUSTED in str(error):
                raise self._failed(
                    ErrorCode.MODEL_ERROR,
                    f'the certificate of {self._url} is not trusted ({error}): name the file of '
                    'the authority that signed it',
                    reachable=False,
                ) from error
            away = _AwayError(
                f'no connection to {self._url}: {str(error) or type(error).__name__}'
            )
        except _AwayError as error:
            away = error
        except wire.ProtocolError as error:
            raise self._failed(
                ErrorCode.MODEL_ERROR,
                f'{self._url} does not answer as an OpenAI-compatible server does: {error}',
            ) from error
        except wire.ServerError as error:
            raise self._failed(
                ErrorCode.MODEL_ERROR, f'the server at {self._url} failed: {error}'
            ) from error
        self._found(False, str(away))
        raise away

    async def _once(
        self,
        client: httpx2.AsyncClient,
        body: dict[str, Any],
        stop: Callable[[], bool],
        tell: Callable[[str], None],
        so_far: wire.Gathering,
    ) -> Reply:
        """Ask once; without the optional fields when the server refuses them."""
        if not self._model:
            await self._ask_models(client)
        optional = self._optional
        while True:
            asked = {'model': self._model, **optional, **body}
            async with client.stream(
                'POST', f'{self._url}/chat/completions', json=asked
            ) as answer:
                if answer.status_code == httpx2.codes.OK:
                    self._optional = optional
                    return await self._listen(answer, stop, tell, so_far)
                text = (await answer.aread()).decode(errors='replace')
            if answer.status_code not in _REFUSED_FIELDS or not optional:
                raise self._refusal(answer, text)
            optional = {}

    async def _listen(
        self,
        answer: httpx2.Response,
        stop: Callable[[], bool],
        tell: Callable[[str], None],
        so_far: wire.Gathering,
    ) -> Reply:
        """Take the reply as it comes; leave in the middle when told to stop."""
        if 'event-stream' not in answer.headers.get('content-type', ''):
            so_far.whole((await answer.aread()).decode(errors='replace'))
            tell(so_far.text)
            return so_far.reply()
        told = ''
        async for line in lines(answer):
            so_far.line(line)
            if so_far.text != told:
                told = so_far.text
                tell(told)
            if stop():
                return so_far.reply(stopped=True)
        if not so_far.finished:
            raise _AwayError(f'the server at {self._url} ended in the middle of a reply')
        return so_far.reply()

    async def _ask_models(self, client: httpx2.AsyncClient) -> None:
        """Ask for the server's models, and take the only one when none is set."""
        answer = await client.get(f'{self._url}/models')
        if answer.status_code != httpx2.codes.OK:
            raise self._refusal(answer, answer.text)
        names = wire.model_names(answer.text)
        if self._model:
            return
        if len(names) != 1:
            raise self._failed(
                ErrorCode.MODEL_ERROR,
                f'set the model name: the server at {self._url} has {len(names)} models '
                f'{names[:10]}',
            )
        self._model = self.name = names[0]

    def _refusal(self, answer: httpx2.Response, text: str) -> Exception:
        """Return what an answer that is no reply means."""
        status, said = answer.status_code, wire.error_text(text)
        what = f'the server at {self._url} answers {status}: {said}'
        if status in _LATER or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
            asked = answer.headers.get('retry-after', '')
            return _AwayError(self._safe(what), float(asked) if asked.isdecimal() else None)
        if status < httpx2.codes.BAD_REQUEST:
            return self._failed(ErrorCode.MODEL_ERROR, f'{what}; give the URL it points to')
        if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            key = self._server.api_key_env
            hint = f'see the key in {key}' if key else 'name the variable that holds the API key'
            return self._failed(ErrorCode.BAD_REQUEST, f'{what}; {hint}')
        return self._failed(ErrorCode.BAD_REQUEST, what)

    def _failed(self, code: ErrorCode, what: str, *, reachable: bool = True) -> PixelReferError:
        """Remember what went wrong and return it as an error."""
        self._found(reachable, what)
        return PixelReferError(code, self._safe(what))

    def _found(self, reachable: bool, reason: str) -> None:
        """Remember how the server is, and say so when that changes."""
        old, reason = self._state, self._safe(reason)
        if (old.reachable, old.reason) == (reachable, reason):
            return
        since_s = time.monotonic() if old.reachable != reachable else old.since_s
        self._state = ServerState(reachable, reason, since_s)
        if old.reachable is False and reachable:
            logger.info('the server at %s is back', self._url)

    def _headers(self) -> dict[str, str]:
        """Return the headers of a request.

        Raises:
            PixelReferError: MODEL_ERROR when there is no key where it should be.
        """
        if not self._server.api_key_env:
            return {}
        key = self._key()
        if not key:
            raise PixelReferError(
                ErrorCode.MODEL_ERROR,
                f'the environment variable {self._server.api_key_env} should hold the API key of '
                f'{self._url} and is not set',
            )
        return {'Authorization': f'Bearer {key}'}

    def _key(self) -> str:
        name = self._server.api_key_env
        return os.environ.get(name, '').strip() if name else ''

    def _safe(self, text: str) -> str:
        """Take the API key out of a text, should a server have echoed it."""
        key = self._key()
        return text.replace(key, '***') if key else text


class _AwayError(Exception):
    """Report a server that may be there later; ``wait_s`` when it said how much later."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s
