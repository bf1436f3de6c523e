# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fetch, train and evaluate models from the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from pixelrefer_ros.cli_ground import (
    KEY_HELP,
    MODEL_HELP,
    PROFILE_HELP,
    URL_HELP,
    load_grounder,
    need_grounder,
    warn_stranger,
    without_warnings,
)
from pixelrefer_ros.cli_support import (
    Backend,
    Device,
    Model,
    Quantization,
    Tracker,
    TrackerModel,
    Weights,
    err,
    load_tracker,
    out,
    save_json,
)
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.registry import TABLETOP

train_app = typer.Typer(no_args_is_help=True, help='Train a model.')
evaluate_app = typer.Typer(no_args_is_help=True, help='Measure how often a model is right.')

JsonFile = Annotated[Path | None, typer.Option('--json', help='Write the figures here.')]
Chat = Annotated[str, typer.Option(help=MODEL_HELP)]
Url = Annotated[str, typer.Option(help=URL_HELP)]
Profile = Annotated[str, typer.Option(help=PROFILE_HELP)]
ApiKeyEnv = Annotated[str, typer.Option(metavar='NAME', help=KEY_HELP)]

_RECIPE = typer.Option(help='As for the shipped model, unless given.')
_DEFAULT = typer.Option(help='As in the recipe, unless given.')
_R = TypeVar('_R')


@train_app.callback()
def _train() -> None:
    pass


@evaluate_app.callback()
def _evaluate() -> None:
    pass


def fetch(model: Annotated[str, typer.Argument(help='Hub name, ORG/NAME.')]) -> None:
    """Download a model and verify every file."""
    from pixelrefer_ros.models.registry import fetch as run

    out.print(str(run(model, lambda line: err.print(escape(line)))), soft_wrap=True)


@train_app.command('tabletop')
def train_tabletop(
    out_dir: Annotated[
        Path, typer.Option('--out', help='Folder for clips, saves and the model.')
    ] = Path('runs/tabletop'),
    clips: Annotated[int | None, _RECIPE] = None,
    dense_steps: Annotated[int | None, _RECIPE] = None,
    region_steps: Annotated[int | None, _RECIPE] = None,
    language_clips: Annotated[int | None, _RECIPE] = None,
    language_steps: Annotated[int | None, _RECIPE] = None,
    joint_steps: Annotated[int | None, _RECIPE] = None,
    processes: Annotated[int | None, _RECIPE] = None,
    seed: Annotated[int | None, _RECIPE] = None,
) -> None:
    """Make the embedded tabletop model from nothing; run again to go on where it stopped."""
    from pixelrefer_ros.training.tabletop import Recipe, train

    given = {
        'clips': clips,
        'dense_steps': dense_steps,
        'region_steps': region_steps,
        'language_clips': language_clips,
        'language_steps': language_steps,
        'joint_steps': joint_steps,
        'processes': processes,
        'seed': seed,
    }
    out.print(f'model: {train(out_dir, _recipe(Recipe, given), _print_step)}', soft_wrap=True)


@train_app.command('grounding')
def train_grounding(
    out_dir: Annotated[
        Path, typer.Option('--out', help='Folder for clips, saves and the model.')
    ] = Path('runs/grounding'),
    clips: Annotated[int | None, _DEFAULT] = None,
    sight_steps: Annotated[int | None, _DEFAULT] = None,
    words_steps: Annotated[int | None, _DEFAULT] = None,
    reading_steps: Annotated[int | None, _DEFAULT] = None,
    batch: Annotated[int | None, _DEFAULT] = None,
    pictures: Annotated[int | None, _DEFAULT] = None,
    rows: Annotated[int | None, _DEFAULT] = None,
    processes: Annotated[int | None, _DEFAULT] = None,
    loaders: Annotated[int | None, _DEFAULT] = None,
    device: Annotated[str | None, typer.Option(help="'cpu' or 'cuda'.")] = None,
    seed: Annotated[int | None, _DEFAULT] = None,
) -> None:
    """Make the small model that grounds on simulated tabletops; run again to go on."""
    from pixelrefer_ros.training.grounding import GroundingRecipe
    from pixelrefer_ros.training.grounding import train_grounding as train

    given = {
        'clips': clips,
        'sight_steps': sight_steps,
        'words_steps': words_steps,
        'reading_steps': reading_steps,
        'batch': batch,
        'pictures': pictures,
        'rows': rows,
        'processes': processes,
        'loaders': loaders,
        'device': device,
        'seed': seed,
    }
    recipe = _recipe(GroundingRecipe, given)
    out.print(f'model: {train(out_dir, recipe, _print_step)}', soft_wrap=True)


def _recipe(kind: Callable[..., _R], given: Mapping[str, object]) -> _R:
    """Return a recipe with what was given; the rest is its own."""
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise PixelReferError(ErrorCode.BAD_REQUEST, str(error)) from error


