# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tune a PixelRefer-Lite model on conversations about regions (instruction tuning).

Trains the embedded model and published checkpoints alike. PixelRefer, training section: AdamW,
cosine schedule with 3 % warm-up, learning rates of their own for language model, region encoder
and vision tower. transformers' ``Trainer`` runs the loop.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.pixelrefer.checkpoint import CheckpointError, read_config
from pixelrefer_ros.models.pixelrefer.full import FullPixelReferConfig
from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor
from pixelrefer_ros.models.registry import resolve
from pixelrefer_ros.training.instruct_data import InstructData
from pixelrefer_ros.training.instruct_trainer import InstructTrainer

if TYPE_CHECKING:
    from pixelrefer_ros.training.instruct_data import Refusal

PRECISIONS = ('auto', 'fp32', 'bf16')
DEVICES = ('auto', 'cpu')
RECORD = 'tuning.json'
"""What a run was started with, beside its checkpoints."""

_CHECKPOINT = re.compile(r'checkpoint-(\d+)')
_LAST_WRITTEN = 'trainer_state.json'
_FREE_ON_RESUME = (
    'gradient_checkpointing', 'workers', 'save_every', 'keep', 'log_every', 'strict', 'device',
    'progress',
)  # fmt: skip


@dataclass(frozen=True)
class TuneOptions:
    """Say how to train; the learning rates are those of the paper's first stage.

    Attributes:
        epochs: Passes over the data.
        steps: Optimiser steps; 0 lets ``epochs`` decide.
        batch_size: Samples encoded together, per device.
        accumulate: Batches per optimiser step.
        language_lr: Peak learning rate of the language model; 0 freezes it.
        region_lr: Of the region encoder.
        vision_lr: Of the vision tower.
        warmup: Part of the steps over which the rates rise.
        weight_decay: Of AdamW.
        max_length: Tokens of a sample at most; no more than the model reads in any case.
        max_frames: Frames of one object at most, spread evenly; 0 for all that are masked.
        precision: 'fp32', 'bf16' (weights stay fp32), or 'auto': bf16 on a GPU that has it.
        gradient_checkpointing: Keep fewer activations and compute them again: less memory, more
            time.
        seed: Of the order of the samples.
        workers: Processes that read samples; 0 reads them in the training process.
        save_every: Steps between checkpoints; one is saved at the end in any case.
        keep: Checkpoints to keep, the newest.
        log_every: Steps between log lines.
        strict: Stop at the first sample that cannot be used, in place of passing it over.
        device: 'auto' or 'cpu'.
        progress: Show a progress bar.
    """

    epochs: float = 1.0
    steps: int = 0
    batch_size: int = 2
    accumulate: int = 8
    language_lr: float = 1e-5
    region_lr: float = 1e-3
    vision_lr: float = 0.0
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_length: int = 16384
    max_frames: int = 0
    precision: str = 'auto'
    gradient_checkpointing: bool = False
    seed: int = 42
    workers: int = 2
    save_every: int = 500
    keep: int = 2
    log_every: int = 10
    strict: bool = False
    device: str = 'auto'
    progress: bool = True

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: Naming the option and what it may be.
        """
        for name in ('batch_size', 'accumulate', 'max_length', 'save_every', 'keep', 'log_every'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}, must be at least 1')
        for name in ('steps', 'language_lr', 'region_lr', 'vision_lr', 'weight_decay',
                     'max_frames', 'seed', 'workers'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} is {getattr(self, name)}, must not be negative')
        if not self.steps and self.epochs <= 0:
            raise ValueError(f'epochs is {self.epochs}, must be above 0 where steps is 0')
        if not 0 <= self.warmup < 1:
            raise ValueError(f'warmup is {self.warmup}, must be a part of the steps, 0 to below 1')
        if not (self.language_lr or self.region_lr or self.vision_lr):
            raise ValueError('all learning rates are 0: nothing would be trained')
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is '{self.precision}', must be one of {PRECISIONS}")
        if self.device not in DEVICES:
            raise ValueError(f"device is '{self.device}', must be one of {DEVICES}")


@dataclass(frozen=True)
class TuneResult:
    """Report a run.

    Attributes:
        directory: The tuned model; ``from_pretrained`` and the node load it.
        steps: Optimiser steps done, those before a resume included.
        samples: Samples of the data file that were well built.
        refused: Samples met that could not be used.
        losses: (step, mean loss per answer token since the entry before), as logged.
    """

    directory: Path
    steps: int
    samples: int
    refused: tuple[Refusal, ...]
    losses: tuple[tuple[int, float], ...]


def tune(
    model_dir: str | Path,
    data_json: str | Path,
    data_root: str | Path | None,
    out_dir: str | Path,
    *,
    options: TuneOptions | None = None,
    resume: bool = False,
) -> TuneResult:
    """Train a model on instruction data and write the tuned model.

    Args:
        model_dir: Directory or name of a PixelRefer-Lite model.
        data_json: JSON array or JSON lines of samples.
        data_root: Folder that pictures and videos lie in; None for that of ``data_json``.
        out_dir: Gets the tuned model, in the dtype of the model it comes from, and
            ``checkpoint-N`` folders.
        options: How to train.
        resume: Go on from the newest checkpoint in ``out_dir``, if there is one.

    Returns:
        What was done.

    Raises:
        PixelReferError: UNSUPPORTED without the package accelerate, and for a full PixelRefer
            model; BAD_REQUEST for data that cannot be used, or an ``out_dir`` that holds
            another run; MODEL_ERROR for a model that cannot be loaded.
    """
    options = options or TuneOptions()
    if importlib.util.find_spec('accelerate') is None:
        raise PixelReferError(
            ErrorCode.UNSUPPORTED,
            "training needs the package accelerate: pip install 'pixelrefer-ros[train]'",
        )
    source, out = resolve(str(model_dir)), Path(out_dir)
    started_from = _claim(out, source, Path(data_json), options, resume=resume)
    model, processor, dtype = _load(source, started_from)
    if model.config.compat_shared_budget and options.batch_size > 1:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST,
            'this model shares its pixel budget within a sample (compat_shared_budget): its '
            'samples cannot be encoded together, set batch_size to 1 and accumulate higher',
        )
    data = InstructData(
        data_json,
        data_root,
        processor,
        max_length=min(options.max_length, model.config.max_position_embeddings),
        max_frames=options.max_frames,
    )
    data.probe()
    trainer = InstructTrainer(model, processor, data, out, options)
    trainer.train(resume_from_checkpoint=str(started_from) if started_from else None)
    refused = trainer.finish(dtype)
    return TuneResult(
        directory=out,
        steps=trainer.state.global_step,
        samples=len(data),
        refused=refused,
        losses=tuple(
            (entry['step'], entry['loss'])
            for entry in trainer.state.log_history
            if 'loss' in entry
        ),
    )


def newest_checkpoint(out_dir: Path) -> Path | None:
    """Return the newest whole ``checkpoint-N`` of a folder, None when there is none."""
    found = [
        (int(match[1]), path)
        for path in (out_dir.iterdir() if out_dir.is_dir() else ())
        if (match := _CHECKPOINT.fullmatch(path.name)) and (path / _LAST_WRITTEN).is_file()
    ]
    return max(found)[1] if found else None


def _claim(
    out: Path, source: Path, data: Path, options: TuneOptions, *, resume: bool
) -> Path | None:
    """Make the output folder, note what the run is, and find what to go on from."""
    run = {'model': str(source.resolve()), 'data': str(data.resolve()), **asdict(options)}
    newest = newest_checkpoint(out)
    if newest and not resume:
        raise PixelReferError(
            ErrorCode.BAD_REQUEST,
            f'{out} holds {newest.name} of an earlier run: resume it, or take another folder',
        )
    record = out / RECORD
    if newest and record.is_file():
        before = json.loads(record.read_text(encoding='utf-8'))
        changed = [
            f'{name} was {before.get(name)!r} and is {value!r}'
            for name, value in run.items()
            if name not in _FREE_ON_RESUME and before.get(name) != value
        ]
        if changed:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f'{out} holds a run of another kind: {"; ".join(changed)}. Resume it as it was, '
                'or take another folder',
            )
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(run, indent=2) + '\n', encoding='utf-8')
    return newest


def _load(
    source: Path, checkpoint: Path | None
) -> tuple[PixelReferForConditionalGeneration, PixelReferProcessor, torch.dtype]:
    """Load weights in fp32, and find out the dtype to write the tuned ones in."""
    try:
        fields = read_config(source)
        if fields.get('model_type') == FullPixelReferConfig.model_type:
            raise PixelReferError(
                ErrorCode.UNSUPPORTED,
                f'{source} holds a full PixelRefer model; only PixelRefer-Lite can be trained',
            )
        # fp32 throughout: steps of 1e-5 are lost in the rounding of 16-bit weights
        model = PixelReferForConditionalGeneration.from_pretrained(
            checkpoint or source, dtype=torch.float32
        )
        processor = PixelReferProcessor.from_pretrained(source, config=model.config)
    except CheckpointError as error:
        raise PixelReferError(ErrorCode.MODEL_ERROR, str(error)) from error
    name = str(fields.get('dtype') or fields.get('torch_dtype') or 'float32')
    return model, processor, getattr(torch, name)
