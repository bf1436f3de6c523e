# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Teach the grounding model to reason over a clip's tokens and to say boxes of a key frame's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from pixelrefer_ros.simulation.reasoning_story import ROLES
from pixelrefer_ros.training.fast_tower import rotate
from pixelrefer_ros.training.grounding_config import KEY_SIZE
from pixelrefer_ros.training.grounding_pictures import Shown, iou, labels, looks_of
from pixelrefer_ros.training.grounding_rows import HEADS, NONE
from pixelrefer_ros.training.grounding_words import STEP_PX
from pixelrefer_ros.training.pictures import COLOUR_IDS, IGNORE, SHAPE_IDS, SIZE_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

    from pixelrefer_ros.training.grounding_batch import Batch

BOX_LAYER, STORY_LAYER, OTHER_LAYER = 3, 4, 6
"""Layers whose heads speak of where a thing's box ends, of what it does and when, and of the
other thing that looks the same."""
OTHER_HEAD = 4
ROLE_WORDS = {'stay': 'stays', 'move': 'moves', 'hit by': 'hit', 'go': 'not', 'fall': 'falls',
              'carry': 'carried', 'hit': 'hits'}
_BLUR_STEPS = 1.0  # a box that ends a step beside is nearly right


@dataclass(slots=True)
class Read:
    """Hold what the model made of a batch.

    Attributes:
        hidden: Per layer, (B, L, D) what goes in; the last is what comes out of all.
        out: (B, L, D) after the last norm.
    """

    hidden: list[Tensor]
    out: Tensor


