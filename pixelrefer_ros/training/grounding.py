# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make the embedded grounding model from nothing: clips, sight, words, reading.

Tower and language model agree on how facts are said (``grounding_codes``), so each learns
alone: the tower to say what it sees, the language model to reason on what it is told. Then the
language model learns to read the tower, which is less sure of clips that it was not trained on:
a part of the clips is kept for that. Each stage leaves a save in the output folder and goes on
from it when run again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pixelrefer_ros.training.grounding_asking import (
    Asked,
    asked_scores,
    draw_asked,
    pointing_loss,
    run_asked,
)
from pixelrefer_ros.training.grounding_batch import Batch, collate
from pixelrefer_ros.training.grounding_cache import SightCache
from pixelrefer_ros.training.grounding_config import (
    CLIP_SIZE,
    KEY_SIZE,
    fresh_model,
    save_model,
)
from pixelrefer_ros.training.grounding_language import (
    Alignment,
    answer_loss,
    read_batch,
    run_layers,
    shares_right,
)
from pixelrefer_ros.training.grounding_pictures import Shown, Sights, flipped
from pixelrefer_ros.training.grounding_rows import Row, RowMaker
from pixelrefer_ros.training.grounding_store import ReasoningStore
from pixelrefer_ros.training.grounding_told import telling_loss, told
from pixelrefer_ros.training.grounding_vision import GroundingHeads, dense_loss, merge, run_blocks
from pixelrefer_ros.training.grounding_words import build_tokenizer
from pixelrefer_ros.training.loop import Stage, keep_recipe, mixed_precision, rank
from pixelrefer_ros.training.processes import run_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

    Log = Callable[[str, int, int, dict[str, float]], None]
    Loss = Callable[[np.random.Generator, int], tuple[Tensor, dict[str, float]]]

_T = TypeVar('_T')
ALIGNMENT_WEIGHT = 0.3
TELLING_WEIGHT = 2.0
READING_SHARE = 0.22
"""Of the clips, the last ones, that the tower does not learn from."""
ROWS_EVERY = 2
"""Steps: one of so many is about conversations with key frames, the others ask about clips."""
_COMPILED_FROM = 100  # steps that repay a compilation


