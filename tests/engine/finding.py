# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say what a vision language model would say of the street."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pixelrefer_ros.core.sampling import spread
from pixelrefer_ros.grounding.profiles import load_profile
from tests.doubles import paint
from tests.engine.street import at_ns, at_s, red_box, street

if TYPE_CHECKING:
    from pixelrefer_ros.core.types import Box

PROFILE = replace(load_profile('tabletop'), frames=5)
FRAMES = 20
KEY = [at_ns(i) for i in range(FRAMES)].index(spread([at_ns(i) for i in range(FRAMES)], 5)[2])
"""The third of the frames that are shown of the whole film."""


def frame_answer(number: int, what: str = 'a red thing') -> str:
    """Return a first turn that chooses a frame, counted among those shown."""
    answer = json.dumps([{'frame_idx': number, 'object description': what}])
    return f'<think>The red one moves.</think><answer>{answer}</answer>'


def box_answer(box: Box) -> str:
    """Return a second turn that gives a box of the image."""
    height, width = paint(at_s(0), street(0)).image.shape[:2]
    x, y = PROFILE.key_size[0] / width, PROFILE.key_size[1] / height
    corners = [box.x * x, box.y * y, (box.x + box.width) * x, (box.y + box.height) * y]
    return json.dumps([{'bbox_2d': corners, 'label': 'red'}])


def box_of_red(i: int) -> str:
    """Return a second turn that gives the box of the red thing in frame i."""
    return box_answer(red_box(i))
