# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Get a model that holds conversations, from its name, a directory or a URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.chat.quantization import check_quantization
from pixelrefer_ros.models.registry import Use, resolve

if TYPE_CHECKING:
    from pixelrefer_ros.core.chat import ChatModel
    from pixelrefer_ros.models.chat.settings import ChatSettings


def load_chat(settings: ChatSettings) -> ChatModel:
    """Return a model that replies to conversations.

    A model that is not on this machine, or a setting that cannot be, is refused before torch is
    imported. A server need not be up: it is first asked when there is something to reply to.

    Raises:
        PixelReferError: MODEL_ERROR with what to do, OUT_OF_MEMORY when it does not fit.
    """
    if settings.url:
        # imported here: a model on this machine needs no client
        from pixelrefer_ros.models.chat.remote import RemoteChat

        return RemoteChat(settings)
    if not settings.model:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            "no model to hold conversations is set: give 'tabletop', a directory, a hub name "
            'fetched before, or the URL of a server',
        )
    resolve(settings.model, Use.GROUNDING)
    check_quantization(settings.quantization)
    from pixelrefer_ros.models.chat.local import LocalChat

    return LocalChat.load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
    )
