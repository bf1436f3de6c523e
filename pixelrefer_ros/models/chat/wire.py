# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Speak the chat protocol of OpenAI-compatible servers: what is sent, and what comes back."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import TYPE_CHECKING, Any

from PIL import Image

from pixelrefer_ros.core.chat import Picture, Reply, Video
from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pixelrefer_ros.core.chat import Decoding, Turn
    from pixelrefer_ros.models.chat.settings import PictureFormat

JPEG_QUALITY = 95
OPTIONAL = {'logprobs': True, 'stream_options': {'include_usage': True}}
"""Fields that tell more where a server knows them; some refuse a request that has them."""

OWN = frozenset({'messages', 'model', 'n', 'stream'})
"""Fields that must be what they are here: one reply of one model, word by word."""

_END = '[DONE]'


class ProtocolError(Exception):
    """Report an answer that is none of the protocol's."""


class ServerError(Exception):
    """Report what a server says went wrong in the middle of a reply."""


def request(
    turns: Sequence[Turn],
    decoding: Decoding,
    picture_format: PictureFormat,
    extra: Mapping[str, Any],
    should_stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Return the body of a request for a streamed reply, without model and optional fields.

    Args:
        turns: The conversation so far.
        decoding: How to decode.
        picture_format: In which pictures are sent.
        extra: More fields, which take precedence over those here; none of ``OWN``.
        should_stop: Asked before each picture, which takes milliseconds; True ends the work.

    Returns:
        The body; None when it was stopped.

    Raises:
        PixelReferError: BAD_REQUEST when there is a clip, or the last turn is not the user's.
    """
    if not turns or turns[-1].role != 'user':
        raise PixelReferError(ErrorCode.BAD_REQUEST, "the last turn must be the user's")
    messages = []
    for turn in turns:
        content: list[dict[str, Any]] = []
        for part in turn.parts:
            if isinstance(part, Video):
                raise PixelReferError(
                    ErrorCode.BAD_REQUEST, 'a server is shown no clips: show it pictures'
                )
            if isinstance(part, Picture):
                if should_stop():
                    return None
                url = data_uri(part.image, picture_format)
                content.append({'type': 'image_url', 'image_url': {'url': url}})
            else:
                content.append({'type': 'text', 'text': part})
        if turn.role == 'user':
            messages.append({'role': turn.role, 'content': content})
        else:
            # not every server takes parts from others than the user
            text = ''.join(part['text'] for part in content if part['type'] == 'text')
            messages.append({'role': turn.role, 'content': text})
    return {
        'messages': messages,
        'max_tokens': decoding.max_new_tokens,
        'temperature': decoding.temperature,
        'stream': True,
        **extra,
    }


def data_uri(image: NDArray[np.uint8], picture_format: PictureFormat) -> str:
    """Return an (H, W, 3) uint8 RGB picture as a data URI."""
    buffer = io.BytesIO()
    # no subsampling: small coloured things keep their colour
    options: dict[str, Any] = {'quality': JPEG_QUALITY, 'subsampling': 0}
    Image.fromarray(image).save(
        buffer, picture_format, **(options if picture_format == 'jpeg' else {})
    )
    text = base64.b64encode(buffer.getvalue()).decode('ascii')
    return f'data:image/{picture_format};base64,{text}'


class Gathering:
    """Put a reply together from the lines of a stream, or from a reply that came whole.

    Reasoning that a server tells apart from the words comes first, in ``<think>`` marks, as
    models write it themselves.

    Attributes:
        finished: True once the server said how the reply ended.
    """

    def __init__(self) -> None:
        """Start without words."""
        self.finished = False
        self._ended: str | None = None
        self._reasoning = ''
        self._content = ''
        self._pieces = 0
        self._log_probs: list[float] = []
        self._tokens_in = self._tokens_reused = self._tokens_out = self._tokens_listed = 0

    @property
    def text(self) -> str:
        """The words so far."""
        if not self._reasoning:
            return self._content
        if not self._content and not self._ended:
            return f'<think>{self._reasoning}'
        return f'<think>{self._reasoning}</think>\n{self._content}'

    def line(self, line: str) -> None:
        """Take one line of an event stream.

        Raises:
            ProtocolError: It is none of the protocol's.
            ServerError: The server says that it failed.
        """
        if not line.startswith('data:'):
            return  # blank lines, comments that keep the line alive, names of events
        data = line.removeprefix('data:').strip()
        if data == _END:
            self.finished = True
            return
        self._take(data, 'delta')

    def whole(self, body: str) -> None:
        """Take a reply that was not streamed; raises as ``line``."""
        self._take(body, 'message')
        self.finished = True

    def reply(self, *, stopped: bool = False) -> Reply:
        """Return the reply.

        Args:
            stopped: Whether it was ended early.
        """
        known = self._log_probs
        return Reply(
            text=self.text,
            complete=not stopped and self._ended != 'length',
            tokens_in=self._tokens_in,
            tokens_reused=self._tokens_reused,
            tokens_out=self._tokens_out or self._tokens_listed or self._pieces,
            log_prob=sum(known) / len(known) if known else math.nan,
        )

    def _take(self, data: str, key: str) -> None:
        try:
            event = json.loads(data)
            if event.get('error'):
                raise ServerError(error_text(data))
            self._count(event.get('usage') or {})
            for choice in event['choices'][:1]:
                said = choice.get(key) or {}
                self._reasoning += said.get('reasoning_content') or said.get('reasoning') or ''
                piece = said.get('content') or ''
                self._pieces += bool(piece)
                self._content += piece
                for token in (choice.get('logprobs') or {}).get('content') or ():
                    self._tokens_listed += 1
                    if token.get('logprob') is not None:
                        self._log_probs.append(float(token['logprob']))
                self._ended = choice.get('finish_reason') or self._ended
                self.finished = self.finished or self._ended is not None
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ProtocolError(f'{error!r} in {data[:200]!r}') from error

    def _count(self, usage: dict[str, Any]) -> None:
        """Take the counts a server gives, once or again and again."""
        details = usage.get('prompt_tokens_details') or {}
        self._tokens_in = max(0, int(usage.get('prompt_tokens') or self._tokens_in))
        self._tokens_out = max(0, int(usage.get('completion_tokens') or self._tokens_out))
        self._tokens_reused = max(0, int(details.get('cached_tokens') or self._tokens_reused))


def error_text(body: str) -> str:
    """Return what a server says went wrong: the message in its JSON, else its words."""
    try:
        said = json.loads(body)
        for key in ('error', 'message', 'detail'):
            if isinstance(said, dict) and said.get(key):
                said = said[key]
        return said if isinstance(said, str) else json.dumps(said)
    except ValueError:
        return ' '.join(body.split())[:500]


def model_names(body: str) -> list[str]:
    """Return the names in an answer to /v1/models.

    Raises:
        ProtocolError: It is none of the protocol's.
    """
    try:
        return [str(model['id']) for model in json.loads(body)['data']]
    except (ValueError, TypeError, KeyError) as error:
        raise ProtocolError(f'{error!r} in {body[:200]!r}') from error