def run_layers(
    model: Qwen2_5_VLForConditionalGeneration, x: Tensor, place: Tensor, mask: Tensor
) -> list[Tensor]:
    """Run the language model's layers; the arithmetic is that of transformers.

    Args:
        model: The model.
        x: (B, L, D) what goes in.
        place: (3, B, L) positions.
        mask: (B, 1, L, L), added to the scores.

    Returns:
        What goes into each layer, and what comes out of the last, (B, L, D) each.
    """
    language, hidden = model.model.language_model, [x]
    cos, sin = (part[:, None] for part in language.rotary_emb(x, place))
    for layer in language.layers:
        attention, normed = layer.self_attn, layer.input_layernorm(x)
        q, k, v = (project(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
                   for project in (attention.q_proj, attention.k_proj, attention.v_proj))
        q, k = rotate(q * attention.scaling, cos, sin), rotate(k, cos, sin)
        scores = q @ k.transpose(-1, -2)
        scores = scores + mask.to(scores.dtype)
        read = scores.softmax(-1).to(v.dtype) @ v
        x = x + attention.o_proj(read.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        hidden.append(x)
    return hidden


def read_batch(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch, tokens: tuple[Tensor, Tensor],
    layers: Callable[..., list[Tensor]] = run_layers,
) -> Read:
    """Run the model over rows.

    Args:
        model: The model.
        batch: The rows.
        tokens: (B, n, D) of their clips and (B, m, D) of their key frames.
        layers: ``run_layers``, or a compiled one.
    """
    language = model.model.language_model
    embeds = language.embed_tokens(batch.ids)
    each = torch.arange(len(batch.ids), device=embeds.device)[:, None]
    for at, part in zip((batch.clip_at, batch.key_at), tokens, strict=True):
        embeds = embeds.index_put((each, at), part.to(embeds.dtype))
    hidden = layers(model, embeds, batch.place, batch.mask)
    return Read(hidden, language.norm(hidden[-1]))


def answer_loss(
    model: Qwen2_5_VLForConditionalGeneration, out: Tensor, ids: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the answers' loss, and (..., L) ids said; those outside of answers mean nothing.

    Args:
        model: The model.
        out: (..., L, D) after the last norm.
        ids: (..., L) what is to be said.
        weight: (..., L) how much each token's loss counts, 0 outside of answers.
    """
    counted = weight[..., 1:]
    wanted = counted > 0
    logits = model.lm_head(out[..., :-1, :][wanted]).float()
    each = functional.cross_entropy(logits, ids[..., 1:][wanted], reduction='none')
    said = torch.zeros_like(ids)
    said[..., 1:][wanted] = logits.detach().argmax(-1)
    return (each * counted[wanted]).sum() / counted.sum(), said


class Alignment:
    """Make some heads say words of what they look at, beside the answers' own loss.

    Of one head each, the values say where a thing's box ends, when it starts and stops, what it
    does and how it looks; naming is then copying. And where such a word is said next, the head
    must look at the thing.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Look the words up."""

        def ids(words: Sequence[object]) -> Tensor:
            found = tokenizer.convert_tokens_to_ids([str(word) for word in words])
            return torch.tensor(found)

        self._looks = {'colour': ids([*COLOUR_IDS]), 'shape': ids([*SHAPE_IDS]),
                       'size': ids([*SIZE_IDS])}
        self._steps = ids(range(0, max(KEY_SIZE) + 1, STEP_PX))
        self._frames = ids(range(16))
        roles = list(dict.fromkeys(ROLE_WORDS.values()))
        self._roles = ids(roles)
        self._role_of = torch.tensor([roles.index(ROLE_WORDS[role])
                                      for role in (*ROLES, 'hit by')])

    def loss(
        self, model: Qwen2_5_VLForConditionalGeneration, batch: Batch, shown: Shown, read: Read
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and how often each is right, of the tokens that show a thing."""
        each = torch.arange(len(batch.ids), device=batch.ids.device)[:, None]
        table = model.model.language_model.embed_tokens.weight.float()
        loss, scores = table.new_zeros(()), {}
        looks = [looks_of(clip) for clip in shown.facts]

        def add(name: str, said: Tensor, words: Tensor, target: Tensor, blur: float = 0) -> None:
            nonlocal loss
            on = target != IGNORE
            if not bool(on.any()):
                return
            target = target.to(said.device)
            logits = said.float()[on.to(said.device)] @ table[words.to(said.device)].T
            aim = target[on.to(said.device)]
            if blur:
                steps = torch.arange(len(words), device=said.device)
                soft = torch.softmax(-0.5 * ((steps - aim[:, None]) / blur) ** 2, -1)
                loss = loss + functional.cross_entropy(logits, soft)
                scores[name] = ((logits.argmax(-1) - aim).abs() <= 2).float().mean().item()
            else:
                loss = loss + functional.cross_entropy(logits, aim)
                scores[name] = (logits.argmax(-1) == aim).float().mean().item()

        def of_cells(fact: str, cells: Tensor) -> Tensor:
            return torch.stack([labels(look[fact], part)
                                for look, part in zip(looks, cells, strict=True)])

        story = read.hidden[STORY_LAYER][each, batch.clip_at]
        for fact in ('start', 'stop'):
            target = of_cells(fact, shown.first_cells)
            target = torch.where(target > 0, target - 1, IGNORE)  # class 0: never
            add(fact, _values(model, story, STORY_LAYER, HEADS[fact]), self._frames, target, 0.5)
        role = of_cells('role', shown.first_cells)
        role = torch.where(role == IGNORE, IGNORE, self._role_of[role.clamp(min=0)])
        add('role', _values(model, story, STORY_LAYER, HEADS['role']), self._roles, role)
        named = _values(model, story, STORY_LAYER, HEADS['looks'])
        for fact, words in self._looks.items():
            add(f'named_{fact}', named, words, of_cells(fact, shown.first_cells))
        boxes = read.hidden[BOX_LAYER][each, batch.key_at]
        for head, name in enumerate(('x1', 'y1', 'x2', 'y2')):
            target = torch.stack([
                labels((box[:, head] / STEP_PX).round().long().tolist(), cells)
                for box, cells in zip(shown.boxes, shown.picture_cells, strict=True)])
            add(name, _values(model, boxes, BOX_LAYER, head), self._steps, target, _BLUR_STEPS)
        pointing, mass = pointer_loss(model, batch, shown, read)
        return loss + pointing, {**scores, **mass}


def _values(
    model: Qwen2_5_VLForConditionalGeneration, tokens: Tensor, number: int, head: int
) -> Tensor:
    """Return what an attention head adds to a token that looks at these, (B, n, D)."""
    layer = model.model.language_model.layers[number]
    attention = layer.self_attn
    part = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
    values = attention.v_proj(layer.input_layernorm(tokens))[..., part]
    return functional.linear(values, attention.o_proj.weight[:, part])


def pointer_loss(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch, shown: Shown, read: Read
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of looking elsewhere than at the thing a word is read off.

    Returns:
        The loss, and the share of the heads' looks that are on the thing.
    """
    layers = {'point_key': BOX_LAYER, 'point_single': BOX_LAYER, 'point_clip': STORY_LAYER,
              'point_other': OTHER_LAYER}
    groups: dict[str, list[tuple[int, int, int, Tensor, bool]]] = {name: [] for name in layers}
    for b, row in enumerate(batch.rows):
        for p in row.pointers:
            cells = (shown.picture_cells if p.in_key else shown.first_cells)[b]
            name, head = 'point_clip', p.head
            if p.box:
                name = 'point_key' if p.in_key else 'point_single'
            elif head == HEADS['other']:
                name, head = 'point_other', OTHER_HEAD
            goal = cells == p.thing
            if p.thing == NONE or bool(goal.any()):
                groups[name].append((b, p.token, head, goal, p.thing == NONE))
    total, parts = read.out.new_zeros((), dtype=torch.float32), {}
    for name, found in groups.items():
        if not found:
            continue
        at = batch.key_at if name == 'point_key' else batch.clip_at
        of, token, heads, goals, none = zip(*found, strict=True)
        looks = _attention(model, batch, read, layers[name],
                           (torch.tensor(of), torch.tensor(token)), torch.tensor(heads), at)
        on = (looks * torch.stack(goals).to(looks.device)).sum(-1)
        mass = torch.where(torch.tensor(none, device=looks.device), 1 - looks.sum(-1), on)
        total = total - (mass.clamp(min=0) + 1e-4).log().mean()
        parts[name] = mass.mean().item()
    return total, parts


def _attention(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch, read: Read, number: int,
    where: tuple[Tensor, Tensor], head: Tensor, at: Tensor,
) -> Tensor:
    """Return how much some tokens look at each of the tokens that see, (N, n).

    Args:
        model: The model.
        batch: The rows.
        read: What it made of them.
        number: The layer.
        where: (N,) rows and (N,) tokens that look.
        head: (N,) with which head.
        at: (B, n) the tokens that see.
    """
    language = model.model.language_model
    layer, hidden = language.layers[number], read.hidden[number]
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    cos, sin = language.rotary_emb(hidden, batch.place)

    def split(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, attention.head_dim))

    row, token = (part.to(hidden.device) for part in where)
    head = head.to(hidden.device)
    query = split(attention.q_proj(normed[row, token]))[torch.arange(len(row)), head]
    query = rotate(query, cos[row, token], sin[row, token])
    keys = split(attention.k_proj(normed))[row, :, head]
    keys = rotate(keys, cos[row], sin[row])
    scores = torch.einsum('nd,nld->nl', query.float(), keys.float()) * attention.scaling
    scores = scores + batch.mask[row, 0, token].float()
    return scores.softmax(-1).gather(1, at[row])


def shares_right(
    batch: Batch, said: Tensor, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """Return how often what decides is right, the right words standing before it.

    'absent' and 'present' say how often a target is told absent or present rightly, 'frame'
    how often the key frame shows it, 'described' and 'reasoned' how often all words are right,
    'box' and 'single_box' how often the IoU passes 0.5.
    """
    marks: dict[str, list[float]] = {}
    form = tokenizer.convert_tokens_to_ids('{"frame_idx":')
    begins = tokenizer.convert_tokens_to_ids('<answer>')

    def number(token: int) -> float:
        text = tokenizer.convert_ids_to_tokens(token)
        return float(text) if text.isdigit() else -1.0

    for b, row in enumerate(batch.rows):
        for answer in row.answers:
            right, told = row.ids[answer.start:answer.end], said[b, answer.start:answer.end]
            words = told.tolist()
            if answer.kind == 'box':
                places = [1, 3, 5, 7]
                marks.setdefault('box', []).append(_hit(words, right, places, number))
                continue
            if answer.kind == 'single':
                if answer.target is not None:
                    count = len(right)
                    places = [count - 10 + 2 * i for i in range(4)]
                    marks.setdefault('single_box', []).append(_hit(words, right, places, number))
                continue
            at = right.index(begins) + 1
            there = answer.target is not None
            marks.setdefault('present' if there else 'absent', []).append(
                float((words[at] == form) == there))
            marks.setdefault('reasoned', []).append(float(words[:at] == right[:at]))
            if answer.target is not None:
                marks.setdefault('described', []).append(
                    float(words[at + 2:] == right[at + 2:]))
                marks.setdefault('same_frame', []).append(float(words[at + 1] == right[at + 1]))
    return {name: sum(some) / len(some) for name, some in marks.items()}


def _hit(
    words: list[int], right: list[int], places: list[int], number: Callable[[int], float]
) -> float:
    """Return whether the boxes at some places of two answers overlap by more than half."""
    said, wanted = (torch.tensor([[number(ids[i]) for i in places]]) for ids in (words, right))
    return float(iou(said, wanted)[0] > 0.5)
