# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What does the main job cost, from the image callback to the words?

(a) the image callback for 1280x720 images, (b) the buffer of three cameras over a soak, (c) the
tabletop model on 1 and 8 regions over 8 frames, (d) image stamp to description and question to
answer through the real node and DDS.

    python -m bench.main_job [--quick]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import _common as common
from bench._describing import FRAMES, describing
from bench._door import HEIGHT, WIDTH, buffer, door
from bench._end_to_end import LOADS, end_to_end
from bench._processes import set_environment
from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber

if TYPE_CHECKING:
    from collections.abc import Sequence

CALLBACK_BUDGET_MS = 1.0
APPEND_BUDGET_US = 1000.0


def show_door(results: dict[str, Any]) -> None:
    """Print what the image callback takes."""
    base = results['rgb8']['kept_ms']['median']
    rows = []
    for kind, one in results.items():
        for key, what in (
            ('kept_ms', 'callback, kept'),
            ('not_kept_ms', 'callback, not kept'),
            ('decode_in_its_thread_ms', "decode, camera's thread"),
            ('dds_copy_ms', 'DDS to Python copy'),
        ):
            if key not in one:
                continue
            took = one[key]
            budget = ''
            if key == 'kept_ms':
                budget = 'within' if took['median'] <= CALLBACK_BUDGET_MS else 'OVER'
            times = took['median'] / base if base else float('nan')
            rows.append([kind, what, took['n'], took['median'], took['p95'], times, budget])
    common.show(
        f'(a) image callback, {WIDTH}x{HEIGHT}',
        ['message', 'what', 'n', 'median ms', 'p95', 'x rgb8 kept', f'{CALLBACK_BUDGET_MS:g} ms'],
        rows,
        'Python in the executor thread: count, sampler, conversion, buffer, 8 regions moved on; '
        'JPEG is decoded in a thread of the camera. The copy is rclpy making the message.',
    )


def show_buffer(result: dict[str, Any]) -> None:
    """Print what the buffer takes and holds."""
    rows = []
    for key, what in (
        ('buffer_append', 'RollingBuffer.append'),
        ('engine_add_frame', 'Engine.add_frame'),
    ):
        one = result[key]
        took = one['us']
        rows.append(
            [
                what,
                took['n'],
                took['median'],
                took['p95'],
                'within' if took['median'] <= APPEND_BUDGET_US else 'OVER',
                one['held_peak_mib'],
                one['resident_growth_peak_mib'],
                one['resident_growth_end_mib'] - one['resident_growth_half_way_mib'],
            ]
        )
    common.show(
        f'(b) buffer, {result["cameras"]} cameras, {WIDTH}x{HEIGHT}, '
        f'{result["image_seconds"]} s of image time, limit {result["max_mib"]:g} MiB',
        ['what', 'n', 'median us', 'p95', '1 ms', 'held MiB', 'RSS +MiB', 'RSS 2nd half'],
        rows,
        f'Each camera holds {result["frames_per_camera"]} images, back to '
        f'{result["reaches_back_s"]:.1f} s ago (window {result["window_s"]:g} s), the newest '
        f'{result["at_full_rate_s"]:.1f} s without gaps. RSS: growth of the process.',
    )


def show_describing(results: Sequence[dict[str, Any]], describer: PixelReferDescriber) -> None:
    """Print what the model takes."""
    base = {row['threads']: row for row in reversed(results) if row['task'] == 'describe'}
    rows: list[list[object]] = []
    for row in results:
        total = row['total_ms']
        reference = base[row['threads']]
        if row is reference:
            rows.append([])
        rows.append(
            [
                row['task'],
                row['regions'],
                row['threads'],
                total['n'],
                total['median'],
                total['p95'],
                row['preprocess_ms']['median'],
                row['vision_ms']['median'],
                row['language_ms']['median'],
                total['median'] / reference['total_ms']['median'],
                f'{row["tower_calls"]:g}',
                row['tokens_out'],
            ]
        )
    columns = ['task', 'regions', 'threads', 'n', 'ms', 'p95', 'prep', 'vision', 'language']
    columns += ['x 1', 'tower', 'tokens']
    common.show(
        f'(c) {describer.name} model on the CPU, {FRAMES} frames',
        columns,
        rows,
        f'All {FRAMES} frames are given to the model here; the engine gives it '
        f'{describer.frames_per_region} per region. x 1: against describing one region. tower: '
        'calls of the vision tower. tokens: generated.',
    )


def show_end_to_end(results: Sequence[dict[str, Any]]) -> None:
    """Print what passes between image or question, and words."""
    rows: list[list[object]] = []
    for one in results:
        rows.append([])
        first: list[object] = [one['regions'], f'{one["describe_period_s"]:g}']
        for what, took in (
            ('image stamp to region message', one['stamp_to_region_sent_ms']),
            ('image stamp to description', one['stamp_to_description_ms']),
            ('  of it waiting for the model', one['description_stages_ms']['queue']),
            ('  of it vision', one['description_stages_ms']['vision']),
            ('  of it language', one['description_stages_ms']['language']),
            ('question to answer', one['query_to_answer_ms']),
            ('  of it waiting for the model', one['answer_stages_ms']['queue']),
        ):
            rows.append([*first, what, took['n'], took['median'], took['p95']])
            first = ['', '']
    common.show(
        '(d) end to end, 640x480 at 30 Hz, regions at 5 Hz, DDS, wall clock',
        ['regions', 'described every s', 'what', 'n', 'median ms', 'p95'],
        rows,
        'The stamp is that of the newest image a description looked at. Questions are asked one '
        'at a time while descriptions go on.',
    )


def main() -> None:
    """Measure, print and write."""
    options = common.options('What the main job costs.')
    quick = options.quick
    set_environment(profile=True)
    about = common.machine()
    common.introduce('main job', about)
    describer = PixelReferDescriber.load('tabletop', device='cpu')
    results: dict[str, Any] = {'machine': about}

    common.say('(a) image callback ...')
    results['door'] = door(describer, 30 if quick else 900)
    show_door(results['door'])

    common.say('(b) buffer ...')
    results['buffer'] = buffer(describer, 10 if quick else 180)
    show_buffer(results['buffer'])

    common.say('(c) model ...')
    results['model'] = {'name': describer.name, 'frames_per_region': describer.frames_per_region}
    results['describing'] = describing(
        describer, 1 if quick else 20, [1] if quick else sorted({1, about['cores']})
    )
    show_describing(results['describing'], describer)

    results['end_to_end'] = []
    for load in LOADS[:1] if quick else LOADS:
        common.say(f'(d) end to end, {load} ...')
        results['end_to_end'].append(end_to_end(load, 3.0 if quick else 30.0, 2 if quick else 40))
    show_end_to_end(results['end_to_end'])
    if not quick:
        common.write('main_job', results)


if __name__ == '__main__':
    main()
