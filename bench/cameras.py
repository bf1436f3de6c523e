# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Do three 1280x720 30 Hz cameras reach the buffer whole?

Three processes publish rgb8 images, best effort, to the real node in a process of its own. For
each camera: what was sent, received, and kept by the sampler; and whether every image that the
sampler would have kept had all of them arrived is in the buffer. With the supplied Fast DDS
profile and without, side by side.

    python -m bench.cameras [--quick]
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import _common as common
from bench._processes import Child, set_environment
from pixelrefer_ros.core.sampling import DoorSampler

if TYPE_CHECKING:
    from collections.abc import Sequence

CAMERAS = ('left', 'right', 'wrist')
WIDTH, HEIGHT, RATE_HZ = 1280, 720, 30.0
_DRAIN_S = 1.0


@dataclass(frozen=True)
class Case:
    """Set up one run.

    Attributes:
        transport: 'profile' for config/fastdds.xml, 'default' for Fast DDS' own.
        keep_rate_hz: What the sampler keeps; 0 for all.
        describing: Whether the model is kept busy with regions of the first camera.
    """

    transport: str
    keep_rate_hz: float
    describing: bool = False


CASES = (
    Case('profile', 10.0),
    Case('default', 10.0),
    Case('profile', 0.0),
    Case('default', 0.0),
    Case('profile', 10.0, describing=True),
)


def wanted(sent_ns: Sequence[int], rate_hz: float, first_kept_ns: int | None) -> set[int]:
    """Return the stamps the sampler keeps when every message arrives.

    The sampler counts from the first image it gets. Where that was not the first one sent, it
    starts again there, so that one image lost at the start is not counted as all.

    Args:
        sent_ns: Stamps in the order they were sent.
        rate_hz: Of the sampler; 0 keeps all.
        first_kept_ns: Stamp of the first image the node kept; None when it kept none.
    """
    sampler = DoorSampler(rate_hz)
    stamps = set()
    for stamp_ns in sent_ns:
        if stamp_ns == first_kept_ns:
            sampler.reset()
        if sampler.keep(stamp_ns):
            stamps.add(stamp_ns)
    return stamps


def run(case: Case, seconds: float) -> dict[str, Any]:
    """Run the node and the cameras for some seconds of one case."""
    set_environment(profile=case.transport == 'profile')
    parameters: dict[str, Any] = {'cameras': list(CAMERAS), 'keep_rate_hz': case.keep_rate_hz}
    parameters['describe.enabled'] = case.describing
    if case.describing:
        parameters |= {'describe.after_s': 0.0, 'describe.period_s': 0.1}
    with ExitStack() as stack:
        node = stack.enter_context(Child('bench._node', json.dumps(parameters)))
        node.hear()
        publishers = []
        for name in CAMERAS:
            arguments: list[object] = ['--topic', f'{name}/image', '--camera', name]
            arguments += ['--width', WIDTH, '--height', HEIGHT, '--rate', RATE_HZ]
            if case.describing and name == CAMERAS[0]:
                arguments += ['--regions', 1]
            publishers.append(stack.enter_context(Child('bench._camera', *arguments)))
        for publisher in publishers:
            publisher.hear()
        time.sleep(1.0)  # each side learns of the match at its own time
        node.tell('start')
        for publisher in publishers:
            publisher.tell('go')
        time.sleep(seconds)
        for publisher in publishers:
            publisher.tell('stop')
        sent = [publisher.hear()['stamps_ns'] for publisher in publishers]
        time.sleep(_DRAIN_S)
        told = node.ask('report')
    busy_s = told['wall_s'] - _DRAIN_S
    return asdict(case) | {
        'node_cpu_percent_of_a_core': 100.0 * told['cpu_s'] / busy_s,
        'node_rss_mib': told['rss_mib'],
        'descriptions': told['jobs_done'],
        'cameras': {
            name: judge(stamps_ns, case.keep_rate_hz, told['cameras'][name])
            for name, stamps_ns in zip(CAMERAS, sent, strict=True)
        },
    }


