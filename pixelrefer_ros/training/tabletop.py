# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make the embedded ``tabletop`` model from nothing: clips, vision, language, both together.

Each stage leaves a save in the output folder and starts from it when run again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from pixelrefer_ros.training import language, vision
from pixelrefer_ros.training.alignment import WordAlignment
from pixelrefer_ros.training.clip_store import ClipStore
from pixelrefer_ros.training.loop import Stage, keep_recipe, mixed_precision, rank
from pixelrefer_ros.training.pictures import draw_pictures
from pixelrefer_ros.training.processes import run_together
from pixelrefer_ros.training.tabletop_config import fresh_model, save_model
from pixelrefer_ros.training.vocabulary import build_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
    from pixelrefer_ros.simulation.clips import Clip

    Log = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Say how long and on how much the model is trained.

    Attributes:
        clips: Simulated clips to train on.
        dense_steps: Tower alone, 12 clips a step.
        region_steps: Tower and region encoder, 4 clips and the last frames of 8 more a step.
        language_clips: How many of the clips the language stage reads, the last ones.
        language_steps: Language model on frozen region tokens, 16 rows a step.
        joint_steps: Everything together, 3 clips and 12 rows a step.
        processes: Processes that share the work, one thread each.
        seed: Of weights and batches.
    """

    clips: int = 16_000
    dense_steps: int = 900
    region_steps: int = 5000
    language_clips: int = 5000
    language_steps: int = 5000
    joint_steps: int = 300
    processes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: One does not make sense.
        """
        for name, value in asdict(self).items():
            least = 1 if name in ('clips', 'language_clips', 'processes') else 0
            if value < least:
                raise ValueError(f'{name} is {value}; it must be at least {least}')


def _pick(store: ClipStore, rng: np.random.Generator, count: int) -> list[Clip]:
    return [store[int(i)] for i in rng.integers(0, len(store), count)]


