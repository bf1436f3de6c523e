# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask a running node with the client of the command line."""

from __future__ import annotations

import threading

import pytest

from pixelrefer_ros.core.types import Box, ErrorCode, PixelReferError, Query, Region, RegionKind
from pixelrefer_ros.node import client
from pixelrefer_ros.node.client import ask_node
from tests.ros.rig import ns

pytestmark = pytest.mark.ros

REGION = Region('cup', RegionKind.BOX, box=Box(8, 8, 16, 16))


def test_answer_and_progress(bench):
    running = bench()
    running.send_frames([ns(1.0)])
    running.describer.script = ['it is red']
    seen = []
    answer = ask_node('pixelrefer', Query('', 'what colour?', regions=(REGION,)), 20.0,
                      seen.append)
    assert (answer.text, answer.error_code) == ('it is red', ErrorCode.OK)
    assert answer.region_ids == ('cup',)
    assert seen


def test_error_of_the_node_comes_as_an_answer(bench):
    bench()
    answer = ask_node('/pixelrefer', Query('', 'what colour?', regions=(REGION,)), 20.0)
    assert answer.error_code == ErrorCode.NO_FRAMES


def test_no_node(ros_domain_id, monkeypatch):
    monkeypatch.setattr(client, '_DISCOVERY_S', 0.3)
    with pytest.raises(PixelReferError, match='no node /pixelrefer') as caught:
        ask_node('pixelrefer', Query('', 'what?'), 5.0)
    assert caught.value.code == ErrorCode.NOT_ACTIVE


def test_too_late_cancels_the_question(bench):
    running = bench()
    running.send_frames([ns(1.0)])
    running.describer.gate = threading.Event()
    with pytest.raises(PixelReferError, match='no answer within') as caught:
        ask_node('pixelrefer', Query('', 'what?', regions=(REGION,)), 1.0)
    assert caught.value.code == ErrorCode.TIMEOUT
    running.describer.gate.set()
    running.describer.gate = None
    answer = ask_node('pixelrefer', Query('', 'what?', regions=(REGION,)), 20.0)
    assert answer.error_code == ErrorCode.OK
