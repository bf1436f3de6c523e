# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find the way to an OpenAI-compatible server: its URL, whom to trust, the lines it sends."""

from __future__ import annotations

import os
import re
import ssl
from typing import TYPE_CHECKING

import httpx2

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pixelrefer_ros.models.chat.settings import ChatSettings


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


def trust(server: ChatSettings) -> ssl.SSLContext | bool:
    """Return what is trusted.

    Raises:
        PixelReferError: MODEL_ERROR when the file of certificates cannot be read.
    """
    if not server.verify:
        return False
    if not server.ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=os.path.expanduser(server.ca_file))
    except OSError as error:  # an SSLError is one
        raise PixelReferError(
            ErrorCode.MODEL_ERROR, f"cannot read certificates from '{server.ca_file}': {error}"
        ) from error
