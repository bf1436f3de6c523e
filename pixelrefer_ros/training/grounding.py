# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make the embedded grounding model from nothing: clips, dense vision, language, both together.

Each stage leaves a save in the output folder and goes on from it when run again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pixelrefer_ros.training.grounding_config import (
    CLIP_SIZE,
    FRAMES,
    KEY_SIZE,
    fresh_model,
    save_model,
)
from pixelrefer_ros.training.grounding_language import (
    Alignment,
    answer_loss,
    read_batch,
    shares_right,
)
from pixelrefer_ros.training.grounding_pictures import Sights, draw_sights
from pixelrefer_ros.training.grounding_rows import Batch, Row, RowMaker, collate
from pixelrefer_ros.training.grounding_store import ReasoningStore
from pixelrefer_ros.training.grounding_vision import GroundingHeads, dense_loss, run_blocks
from pixelrefer_ros.training.grounding_words import build_tokenizer
from pixelrefer_ros.training.loop import Stage, mixed_precision, rank
from pixelrefer_ros.training.processes import run_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

    Log = Callable[[str, int, int, dict[str, float]], None]
    Loss = Callable[[np.random.Generator, int], tuple[Tensor, dict[str, float]]]

_T = TypeVar('_T')
ALIGNMENT_WEIGHT = 0.3
DENSE_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class GroundingRecipe:
    """Say how long and on how much the model is trained.

    Attributes:
        clips: Simulated clips to train on.
        dense_steps: Tower alone.
        language_steps: Merger and language model, the tower as it is.
        joint_steps: Everything together, at a low rate.
        batch: Clips a step and process.
        processes: Processes that share the work, one thread each; 1 on a GPU.
        loaders: Processes that read clips beside each of them; 0 reads in between.
        device: 'cpu' or 'cuda'.
        seed: Of weights and batches.
    """

    clips: int = 12_000
    dense_steps: int = 12_000
    language_steps: int = 16_000
    joint_steps: int = 4000
    batch: int = 6
    processes: int = 2
    loaders: int = 0
    device: str = 'cpu'
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One does not make sense.
        """
        for name, value in asdict(self).items():
            least = 1 if name in ('clips', 'batch', 'processes') else 0
            if isinstance(value, int) and value < least:
                raise ValueError(f'{name} is {value}; it must be at least {least}')
        if self.device not in ('cpu', 'cuda'):
            raise ValueError(f"device is '{self.device}'; it must be cpu or cuda")


class _Draws(Dataset[_T]):
    """Draw what a step needs, the same whoever draws it."""

    def __init__(self, draw: Callable[[np.random.Generator], _T], seed: tuple[int, ...]) -> None:
        self._draw, self._seed = draw, seed

    def __getitem__(self, step: int) -> _T:
        return self._draw(np.random.default_rng([*self._seed, step]))


class Feed(Generic[_T]):
    """Draw batches ahead of the steps that need them."""

    def __init__(
        self, draw: Callable[[np.random.Generator], _T], steps: int, seed: tuple[int, ...],
        loaders: int,
    ) -> None:
        """Keep what draws; ``loaders`` processes do it from the first call on."""
        self._draws, self._steps, self._loaders = _Draws(draw, seed), steps, loaders
        self._ahead: Iterator[Any] | None = None

    def __call__(self, step: int) -> _T:
        """Return the batch of a step; steps follow each other after the first asked for."""
        if not self._loaders:
            return self._draws[step]
        if self._ahead is None:
            self._ahead = iter(DataLoader(
                self._draws, batch_size=None, sampler=range(step, self._steps),
                num_workers=self._loaders, multiprocessing_context='fork'))
        drawn: _T = next(self._ahead)
        return drawn


class GroundingTrainer:
    """Compute the losses of the stages."""

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, store: ReasoningStore,
        tokenizer: PreTrainedTokenizerBase, recipe: GroundingRecipe,
    ) -> None:
        """Create the heads and put everything on the recipe's device."""
        self._store, self._tokenizer, self._recipe = store, tokenizer, recipe
        self._device = torch.device(recipe.device)
        self._rows = RowMaker(store, tokenizer)
        self._alignment = Alignment(tokenizer)
        torch.manual_seed(recipe.seed)
        self.model = model.to(self._device)
        if self._device.type == 'cuda':
            self.model.set_attn_implementation('sdpa')
        self.heads = GroundingHeads(model.config.vision_config.hidden_size).to(self._device)

    def dense(self) -> Loss:
        """Return the loss of telling what patches show and do."""
        feed = self._feed(self._draw_dense, self._recipe.dense_steps, 1)

        def loss(_: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
            sights = feed(step).to(self._device)
            with self._precision():
                return dense_loss(
                    self.heads, run_blocks(self.model, sights.clips, CLIP_SIZE),
                    run_blocks(self.model, sights.pictures, KEY_SIZE), sights)

        return loss

    def language(self) -> Loss:
        """Return the loss of answers, the tower as it is."""
        return self._answers(self._recipe.language_steps, 2, tower=False)

    def joint(self) -> Loss:
        """Return the loss of answers and, a little, of patches."""
        return self._answers(self._recipe.joint_steps, 3, tower=True)

    def _answers(self, steps: int, number: int, *, tower: bool) -> Loss:
        feed = self._feed(self._draw_rows, steps, number)

        def loss(_: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
            batch, sights = feed(step)
            batch, sights = batch.to(self._device), sights.to(self._device)
            with self._precision():
                read = read_batch(self.model, batch, sights, tower=tower)
                answers, said = answer_loss(self.model, batch, read)
                aligned, scores = self._alignment.loss(self.model, batch, sights, read)
                total = answers + ALIGNMENT_WEIGHT * aligned
                if tower:
                    seen, _scores = dense_loss(self.heads, *read.patches, sights)
                    total = total + DENSE_WEIGHT * seen
            scores |= shares_right(batch, said, self._tokenizer)
            return total, {**scores, 'answers': answers.item(), 'aligned': aligned.item()}

        return loss

    def _feed(self, draw: Callable[[np.random.Generator], _T], steps: int, number: int
              ) -> Feed[_T]:
        return Feed(draw, steps, (self._recipe.seed, number, rank()), self._recipe.loaders)

    def _draw_dense(self, rng: np.random.Generator) -> Sights:
        numbers = [int(i) for i in rng.integers(0, len(self._store), self._recipe.batch)]
        return draw_sights(self._store, numbers,
                           [int(i) for i in rng.integers(0, FRAMES, len(numbers))])

    def _draw_rows(self, rng: np.random.Generator) -> tuple[Batch, Sights]:
        rows: list[Row] = []
        while len(rows) < self._recipe.batch:
            row = self._rows.draw(int(rng.integers(len(self._store))), rng)
            if row is not None:
                rows.append(row)
        sights = draw_sights(self._store, [r.number for r in rows], [r.frame for r in rows])
        return collate(rows, self._tokenizer.pad_token_id), sights

    def _precision(self) -> torch.autocast:
        if self._device.type == 'cpu':
            return mixed_precision()
        return torch.autocast(self._device.type, torch.bfloat16)


def _work(recipe: GroundingRecipe, out: Path, on_log: Log) -> None:
    tokenizer = build_tokenizer()
    trainer = GroundingTrainer(fresh_model(tokenizer, recipe.seed),
                               ReasoningStore(out / 'clips', recipe.clips), tokenizer, recipe)
    model, heads = trainer.model, trainer.heads
    modules: dict[str, nn.Module] = {'model': model, 'heads': heads}
    tower = [*model.model.visual.patch_embed.parameters(),
             *model.model.visual.blocks.parameters()]
    speaks = [*model.model.visual.merger.parameters(), *model.model.language_model.parameters()]
    for name, loss, parameters, steps, lr in (
        ('dense', trainer.dense, [*tower, *heads.parameters()], recipe.dense_steps, 1.5e-3),
        ('language', trainer.language, speaks, recipe.language_steps, 1.5e-3),
        ('joint', trainer.joint, [*tower, *speaks, *heads.parameters()], recipe.joint_steps,
         3e-4),
    ):
        Stage(name, out, modules, parameters, steps, lr, seed=recipe.seed).run(loss(), on_log)
    if rank() == 0:
        save_model(model, tokenizer, out / 'model')


def train_grounding(
    out: Path, recipe: GroundingRecipe, on_log: Log = lambda *_: None
) -> Path:
    """Make the embedded grounding model, or go on making it.

    Args:
        out: Folder for clips, saves, ``log.jsonl`` and the model.
        recipe: How long and on how much. A save is gone on with only under the same recipe.
        on_log: Called with stage, step, steps and the mean scores every so many steps.

    Returns:
        The folder of the finished model, which ``models.chat`` loads.
    """
    out.mkdir(parents=True, exist_ok=True)
    ReasoningStore(out / 'clips', recipe.clips, processes=max(2, recipe.processes))
    run_together(_work, recipe.processes, recipe, out, on_log)
    return out / 'model'
