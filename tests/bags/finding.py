# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say in tests what a vision language model would say of a scene, asked as tabletops are."""

from __future__ import annotations

import json

from pixelrefer_ros.core.types import Box
from pixelrefer_ros.grounding.chain import GroundingChain
from pixelrefer_ros.grounding.profiles import load_profile
from tests.chat_doubles import ScriptedChatModel
from tests.scenes import HEIGHT, SIDE, WIDTH, corner

PROFILE = load_profile('tabletop')
ABSENT = '<think>Nothing of the kind.</think><answer>[]</answer>'


def frame_line(number: int, what: str = 'a red square') -> str:
    """Return a first turn that chooses a frame, counted among those shown."""
    answer = json.dumps([{'frame_idx': number, 'object description': what}])
    return f'<think>It moves to the right.</think><answer>{answer}</answer>'


def box_line(box: Box, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Return a second turn that gives a box of the image."""
    x, y = PROFILE.key_size[0] / width, PROFILE.key_size[1] / height
    corners = [box.x * x, box.y * y, (box.x + box.width) * x, (box.y + box.height) * y]
    return json.dumps([{'bbox_2d': corners, 'label': 'target'}])


def square(step: int) -> Box:
    """Return the box of the square of ``scenes.scene``."""
    return Box(*corner(step), SIDE, SIDE)


def chain(*said: str) -> GroundingChain:
    """Return a chain whose model says these lines."""
    return GroundingChain(ScriptedChatModel(said), PROFILE)
