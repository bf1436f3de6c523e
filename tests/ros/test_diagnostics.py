# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what the node says about its own health."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String

from pixelrefer_ros import msg as ros
from pixelrefer_ros.core.describer import LanguageStats, VisionStats
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.node import qos
from pixelrefer_ros.node.camera import CameraReport
from pixelrefer_ros.node.diagnostics import judge_camera
from tests.doubles import ScriptedDescriber
from tests.ros.rig import box_region, image_msg, ns, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ros.rig import Bench

FAST = {'diagnostics_period_s': 0.1}


class Health:
    """Collect the newest status of every part of the node."""

    def __init__(self, one: Bench) -> None:
        self._messages = one.client.listen('/diagnostics', DiagnosticArray)

    def part(self, name: str) -> Any:
        """Return the newest status of a part, or None."""
        if not self._messages:
            return None
        for status in self._messages[-1].status:
            if status.name == f'pixelrefer: {name}':
                return status
        return None

    def values(self, name: str) -> dict[str, str]:
        status = self.part(name)
        return {pair.key: pair.value for pair in status.values} if status else {}


@pytest.mark.ros
def test_health_through_a_life(bench: Callable[..., Bench]) -> None:
    reasons = [PixelReferError(ErrorCode.MODEL_ERROR, 'no model; run `pixelrefer fetch it`')]

    def factory(parameters: Any) -> ScriptedDescriber:
        if reasons:
            raise reasons.pop()
        describer = ScriptedDescriber()
        describer.seen = VisionStats(
            hits=6, encoded_ahead=2, held_bytes=5 << 20, max_bytes=20 << 20
        )
        describer.read = LanguageStats(hits=90, misses=10, held_bytes=3 << 19, max_bytes=4 << 20)
        return describer

    parameters = FAST | {'describe.after_s': 0.0, 'look_ahead': 'never'}
    one = bench(factory=factory, activate=False, parameters=parameters)
    health = Health(one)
    wait_for(lambda: health.part('model'), 'diagnostics')
    assert health.part('model').level == DiagnosticStatus.OK
    assert health.values('model')['state'] == 'unconfigured'

    assert not one.change(Transition.TRANSITION_CONFIGURE)
    wait_for(lambda: health.part('model').level == DiagnosticStatus.ERROR, 'the error')
    assert 'pixelrefer fetch it' in health.part('model').message

    assert one.change(Transition.TRANSITION_CONFIGURE)
    wait_for(lambda: health.values('model')['state'] == 'inactive', 'inactive')
    assert health.part('model').level == DiagnosticStatus.OK
    assert health.values('model')['name'] == 'scripted'
    assert health.part('camera') is None

    assert one.change(Transition.TRANSITION_ACTIVATE)
    wait_for(lambda: health.part('camera'), 'the camera')
    assert health.part('camera').level == DiagnosticStatus.WARN
    assert 'nobody publishes /image' in health.part('camera').message

    one.send_frames([ns(1), ns(1.01), ns(1.1)])
    one.client.publish('pixelrefer/regions', ros.RegionArray(regions=[box_region('a')]))
    wait_for(lambda: health.values('camera').get('regions') == '1', 'the region')
    values = health.values('camera')
    assert (values['received'], values['kept']) == ('3', '2')
    assert values['not kept: faster than keep_rate_hz'] == '1'
    assert (values['bad'], values['QoS mismatch']) == ('0', 'none')
    assert float(values['rate [Hz]']) > 0
    assert health.part('camera').level == DiagnosticStatus.OK
    wait_for(lambda: health.values('queue').get('done') == '1', 'the description')
    assert float(health.values('queue')['latency p95 [ms]']) > 0
    assert health.values('queue')['asked together on average'] == '1.0'
    assert health.part('vision').message == '75% of 8 pictures were known, 5 of 20 MiB held'
    assert list(health.values('vision').values()) == ['6', '2', '2', '5.0', '20.0']
    assert health.part('language').message == '90% of 100 tokens were known, 2 of 4 MiB held'
    assert list(health.values('language').values()) == ['90', '10', '1.5', '4.0']

    one.client.publish('image', image_msg(0))
    wait_for(lambda: health.values('camera')['bad'] == '1', 'the bad image')
    assert health.part('camera').level == DiagnosticStatus.WARN
    assert 'header.stamp' in health.part('camera').message

    one.client.publish('pixelrefer/regions', ros.RegionArray(regions=[box_region('')]))
    wait_for(lambda: health.values('queue')['problems'] == '1', 'the refused region')
    assert 'region_id' in health.values('queue')['last problem']