class VisionTrainer:
    """Train the vision side with heads that are thrown away later."""

    def __init__(self, model: PixelReferForConditionalGeneration, store: ClipStore) -> None:
        """Create the heads."""
        self._model, self._store = model, store
        self.heads = vision.VisionHeads(model.config.mm_hidden_size)

    def dense(self, rng: np.random.Generator, _: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of telling what each patch shows, mostly in object crops."""
        clips = _pick(self._store, rng, 12)
        with mixed_precision():
            pictures = draw_pictures(
                clips, self._model.config, rng, steps=(int(rng.integers(vision.FRAMES)),))
            crops, _inside, shown = vision.encode(self._model, pictures.crops)
            loss = vision.dense_loss(self.heads, crops, shown, clips, pictures.entry_clip)
            pooled, scores = vision.pooled_loss(self.heads, crops, pictures, clips)
            loss = loss + pooled
            for part, owners in ((pictures.contexts, pictures.entry_clip),
                                 (pictures.frames, list(range(len(clips))))):
                few = list(range(0, len(owners), 5))
                features, _inside, shown = vision.encode(self._model, part.only(few))
                loss = loss + 0.5 * vision.dense_loss(
                    self.heads, features, shown, clips, [owners[i] for i in few])
        return loss, scores

    def regions(self, rng: np.random.Generator, _: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of reading the facts off region tokens.

        Four clips are read whole, for the motions. Of eight more only the last frame is read,
        the one that neighbours are told of: half as much work again, and three times the pairs.
        """
        with mixed_precision():
            loss, scores = self._read(_pick(self._store, rng, 4), rng, None)
            last, beside = self._read(_pick(self._store, rng, 8), rng, (vision.FRAMES - 1,))
        told = {name: beside[name] for name in beside if name.startswith(('neighbour', 'role'))}
        return loss + 0.5 * last, scores | told

    def _read(
        self, clips: list[Clip], rng: np.random.Generator, steps: tuple[int, ...] | None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of the regions of some clips, in all frames or in those of ``steps``."""
        pictures = draw_pictures(clips, self._model.config, rng, steps=steps)
        crops, _inside, crops_show = vision.encode(self._model, pictures.crops)
        contexts, _inside, contexts_show = vision.encode(self._model, pictures.contexts)
        frames, _inside, _shown = vision.encode(self._model, pictures.frames)
        tokens = vision.region_tokens(self._model, pictures, frames, contexts, crops)
        loss, scores = vision.region_loss(self.heads, tokens, pictures, clips)
        owners = pictures.entry_clip
        loss = loss + 0.15 * (
            vision.dense_loss(self.heads, crops, crops_show, clips, owners)
            + 3 * vision.dense_loss(self.heads, contexts, contexts_show, clips, owners))
        role = vision.role_loss(self.heads, contexts, contexts_show, pictures, clips)
        return loss + role, {**scores, 'role_loss': role.item()}


class LanguageTrainer:
    """Train the language side on cached region tokens."""

    def __init__(
        self, model: PixelReferForConditionalGeneration, store: ClipStore,
        cache: language.TokenCache, tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """Keep what the batches are made of."""
        self._model, self._cache = model, cache
        self._rows = language.RowMaker(store, cache, tokenizer, model)
        self._pad = tokenizer.pad_token_id
        self._alignment = WordAlignment(tokenizer, store)

    def loss(
        self, rng: np.random.Generator, step: int, rows: int = 16
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the answers' loss, and the share of answers right throughout by kind."""
        batch = language.draw_batch(self._rows, rng, rows, self._pad)
        with mixed_precision():
            loss, predicted, target, tokens = language.answer_loss(self._model, batch, self._cache)
            words = self._alignment.loss(self._model, tokens, batch, self._cache)
        scores = language.shares_right(batch, predicted, target)
        return loss + 0.1 * words, {**scores, 'answers': loss.item(), 'words': words.item()}


def _vision_stages(
    model: PixelReferForConditionalGeneration, store: ClipStore, recipe: Recipe, out: Path,
    on_log: Log,
) -> VisionTrainer:
    trainer = VisionTrainer(model, store)
    seen = [*model.tower.parameters(), *model.region_encoder.parameters(),
            *trainer.heads.parameters()]
    modules: dict[str, nn.Module] = {'model': model, 'heads': trainer.heads}
    Stage('dense', out, modules, seen, recipe.dense_steps, 1.5e-3, seed=recipe.seed).run(
        trainer.dense, on_log)
    Stage('regions', out, modules, seen, recipe.region_steps, 1e-3, seed=recipe.seed + 1).run(
        trainer.regions, on_log)
    return trainer


def _cached(
    model: PixelReferForConditionalGeneration, store: ClipStore, recipe: Recipe, out: Path,
    on_log: Log,
) -> language.TokenCache:
    """Encode the clips this process is to train on, or read what it encoded before."""
    path = out / f'tokens-{rank()}-of-{recipe.processes}.pt'
    if path.exists():
        cache: language.TokenCache = torch.load(path, weights_only=False)
        return cache
    first = max(0, len(store) - recipe.language_clips)
    mine = list(range(first + rank(), len(store), recipe.processes))
    done = 0

    def step() -> None:
        nonlocal done
        done += 4
        if rank() == 0 and done % 200 == 0:
            on_log('encode', min(done, len(mine)), len(mine), {})

    cache = language.cache_tokens(model, store, mine, recipe.seed + rank(), on_step=step)
    torch.save(cache, path)
    return cache


def _language_stage(
    model: PixelReferForConditionalGeneration, store: ClipStore,
    tokenizer: PreTrainedTokenizerBase, recipe: Recipe, out: Path, on_log: Log,
) -> None:
    cache = _cached(model, store, recipe, out, on_log)
    torch.manual_seed(recipe.seed)
    language.whiten_projection(model, cache)
    trainer = LanguageTrainer(model, store, cache, tokenizer)
    speaks = [p for n, p in model.named_parameters() if n.startswith(
        ('model.embed_tokens', 'model.layers', 'model.norm', 'model.region_encoder.feat_linear'))]
    Stage('language', out, {'model': model}, speaks, recipe.language_steps, 2e-3,
          weight_decay=0.05, seed=recipe.seed + 2, log_every=50).run(trainer.loss, on_log)


def _joint_stage(
    model: PixelReferForConditionalGeneration, store: ClipStore, heads: vision.VisionHeads,
    tokenizer: PreTrainedTokenizerBase, recipe: Recipe, out: Path, on_log: Log,
) -> None:
    """Let the answers' loss reach the vision side."""

    def loss(rng: np.random.Generator, _: int) -> tuple[Tensor, dict[str, float]]:
        numbers = [int(i) for i in rng.integers(0, len(store), 3)]
        with mixed_precision():
            cache, seen, scores = language.encode_clips(model, heads, store, numbers, rng)
            rows = language.RowMaker(store, cache, tokenizer, model)
            batch = language.draw_batch(rows, rng, 12, tokenizer.pad_token_id)
            answers, predicted, target, _tokens = language.answer_loss(model, batch, cache)
        scores |= language.shares_right(batch, predicted, target)
        return answers + 0.1 * seen, scores

    parameters = [*model.parameters(), *heads.parameters()]
    Stage('joint', out, {'model': model, 'heads': heads}, parameters, recipe.joint_steps, 3e-4,
          seed=recipe.seed + 3).run(loss, on_log)


def _work(recipe: Recipe, out: Path, on_log: Log) -> None:
    tokenizer = build_tokenizer()
    store = ClipStore(out / 'clips', recipe.clips)
    model = fresh_model(tokenizer, recipe.seed)
    heads = _vision_stages(model, store, recipe, out, on_log).heads
    _language_stage(model, store, tokenizer, recipe, out, on_log)
    _joint_stage(model, store, heads, tokenizer, recipe, out, on_log)
    if rank() == 0:
        save_model(model, tokenizer, out / 'model')


def train(out: Path, recipe: Recipe, on_log: Log = lambda *_: None) -> Path:
    """Make the tabletop model, or go on making it.

    Args:
        out: Folder for clips, saves, ``log.jsonl`` and the model.
        recipe: How long and on how much. A run is gone on with only under the same one.
        on_log: Called with stage, step, steps and the mean scores every so many steps.

    Returns:
        The folder of the finished model.

    Raises:
        PixelReferError: BAD_REQUEST when the folder holds a run of another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    keep_recipe(out, recipe)
    ClipStore(out / 'clips', recipe.clips, processes=max(2, recipe.processes))
    run_together(_work, recipe.processes, recipe, out, on_log)
    return out / 'model'
