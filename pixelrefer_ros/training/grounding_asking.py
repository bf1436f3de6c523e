# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ask many questions of every clip at once: the clip is read once, each question beside it.

A question costs its own words only; in rows that go on with a key frame (``grounding_rows``)
every token would be compared with all the others, most of which it must not see.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from pixelrefer_ros.training.fast_tower import rotate
from pixelrefer_ros.training.grounding_language import (
    OTHER_HEAD,
    OTHER_LAYER,
    STORY_LAYER,
)
from pixelrefer_ros.training.grounding_rows import HEADS, NONE, RowMaker

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor
    from transformers import Qwen2_5_VLForConditionalGeneration

    from pixelrefer_ros.training.grounding_pictures import Shown
    from pixelrefer_ros.training.grounding_rows import Pointer

ASKED = 6
"""Questions of a clip."""
LONGEST = 96
"""Tokens of a question with its answer; the few longer ones are left to rows."""
FIRST_MENTION_WEIGHT = 4.0
FIRST_WORDS_WEIGHT = 2.5
"""How much more it counts to look at the right thing, and to name it, where nothing has been said
of it yet: what follows can be copied."""

TWIN_WEIGHT = 8.0
"""How much more it counts to look at both of two things that look the same, and at the other of
them: few do."""


@dataclass(slots=True)
class Asked:
    """Hold the questions of a batch of clips, each with its answer.

    Attributes:
        lead: (P,) what stands before every question, the clip's tokens as padding.
        lead_place: (3, P) its positions.
        clip_at: First of the clip's tokens.
        start: Position of the first token of every question.
        ids: (B, Q, L) questions and answers.
        weight: (B, Q, L) how much each token's loss counts, 0 outside of answers.
        pointers: (clip, question, what is read off what); tokens count from the question's start.
    """

    lead: Tensor
    lead_place: Tensor
    clip_at: int
    start: int
    ids: Tensor
    weight: Tensor
    pointers: list[tuple[int, int, Pointer]]

    def to(self, device: torch.device) -> Asked:
        """Return the questions on a device."""
        return replace(self, lead=self.lead.to(device), lead_place=self.lead_place.to(device),
                       ids=self.ids.to(device), weight=self.weight.to(device))


def draw_asked(maker: RowMaker, numbers: Sequence[int], rng: np.random.Generator, pad: int
               ) -> Asked:
    """Draw questions about some clips.

    Args:
        maker: Words them.
        numbers: B clips.
        rng: Chooses questions and words.
        pad: Id of the padding.
    """
    rows = [maker.ask(number, rng, ASKED) for number in numbers]
    ids = torch.full((len(rows), ASKED, LONGEST), pad)
    weight = torch.zeros(len(rows), ASKED, LONGEST)
    pointers = []
    lead = [i for i, node in enumerate(rows[0].node) if node == 0]
    for b, row in enumerate(rows):
        for q, answer in enumerate(row.answers[:ASKED]):
            node = row.node[answer.start]
            own = [i for i, of in enumerate(row.node) if of == node]
            if len(own) > LONGEST:
                continue
            ids[b, q, :len(own)] = torch.tensor(row.ids[own[0]:own[-1] + 1])
            weight[b, q, :len(own)] = torch.tensor(row.weight[own[0]:own[-1] + 1])
            mine = [p._replace(token=p.token - own[0]) for p in row.pointers
                    if own[0] <= p.token <= own[-1]]
            pointers += [(b, q, p) for p in mine]
            for pointer, is_first in zip(mine, _first_named(mine), strict=True):
                if is_first:
                    weight[b, q, pointer.token + 1] *= FIRST_WORDS_WEIGHT
    first = rows[0]
    return Asked(
        torch.tensor([first.ids[i] for i in lead]),
        torch.tensor([first.place[i] for i in lead]).T, first.clip_at,
        max(first.place[i][0] for i in lead) + 1, ids, weight, pointers)


def _first_named(pointers: Sequence[Pointer]) -> list[bool]:
    """Tell which words name a thing for the first time; those of one name follow each other."""
    last: dict[int, int] = {}
    known: set[int] = set()
    first = []
    for pointer in pointers:
        names = pointer.head == HEADS['looks']
        if names:
            if pointer.token > last.get(pointer.thing, pointer.token) + 1:  # another mention
                known.add(pointer.thing)
            last[pointer.thing] = pointer.token
        first.append(names and pointer.thing not in known)
    return first