@train_app.command('instruct')
def train_instruct(
    model: Annotated[str, typer.Argument(help='Model to start from: name or folder.')],
    data: Annotated[Path, typer.Argument(help='JSON or JSONL; see docs/training_data.md.')],
    out_dir: Annotated[Path, typer.Option('--out', help='Folder for saves and the model.')],
    root: Annotated[
        Path | None, typer.Option(help='Folder the pictures and videos are in (that of DATA).')
    ] = None,
    epochs: Annotated[float, typer.Option(help='Passes over the data.')] = 1.0,
    steps: Annotated[int, typer.Option(help='Steps instead of passes; 0 for passes.')] = 0,
    batch_size: Annotated[int, typer.Option(help='Samples a device takes at once.')] = 2,
    accumulate: Annotated[int, typer.Option(help='Batches a step.')] = 8,
    language_lr: Annotated[float, typer.Option(help='Of the language model.')] = 1e-5,
    region_lr: Annotated[float, typer.Option(help='Of the region encoder.')] = 1e-3,
    vision_lr: Annotated[float, typer.Option(help='Of the vision tower; 0 freezes it.')] = 0.0,
    max_length: Annotated[int, typer.Option(help='Tokens of a sample at most.')] = 16384,
    max_frames: Annotated[
        int, typer.Option(help='Frames of an object at most; 0 for all that have masks.')
    ] = 0,
    precision: Annotated[str, typer.Option(help="'auto', 'bf16' or 'fp32'.")] = 'auto',
    gradient_checkpointing: Annotated[
        bool, typer.Option('--gradient-checkpointing', help='Trade time for memory.')
    ] = False,
    seed: Annotated[int, typer.Option(help='Of batches and fresh weights.')] = 42,
    save_every: Annotated[int, typer.Option(help='Steps between saves.')] = 500,
    strict: Annotated[bool, typer.Option('--strict', help='Stop at an unusable sample.')] = False,
    device: Device = 'auto',
    resume: Annotated[bool, typer.Option('--resume', help='Go on from the last save.')] = False,
) -> None:
    """Train a model, published or your own, on conversations about regions."""
    from pixelrefer_ros.training.instruct import TuneOptions, tune

    try:
        options = TuneOptions(
            epochs=epochs, steps=steps, batch_size=batch_size, accumulate=accumulate,
            language_lr=language_lr, region_lr=region_lr, vision_lr=vision_lr,
            max_length=max_length, max_frames=max_frames, precision=precision,
            gradient_checkpointing=gradient_checkpointing, seed=seed, save_every=save_every,
            strict=strict, device=device,
        )
    except ValueError as error:
        raise PixelReferError(ErrorCode.BAD_REQUEST, str(error)) from error
    result = tune(model, data, root, out_dir, options=options, resume=resume)
    if result.refused:
        err.print(f'{len(result.refused)} samples could not be used')
    out.print(f'model: {result.directory}', soft_wrap=True)


def _print_step(stage: str, step: int, steps: int, scores: dict[str, float]) -> None:
    """Print how far the training is; called from its processes."""
    figures = '  '.join(f'{name} {value:.3f}' for name, value in scores.items())
    out.print(f'{stage} {step}/{steps}  {figures}', soft_wrap=True)


@evaluate_app.command('tabletop')
def evaluate_tabletop(
    clips: Annotated[int, typer.Option(min=1, help='Clips never trained on.')] = 500,
    seed: Annotated[int, typer.Option(min=0, help='Which clips.')] = 0,
    json_file: JsonFile = None,
    model: Model = 'tabletop',
    device: Annotated[str, typer.Option(help="'cpu' or 'cuda'.")] = 'cpu',
    quantization: Quantization = Weights.NONE,
) -> None:
    """Ask a model about simulated tabletops; scores are balanced over the classes."""
    from rich.progress import Progress

    from pixelrefer_ros.evaluation.tabletop import KEYS, evaluate, write_json

    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task('clips', total=clips)
        result = evaluate(
            model, clips, seed, device=device, quantization=quantization.value,
            on_clip=lambda done: progress.update(task, completed=done),
        )
    _print_scores(result, KEYS)
    if json_file is not None:
        write_json(result, json_file)


def _print_scores(result: dict[str, Any], keys: tuple[str, ...]) -> None:
    from rich.table import Table

    table = Table('item', 'right', 'held-out wordings', box=None, pad_edge=False)
    for key in keys:
        table.add_row(key, f'{result[key]:.1%}', f'{result["heldout_wording"][key]:.1%}')
    out.print(table)


