# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say which model holds conversations, and how it is run or reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

PictureFormat = Literal['jpeg', 'png']


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """Say which model replies, and how it is run.

    Attributes:
        model: A directory or a hub name; with ``url``, the server's name for it, '' for its only
            one.
        url: Base URL of an OpenAI-compatible server; '' for a model on this machine.
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'; of a model on this machine, as the next two.
        dtype: 'auto', 'float32', 'bfloat16' or 'float16'.
        quantization: 'none', 'bnb4', 'bnb8', 'torchao-int4' or 'torchao-int8'.
        api_key_env: Name of the environment variable with the API key; of a server, as the rest.
        ca_file: PEM file of the certificates to trust; '' for those of the system.
        verify: Whether to check the server's certificate.
        connect_timeout_s: Longest wait for a connection, and for the answer to ``check``.
        read_timeout_s: Longest silence, the reading of the prompt included.
        retries: How often to try again when the server is away or busy.
        backoff_s: First wait is up to this, and up to twice as long each time.
        picture_format: 'jpeg' or 'png'.
        extra: Further fields of the request, as the server names them. They take precedence over
            those it has anyway, such as ``temperature``; ``messages``, ``model``, ``n`` and
            ``stream`` are refused.
    """

    model: str = ''
    url: str = ''
    device: str = 'auto'
    dtype: str = 'auto'
    quantization: str = 'none'
    api_key_env: str = ''
    ca_file: str = ''
    verify: bool = True
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    retries: int = 4
    backoff_s: float = 0.5
    picture_format: PictureFormat = 'jpeg'
    extra: Mapping[str, Any] = field(default_factory=dict)
