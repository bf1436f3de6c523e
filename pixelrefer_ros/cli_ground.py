# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find things from words on the command line: which model, and what it found."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pixelrefer_ros.cli_support import err, out, save_picture
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.registry import TABLETOP, Use, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixelrefer_ros.bags.describing import Look
    from pixelrefer_ros.core.types import Answer
    from pixelrefer_ros.grounding.chain import GroundingChain

MODEL_HELP = (
    "Vision language model that finds things from words: 'tabletop', a folder, or a hub name "
    "fetched before; with a URL the server's name for it."
)
URL_HELP = 'OpenAI-compatible server that runs it.'
PROFILE_HELP = "How it is asked: a profile, a YAML file, or 'auto' by its architecture."
KEY_HELP = "Environment variable with the server's API key."

GroundModel = Annotated[str, typer.Option(help=MODEL_HELP)]
GroundUrl = Annotated[str, typer.Option(metavar='URL', help=URL_HELP)]
GroundProfile = Annotated[str, typer.Option(help=PROFILE_HELP)]
GroundKey = Annotated[
    str, typer.Option('--ground-api-key-env', metavar='NAME', help=KEY_HELP)
]


def beside(describer: str, model: str, url: str) -> str:
    """Return the grounding model to use beside a describer, '' for none.

    The two embedded models go together. Beside any other describer one must be named: what that
    one is for the embedded one has never seen.
    """
    return TABLETOP if describer == TABLETOP and not (model or url) else model


def load_grounder(
    model: str,
    url: str,
    profile: str,
    api_key_env: str,
    device: str,
) -> GroundingChain | None:
    """Load what finds things from words, saying so; return None when no model is named."""
    if not (model or url):
        return None
    if not url:
        _refuse_describer(model)
    from pixelrefer_ros.models.chat.settings import ChatSettings

    settings = ChatSettings(model=model, url=url, device=device, api_key_env=api_key_env)
    with err.status(f'loading {model or url}'):
        from pixelrefer_ros.grounding.load import load_grounder as load

        return load(settings, profile)


def _refuse_describer(model: str) -> None:
    """Refuse a model that describes regions: it holds no conversations."""
    config = resolve(model, Use.GROUNDING) / 'config.json'
    kind = json.loads(config.read_text(encoding='utf-8')) if config.is_file() else {}
    if str(kind.get('model_type', '')).startswith('pixelrefer'):
        raise PixelReferError(
            ErrorCode.BAD_REQUEST,
            f"'{model}' describes regions and cannot find things from words: name a vision "
            'language model for that, such as Qwen/Qwen2.5-VL-3B-Instruct',
        )


def need_grounder(grounder: GroundingChain | None, option: str) -> GroundingChain:
    """Return the model; refuse when none was named, saying how to get one.

    Args:
        grounder: What ``load_grounder`` gave.
        option: How options of the command begin, such as '--ground-'.
    """
    if grounder is not None:
        return grounder
    raise PixelReferError(
        ErrorCode.BAD_REQUEST,
        'finding things from words needs a vision language model: run `pixelrefer fetch '
        f'Qwen/Qwen2.5-VL-3B-Instruct` and give {option}model Qwen/Qwen2.5-VL-3B-Instruct, or '
        f'give {option}url of a server and its {option}profile',
    )


def warn_stranger(chain: GroundingChain, *, to_tabletops: bool) -> None:
    """Say so when a model is asked about what it was not made for.

    Args:
        chain: Who is asked; its name or its profile tells what it was made for.
        to_tabletops: Whether it is asked about simulated tabletops.
    """
    made_for = TABLETOP in (chain.profile.name, chain.name)
    name = f"'{escape(chain.name)}'" if chain.name else 'the model'
    if to_tabletops and not made_for:
        err.print(f'[yellow]note:[/] {name} was not made for simulated tabletops; the scores are '
                  'those of a model that has never seen one', soft_wrap=True)
    elif made_for and not to_tabletops:
        err.print(f'[yellow]note:[/] {name} knows simulated tabletops and nothing else; expect '
                  'nothing of it elsewhere', soft_wrap=True)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep quiet about each answer that cannot be used: here they are counted."""
    import logging

    log = logging.getLogger('pixelrefer_ros.grounding')
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def show_found(
    look: Look, answer: Answer, *, track: Path, save: Path | None, as_json: bool
) -> None:
    """Write the track of what was found, and print what and where it is."""
    if answer.error_code != ErrorCode.OK:
        raise PixelReferError(answer.error_code, f'{answer.error_code.name}: {answer.error_msg}')
    from pixelrefer_ros.bags.finding import drawn_key, save_track

    save_track(track, look, answer)
    if save is not None:
        save_picture(save, drawn_key(look, answer))
    evidence = answer.evidence[0]
    facts: dict[str, Any] = {
        'text': answer.text, 'key_s': look.seconds(evidence.stamp_ns),
        'box': evidence.box and list(asdict(evidence.box).values()), 'score': evidence.score,
        'reasoning': evidence.reasoning, 'seen': len(evidence.track_stamps_ns),
        'frames': len(look.frames), 'track': str(track), 'confidence': answer.confidence,
        'model': answer.model, 'tokens_in': answer.tokens_in, 'tokens_out': answer.tokens_out,
        'seconds': answer.timings.total_s,
    }
    if as_json:
        out.print_json(json.dumps(facts))
        return
    out.print(escape(answer.text), soft_wrap=True)
    place = ','.join(map(str, facts['box'] or ()))
    out.print(f'  found at {facts["key_s"]:.2f} s, box {place}, {evidence.score:.0%} sure')
    out.print(f'  seen in {facts["seen"]} of {facts["frames"]} images: {escape(str(track))}',
              soft_wrap=True)
