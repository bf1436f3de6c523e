# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Teach the language side to read region tokens, with the vision side frozen.

Region tokens of all clips are computed once. A training row is one prompt prefix (the regions)
with several questions branching off it, which cannot see each other: the regions, most of the
tokens, are read once for all of them. Labels lie on the answers only, end token included
(PixelRefer, training section).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pixelrefer_ros.models.pixelrefer.prompts import fill_regions, introduction, region_text
from pixelrefer_ros.training import vision
from pixelrefer_ros.training.pictures import draw_pictures
from pixelrefer_ros.training.questions import ONE_KINDS, PAIR_KINDS, Question, ask_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
    from pixelrefer_ros.simulation.clips import Clip
    from pixelrefer_ros.training.clip_store import ClipStore

FRAMES = vision.FRAMES
VERDICT_WEIGHT = 3.0
"""How much more the words that decide count than the words around them."""


@dataclass(slots=True)
class TokenCache:
    """Hold the region tokens of some clips before their projection to the language model.

    Attributes:
        tokens: (R, FRAMES, mask_num, V) float16; zero where a region is not visible.
        regions: Per region, (clip, object).
        of_clip: Per clip, its regions' rows.
    """

    tokens: Tensor
    regions: list[tuple[int, int]]
    of_clip: dict[int, list[int]]


def encode_clips(
    model: PixelReferForConditionalGeneration, heads: vision.VisionHeads | None,
    store: ClipStore, numbers: Sequence[int], rng: np.random.Generator, box_share: float = 0.2,
) -> tuple[TokenCache, Tensor, dict[str, float]]:
    """Encode every usable region of some clips, as one batch.

    Args:
        model: The model.
        heads: When given, also score what they read off the tokens.
        store: The clips.
        numbers: Which of them.
        rng: Chooses the regions given as boxes.
        box_share: Their share.

    Returns:
        The region tokens; the heads' loss and scores, 0 and none without heads.
    """
    clips = [store[i] for i in numbers]
    pictures = draw_pictures(clips, model.config, rng, box_share=box_share)
    crops, _, _ = vision.encode(model, pictures.crops)
    contexts, _, _ = vision.encode(model, pictures.contexts)
    frames, _, _ = vision.encode(model, pictures.frames)
    tokens = vision.region_tokens(model, pictures, frames, contexts, crops)
    loss = tokens.new_zeros(())
    scores: dict[str, float] = {}
    if heads is not None:
        loss, scores = vision.region_loss(heads, tokens, pictures, clips)
    empty = tokens.new_zeros(len(pictures.regions), FRAMES, *tokens.shape[1:])
    rows = empty.index_put(
        (torch.tensor(pictures.entry_region), torch.tensor(pictures.entry_step)), tokens)
    return _cache(rows, [(numbers[b], k) for b, k in pictures.regions]), loss, scores


def _cache(tokens: Tensor, regions: list[tuple[int, int]]) -> TokenCache:
    of_clip: dict[int, list[int]] = {}
    for row, (clip, _) in enumerate(regions):
        of_clip.setdefault(clip, []).append(row)
    return TokenCache(tokens, regions, of_clip)


@torch.no_grad()
def cache_tokens(
    model: PixelReferForConditionalGeneration, store: ClipStore, clips: Sequence[int],
    seed: int, on_step: Callable[[], None] = lambda: None,
) -> TokenCache:
    """Encode every usable region of many clips, to be kept in half precision."""
    rng = np.random.default_rng(seed)
    parts, regions = [], []
    for start in range(0, len(clips), 4):
        part, _, _ = encode_clips(model, None, store, clips[start:start + 4], rng)
        parts.append(part.tokens.half())
        regions += part.regions
        on_step()
    return _cache(torch.cat(parts), regions)


@torch.no_grad()
def whiten_projection(model: PixelReferForConditionalGeneration, cache: TokenCache) -> None:
    """Start the projection with all directions of the region tokens equally loud.

    Positions are loud in the tokens and colours, which the vision heads need little of, are
    faint. Started at random, the projection hides the faint ones from the language model for
    a thousand steps and more.
    """
    tokens = cache.tokens.flatten(0, 2).float()
    tokens = tokens[tokens.abs().sum(-1) > 0]
    tokens = tokens[torch.randperm(len(tokens))[:100_000]]
    mean = tokens.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(tokens.T))
    scale = (values + 1e-4 * values.mean()).rsqrt()
    first, _, second = model.region_encoder.feat_linear
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    turn = torch.empty(first.out_features, first.in_features)
    nn.init.orthogonal_(turn)
    first.weight.copy_(turn @ (vectors * scale) @ vectors.T)
    first.bias.copy_(-first.weight @ mean)
    nn.init.xavier_uniform_(second.weight)
    nn.init.zeros_(second.bias)


