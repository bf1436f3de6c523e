# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say facts in the language model's own space: the words that tower and language agree on.

A token that sees is the sum of the codes of what it shows. Looks and deeds are directions that
the embeddings of their words lie in as well; a number, in words or as the frame in which
something starts, is a few waves of its value. So the tower can learn what to say without the
language model, the language model can learn to reason on codes that are told it, and naming
what is seen is copying.

Where a box ends is told from the middle of the token, in waves too: waves turn by what is added
to a number, so a place and the distance to it multiply, feature by feature, to the number
itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from pixelrefer_ros.simulation.reasoning_story import ROLES
from pixelrefer_ros.simulation.world import COLOURS, SHAPES, SIZES

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 160
PERIODS = (5.0, 9.0, 16.0, 29.0, 52.0, 94.0, 170.0)
"""Of the waves of a number. Those that are near a box are told without the first: no picture of
this size tells an edge that precisely."""
BOX_PERIODS = PERIODS[1:]
_LOOKS = {'colour': tuple(COLOURS), 'shape': SHAPES, 'size': tuple(SIZES)}
FACTS = {**{name: len(words) for name, words in _LOOKS.items()},
         'role': len(ROLES) + 1, 'start': 17, 'stop': 17}
"""Classes of every fact, without one for the background. Of start and stop, 0 is never and n + 1
frame n."""

_SIZES = {'colour': len(COLOURS), 'shape': len(SHAPES), 'size': len(SIZES), 'none': 1,
          'role': len(ROLES) + 1, 'number': 2 * len(PERIODS), 'stop': 2 * len(PERIODS),
          **{name: 2 * len(BOX_PERIODS) for name in (
              'x1', 'y1', 'x2', 'y2', 'column', 'row')}}


def _parts() -> dict[str, slice]:
    parts, at = {}, 0
    for name, size in _SIZES.items():
        parts[name] = slice(at, at + size)
        at += size
    return parts


PARTS = _parts()
"""Where in a token each kind of fact is said."""
SIDES = ('x1', 'y1', 'x2', 'y2')


def waves(values: Tensor, periods: tuple[float, ...] = PERIODS, blur: Tensor | float = 0.0
          ) -> Tensor:
    """Return the code of numbers.

    Args:
        values: (...) float.
        periods: Of the waves.
        blur: (...) how uncertain each is: the standard deviation; waves shorter than it fade.

    Returns:
        (..., 2 * periods), of norm 1 without blur: the cosines, then the sines.
    """
    steps = 2 * math.pi / torch.tensor(periods, device=values.device)
    angles = values[..., None] * steps
    fade = torch.exp(-0.5 * (torch.as_tensor(blur, device=values.device)[..., None] * steps) ** 2)
    return torch.cat([angles.cos() * fade, angles.sin() * fade], -1) * len(periods) ** -0.5


def code_table(fact: str) -> Tensor:
    """Return the code of each class of a fact, (classes, WIDTH)."""
    table = torch.zeros(FACTS[fact], WIDTH)
    if fact in ('start', 'stop'):
        part = PARTS['number' if fact == 'start' else 'stop']
        table[1:, part] = waves(torch.arange(FACTS[fact] - 1.0))
    else:
        table[:, PARTS[fact]] = torch.eye(FACTS[fact])
    return table


def background() -> Tensor:
    """Return the code of a token that shows no thing, (WIDTH,)."""
    code = torch.zeros(WIDTH)
    code[PARTS['none']] = 1.0
    return code


def box_code(offsets: Tensor, blur: Tensor | float = 0.0) -> Tensor:
    """Return the code of how far away a box's sides are.

    Args:
        offsets: (..., 4) x1, y1, x2, y2 in pixels from the middle of the token.
        blur: How uncertain each is, in pixels; of a shape that expands to that of ``offsets``.

    Returns:
        (..., WIDTH).
    """
    spread = torch.as_tensor(blur, device=offsets.device).expand(offsets.shape)
    code = torch.zeros(*offsets.shape[:-1], WIDTH, device=offsets.device)
    for i, side in enumerate(SIDES):
        code[..., PARTS[side]] = waves(offsets[..., i], BOX_PERIODS, spread[..., i])
    return code


def words_in_codes() -> dict[str, Tensor]:
    """Return the embeddings that words begin with: those that name facts, and numbers."""
    found: dict[str, Tensor] = {}
    for fact, words in _LOOKS.items():
        found |= dict(zip(words, code_table(fact), strict=True))
    deeds = dict(zip((*ROLES, 'hit by'), code_table('role'), strict=True))
    said = {'stay': 'stays', 'move': 'moves', 'go': 'not', 'fall': 'falls', 'carry': 'carried',
            'hit': 'hits', 'hit by': 'hit'}
    found |= {word: deeds[role] for role, word in said.items()}
    for number in range(256):
        code = torch.zeros(WIDTH)
        code[PARTS['number']] = waves(torch.tensor(float(number)))
        found[str(number)] = code
    return found