@dataclass(frozen=True, slots=True)
class GroundingRecipe:
    """Say how long and on how much the model is trained.

    Attributes:
        clips: Simulated clips to train on.
        sight_steps: Tower alone: what tokens say.
        words_steps: Language model alone, on facts that are told it.
        reading_steps: Language model alone, on what the tower says.
        batch: Clips a step and process, for the tower.
        pictures: Of them, those that also show a key frame.
        rows: Clips a step and process, for the language model, of those it is asked about with
            key frames; of those it is only asked about, twice as many.
        processes: Processes that share the work, one thread each; 1 on a GPU.
        loaders: Processes that read clips beside each of them; 0 reads in between.
        device: 'cpu' or 'cuda'.
        seed: Of weights and batches.
    """

    clips: int = 10_000
    sight_steps: int = 1800
    words_steps: int = 1000
    reading_steps: int = 1000
    batch: int = 16
    pictures: int = 6
    rows: int = 8
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
            least = {'clips': 2, 'batch': 1, 'pictures': 1, 'rows': 1, 'processes': 1}.get(name, 0)
            if isinstance(value, int) and value < least:
                raise ValueError(f'{name} is {value}; it must be at least {least}')
        if self.pictures > self.batch:
            raise ValueError(f'pictures is {self.pictures}; it must be at most batch, '
                             f'{self.batch}')
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
        self, model: Qwen2_5_VLForConditionalGeneration, cache: SightCache,
        tokenizer: PreTrainedTokenizerBase, recipe: GroundingRecipe,
    ) -> None:
        """Create the heads and put everything on the recipe's device."""
        self._cache, self._tokenizer, self._recipe = cache, tokenizer, recipe
        self._device = torch.device(recipe.device)
        self._learnt = len(cache) - max(1, round(READING_SHARE * len(cache)))
        self._rows = RowMaker(cache.store, tokenizer)
        self._alignment = Alignment(tokenizer)
        torch.manual_seed(recipe.seed)
        self.model = model.to(self._device)
        self.heads = GroundingHeads(model.config.vision_config.hidden_size).to(self._device)
        self._run_blocks, self._run_layers, self._run_asked = run_blocks, run_layers, run_asked
        if max(recipe.sight_steps, recipe.words_steps, recipe.reading_steps) >= _COMPILED_FROM:
            self._run_blocks = torch.compile(run_blocks, dynamic=False)
            self._run_layers = torch.compile(run_layers, dynamic=False)
            self._run_asked = torch.compile(run_asked, dynamic=False)

    def sight(self) -> Loss:
        """Return the loss of saying what patches and tokens show."""
        feed = self._feed(self._draw_sights, self._recipe.sight_steps, 1)

        def loss(_: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
            sights = feed(step).to(self._device)
            with self._precision():
                clips = self._run_blocks(self.model, sights.clips, CLIP_SIZE)
                pictures = self._run_blocks(self.model, sights.pictures, KEY_SIZE)
                loss, scores = dense_loss(self.heads, clips, pictures, sights)
                tokens = merge(self.model, clips), merge(self.model, pictures)
            for part, key in zip(tokens, (False, True), strict=True):
                off, said = telling_loss(part, sights, key=key)
                loss = loss + TELLING_WEIGHT * off
                scores |= {f'said_{name}': score for name, score in said.items()}
            return loss, scores

        return loss

    def words(self) -> Loss:
        """Return the loss of answers about clips whose facts are told."""
        return self._answers(self._recipe.words_steps, 2, reads=False)

    def reading(self) -> Loss:
        """Return the loss of answers about what the tower says of clips it has not learnt."""
        return self._answers(self._recipe.reading_steps, 3, reads=True)

    def _answers(self, steps: int, number: int, *, reads: bool) -> Loss:
        """Return the loss of answers: of questions alone, and in turn of whole rows."""
        asked = self._feed(lambda rng: self._draw_asked(rng, reads=reads), steps, number)
        rows = self._feed(lambda rng: self._draw_rows(rng, reads=reads), steps, number + 10)

        def loss(_: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
            turn, place = divmod(step, ROWS_EVERY)
            with self._precision():
                if place == ROWS_EVERY - 1:
                    return self._of_rows(*rows(turn))
                return self._of_asked(*asked(turn * (ROWS_EVERY - 1) + place))

        return loss

    def _of_asked(self, asked: Asked, shown: Shown, given: Tensor | None
                  ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of questions about clips; what is not given is read off the tower."""
        asked, clips = asked.to(self._device), self._said(shown, given, key=False)
        embed = self.model.model.language_model.embed_tokens
        lead = embed(asked.lead).repeat(len(clips), 1, 1)
        lead[:, asked.clip_at:asked.clip_at + clips.shape[1]] = clips.to(lead.dtype)
        out, looks = self._run_asked(
            self.model, lead, embed(asked.ids), asked.lead_place, asked.start)
        answers, said = answer_loss(self.model, out, asked.ids, asked.weight)
        pointing, scores = pointing_loss(asked, shown, looks)
        scores |= {'asked': answers.item(), **asked_scores(asked, said)}
        return answers + ALIGNMENT_WEIGHT * pointing, scores

    def _of_rows(self, batch: Batch, shown: Shown, given: tuple[Tensor, Tensor] | None
                 ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of whole conversations."""
        clips, pictures = given or (None, None)
        tokens = (self._said(shown, clips, key=False), self._said(shown, pictures, key=True))
        batch = batch.to(self._device)
        read = read_batch(self.model, batch, tokens, self._run_layers)
        answers, said = answer_loss(self.model, read.out, batch.ids, batch.weight)
        aligned, scores = self._alignment.loss(self.model, batch, shown, read)
        scores |= {**shares_right(batch, said, self._tokenizer), 'answers': answers.item()}
        return answers + ALIGNMENT_WEIGHT * aligned, scores

    @torch.no_grad()
    def _said(self, shown: Shown, given: Tensor | None, *, key: bool) -> Tensor:
        """Return tokens of clips, or of pictures: those that are given, else the tower's."""
        if given is not None:
            return given.to(self._device)
        assert isinstance(shown, Sights)
        patches, size = (shown.pictures, KEY_SIZE) if key else (shown.clips, CLIP_SIZE)
        return merge(self.model, self._run_blocks(self.model, patches.to(self._device), size))

    def _feed(self, draw: Callable[[np.random.Generator], _T], steps: int, number: int
              ) -> Feed[_T]:
        return Feed(draw, steps, (self._recipe.seed, number, rank()), self._recipe.loaders)

    def _draw_sights(self, rng: np.random.Generator) -> Sights:
        numbers = rng.integers(0, self._learnt, self._recipe.batch).tolist()
        frames = [int(rng.choice(self._cache.kept(n))) for n in numbers[:self._recipe.pictures]]
        sights = self._cache.draw(numbers, frames)
        return flipped(sights) if rng.random() < 0.5 else sights

    def _draw_asked(self, rng: np.random.Generator, *, reads: bool
                    ) -> tuple[Asked, Shown, Tensor | None]:
        numbers = [self._number(rng, reads=reads) for _ in range(2 * self._recipe.rows)]
        asked = draw_asked(self._rows, numbers, rng, self._tokenizer.pad_token_id)
        if reads:
            return asked, self._cache.draw(numbers, []), None
        shown = self._cache.shown(numbers, [])
        return asked, shown, told(shown, key=False, rng=rng)[0]

    def _draw_rows(self, rng: np.random.Generator, *, reads: bool
                   ) -> tuple[Batch, Shown, tuple[Tensor, Tensor] | None]:
        rows: list[Row] = []
        while len(rows) < self._recipe.rows:
            number = self._number(rng, reads=reads)
            row = (self._rows.draw(number, rng, self._cache.kept(number)) if reads
                   else self._rows.draw(number, rng))
            if row is not None:
                rows.append(row)
        batch = collate(rows, self._tokenizer.pad_token_id)
        numbers, frames = [r.number for r in rows], [r.frame for r in rows]
        if reads:
            return batch, self._cache.draw(numbers, frames), None
        shown = self._cache.shown(numbers, frames)
        return batch, shown, (told(shown, key=False, rng=rng)[0],
                              told(shown, key=True, rng=rng)[0])

    def _number(self, rng: np.random.Generator, *, reads: bool) -> int:
        """Draw a clip; one that was kept from the tower when it is to be read."""
        return int(rng.integers(self._learnt if reads else 0, len(self._cache)))

    def _precision(self) -> torch.autocast:
        if self._device.type == 'cpu':
            return mixed_precision()
        return torch.autocast(self._device.type, torch.bfloat16)


def _work(recipe: GroundingRecipe, out: Path, stages: Sequence[str], on_log: Log) -> None:
    tokenizer = build_tokenizer()
    cache = SightCache(out / 'clips', recipe.clips, out / 'sights')
    trainer = GroundingTrainer(fresh_model(tokenizer, recipe.seed), cache, tokenizer, recipe)
    model, heads = trainer.model, trainer.heads
    tower, language = model.model.visual, model.model.language_model
    made: dict[str, tuple[dict[str, nn.Module], Callable[[], Loss], int, float]] = {
        'sight': ({'tower': tower, 'heads': heads}, trainer.sight, recipe.sight_steps, 2e-3),
        'words': ({'language': language}, trainer.words, recipe.words_steps, 2e-3),
        'reading': ({'language': language}, trainer.reading, recipe.reading_steps, 1e-3),
    }
    layers = [p for part in (tower.blocks, language.layers) for p in part.parameters()
              if p.ndim == 2]
    for name in stages:
        modules, loss, steps, lr = made[name]
        parameters = [p for module in modules.values() for p in module.parameters()]
        trained = {id(p) for p in parameters}
        Stage(name, out, modules, parameters, steps, lr, seed=recipe.seed,
              matrices=[p for p in layers if id(p) in trained]).run(loss(), on_log)
    if rank() == 0 and 'reading' in stages:
        save_model(model, tokenizer, out / 'model')


def train_grounding(
    out: Path, recipe: GroundingRecipe, on_log: Log = lambda *_: None
) -> Path:
    """Make the embedded grounding model, or go on making it.

    Args:
        out: Folder for clips, saves, ``log.jsonl`` and the model.
        recipe: How long and on how much. A run is gone on with only under the same one.
        on_log: Called with stage, step, steps and the mean scores every so many steps.

    Returns:
        The folder of the finished model, which ``models.chat`` loads.

    Raises:
        PixelReferError: BAD_REQUEST when the folder holds what another recipe or version made.
    """
    out.mkdir(parents=True, exist_ok=True)
    keep_recipe(out, recipe)
    ReasoningStore(out / 'clips', recipe.clips, processes=max(2, recipe.processes))
    SightCache(out / 'clips', recipe.clips, out / 'sights', max(2, recipe.processes))
    run_together(_work, recipe.processes, recipe, out, ('sight', 'words', 'reading'), on_log)
    return out / 'model'