@dataclass(slots=True)
class Row:
    """Hold one training row: a prefix with branches.

    Attributes:
        ids: Token ids, prefix then branches.
        branch: Per token, 0 in the prefix, else the number of its branch.
        position: Per token, its position as if its branch were alone.
        answer: Per token, whether it is part of an answer.
        weight: Per token, how much its loss counts.
        region: (cache row, frame) per mask of the prefix, in order.
        questions: One per branch.
    """

    ids: list[int]
    branch: list[int]
    position: list[int]
    answer: list[bool]
    weight: list[float]
    region: list[tuple[int, int]]
    questions: list[Question]


class RowMaker:
    """Draw training rows from clips."""

    def __init__(
        self, store: ClipStore, cache: TokenCache, tokenizer: PreTrainedTokenizerBase,
        model: PixelReferForConditionalGeneration, *, questions: int = 6, pair_share: float = 0.45,
    ) -> None:
        """Keep what rows are made of."""
        self._store, self._cache, self._tokenizer = store, cache, tokenizer
        self._config = model.config
        self._clips = sorted(cache.of_clip)
        self._questions, self._pair_share = questions, pair_share

    def draw(self, rng: np.random.Generator) -> Row | None:
        """Draw a row; None when the clip drawn offers none."""
        number = self._clips[int(rng.integers(len(self._clips)))]
        rows = self._cache.of_clip[number]
        clip = self._store[number]
        if len(rows) > 1 and rng.random() < self._pair_share:
            chosen = [int(r) for r in rng.choice(rows, 2, replace=False)]
        else:
            chosen = [int(rng.choice(rows))]
        picture = rng.random() < 0.08
        frames = [self._frames(clip, row, rng, picture) for row in chosen]
        if picture and len({f[0] for f in frames}) > 1:
            return None
        return self._row(clip, chosen, frames, picture, rng)

    def _frames(
        self, clip: Clip, row: int, rng: np.random.Generator, picture: bool
    ) -> tuple[int, ...]:
        """Choose the frames a region is shown in; first and last stay, they settle the motion."""
        thing = clip.things[self._cache.regions[row][1]]
        shown = [i for i, seen in enumerate(thing.visible) if seen]
        if picture or rng.random() < 0.06:
            return (shown[-1],)
        if len(shown) > 2 and rng.random() < 0.2:
            middle = [i for i in shown[1:-1] if rng.random() < 0.5]
            return (shown[0], *middle, shown[-1])
        return tuple(shown)

    def _row(
        self, clip: Clip, chosen: list[int], frames: list[tuple[int, ...]], picture: bool,
        rng: np.random.Generator,
    ) -> Row | None:
        questions = self._ask(clip, chosen, frames, rng)
        if not questions:
            return None
        scale = rng.uniform(0.3, 4) if rng.random() < 0.15 else 1.0
        start = min(f[0] for f in frames)
        count = self._config.mask_num
        texts = []
        for shown in frames:
            times = [float(clip.times_s[i] - clip.times_s[start]) * scale for i in shown]
            texts.append(region_text(len(shown), count, None if picture else times))
        intro = introduction(
            self._config.one_object_prefix_video, self._config.many_objects_prefix_video,
            len(chosen))
        prefix = self._encode('<|im_start|>user\n' + fill_regions(intro, texts))
        row = Row(list(prefix), [0] * len(prefix), list(range(len(prefix))),
                  [False] * len(prefix), [0.0] * len(prefix), [], questions)
        row.region = [(r, i) for r, shown in zip(chosen, frames, strict=True) for i in shown]
        for number, question in enumerate(questions, 1):
            asked = self._encode(f' {question.text}<|im_end|>\n<|im_start|>assistant\n')
            answer = self._encode(f'{question.answer}<|im_end|>')
            size = len(asked) + len(answer)
            row.ids += asked + answer
            row.branch += [number] * size
            row.position += range(len(prefix), len(prefix) + size)
            row.answer += [False] * len(asked) + [True] * len(answer)
            decides = self._encode(question.verdict)
            row.weight += [0.0] * len(asked) + [
                VERDICT_WEIGHT if i in decides else 1.0 for i in answer]
        return row

    def _ask(
        self, clip: Clip, chosen: list[int], frames: list[tuple[int, ...]],
        rng: np.random.Generator,
    ) -> list[Question]:
        things = tuple(self._cache.regions[row][1] for row in chosen)
        kinds: list[str] = [str(k) for k in rng.permutation(ONE_KINDS)]
        if len(things) == 2:
            # What two regions are for comes first; the rest must work with two in view as well.
            kinds = [*PAIR_KINDS, 'closer', *kinds]
        else:
            kinds += ['attribute', 'neighbour', 'neighbour', 'neighbour', 'motion', 'describe']
            kinds = [str(k) for k in rng.permutation(kinds)]
        questions = []
        for kind in kinds:
            question = ask_of(clip, things, tuple(frames), kind, rng)
            # Far more regions have no neighbour than have one.
            if question is None or (question.case == 'nothing' and rng.random() < 0.75):
                continue
            questions.append(question)
            if len(questions) == self._questions:
                break
        return questions

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)['input_ids']
        return ids


