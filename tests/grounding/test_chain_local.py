# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the chain with a model that really reads: a tiny one of the Qwen2.5-VL architecture."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

import pytest

from pixelrefer_ros.core.types import Frame
from pixelrefer_ros.grounding.chain import GroundingChain
from pixelrefer_ros.grounding.profiles import load_profile
from pixelrefer_ros.grounding.results import Status
from pixelrefer_ros.models.chat.local import LocalChat
from tests.models.chat_models import picture, write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.chat import Decoding, Reply, Turn

PROFILE = load_profile('tabletop')
PROFILE = dataclasses.replace(
    PROFILE,
    turn1=dataclasses.replace(PROFILE.turn1, max_new_tokens=6),
    turn2=dataclasses.replace(PROFILE.turn2, max_new_tokens=6),
)
FRAMES = [Frame('', i * 100_000_000, picture(i, 120, 160)) for i in range(20)]
LINES = ('<think>a</think><answer>[{"frame_idx": 5, "object description": "the cup"}]</answer>',
         '[{"bbox_2d": [56, 42, 112, 84]}]')  # fmt: skip


class Prompted:
    """Read as the model does and say given lines: random weights have nothing to say."""

    def __init__(self, model: LocalChat) -> None:
        self.name = model.name
        self.shows_video = model.shows_video
        self.picture_multiple = model.picture_multiple
        self.forget = model.forget
        self._model = model
        self._lines = list(LINES)

    def reply(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        reply = self._model.reply(turns, decoding, should_stop=should_stop, on_text=on_text)
        return dataclasses.replace(reply, text=self._lines.pop(0))


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalChat:
    directory = write_model(tmp_path_factory.mktemp('model'), 'qwen2_5_vl')
    return LocalChat.load(str(directory), device='cpu')


def test_the_second_turn_reads_only_what_is_new(model: LocalChat) -> None:
    found = GroundingChain(Prompted(model), PROFILE).ground(FRAMES, 'Which cup?')
    assert found.status == Status.OK
    first, second = found.said
    assert (first.tokens_reused, second.tokens_reused) == (0, first.tokens_in)
    # 16 frames of 4x3 tokens in pairs, then one of 8x6.
    assert first.tokens_in > 16 // 2 * 12
    assert second.tokens_in - second.tokens_reused > 48
    again = GroundingChain(Prompted(model), PROFILE).ground(FRAMES, 'Which cup?')
    assert again.said[0].tokens_reused == 0, 'the conversation is forgotten at its end'


def test_what_a_random_model_says_is_a_status(
    model: LocalChat, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    with caplog.at_level(logging.INFO):
        found = GroundingChain(model, PROFILE).ground(
            FRAMES, 'Which cup?', on_progress=lambda _, text: heard.append(text)
        )
    assert found.status == Status.TURN1_UNPARSABLE
    assert found.tokens_out == 6
    assert found.log_prob < 0
    assert heard[-1] == found.raw_texts[0]
    assert repr(found.raw_texts[0]) in caplog.text


def test_a_stop_reaches_the_next_token(model: LocalChat) -> None:
    heard: list[str] = []
    found = GroundingChain(model, PROFILE).ground(
        FRAMES, 'Which cup?', should_stop=lambda: len(heard) >= 3,
        on_progress=lambda _, text: heard.append(text),
    )  # fmt: skip
    assert found.status == Status.STOPPED
    assert found.tokens_out < 6