def run_asked(
    model: Qwen2_5_VLForConditionalGeneration, lead: Tensor, asked: Tensor, lead_place: Tensor,
    start: int,
) -> tuple[Tensor, Tensor]:
    """Run the language model's layers; the arithmetic is that of transformers.

    Args:
        model: The model.
        lead: (B, P, D) what goes in before every question.
        asked: (B, Q, L, D) the questions with their answers.
        lead_place: (3, P) positions of the lead.
        start: Position of the questions' first token.

    Returns:
        (B, Q, L, D) after the last norm, and (B, H + 1, Q, L, P): how much tokens look at the
        lead, the heads of ``STORY_LAYER`` and last ``OTHER_HEAD`` of ``OTHER_LAYER``.
    """
    language = model.model.language_model
    clips, questions, length, _ = asked.shape
    place = (start + torch.arange(length, device=asked.device)).expand(3, 1, length)
    turns = [[part[:, None] for part in language.rotary_emb(lead, at)]
             for at in (lead_place[:, None], place)]
    lead_mask, own_mask = (
        torch.full((n, n), -1e9, device=lead.device, dtype=torch.bfloat16).triu(1)
        for n in (lead.shape[1], length))
    x, y = lead, asked.flatten(0, 1)
    looks = []

    def heads(part: Tensor, dim: int) -> Tensor:
        return part.unflatten(-1, (-1, dim)).transpose(1, 2)

    for number, layer in enumerate(language.layers):
        attention, dim = layer.self_attn, layer.self_attn.head_dim
        read = []
        for part, turn in zip((x, y), turns, strict=True):
            normed = layer.input_layernorm(part)
            read.append((rotate(heads(attention.q_proj(normed), dim) * attention.scaling, *turn),
                         rotate(heads(attention.k_proj(normed), dim), *turn),
                         heads(attention.v_proj(normed), dim)))
        (q, k, v), (own_q, own_k, own_v) = read
        seen = (q @ k.transpose(-1, -2) + lead_mask).softmax(-1).to(v.dtype) @ v
        x = x + attention.o_proj(seen.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))

        # (B Q, H, L, d) -> (B, H, Q L, d): all questions of a clip look at its lead together.
        wide = own_q.unflatten(0, (clips, questions)).transpose(1, 2).flatten(2, 3)
        to_lead = (wide @ k.transpose(-1, -2)).unflatten(2, (questions, length))
        to_own = own_q @ own_k.transpose(-1, -2) + own_mask
        to_own = to_own.unflatten(0, (clips, questions)).transpose(1, 2)
        shares = torch.cat([to_lead, to_own], -1).softmax(-1).to(v.dtype)
        on_lead, on_own = shares.split([lead.shape[1], length], -1)
        if number == STORY_LAYER:
            looks.append(on_lead)
        elif number == OTHER_LAYER:
            looks.append(on_lead[:, OTHER_HEAD:OTHER_HEAD + 1])
        got = (on_lead.flatten(2, 3) @ v).unflatten(2, (questions, length))
        got = got + on_own @ own_v.unflatten(0, (clips, questions)).transpose(1, 2)
        # (B, H, Q, L, d) -> (B Q, L, H d)
        got = got.permute(0, 2, 3, 1, 4).flatten(3).flatten(0, 1)
        y = y + attention.o_proj(got)
        y = y + layer.mlp(layer.post_attention_layernorm(y))
    return language.norm(y).unflatten(0, (clips, questions)), torch.cat(looks, 1)


def pointing_loss(asked: Asked, shown: Shown, looks: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of looking elsewhere than at the thing a word is read off.

    Args:
        asked: The questions.
        shown: What the clips show.
        looks: (B, H + 1, Q, L, P) as ``run_asked`` gives them.

    Returns:
        The loss, and the shares of the looks that are on the thing: of all, of those where a
        thing is spoken of first, of those where each of two that look the same should get
        half of them, and of those that should find the other of the two, or none.
    """
    found, weights = [], []
    said: set[tuple[int, int, int]] = set()
    alike = Counter((b, q, p.token) for b, q, p in asked.pointers if p.head == HEADS['alike'])
    for b, q, pointer in asked.pointers:
        goal = shown.first_cells[b] == pointer.thing
        if pointer.thing == NONE or bool(goal.any()):
            thing = b, q, pointer.thing
            if pointer.head in (HEADS['alike'], HEADS['other']):
                weights.append(TWIN_WEIGHT if alike[b, q, pointer.token] > 1 else 1.0)
            else:
                weights.append(1.0 if thing in said else FIRST_MENTION_WEIGHT)
                said.add(thing)
            found.append((b, pointer.head, q, pointer.token, goal, pointer.thing == NONE))
    if not found:
        return looks.sum() * 0, {}
    clip, head, question, token, goals, none = zip(*found, strict=True)
    cells = slice(asked.clip_at, asked.clip_at + shown.first_cells.shape[1])
    at = looks[torch.tensor(clip), torch.tensor(head), torch.tensor(question),
               torch.tensor(token), cells].float()
    mass = torch.where(torch.tensor(none, device=at.device), 1 - at.sum(-1),
                       (at * torch.stack(goals).to(at.device)).sum(-1))
    weight = torch.tensor(weights, device=mass.device)
    # Shares in half precision may add up to more than one.
    loss = -((mass.clamp(min=0) + 1e-4).log() * weight).sum() / weight.sum()
    twins, other = weight == TWIN_WEIGHT, torch.tensor(head, device=at.device) == HEADS['other']
    marks = {'point': mass, 'point_first': mass[weight == FIRST_MENTION_WEIGHT],
             'point_alike': mass[twins & ~other], 'point_other': mass[twins & other],
             'point_alone': mass[~twins & other]}
    return loss, {name: some.mean().item() for name, some in marks.items() if len(some)}


def asked_scores(asked: Asked, said: Tensor) -> dict[str, float]:
    """Return how often words read off things are right, the right words standing before them.

    'first' counts those that name a thing first, 'named' all that name one, 'frames' the numbers,
    'sides' what follows a look: a side where another looks the same.

    Args:
        asked: The questions.
        said: (B, Q, L) as ``answer_loss`` gives them.
    """
    right = (said == asked.ids).cpu()
    marks: dict[str, list[float]] = {'first': [], 'named': [], 'frames': [], 'sides': []}
    groups: dict[tuple[int, int], list[Pointer]] = {}
    for b, q, pointer in asked.pointers:
        groups.setdefault((b, q), []).append(pointer)
    for (b, q), pointers in groups.items():
        for pointer, is_first in zip(pointers, _first_named(pointers), strict=True):
            hit = float(right[b, q, pointer.token + 1])
            if pointer.head == HEADS['looks']:
                marks['named'].append(hit)
            elif pointer.head == HEADS['alike']:
                marks['sides'].append(hit)
            elif pointer.head in (HEADS['start'], HEADS['stop']):
                marks['frames'].append(hit)
            if is_first:
                marks['first'].append(hit)
    return {name: sum(hits) / len(hits) for name, hits in marks.items() if hits}
