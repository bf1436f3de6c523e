# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put a grounding chain together from a model and a profile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.grounding.chain import GroundingChain
from pixelrefer_ros.grounding.profiles import load_profile, shipped_profiles
from pixelrefer_ros.models.chat.load import load_chat
from pixelrefer_ros.models.registry import Use, resolve

if TYPE_CHECKING:
    from pixelrefer_ros.models.chat.settings import ChatSettings

AUTO = 'auto'
"""Name of no profile: the one for the model's architecture."""

_PROFILE_OF: Final = {'qwen2_5_vl': 'qwen2.5-vl', 'qwen3_vl': 'qwen3-vl'}
# What `pixelrefer train grounding` makes is a Qwen2.5-VL too, but a patch of its tower goes
# through all sixteen frames of a clip; with those of all others it is two.
_EMBEDDED: Final = 'tabletop'
_EMBEDDED_PATCH_FRAMES: Final = 16


def load_grounder(settings: ChatSettings, profile: str = AUTO) -> GroundingChain:
    """Return what finds things from words.

    Args:
        settings: Which model to ask, and how it is run or reached.
        profile: Name or path of the profile; 'auto' goes by the architecture of a model on this
            machine, and knows the embedded one.

    Raises:
        PixelReferError: BAD_REQUEST for the profile; MODEL_ERROR or OUT_OF_MEMORY for the model.
    """
    chosen = load_profile(_profile_for(settings) if profile == AUTO else profile)
    chat = load_chat(settings)
    if settings.url:
        # imported here: a model on this machine needs no client
        from pixelrefer_ros.models.chat.remote import RemoteChat

        assert isinstance(chat, RemoteChat)
        chat.check()  # one that is away is not refused, it may come back: see ``trouble``
    return GroundingChain(chat, chosen)


def _profile_for(settings: ChatSettings) -> str:
    known = ', '.join(shipped_profiles())
    if settings.url:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST,
            f'a server does not say what model it runs: name its profile, one of {known} or the '
            'path of your own',
        )
    folder = resolve(settings.model, Use.GROUNDING)
    try:
        config = json.loads((folder / 'config.json').read_text())
        kind = config.get('model_type')
        patch_frames = config.get('vision_config', {}).get('temporal_patch_size')
    except (OSError, ValueError, AttributeError) as error:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR, f'{folder} holds no model: config.json is unreadable ({error})'
        ) from None
    if kind not in _PROFILE_OF:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST,
            f"there is no profile for models of type '{kind}': name one of {known}, or the path "
            'of your own',
        )
    return _EMBEDDED if patch_frames == _EMBEDDED_PATCH_FRAMES else _PROFILE_OF[kind]
