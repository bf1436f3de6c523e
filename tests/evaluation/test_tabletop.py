# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test that questions about simulated clips reach the describer as the engine's do."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='needs the extra [sim]')

from pixelrefer_ros.core.types import PixelReferError
from pixelrefer_ros.evaluation.tabletop import Interviewer, evaluate
from pixelrefer_ros.models.registry import resolve
from pixelrefer_ros.simulation.clips import Clip, ThingFacts
from tests.doubles import ScriptedDescriber
from tests.rendering import needs_rendering


def thing(visible: tuple[bool, ...]) -> ThingFacts:
    count = len(visible)
    return ThingFacts('red', 'ball', 'small', 'still', visible, np.zeros((count, 2), np.float32),
                      np.ones(count, np.float32), -1)  # fmt: skip


def made_clip() -> Clip:
    numbers = np.zeros((4, 12, 16), np.uint8)
    numbers[:, 1:4, 1:4] = 1
    numbers[1:, 6:9, 8:12] = 2
    return Clip(
        np.arange(4 * 12 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(4, 12, 16, 3),
        numbers,
        np.array([0.0, 0.5, 1.0, 1.5], np.float32),
        (thing((False, False, True, True)), thing((False, True, True, False))),
    )


def test_only_frames_that_show_the_regions_are_asked_about() -> None:
    clip, describer = made_clip(), ScriptedDescriber(['<object1> moved', 'no'])
    ask = Interviewer(describer).look(clip, (1, 0))
    assert ask('Which of <object0> and <object1> moved?') == '<object1> moved'
    assert ask('Is <object0> red?') == 'no'
    first, second = describer.calls
    assert first.kind == 'answer'
    assert first.text == 'Which of <object0> and <object1> moved?'
    assert first.stamps_ns == (500_000_000, 1_000_000_000, 1_500_000_000)
    assert [region.region_id for region in first.regions] == ['<object0>', '<object1>']
    assert [region.frame_indices for region in first.regions] == [(0, 1), (1, 2)]
    np.testing.assert_array_equal(first.frames[1].image, clip.images[2])
    np.testing.assert_array_equal(first.regions[1].masks[0], clip.mask(2, 0))
    # the very same frames: what was seen of them is known
    assert all(a.image is b.image for a, b in zip(first.frames, second.frames, strict=True))


@needs_rendering
def test_packaged_model_is_right_more_often_than_not() -> None:
    try:
        resolve('tabletop')
    except PixelReferError as error:
        pytest.skip(str(error))
    result = evaluate('tabletop', clips=1)
    assert result['questions'] > 20
    assert result['colour'] > 0.5
