# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run a training stage: learning rate, gradient averaging over processes, log, resume."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from pixelrefer_ros.core.types import ErrorCode, PixelReferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor, nn


def rank() -> int:
    """Return the number of this process, 0 when there is one only."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def mixed_precision() -> torch.autocast:
    """Compute in bf16 where the CPU has instructions for it; elsewhere bf16 is the slower one."""
    has = torch.cpu.get_capabilities()
    fast = bool(has.get('avx512_bf16') or has.get('amx_bf16'))
    return torch.autocast('cpu', torch.bfloat16, enabled=fast)


def warm_cosine(step: int, total: int) -> float:
    """Return a learning-rate factor: 3 % warm-up, then a cosine down to 1 %."""
    warm = max(1, round(0.03 * total))
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, (step - warm) / (total - warm))))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes; each then takes the same step."""
    if world() == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    distributed.all_reduce(flat)
    flat /= world()
    at = 0
    for g in grads:
        g.copy_(flat[at:at + g.numel()].view_as(g))
        at += g.numel()


def keep_recipe(folder: Path, recipe: Any) -> None:
    """Keep a recipe, a dataclass, beside its saves; they are of no use to another.

    How many processes share the work, and where it is done, may change. Clips alone are of use
    to every recipe.

    Raises:
        PixelReferError: BAD_REQUEST when the folder holds saves of another recipe.
    """
    told = {name: value for name, value in asdict(recipe).items()
            if name not in ('processes', 'loaders', 'device')}
    note = folder / 'recipe.json'
    kept = json.loads(note.read_text()) if note.exists() else told
    if kept != told and any(folder.glob('*.pt')):
        other = [name for name in {**told, **kept} if kept.get(name) != told.get(name)]
        raise PixelReferError(
            ErrorCode.BAD_REQUEST, f'{folder} holds a run with other {", ".join(other)}: give the '
            'same ones to go on with it, or another folder')
    note.write_text(json.dumps(told, indent=2) + '\n')


@dataclass(slots=True)
class Meter:
    """Average scores between two log lines."""

    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, scores: dict[str, float]) -> None:
        """Add the scores of one step."""
        for name, value in scores.items():
            entry = self.sums.setdefault(name, [0.0, 0.0])
            entry[0] += value
            entry[1] += 1

    def take(self) -> dict[str, float]:
        """Return the means and start over."""
        means = {name: round(a / n, 4) for name, (a, n) in self.sums.items()}
        self.sums = {}
        return means


@dataclass(slots=True)
class Stage:
    """Run one stage of training and keep its state on disk.

    Attributes:
        name: Names its files: ``<name>.pt`` and a line of ``log.jsonl`` every ``log_every``.
        folder: Where they lie.
        modules: What is saved, by name.
        parameters: What is trained.
        steps: How many.
        lr: Peak learning rate.
        matrices: Those of the parameters that Muon trains, AdamW the others.
        weight_decay: On matrices only.
        seed: Of the batches; each process adds its number.
        save_every: Steps between saves.
        log_every: Steps between log lines.
    """

    name: str
    folder: Path
    modules: dict[str, nn.Module]
    parameters: list[nn.Parameter]
    steps: int
    lr: float
    matrices: list[nn.Parameter] = field(default_factory=list)
    weight_decay: float = 0.02
    seed: int = 0
    save_every: int = 200
    log_every: int = 25

    def run(
        self, step_loss: Callable[[np.random.Generator, int], tuple[Tensor, dict[str, float]]],
        on_log: Callable[[str, int, int, dict[str, float]], None] = lambda *_: None,
    ) -> None:
        """Train to the last step, from the newest save when there is one.

        Args:
            step_loss: Takes a source of randomness and the step; returns loss and scores.
            on_log: Called with stage, step, steps and the mean scores.
        """
        optimizers = self._optimizers()
        step, rng = self._resume(optimizers)
        meter, began = Meter(), time.monotonic()
        while step < self.steps:
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group['lr'] = self.lr * warm_cosine(step, self.steps)
                optimizer.zero_grad()
            loss, scores = step_loss(rng, step)
            loss.backward()
            average_gradients(self.parameters)
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            meter.add({'loss': loss.item(), **scores})
            if step % self.log_every == 0 or step == self.steps:
                means = meter.take()
                if rank() == 0:
                    line = {'stage': self.name, 'step': step, 'steps': self.steps,
                            'seconds': round(time.monotonic() - began), **means}
                    with (self.folder / 'log.jsonl').open('a') as file:
                        file.write(json.dumps(line) + '\n')
                    on_log(self.name, step, self.steps, means)
            if step % self.save_every == 0 or step == self.steps:
                self._save(step, rng, optimizers)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        muon = {id(p) for p in self.matrices}
        others = [p for p in self.parameters if id(p) not in muon]
        made: list[torch.optim.Optimizer] = [torch.optim.AdamW(
            [{'params': [p for p in others if p.ndim > 1], 'weight_decay': self.weight_decay},
             {'params': [p for p in others if p.ndim <= 1], 'weight_decay': 0.0}],
            lr=self.lr, betas=(0.9, 0.98))]
        if muon:
            made.append(torch.optim.Muon(self.matrices, lr=self.lr,
                                         weight_decay=self.weight_decay,
                                         adjust_lr_fn='match_rms_adamw'))
        return made

    def _file(self) -> Path:
        return self.folder / f'{self.name}.pt'

    def _save(self, step: int, rng: np.random.Generator,
              optimizers: list[torch.optim.Optimizer]) -> None:
        states: list[Any] = [None] * world()
        if world() > 1:
            distributed.all_gather_object(states, rng.bit_generator.state)
        else:
            states = [rng.bit_generator.state]
        if rank() == 0:
            path = self._file()
            torch.save({'step': step, 'rng': states,
                        'optimizers': [o.state_dict() for o in optimizers],
                        **{f'module.{k}': m.state_dict() for k, m in self.modules.items()}},
                       path.with_suffix('.tmp'))
            path.with_suffix('.tmp').replace(path)

    def _resume(self, optimizers: list[torch.optim.Optimizer]) -> tuple[int, np.random.Generator]:
        rng = np.random.default_rng([self.seed, rank()])
        if not self._file().exists():
            return 0, rng
        saved = torch.load(self._file(), weights_only=False)
        for name, module in self.modules.items():
            module.load_state_dict(saved[f'module.{name}'])
        for optimizer, state in zip(optimizers, saved['optimizers'], strict=True):
            optimizer.load_state_dict(state)
        if rank() < len(saved['rng']):
            rng.bit_generator.state = saved['rng'][rank()]
        return int(saved['step']), rng