@pytest.mark.ros
def test_a_paused_clock_does_not_stop_diagnostics(bench: Callable[..., Bench]) -> None:
    one = bench(parameters=FAST | {'use_sim_time': True})
    health = Health(one)
    wait_for(lambda: health.part('model'), 'the first')
    count = len(health._messages)
    wait_for(lambda: len(health._messages) > count + 3, 'more')


@pytest.mark.ros
def test_a_qos_mismatch_is_explained_with_the_fix(
    bench: Callable[..., Bench], capfd: pytest.CaptureFixture[str]
) -> None:
    one = bench(
        parameters=FAST | {'qos_overrides./image.subscription.reliability': 'reliable'},
    )
    health = Health(one)
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    one.client.node.create_publisher(Image, 'image', best_effort)
    wait_for(
        lambda: (status := health.part('camera')) and status.level == DiagnosticStatus.ERROR,
        'the mismatch',
    )
    message = health.part('camera').message
    assert 'sends best effort' in message
    assert "qos_overrides./image.subscription.reliability: 'best_effort'" in message
    assert 'sends best effort' in capfd.readouterr().err
    # a publisher that fits ends it
    one.client.publish('image', image_msg(ns(1)))
    wait_for(lambda: health.part('camera').level == DiagnosticStatus.OK, 'the end of it')


@pytest.mark.ros
def test_a_mismatch_of_queries_is_logged(
    bench: Callable[..., Bench], capfd: pytest.CaptureFixture[str]
) -> None:
    one = bench()
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    one.client.node.create_publisher(String, 'pixelrefer/query_text', best_effort)
    wait_for(lambda: one.node._session.requests.mismatch, 'the mismatch')
    said: list[str] = []  # a moment later
    wait_for(lambda: said.append(capfd.readouterr().err) or '/pixelrefer/query' in ''.join(said))


@pytest.mark.ros
def test_a_silent_camera_is_warned_about(
    bench: Callable[..., Bench], capfd: pytest.CaptureFixture[str]
) -> None:
    bench(
        parameters={'no_image_warn_s': 0.2},
        cli_args=['--ros-args', '-r', 'image:=/cam/color/image_raw'],
    )
    said = []
    wait_for(lambda: said.append(capfd.readouterr().err) or 'no image for' in ''.join(said))
    assert 'nobody publishes /cam/color/image_raw' in ''.join(said)


REPORT = CameraReport('/image', 1, 10, 10, 0, 0, 0, 9.9, 0.1, '', '')


@pytest.mark.parametrize(
    ('changes', 'level', 'words'),
    [
        ({}, DiagnosticStatus.OK, '9.9 Hz'),
        ({'age_s': 9.0}, DiagnosticStatus.STALE, 'no image for 9 s'),
        ({'age_s': None}, DiagnosticStatus.WARN, 'though 1 publish it'),
        ({'age_s': None, 'publishers': 0}, DiagnosticStatus.WARN, 'nobody publishes'),
        ({'mismatch': 'why'}, DiagnosticStatus.ERROR, 'why'),
        ({'bad': 3, 'last_bad': 'why'}, DiagnosticStatus.WARN, '3 bad images'),
        ({'bad': 3, 'kept': 0, 'last_bad': 'why'}, DiagnosticStatus.ERROR, 'no image can be used'),
        ({'behind': 2}, DiagnosticStatus.WARN, 'fell behind'),
    ],
)
def test_cameras_are_judged(changes: dict[str, Any], level: bytes, words: str) -> None:
    got_level, message = judge_camera(dataclasses.replace(REPORT, **changes), 5.0)
    assert got_level == level
    assert words in message


@pytest.mark.parametrize('kind', [QoSPolicyKind.DURABILITY, QoSPolicyKind.DEADLINE])
def test_other_mismatches_have_words_too(kind: QoSPolicyKind) -> None:
    text = qos.explain_mismatch(kind, '/image')
    assert 'no messages from a publisher of /image' in text
    assert 'Fix: ' in text
