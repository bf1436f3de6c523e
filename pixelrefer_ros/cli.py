# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Offer the house on the command line as ``pixelrefer``.

Heavy libraries are imported inside the commands that need them, so that the help comes at once.
Errors are one line that says what to do; the exit status is 1 then, and 2 for wrong usage.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

import pixelrefer_ros
from pixelrefer_ros import cli_models
from pixelrefer_ros.cli_bags import bag_app
from pixelrefer_ros.cli_ground import (
    GroundKey,
    GroundModel,
    GroundProfile,
    GroundUrl,
    beside,
    load_grounder,
    need_grounder,
    show_found,
    warn_stranger,
)
from pixelrefer_ros.cli_support import (
    Backend,
    Device,
    Model,
    PlainErrors,
    Quantization,
    Topics,
    Tracker,
    TrackerModel,
    Weights,
    err,
    find_truth,
    load_describer,
    load_tracker,
    out,
    parse_assignments,
    parse_box,
    parse_engine_config,
    print_totals,
    result_line,
    save_picture,
)
from pixelrefer_ros.core.types import ErrorCode, PixelReferError, Region, RegionKind

app = typer.Typer(
    name='pixelrefer', cls=PlainErrors, no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False, context_settings={'help_option_names': ['-h', '--help']},
    help='Describe regions of live video and answer questions about them.',
)
app.add_typer(bag_app, name='bag')
app.add_typer(cli_models.train_app, name='train')
app.add_typer(cli_models.evaluate_app, name='evaluate')
app.command('fetch')(cli_models.fetch)

def _version(wanted: bool) -> None:
    if wanted:
        out.print(f'pixelrefer {pixelrefer_ros.__version__}')
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option('--version', callback=_version, is_eager=True, help='Say which.')
    ] = False,
) -> None:
    pass


# Bags ---------------------------------------------------------------------------------------


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(help='rosbag2 folder, .mcap or .db3 file.')],
    out_dir: Annotated[
        Path | None, typer.Option('--out', help='Folder for the results (BAG_replay).')
    ] = None,
    model: Model = 'tabletop',
    device: Device = 'auto',
    quantization: Quantization = Weights.NONE,
    tracker: Tracker = Backend.ANCHORED,
    tracker_model: TrackerModel = '',
    ground_model: GroundModel = '',
    ground_url: GroundUrl = '',
    ground_profile: GroundProfile = 'auto',
    ground_api_key_env: GroundKey = '',
    report: Annotated[bool, typer.Option(help='Write report.html.')] = True,
    video: Annotated[bool, typer.Option(help='Write the annotated video.')] = True,
    ground_truth: Annotated[
        Path | None, typer.Option(help='What is true of the bag (BAG.truth.json).')
    ] = None,
    topic: Topics = None,
    set_: Annotated[
        list[str] | None,
        typer.Option('--set', metavar='NAME=VALUE',
                     help='Setting of the engine, such as window_s=4 or describe_period_s=0.'),
    ] = None,
    copy_inputs: Annotated[
        bool, typer.Option(help='Copy the inputs into the output bag too.')
    ] = False,
    timings: Annotated[
        bool, typer.Option(help='Measure the model; the output then differs from run to run.')
    ] = False,
) -> None:
    """Run a bag through the model in lock-step, without a ROS graph.

    The same bag and weights give the same files, to the byte: output.mcap, summary.json,
    report.html and annotated.mp4.
    """
    from rich.progress import Progress

    from pixelrefer_ros.bags.reading import Bag
    from pixelrefer_ros.bags.replay import replay as run
    from pixelrefer_ros.bags.report import write_results
    from pixelrefer_ros.bags.story import tell
    from pixelrefer_ros.bags.topics import INPUTS, Role

    config = parse_engine_config(set_ or [])
    truth = find_truth(bag, ground_truth)
    with Bag(bag, parse_assignments(topic)) as source:
        source.require_images()
        folder = out_dir or Path(f'{bag.stem if bag.is_file() else bag.name}_replay')
        make_tracker = load_tracker(tracker, tracker_model, device)
        grounder = load_grounder(
            beside(model, ground_model, ground_url), ground_url, ground_profile,
            ground_api_key_env, device,
        )
        describer = load_describer(model, device, quantization)
        with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
            task = progress.add_task('replay', total=source.count(*INPUTS))
            result = run(
                source,
                describer,
                folder / 'output.mcap',
                config=config,
                make_tracker=make_tracker,
                grounder=grounder,
                copy_inputs=copy_inputs,
                measure=timings,
                on_result=lambda one: out.print(result_line(one), soft_wrap=True),
                on_event=lambda event: progress.advance(task),
            )
            story = tell(source, folder / 'output.mcap', truth)
            if report or video:
                task = progress.add_task('results', total=source.count(Role.IMAGE))
            written = write_results(
                source, story, folder, report=report, video=video, problems=result.problems,
                frames_dropped=result.frames_unreadable, how='replayed in lock-step',
                on_frame=lambda: progress.advance(task),
            )
    for problem in result.problems[:5]:
        err.print(f'[yellow]note:[/] {escape(problem)}', soft_wrap=True)
    if len(result.problems) > 5:
        err.print(f'[yellow]note:[/] and {len(result.problems) - 5} more, see the report')
    print_totals(story)
    for path in (folder / 'output.mcap', written.summary, written.report, *written.videos):
        if path:
            out.print(f'  {path}', soft_wrap=True)