@dataclass(slots=True)
class Batch:
    """Hold padded rows, ready for the model.

    Attributes:
        ids: (B, L) int64.
        position: (B, L) int64.
        mask: (B, 1, L, L) float, 0 where a token sees another, else very negative.
        answer: (B, L) bool.
        weight: (B, L) float.
        region: (M, 2) int64, cache row and frame of each mask in order.
        rows: The rows.
    """

    ids: Tensor
    position: Tensor
    mask: Tensor
    answer: Tensor
    weight: Tensor
    region: Tensor
    rows: list[Row]


def collate(rows: list[Row], pad: int) -> Batch:
    """Pad rows to one length."""
    longest = max(len(r.ids) for r in rows)
    shape = (len(rows), longest)
    ids, position = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
    branch, answer = np.full(shape, -1, np.int64), np.zeros(shape, bool)
    weight = np.zeros(shape, np.float32)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n], position[i, :n] = row.ids, row.position
        branch[i, :n], answer[i, :n], weight[i, :n] = row.branch, row.answer, row.weight
    of = torch.from_numpy(branch)
    same = (of[:, None, :] == of[:, :, None]) | (of[:, None, :] == 0)
    sees = same & torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = torch.zeros(sees.shape).masked_fill(~sees, -1e9)[:, None]
    region = torch.tensor([pair for row in rows for pair in row.region])
    return Batch(torch.from_numpy(ids), torch.from_numpy(position), mask,
                 torch.from_numpy(answer), torch.from_numpy(weight), region, rows)


def draw_batch(maker: RowMaker, rng: np.random.Generator, rows: int, pad: int) -> Batch:
    """Draw as many rows as asked for."""
    drawn: list[Row] = []
    while len(drawn) < rows:
        row = maker.draw(rng)
        if row is not None:
            drawn.append(row)
    return collate(drawn, pad)


def answer_loss(
    model: PixelReferForConditionalGeneration, batch: Batch, cache: TokenCache
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the answers' loss, their predicted and right ids, and the region tokens.

    Returns:
        Scalar loss; (N,) predicted ids; (N,) right ids; (M, mask_num, D) region tokens.
    """
    raw = cache.tokens[batch.region[:, 0], batch.region[:, 1]].float()
    tokens = model.region_encoder.feat_linear(raw)
    embeds = model.embed(batch.ids, tokens)
    hidden = model.model(
        inputs_embeds=embeds, attention_mask=batch.mask.to(embeds.dtype),
        position_ids=batch.position, use_cache=False).last_hidden_state
    wanted = batch.answer[:, 1:]
    logits = model.lm_head(hidden[:, :-1][wanted]).float()
    target = batch.ids[:, 1:][wanted]
    weight = batch.weight[:, 1:][wanted]
    each = functional.cross_entropy(logits, target, reduction='none')
    return (each * weight).sum() / weight.sum(), logits.argmax(-1), target, tokens


def shares_right(batch: Batch, predicted: Tensor, target: Tensor) -> dict[str, float]:
    """Return, per key, the share of answers right throughout when the right words precede."""
    right = (predicted == target).tolist()
    out: dict[str, list[bool]] = {}
    at = 0
    for row in batch.rows:
        for number, question in enumerate(row.questions, 1):
            count = sum(a and b == number
                        for b, a in zip(row.branch, row.answer, strict=True))
            out.setdefault(question.key or 'other', []).append(all(right[at:at + count]))
            at += count
    return {key: sum(values) / len(values) for key, values in out.items()}
