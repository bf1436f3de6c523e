# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Say on ``/diagnostics`` how the node is doing, in words a person can act on.

The messages are made here rather than with diagnostic_updater, whose timer follows the node's
clock and so falls silent with a paused bag; this one is driven by the steady clock.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rclpy.qos import QoSProfile

from pixelrefer_ros.core.types import TrackState

try:
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
except ImportError:  # the node works without; only /diagnostics is missing
    DiagnosticArray = None

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rclpy.node import Node

    from pixelrefer_ros.core.describer import LanguageStats, VisionStats
    from pixelrefer_ros.core.types import Track
    from pixelrefer_ros.engine import CameraStats, EngineStats
    from pixelrefer_ros.node.camera import CameraReport

_BEHIND_WARN = 10  # images
_MIB = 1 << 20


class Diagnostics:
    """Publish one DiagnosticArray per call."""

    def __init__(self, node: Node) -> None:
        """Create the publisher, where diagnostic_msgs is installed."""
        self._node = node
        self._publisher = None
        if DiagnosticArray is None:
            node.get_logger().info('diagnostic_msgs is not installed: no /diagnostics')
            return
        self._publisher = node.create_publisher(
            DiagnosticArray, '/diagnostics', QoSProfile(depth=10)
        )

    def publish(
        self,
        state: str,
        model: Mapping[str, str],
        cameras: Mapping[str, CameraReport],
        stats: EngineStats | None,
        tracks: Mapping[str, Sequence[Track]],
        problems: tuple[int, str],
        grounding_trouble: str,
        no_image_warn_s: float,
    ) -> None:
        """Publish the state of everything.

        Args:
            state: Lifecycle state.
            model: What is known of the models: name, device, tracker, what answers GROUND
                queries, why one failed to load.
            cameras: How the inputs do, by camera name.
            stats: The engine's; None while the node is not active.
            tracks: The newest of each camera; empty when nothing follows the regions.
            problems: How many things were given up since activation, and why the last was.
            grounding_trouble: Why GROUND queries cannot be answered now; '' when they can.
            no_image_warn_s: When a silent camera is worth a warning; 0 for never.
        """
        if self._publisher is None:
            return
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [self._model(state, model)]
        if 'grounding' in model:
            array.status.append(self._grounding(model['grounding'], grounding_trouble))
        for name, report in cameras.items():
            array.status.append(self._camera(name, report, stats, no_image_warn_s))
        if stats is not None:
            for name, newest in tracks.items():
                array.status.append(
                    self._tracking(name, newest, stats.cameras[name], model.get('tracker', ''))
                )
            array.status.append(self._vision(stats.vision))
            array.status.append(self._language(stats.language))
            array.status.append(self._queue(stats, problems))
        self._publisher.publish(array)

    def _status(self, part: str, level: bytes, message: str, values: Mapping[str, Any]) -> Any:
        return DiagnosticStatus(
            name=f'{self._node.get_fully_qualified_name().lstrip("/")}: {part}',
            hardware_id='pixelrefer',
            level=level,
            message=message,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def _model(self, state: str, model: Mapping[str, str]) -> Any:
        failed = model.get('error', '')
        level, message = DiagnosticStatus.OK, f'{state}, {model.get("name", "no model")} loaded'
        if failed:
            level, message = DiagnosticStatus.ERROR, failed
        elif state == 'unconfigured':
            level, message = DiagnosticStatus.OK, 'unconfigured, no model loaded'
        elif state == 'configuring':
            message = f'loading {model.get("name", "the model")}'
        return self._status('model', level, message, {'state': state, **model})

    def _grounding(self, name: str, trouble: str) -> Any:
        level = DiagnosticStatus.WARN if trouble else DiagnosticStatus.OK
        return self._status('grounding', level, trouble or f'{name} answers', {'model': name})

    def _camera(
        self, name: str, report: CameraReport, stats: EngineStats | None, warn_s: float
    ) -> Any:
        level, message = judge_camera(report, warn_s)
        values: dict[str, Any] = {
            'topic': report.topic,
            'publishers': report.publishers,
            'rate [Hz]': f'{report.rate_hz:.1f}',
            'age of newest image [s]': 'none' if report.age_s is None else f'{report.age_s:.2f}',
            'received': report.received,
            'kept': report.kept,
            'not kept: faster than keep_rate_hz': max(
                0, report.received - report.kept - report.bad - report.behind
            ),
            'bad': report.bad,
            'last bad': report.last_bad,
            'decoding fell behind': report.behind,
            'lost by the middleware': report.lost,
            'QoS mismatch': report.mismatch or 'none',
        }
        camera = stats.cameras.get(name) if stats is not None else None
        if camera is not None:
            values |= {
                'buffer [MiB]': f'{camera.buffer_mib:.1f}',
                'buffer [images]': camera.buffer_frames,
                'held beside it for GROUND [MiB]': f'{camera.held_mib:.1f}',
                'regions': camera.regions,
                'regions waiting for their image': camera.regions_pending,
                'clock jumps': camera.clock_jumps,
            }
        return self._status(f'camera {name}'.strip(), level, message, values)

    def _tracking(
        self, name: str, tracks: Sequence[Track], stats: CameraStats, tracker: str
    ) -> Any:
        counts = Counter(track.state for track in tracks)
        level, message = judge_tracking(stats, counts)
        values = {
            'tracker': tracker,
            'images tracked': stats.frames_tracked,
            'images behind': stats.tracking_lag_frames,
            'time per image p50 [ms]': f'{stats.tracking_ms_p50:.1f}',
            **{state.name.lower(): counts[state] for state in TrackState},
        }
        return self._status(f'tracking {name}'.strip(), level, message, values)

    def _vision(self, seen: VisionStats) -> Any:
        values = {
            'pictures known': seen.hits,
            'pictures encoded': seen.misses,
            'images encoded ahead': seen.encoded_ahead,
            **_held(seen),
        }
        return self._status('vision', DiagnosticStatus.OK, _known(seen, 'pictures'), values)

    def _language(self, read: LanguageStats) -> Any:
        values = {'tokens known': read.hits, 'tokens read': read.misses, **_held(read)}
        return self._status('language', DiagnosticStatus.OK, _known(read, 'tokens'), values)

    def _queue(self, stats: EngineStats, problems: tuple[int, str]) -> Any:
        count, last = problems
        return self._status(
            'queue',
            DiagnosticStatus.OK,
            f'{stats.queue_depth} waiting, median latency {stats.latency_p50_ms:.0f} ms',
            {
                'waiting': stats.queue_depth,
                'oldest wait [s]': f'{stats.oldest_wait_s:.2f}',
                'busy': stats.busy,
                'done': stats.jobs_done,
                'dropped for newer': stats.jobs_dropped,
                'failed': stats.jobs_failed,
                'asked together on average': f'{stats.mean_batch:.1f}',
                'latency p50 [ms]': f'{stats.latency_p50_ms:.1f}',
                'latency p95 [ms]': f'{stats.latency_p95_ms:.1f}',
                'problems': count,
                'last problem': last,
            },
        )


def _known(stats: VisionStats | LanguageStats, what: str) -> str:
    """Say how much was known before, and what it takes to know it."""
    count = stats.hits + stats.misses
    part = stats.hits / count if count else 0.0
    held_mib, max_mib = stats.held_bytes / _MIB, stats.max_bytes / _MIB
    return f'{part:.0%} of {count} {what} were known, {held_mib:.0f} of {max_mib:.0f} MiB held'


def _held(stats: VisionStats | LanguageStats) -> dict[str, str]:
    """Return how much is kept, and how much may be."""
    return {
        'held [MiB]': f'{stats.held_bytes / _MIB:.1f}',
        'of [MiB]': f'{stats.max_bytes / _MIB:.1f}',
    }


def judge_tracking(stats: CameraStats, counts: Mapping[TrackState, int]) -> tuple[bytes, str]:
    """Return the diagnostic level of a camera's tracker and the reason in plain words."""
    if stats.tracking_lag_frames >= _BEHIND_WARN:
        return DiagnosticStatus.WARN, (
            f'{stats.tracking_lag_frames} images behind, at {stats.tracking_ms_p50:.0f} ms per '
            'image: lower keep_rate_hz, give fewer regions, or choose another tracking.backend'
        )
    states = ', '.join(f'{counts[state]} {state.name.lower()}'
                       for state in TrackState if counts[state])
    return DiagnosticStatus.OK, states or 'no regions to follow'


def judge_camera(report: CameraReport, warn_s: float) -> tuple[bytes, str]:
    """Return the diagnostic level of a camera and the reason in plain words."""
    if report.mismatch:
        return DiagnosticStatus.ERROR, report.mismatch
    if report.age_s is None:
        return DiagnosticStatus.WARN, missing_images(report)
    if warn_s and report.age_s > warn_s:
        return DiagnosticStatus.STALE, f'no image for {report.age_s:.0f} s from {report.topic}'
    if report.bad and not report.kept:
        return DiagnosticStatus.ERROR, f'no image can be used: {report.last_bad}'
    if report.bad:
        return DiagnosticStatus.WARN, f'{report.bad} bad images, the last: {report.last_bad}'
    if report.behind:
        return DiagnosticStatus.WARN, f'decoding fell behind {report.behind} times: lower the rate'
    return DiagnosticStatus.OK, f'{report.rate_hz:.1f} Hz from {report.topic}'


def missing_images(report: CameraReport) -> str:
    """Say why no image came, as far as the graph tells."""
    if report.mismatch:
        return report.mismatch
    if report.publishers:
        return (
            f'no image from {report.topic}, though {report.publishers} publish it: is the camera '
            'sending? Large images may need the supplied DDS profile on both sides'
        )
    return f'no image: nobody publishes {report.topic}. Start the camera, or remap the input'