@evaluate_app.command('grounding')
def evaluate_grounding(
    clips: Annotated[int, typer.Option(min=1, help='Clips never trained on.')] = 200,
    seed: Annotated[int, typer.Option(min=0, help='Which clips.')] = 0,
    json_file: JsonFile = None,
    model: Chat = '',
    url: Url = '',
    profile: Profile = 'auto',
    api_key_env: ApiKeyEnv = '',
    single_turn: Annotated[
        bool, typer.Option('--single-turn', help='Measure asking in a single turn beside.')
    ] = False,
    held_out: Annotated[
        bool, typer.Option('--held-out', help='Word the questions as training never does.')
    ] = False,
    tracker: Tracker = Backend.ANCHORED,
    tracker_model: TrackerModel = '',
    device: Device = 'auto',
) -> None:
    """Ask what fell, moved first, was hit ... in simulated clips; score frame, box and masks.

    The embedded model is asked unless another is named. Each clip is asked one question. J and F
    are means over all its frames, none left out. Every fifth round asks for what is not there:
    then only saying so is right.
    """
    from rich.progress import Progress

    if not (model or url):
        model = TABLETOP
    chain = need_grounder(load_grounder(model, url, profile, api_key_env, device), '--')
    chains = {'two turns': chain}
    if single_turn:
        chains['single turn'] = chain.at_once()
    warn_stranger(chain, to_tabletops=True)
    from pixelrefer_ros.evaluation.grounding import ChainAnswers
    from pixelrefer_ros.evaluation.reasoning import BETWEEN, compare, examples, table

    make_tracker = load_tracker(tracker, tracker_model, device)
    answers = {name: ChainAnswers(chain, make_tracker) for name, chain in chains.items()}
    with (
        Progress(console=err, transient=True, disable=not err.is_terminal) as progress,
        without_warnings(),
    ):
        task = progress.add_task('clips', total=clips)
        results = compare(
            examples(clips, seed, held_out=held_out, between=BETWEEN, ahead=True), answers,
            on_clip=lambda done: progress.update(task, completed=done),
        )
    for name, result in results.items():
        tokens = answers[name].tokens
        out.print(f'\n{name}: {clips} clips, {result.seconds / clips:.2f} s each, scores in %; '
                  f'{tokens.reused} of {tokens.prompted} prompt tokens needed no second reading',
                  soft_wrap=True)
        out.print(table(result))
        ends = ', '.join(f'{count} {status}' for status, count in result.statuses.items())
        out.print(f'answers: {ends}', soft_wrap=True)
    if json_file is not None:
        save_json(json_file, {
            'model': model or url, 'profile': profile, 'clips': clips, 'seed': seed,
            'held_out': held_out, 'tracker': tracker.value,
            **{name.replace(' ', '_'): {
                **result.as_dict(), 'tokens': answers[name].tokens.as_dict()
            } for name, result in results.items()},
        })


@evaluate_app.command('dataset')
def evaluate_dataset(
    name: Annotated[
        str,
        typer.Argument(help='reasonvos, revos, ref-davis17, ref-youtube-vos or mevis.'),
    ],
    folder: Annotated[Path, typer.Argument(help='Folder as its owners publish it.')],
    split: Annotated[str, typer.Option(help='Which split; else one with public masks.')] = '',
    limit: Annotated[int, typer.Option(min=0, help='First expressions only; 0 for all.')] = 0,
    json_file: JsonFile = None,
    model: Chat = '',
    url: Url = '',
    profile: Profile = 'auto',
    api_key_env: ApiKeyEnv = '',
    single_turn: Annotated[
        bool, typer.Option('--single-turn', help='Ask in a single turn instead of two.')
    ] = False,
    tracker: Tracker = Backend.ANCHORED,
    tracker_model: TrackerModel = '',
    device: Device = 'auto',
) -> None:
    """Find the expressions of a published data set in its videos; score the masks by J and F.

    As its owners do: all annotated frames count, the first and the last too (unlike DAVIS'
    semi-supervised protocol), and the means are over expressions; ReVOS is the mean of its
    referring and its reasoning expressions.
    """
    from itertools import islice

    from rich.progress import Progress

    from pixelrefer_ros.evaluation.datasets import DATASETS, samples
    from pixelrefer_ros.evaluation.expressions import evaluate, table
    from pixelrefer_ros.evaluation.grounding import ChainAnswers

    found = samples(name, folder, split)
    chain = need_grounder(load_grounder(model, url, profile, api_key_env, device), '--')
    if single_turn:
        chain = chain.at_once()
    warn_stranger(chain, to_tabletops=False)
    make_tracker = load_tracker(tracker, tracker_model, device)
    if make_tracker is None:
        raise typer.BadParameter('masks are what is scored: --tracker may not be none')
    answers = ChainAnswers(chain, make_tracker)
    with (
        Progress(console=err, transient=True, disable=not err.is_terminal) as progress,
        without_warnings(),
    ):
        task = progress.add_task('expressions', total=limit or None)
        result = evaluate(
            islice(found, limit or None), answers,
            on_sample=lambda done: progress.update(task, completed=done),
        )
    out.print(f'{DATASETS[name].title}: {len(result.scores)} expressions, all annotated frames')
    out.print(table(result))
    if json_file is not None:
        save_json(json_file, {
            'data_set': name, 'split': split or DATASETS[name].splits[0], 'limit': limit,
            'model': model or url, 'profile': profile, 'single_turn': single_turn,
            'tracker': tracker.value, **result.as_dict(), 'tokens': answers.tokens.as_dict(),
        })