def judge(sent_ns: Sequence[int], rate_hz: float, told: dict[str, Any]) -> dict[str, Any]:
    """Compare what one camera sent with what the node tells of it."""
    kept_ns: list[int] = told['stamps_ns']
    expected = wanted(sent_ns, rate_hz, kept_ns[0] if kept_ns else None)
    seconds = (sent_ns[-1] - sent_ns[0]) / 1e9 if len(sent_ns) > 1 else 0.0
    delays_s = [
        (at_ns - stamp_ns) / 1e9
        for stamp_ns, at_ns in zip(kept_ns, told['kept_at_ns'], strict=True)
    ]
    return {
        'sent': len(sent_ns),
        'sent_hz': (len(sent_ns) - 1) / seconds if seconds else 0.0,
        'received': told['received'],
        'lost': len(sent_ns) - told['received'],
        'lost_told_by_middleware': told['lost'],
        'bad': told['bad'],
        'kept': len(kept_ns),
        'sampler_would_keep': len(expected),
        'sampler_would_keep_and_lost': len(expected - set(kept_ns)),
        'stamp_to_buffer_ms': common.scaled(delays_s, 1e3),
    }


def title(result: dict[str, Any]) -> str:
    """Name a case in few words."""
    keep = f'{result["keep_rate_hz"]:g} Hz' if result['keep_rate_hz'] else 'all'
    return f'{result["transport"]}, {keep}' + (', model busy' if result['describing'] else '')


def table(results: Sequence[dict[str, Any]]) -> list[list[object]]:
    """Return the rows of the table, a line between cases."""
    rows: list[list[object]] = []
    for result in results:
        rows.append([])
        first: list[object] = [title(result), float(result['node_cpu_percent_of_a_core'])]
        for name, camera in result['cameras'].items():
            counts = [camera[key] for key in ('sent', 'received', 'kept', 'sampler_would_keep')]
            delay = camera['stamp_to_buffer_ms']
            lost = camera['sampler_would_keep_and_lost']
            rows.append([*first, name, *counts, lost, delay['median'], delay['p95']])
            first = ['', '']
    return rows


def verdict(results: Sequence[dict[str, Any]]) -> str:
    """Say how much was lost of what the sampler would have kept."""
    lines = []
    for result in results:
        cameras = result['cameras'].values()
        lost = sum(camera['sampler_would_keep_and_lost'] for camera in cameras)
        expected = sum(camera['sampler_would_keep'] for camera in cameras)
        slowest_hz = min(camera['sent_hz'] for camera in cameras)
        lines.append(
            f'{title(result)}: {lost} of {expected} wanted images lost; the slowest camera sent '
            f'{slowest_hz:.1f} Hz'
        )
    return '\n'.join(lines)


def main() -> None:
    """Measure, print and write."""
    options = common.options('Three 1280x720 30 Hz cameras into the live node.')
    about = common.machine()
    seconds = 2.0 if options.quick else 15.0
    cases = CASES[:2] if options.quick else CASES
    common.introduce('cameras', about)
    results = []
    for case in cases:
        common.say(f'{case}, {seconds:g} s ...')
        results.append(run(case, seconds))
    columns = ['transport, kept', 'CPU %', 'camera', 'sent', 'received', 'kept', 'wanted', 'lost']
    columns += ['delay ms', 'p95']
    common.show(
        f'{len(CAMERAS)} cameras, {WIDTH}x{HEIGHT} rgb8 at {RATE_HZ:g} Hz, best effort, '
        f'{seconds:g} s',
        columns,
        table(results),
        'Wanted: what the sampler keeps when every message arrives; lost: wanted and not kept. '
        'Delay: image stamp to buffer. CPU: the node alone, of one core.',
    )
    common.say(verdict(results))
    if not options.quick:
        settings = {'width': WIDTH, 'height': HEIGHT, 'rate_hz': RATE_HZ, 'seconds': seconds}
        common.write('cameras', {'machine': about, 'settings': settings, 'runs': results})


if __name__ == '__main__':
    main()
