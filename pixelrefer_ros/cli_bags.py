# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make bags and look into them from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pixelrefer_ros.cli_support import (
    Topics,
    out,
    parse_assignments,
    parse_query,
    parse_region,
)

bag_app = typer.Typer(no_args_is_help=True, help='Make bags and look into them.')


@bag_app.command('info')
def bag_info(
    bag: Annotated[Path, typer.Argument(help='rosbag2 folder, .mcap or .db3 file.')],
    topic: Topics = None,
) -> None:
    """List the topics of a bag and what they are taken for."""
    from pixelrefer_ros.bags.reading import Bag
    from pixelrefer_ros.bags.topics import Role

    with Bag(bag, parse_assignments(topic)) as source:
        seconds = (source.end_ns - source.start_ns) / 1e9
        out.print(f'{bag}: {seconds:.2f} s', soft_wrap=True)
        width = max((len(one.name) for one in source.topics), default=0)
        for one in source.topics:
            role = one.role.value if one.role is not Role.IGNORE else f'not used {one.note}'
            if one.role is Role.IMAGE:
                role += f' of camera {one.camera!r}'
            text = f'{one.name:{width}}  {one.count:6}  {one.msgtype}  ->  {role.strip()}'
            out.print(escape(text), soft_wrap=True)


@bag_app.command('make')
def bag_make(
    sources: Annotated[
        list[Path], typer.Argument(help='A video, a folder of pictures, or pictures.')
    ],
    target: Annotated[
        Path, typer.Option('--out', help='Bag to write: NAME.mcap, NAME.db3 or a folder.')
    ],
    camera: Annotated[str, typer.Option(help='Camera name; decides the topic.')] = 'camera',
    rate: Annotated[float, typer.Option(min=0.0, help='Images a second; 0 for all.')] = 0.0,
    start: Annotated[float, typer.Option(min=0.0, help='Begin here (s).')] = 0.0,
    end: Annotated[float | None, typer.Option(help='End here (s).')] = None,
    max_side: Annotated[
        int, typer.Option(min=0, help='Shrink images to this (px); 0 leaves them.')
    ] = 0,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar='ID=X,Y,W,H[@S]', help='Region, given at second S (0).'),
    ] = None,
    ask: Annotated[
        list[str] | None,
        typer.Option('--ask', metavar='TEXT[@S]',
                     help='Question, asked at second S (the end); {ID} in it names '
                     'a region.'),
    ] = None,
    ground: Annotated[
        list[str] | None,
        typer.Option('--ground', metavar='TEXT[@S]',
                     help='What to find by then: "which cup did the arm move?".'),
    ] = None,
    raw: Annotated[bool, typer.Option('--raw', help='Do not compress the images.')] = False,
    overwrite: Annotated[bool, typer.Option('--overwrite', help='Replace the bag.')] = False,
) -> None:
    """Make a bag of a video or pictures, with regions and questions if wanted."""
    from pixelrefer_ros.bags.video import make_bag, read_clip

    frames = read_clip(sources, start_s=start, end_s=end, rate_hz=rate, max_side=max_side)
    regions = [parse_region(text) for text in box or []]
    queries = [parse_query(text, index) for index, text in enumerate(ask or [], 1)]
    queries += [
        parse_query(text, index, ground=True) for index, text in enumerate(ground or [], 1)
    ]
    made = make_bag(
        frames, target, camera=camera, regions=regions, queries=queries, raw=raw,
        overwrite=overwrite,
    )
    out.print(
        f'{target}: {made.frames} images over {made.duration_s:.2f} s, {made.regions} regions, '
        f'{made.queries} questions', soft_wrap=True,
    )
