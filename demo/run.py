# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Play the demo bag through DDS into the live node, and show what comes of it.

Three processes: the node, the player, and this one, which listens. Results go to demo/out/:
output.mcap, annotated.mp4, report.html, summary.json. The exit status is 0 when the pipeline
worked: every question was answered and every region described, whether right or wrong. To say of
a thing asked for in words alone that it is not there is an answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from demo.live import (
    Listener,
    LiveError,
    NodeProcess,
    PlayerProcess,
    prepare_environment,
)
from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.report import write_results
from pixelrefer_ros.bags.story import tell
from pixelrefer_ros.bags.summary import Summary, summarise
from pixelrefer_ros.bags.topics import Role
from pixelrefer_ros.bags.truth import Truth, load_truth, truth_beside
from pixelrefer_ros.bags.writing import BagWriter
from pixelrefer_ros.core.types import Answer, ErrorCode, PixelReferError, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixelrefer_ros.bags.story import Asked, Said, Story
    from pixelrefer_ros.core.types import Description

ROOT = Path(__file__).resolve().parents[1]
_QUIET_S = 3.0  # nothing more is coming when nothing came for this long
_DIAGNOSTICS_S = 2.5  # the node tells its counts every second


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--bag', type=Path, default=ROOT / 'demo' / 'tabletop.mcap')
    parser.add_argument('--out', type=Path, default=ROOT / 'demo' / 'out')
    parser.add_argument('--model', default='tabletop', help='describes regions')
    parser.add_argument('--ground-model', default='tabletop',
                        help="finds things from words; '' for none")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--rate', type=float, default=1.0, help='speed, 1 being as recorded')
    parser.add_argument('--patience', type=float, default=120.0,
                        help='seconds to wait for the node to come up, and for late answers')
    parser.add_argument('--no-video', action='store_true', help='write no annotated video')
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    prepare_environment(ROOT / 'config' / 'fastdds.xml')
    try:
        with Bag(options.bag) as bag:
            bag.require_images()
            beside = truth_beside(options.bag)
            truth = load_truth(beside) if beside else Truth()
            options.out.mkdir(parents=True, exist_ok=True)
            lost = _play(bag, truth, options, console)
            story, summary = _write(bag, truth if beside else None, lost, options, console)
    except (LiveError, PixelReferError) as error:
        console.print(f'[bold red]demo failed:[/] {escape(str(error))}', soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print('interrupted')
        return 130
    return _verdict(story, summary, console, grounds=bool(options.ground_model))


def _play(bag: Bag, truth: Truth, options: argparse.Namespace, console: Console) -> int:
    """Play the bag into the node; return how many images did not arrive."""
    wanted = bag.count(Role.QUERY, Role.QUERY_TEXT)
    compressed = all(
        topic.msgtype.endswith('CompressedImage')
        for topic in bag.topics if topic.role is Role.IMAGE
    )
    names = ', '.join(f"'{camera}'" for camera in bag.cameras)
    parameters = {
        'cameras': f'[{names}]',
        'image_transport': 'compressed' if compressed else 'auto',
        'model.name': options.model,
        'model.device': options.device,
    }
    if options.ground_model:
        parameters |= {'grounding.model': options.ground_model,
                       'grounding.device': options.device}
    with (
        BagWriter(options.out / 'output.mcap', overwrite=True) as writer,
        NodeProcess(parameters, options.out / 'node.log') as node,
        PlayerProcess(options.bag, options.rate, options.patience + 60) as player,
    ):
        listener = Listener(writer)
        try:
            with console.status('starting the node and loading the model'):
                listener.bring_up(node, options.patience)
            _follow(listener, node, player, truth, wanted, options.patience, console)
            time.sleep(_DIAGNOSTICS_S)
        finally:
            listener.close()
    if node.status != 0:
        raise LiveError(f'the node ended with status {node.status}:\n{node.last_words()}')
    if not listener.received:
        raise LiveError('the node published no diagnostics: how many images it got is not known')
    return max(0, bag.count(Role.IMAGE) - sum(listener.received.values()))


def _follow(
    listener: Listener,
    node: NodeProcess,
    player: PlayerProcess,
    truth: Truth,
    wanted: int,
    patience_s: float,
    console: Console,
) -> None:
    """Show results as they come until nothing more is to come.

    Raises:
        LiveError: Node or player fail, or nothing comes for too long.
    """
    answered: set[str] = set()
    done = False
    moved_s = time.monotonic()
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[state]}'),
               TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task('waiting for subscribers', total=None, state='')
        while True:
            node.check()
            player.check()
            while not player.lines.empty():
                line = player.lines.get()
                moved_s = time.monotonic()
                if line.get('ready'):
                    player.go()
                    progress.update(task, description='playing', total=line['total'])
                elif 'played' in line:
                    done = bool(line.get('done'))
                    progress.update(task, completed=line['played'])
            while not listener.results.empty():
                result = listener.results.get()
                moved_s = time.monotonic()
                if isinstance(result, Answer):
                    answered.add(result.query_id)
                console.print(_line(result, truth), soft_wrap=True)
                progress.update(task, state=f'{len(answered)}/{wanted} answered')
            quiet_s = time.monotonic() - moved_s
            if done and len(answered) >= wanted and quiet_s > _QUIET_S:
                return
            if quiet_s > patience_s:
                what = f'{wanted - len(answered)} answers are missing' if done else 'no progress'
                raise LiveError(f'{what} after {patience_s:g} s:\n{node.last_words()}')
            time.sleep(0.02)


