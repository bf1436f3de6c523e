# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read the options of the command line, print its results, and put errors plainly."""

from __future__ import annotations

from dataclasses import fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from pixelrefer_ros.core.types import Box, ErrorCode, PixelReferError, Region, RegionKind

if TYPE_CHECKING:
    from pathlib import Path

    from pixelrefer_ros.bags.story import Story
    from pixelrefer_ros.bags.truth import Truth
    from pixelrefer_ros.core.types import Query
    from pixelrefer_ros.engine import EngineConfig

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Model = Annotated[
    str, typer.Option(help="'tabletop', a model folder, or a hub name fetched before.")
]
Device = Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda' or 'cuda:N'.")]


class Weights(StrEnum):
    """Name how small the weights of a describer's language model are made."""

    NONE = 'none'
    INT8 = 'torchao-int8'
    INT4 = 'torchao-int4'


Quantization = Annotated[
    Weights, typer.Option(help="Smaller weights of the model's language model; needs torchao.")
]


class Backend(StrEnum):
    """Name what follows regions from image to image."""

    ANCHORED = 'anchored'
    SAM2 = 'sam2'
    AUTO = 'auto'
    NONE = 'none'


Tracker = Annotated[
    Backend,
    typer.Option(help='What follows regions: anchored (no weights), sam2, auto (both) or none.'),
]
TrackerModel = Annotated[
    str, typer.Option(help='Weights of sam2: a folder, or a hub name fetched before.')
]
Topics = Annotated[
    list[str] | None,
    typer.Option(
        '--topic', metavar='NAME=ROLE',
        help='What a topic is for: image, image:CAMERA, regions, roi, query, text, or ignore.',
    ),
]