@app.command()
def report(
    bag: Annotated[Path, typer.Argument(help='The bag that was played.')],
    output: Annotated[Path, typer.Argument(help='The bag with the descriptions and answers.')],
    out_dir: Annotated[Path, typer.Option('--out', help='Folder for the results.')],
    video: Annotated[bool, typer.Option(help='Write the annotated video.')] = True,
    ground_truth: Annotated[
        Path | None, typer.Option(help='What is true of the bag (BAG.truth.json).')
    ] = None,
    topic: Topics = None,
) -> None:
    """Write report, video and summary of a run that was recorded, live or replayed."""
    from pixelrefer_ros.bags.reading import Bag
    from pixelrefer_ros.bags.report import write_results
    from pixelrefer_ros.bags.story import tell

    with Bag(bag, parse_assignments(topic)) as source:
        source.require_images()
        story = tell(source, output, find_truth(bag, ground_truth))
        written = write_results(source, story, out_dir, video=video)
    print_totals(story)
    for path in (written.summary, written.report, *written.videos):
        out.print(f'  {path}', soft_wrap=True)


# Files --------------------------------------------------------------------------------------


@app.command()
def describe(
    file: Annotated[Path, typer.Argument(help='Picture, video or bag.')],
    box: Annotated[
        str | None, typer.Option(metavar='X,Y,W,H', help='The region as a box (px).')
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help='The region as a picture, white on black.')
    ] = None,
    ask: Annotated[
        str, typer.Option(help='A question instead of a description; {region} names the region.')
    ] = '',
    ground: Annotated[
        str, typer.Option(help='The region in words: what to find, such as "the cup that moved".')
    ] = '',
    model: Model = 'tabletop',
    device: Device = 'auto',
    quantization: Quantization = Weights.NONE,
    tracker: Tracker = Backend.ANCHORED,
    tracker_model: TrackerModel = '',
    ground_model: GroundModel = '',
    ground_url: GroundUrl = '',
    ground_profile: GroundProfile = 'auto',
    ground_api_key_env: GroundKey = '',
    frames: Annotated[
        int, typer.Option(min=1, help='Most frames of a video to follow the region through.')
    ] = 150,
    start: Annotated[float, typer.Option(min=0.0, help='Begin here in a video (s).')] = 0.0,
    end: Annotated[float | None, typer.Option(help='End here in a video (s).')] = None,
    at: Annotated[
        float | None,
        typer.Option(help='When in a video the region is there (s); else the newest frame.'),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help='Write the picture with the region drawn here.')
    ] = None,
    track: Annotated[
        Path | None,
        typer.Option(help='Write the masks of what --ground found here (FILE.track.json).'),
    ] = None,
    as_json: Annotated[bool, typer.Option('--json', help='Print JSON.')] = False,
) -> None:
    """Describe a region of a picture or video, or answer a question about it.

    In a video the region is given once and followed from there, forward and back. A model that
    sees more than regions takes a question without one.
    """
    given = (box is not None) + (mask is not None) + bool(ground)
    if given > 1 or not (given or ask):
        raise typer.BadParameter(
            'give the region: --box X,Y,W,H, --mask FILE, or --ground "WHAT TO FIND"'
        )
    if (ground and (ask or at is not None)) or (not given and (at is not None or save)):
        raise typer.BadParameter('--ask, --at and --save go with --box or --mask')
    from pixelrefer_ros.bags.describing import describe_file, drawn, look_at
    from pixelrefer_ros.bags.video import read_mask
    from pixelrefer_ros.core import masks
    from pixelrefer_ros.core.regions import region_mask

    if ground:
        from pixelrefer_ros.bags.finding import find_in_file

        look = look_at(file, frames=frames, start_s=start, end_s=end)
        grounder = need_grounder(
            load_grounder(beside(model, ground_model, ground_url), ground_url, ground_profile,
                          ground_api_key_env, device),
            '--ground-',
        )
        warn_stranger(grounder, to_tabletops=False)
        video = len(look.frames) > 1
        make_tracker = load_tracker(tracker, tracker_model, device) if video else None
        describer = load_describer(model, device, quantization)
        with err.status('finding') as status:
            answer = find_in_file(
                describer, grounder, look, ground, make_tracker=make_tracker,
                on_progress=status.update,
            )
        show_found(look, answer, track=track or Path(f'{file.stem}.track.json'), save=save,
                   as_json=as_json)
        return
    region: Region | None = None
    if box is not None:
        region = Region('region', RegionKind.BOX, box=parse_box(box))
    elif mask is not None:
        region = Region('region', RegionKind.MASK, mask=masks.encode(read_mask(mask)))
    look = look_at(file, frames=frames, start_s=start, end_s=end, at_s=at)
    if region is not None:
        picture = masks.decode(region_mask(region, *look.frame.image.shape[:2]))
        if save is not None:
            save_picture(save, drawn(look, region, picture))
    follows = region is not None and len(look.frames) > 1
    make_tracker = load_tracker(tracker, tracker_model, device) if follows else None
    answer = describe_file(
        load_describer(model, device, quantization), look, region, ask, make_tracker=make_tracker
    )
    if answer.error_code != ErrorCode.OK:
        raise PixelReferError(answer.error_code, answer.error_msg)
    if as_json:
        out.print_json(json.dumps({
            'text': answer.text, 'confidence': answer.confidence, 'model': answer.model,
            'frames': len(answer.frame_stamps_ns), 'tokens_in': answer.tokens_in,
            'tokens_out': answer.tokens_out, 'seconds': answer.timings.total_s,
        }))
    else:
        out.print(escape(answer.text), soft_wrap=True)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help='{ID} in it names a region; empty describes.')],
    region: Annotated[
        list[str] | None, typer.Option('--region', help='Id of a known region; may be repeated.')
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar='X,Y,W,H', help='A region of the newest image (px).')
    ] = None,
    camera: Annotated[str, typer.Option(help='Camera name.')] = '',
    window: Annotated[float, typer.Option(min=0.0, help='How far back to look (s).')] = 0.0,
    ground: Annotated[
        bool, typer.Option('--ground', help='The question says what to find in the video.')
    ] = False,
    node: Annotated[str, typer.Option(help='Name of the running node.')] = '/pixelrefer',
    timeout: Annotated[float, typer.Option(min=0.1, help='Give up after this (s).')] = 60.0,
) -> None:
    """Ask a running node through ROS; Ctrl-C cancels the question."""
    import rclpy  # noqa: F401  # says in its own words that ROS is missing

    from pixelrefer_ros.core.types import Query, Task
    from pixelrefer_ros.node.client import ask_node

    regions = (Region('region', RegionKind.BOX, camera=camera, box=parse_box(box)),) if box else ()
    task = Task.GROUND if ground else Task.ASK if question else Task.DESCRIBE
    query = Query(
        query_id='', text=question, task=task, camera=camera,
        region_ids=tuple(region or ()), regions=regions, window_s=window, deadline_s=timeout,
    )
    with err.status('waiting for the node') as status:
        answer = ask_node(node, query, timeout, lambda text: status.update(escape(text)))
    if answer.error_code != ErrorCode.OK:
        raise PixelReferError(answer.error_code, f'{answer.error_code.name}: {answer.error_msg}')
    out.print(escape(answer.text), soft_wrap=True)
    for one in answer.evidence if ground else ():
        place = one.box and f'{one.box.x},{one.box.y},{one.box.width},{one.box.height}'
        out.print(f'  {one.region_id} at {one.stamp_ns / 1e9:.3f}, box {place}', soft_wrap=True)


def main() -> int:
    """Run the command line; the entry point ``pixelrefer``."""
    app()
    return 0


if __name__ == '__main__':
    sys.exit(main())