def _line(result: Description | Answer, truth: Truth) -> str:
    """Return a result as one line: who, what, how long it took, right or wrong."""
    took = f'[dim]{result.timings.total_s * 1e3:5.0f} ms[/]'
    if not isinstance(result, Answer):
        verdicts = truth.judge_description(result)
        mark = _mark(all(verdicts.values()) if verdicts else None)
        return f'{took} {mark} [cyan]{escape(result.region_id):8}[/] {escape(result.text)}'
    right = truth.judge_answer(result)
    mark = _mark(right)
    text = escape(result.text)
    if result.error_code != ErrorCode.OK:
        text = f'{result.error_code.name}: {escape(result.error_msg)}'
        text = text if right else f'[red]{text}[/]'
    return f'{took} {mark} [magenta]{escape(result.query_id):8}[/] {text}'


def _mark(right: bool | None) -> str:
    return {True: '[green]✓[/]', False: '[red]✗[/]', None: '·'}[right]


def _write(
    bag: Bag, truth: Truth | None, lost: int, options: argparse.Namespace, console: Console
) -> tuple[Story, Summary]:
    """Write report, video and summary, and say where they are."""
    story = tell(bag, options.out / 'output.mcap', truth)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task('writing the report', total=bag.count(Role.IMAGE))
        written = write_results(
            bag, story, options.out, video=not options.no_video, frames_dropped=lost,
            how='live, through ROS 2', on_frame=lambda: progress.advance(task),
        )
    console.print()
    for path in (options.out / 'output.mcap', *written.videos, written.summary, written.report):
        console.print(f'  {path}', soft_wrap=True)
    return story, summarise(story, lost)


def _verdict(story: Story, summary: Summary, console: Console, *, grounds: bool) -> int:
    """Print the totals; return the exit status. Nobody ``grounds``: then refusing it is right."""
    to_find: list[Asked] = []
    others: list[Asked] = []
    for asked in story.asked:
        in_words = asked.query is not None and asked.query.task == Task.GROUND
        (to_find if in_words else others).append(asked)
    console.print(
        f'\nquestions: {_share(others)}; '
        + (f'things to find in words: {_share(to_find)}; ' if to_find else '') +
        f'descriptions: {_share(story.said)}; '
        f'latency p50 {summary.latency_ms["p50"]} ms, p95 {summary.latency_ms["p95"]} ms; '
        f'images: {summary.frames_in}, {summary.frames_dropped} dropped'
    )
    described = {said.description.region_id for said in story.said}
    of_queries = {
        region.region_id for asked in story.asked if asked.query for region in asked.query.regions
    }
    silent = [
        name for _, name in story.observations if name not in described | of_queries
    ]
    expected = summary.errors.get('NOT_GROUNDED' if grounds else 'UNSUPPORTED', 0)
    failed = summary.questions - summary.answered - expected
    if failed:
        console.print(f'[bold red]demo failed:[/] {failed} questions were not answered')
    if silent:
        console.print(f'[bold red]demo failed:[/] never described: {", ".join(silent)}')
    return 1 if failed or silent else 0


def _share(told: Sequence[Asked | Said]) -> str:
    """Return how many there are, and how many are right where that is known."""
    judged = [one.right for one in told if one.right is not None]
    return f'{sum(judged)} of {len(judged)} right' if judged else f'{len(told)}'


if __name__ == '__main__':
    sys.exit(main())