class PlainErrors(TyperGroup):
    """Turn errors a user can do something about into one line and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except PixelReferError as error:
            reason = str(error)
        except ModuleNotFoundError as error:
            reason = _missing(error)
        except OSError as error:
            what = f'{error.filename}: ' if error.filename else ''
            reason = f'{what}{error.strerror or error}'
        err.print(f'[bold red]error:[/] {escape(reason)}', soft_wrap=True)
        raise typer.Exit(1)


def _missing(error: ModuleNotFoundError) -> str:
    name = (error.name or str(error)).split('.')[0]
    extra = {'rclpy': 'ros', 'mujoco': 'sim', 'accelerate': 'train'}.get(name)
    if name == 'rclpy' or (error.name or '').startswith('pixelrefer_ros.msg'):
        return (
            'this command talks to a running node and needs ROS 2: source a ROS 2 installation '
            "with this package built in it, or `pip install 'pixelrefer-ros[ros]'`"
        )
    if extra:
        return f"this command needs {name}: `pip install 'pixelrefer-ros[{extra}]'`"
    return f'{error}; reinstall pixelrefer-ros with its dependencies'


def load_describer(model: str, device: str, quantization: Weights = Weights.NONE) -> Any:
    """Load a model, saying so."""
    from pixelrefer_ros.models.registry import resolve

    resolve(model)  # says at once when it is missing; what follows takes seconds to import
    with err.status(f'loading {model}'):
        from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber

        return PixelReferDescriber.load(model, device=device, quantization=quantization.value)


def load_tracker(backend: Backend, model: str, device: str) -> Any:
    """Load what makes a tracker, saying so; return None for none."""
    from pixelrefer_ros.tracking.registry import tracker_factory

    with err.status(f'loading {backend.value}'):
        return tracker_factory(backend.value, model=model, device=device)


def find_truth(bag: Path, given: Path | None) -> Truth | None:
    """Read the ground truth that was given, else the one beside the bag."""
    from pixelrefer_ros.bags.truth import load_truth, truth_beside

    path = given or truth_beside(bag)
    return load_truth(path) if path else None


def parse_assignments(pairs: list[str] | None) -> dict[str, str]:
    """Split NAME=VALUE options."""
    found = {}
    for pair in pairs or []:
        name, sign, value = pair.partition('=')
        if not (name and sign and value):
            raise typer.BadParameter(f'{pair!r} is not of the form NAME=VALUE')
        found[name] = value
    return found


def parse_engine_config(pairs: list[str]) -> EngineConfig:
    """Read --set options into the settings of the engine."""
    from pixelrefer_ros.engine import EngineConfig

    config = EngineConfig()
    free = {f.name for f in fields(config)} - {'cameras', 'record_timings'}
    changes: dict[str, Any] = {}
    for name, text in parse_assignments(pairs).items():
        if name not in free:
            raise typer.BadParameter(f'no setting {name}; there are {", ".join(sorted(free))}')
        kind = type(getattr(config, name))
        try:
            changes[name] = (
                {'true': True, 'false': False}[text.lower()] if kind is bool else kind(text)
            )
        except (KeyError, ValueError):
            raise typer.BadParameter(f'{name}={text} is no {kind.__name__}') from None
    try:
        return replace(config, **changes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def parse_box(text: str) -> Box:
    """Read X,Y,W,H."""
    try:
        x, y, width, height = (int(part) for part in text.split(','))
    except ValueError:
        raise typer.BadParameter(
            f'box {text!r}: give four whole numbers of pixels, X,Y,W,H'
        ) from None
    return Box(x, y, width, height)


def parse_region(text: str) -> tuple[float, Region]:
    """Read ID=X,Y,W,H[@S] into seconds and region."""
    body, at_s = _at(text, 0.0)
    name, sign, numbers = body.partition('=')
    if not (name and sign):
        raise typer.BadParameter(f'{text!r} is not of the form ID=X,Y,W,H[@S]')
    return at_s, Region(name, RegionKind.BOX, box=parse_box(numbers))


def parse_query(text: str, index: int, *, ground: bool = False) -> tuple[float, Query]:
    """Read TEXT[@S] into seconds and query number ``index``, which may be to find something."""
    from pixelrefer_ros.core.types import Query, Task

    body, at_s = _at(text, float('inf'))
    if ground:
        return at_s, Query(f'g{index:02d}', body, Task.GROUND)
    return at_s, Query(f'q{index:02d}', body)


def _at(text: str, default_s: float) -> tuple[str, float]:
    """Split TEXT@SECONDS."""
    body, sign, seconds = text.rpartition('@')
    try:
        return (body, float(seconds)) if sign else (text, default_s)
    except ValueError:
        return text, default_s


def save_picture(path: Path, picture: Any) -> None:
    """Write an (H, W, 3) uint8 RGB picture as PNG or JPEG."""
    import cv2

    if path.suffix.lower() not in ('.png', '.jpg', '.jpeg'):
        raise typer.BadParameter(f'{path}: give a name that ends in .png or .jpg')
    if not cv2.imwrite(str(path), picture[..., ::-1]):
        raise PixelReferError(ErrorCode.BAD_REQUEST, f'cannot write {path}')


def save_json(path: Path, content: Any) -> None:
    """Write what JSON can hold, for people and programs."""
    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


def result_line(result: Any) -> str:
    """Return a description or answer as one line for the console."""
    if hasattr(result, 'region_id'):
        return f'[cyan]{escape(result.region_id)}[/]  {escape(result.text)}'
    if result.error_code != ErrorCode.OK:
        words = f'{result.error_code.name}: {result.error_msg}'
        return f'[magenta]{escape(result.query_id)}[/]  [red]{escape(words)}[/]'
    return f'[magenta]{escape(result.query_id)}[/]  {escape(result.text)}'


def print_totals(story: Story) -> None:
    """Print how many were asked, answered and right."""
    from pixelrefer_ros.bags.summary import summarise

    summary = summarise(story)
    questions = f'{summary.questions} questions, {summary.answered} answered'
    descriptions = f'{summary.descriptions} descriptions'
    if summary.right is not None:
        questions += f', {summary.right} of {summary.scored_questions} right'
    if summary.right_descriptions is not None:
        descriptions += f', {summary.right_descriptions} of {summary.scored_descriptions} right'
    out.print(f'{questions}; {descriptions}; {summary.frames_in} images', soft_wrap=True)
