# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Build the embedded grounding model's word tokenizer and say its answers in its words.

One token per known word, whole number or mark of the answer's form; capitals do not count. A
box takes four numbers: even pixels of the picture shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pixelrefer_ros.simulation.reasoning_names import words_of
from pixelrefer_ros.simulation.reasoning_wordings import (
    AROUND_CLAUSES,
    AROUND_NAMES,
    AROUND_QUESTIONS,
    GENERIC,
    WORDINGS,
)
from pixelrefer_ros.simulation.world import COLOURS, SHAPES, SIZES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pixelrefer_ros.simulation.reasoning_clips import ReasoningClip

PAD, END = '<|endoftext|>', '<|im_end|>'
CLIP_START, PICTURE_START = '<|vision_start|>', '<|picture_start|>'
ANCHORS = tuple(f'<|at_{i}|>' for i in range(16))
"""Stand before what is seen, one per row and column of tokens: a token that sees finds at a
fixed distance before it the anchor that tells its row, and that which tells its column."""
SPECIAL = (PAD, '<|im_start|>', END, CLIP_START, PICTURE_START, *ANCHORS, '<|vision_end|>',
           '<|image_pad|>', '<|video_pad|>')
UNKNOWN = '<unk>'
MAX_NUMBER = 255
STEP_PX = 2
"""Boxes are said in multiples of this."""

# The form of an answer, each mark one token; longer ones first.
_FORMS = ('<think>', '</think>', '<answer>', '</answer>', '{"frame_idx":',
          ', "object description": "', '", "bbox_2d": [', '{"bbox_2d": [', '"}', ']}', '[]')
_SIGNS = '[^\\sa-z0-9_]'
# What stories say besides what questions say (simulation.reasoning_accounts and _questions).
_STORY = (
    'it is no thing nothing falls off the table. the arm takes nothing. so moves, stops stays. '
    'one thing moves from frame and does not stop is carried put down at. it starts with the '
    'first last they start: hits. it hits nothing nothing hits it. is hit by. there is a an '
    'no of the width percent; so it is left right of it on. frames. find: box: and user '
    'assistant system ( ) \' " - ! ?'
)

_ANCHORED = ''.join(ANCHORS)
CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role + '\\n' }}"
    '{%- if message.content is string -%}{{ message.content }}'
    '{%- else -%}{%- for part in message.content -%}'
    "{%- if part.type == 'image' -%}"
    f'{PICTURE_START}{_ANCHORED}<|image_pad|><|vision_end|>'
    "{%- elif part.type == 'video' -%}"
    f'{CLIP_START}{_ANCHORED}<|video_pad|><|vision_end|>'
    '{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}'
    "{{ '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def _pieces() -> str:
    escaped = (form.replace('[', r'\[').replace(']', r'\]').replace('{', r'\{').replace(
        '}', r'\}').replace('|', r'\|') for form in _FORMS)
    return '|'.join((*escaped, r'\d+', r"[a-z_]+(?:'[a-z]+)?", _SIGNS))


def _texts() -> list[str]:
    texts = [*COLOURS, *SHAPES, *SIZES, *GENERIC, *AROUND_NAMES, *AROUND_QUESTIONS,
             *AROUND_CLAUSES, _STORY]
    for forms in WORDINGS.values():
        texts += [core for cores in forms for core in cores if not core.startswith('!')]
    for sign in ('{n}', '{o}', '{q}'):
        texts = [text.replace(sign, ' ') for text in texts]
    return texts


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: a token per known word, ``<unk>`` for every other.

    Words of held-out wordings that occur in no other wording are unknown. What it decodes reads
    the same again, token for token.
    """
    # Nothing but what matches is kept, so white space goes.
    cut = pre_tokenizers.Split(Regex(_pieces()), 'removed', invert=True)
    words = {word for text in _texts() for word, _ in cut.pre_tokenize_str(text.lower())}
    numbers = [str(n) for n in range(MAX_NUMBER + 1)]
    listed = [*SPECIAL, UNKNOWN, *_FORMS, *numbers, *sorted(words - set(numbers) - set(_FORMS))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(listed)}, UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.Sequence([
        decoders.WordPiece(prefix='##', cleanup=True),
        decoders.Replace(' :', ':'),
        decoders.Replace(' ;', ';'),
    ])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False)
                                  for t in SPECIAL])
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, eos_token=END, pad_token=PAD,
        padding_side='right', clean_up_tokenization_spaces=False, model_max_length=2048)
    made.chat_template = CHAT_TEMPLATE
    return made


def spoken_box(box: Sequence[float], shown: tuple[int, int], size: tuple[int, int]
               ) -> tuple[int, int, int, int]:
    """Return a box as it is said.

    Args:
        box: x0, y0, x1, y1 in pixels of the original, x1 and y1 exclusive.
        shown: Width and height of the picture that is shown.
        size: Width and height of the original.

    Returns:
        x1, y1, x2, y2 in even pixels of the picture that is shown.
    """
    x0, y0, x1, y1 = (
        round(value * shown[i % 2] / size[i % 2] / STEP_PX) * STEP_PX
        for i, value in enumerate(box))
    return x0, y0, max(x1, x0 + STEP_PX), max(y1, y0 + STEP_PX)


def box_answer(corners: Sequence[int]) -> str:
    """Return the answer of the second turn."""
    return '{"bbox_2d": [' + ', '.join(map(str, corners)) + ']}'


def key_frame_answer(reasoning: str, key: int, description: str,
                     corners: Sequence[int] | None = None) -> str:
    """Return the answer of the first turn, or of the single one when there are corners.

    Args:
        reasoning: What decides.
        key: The key frame; -1 when the target is absent.
        description: Of the target.
        corners: x1, y1, x2, y2 in pixels of the clip's frames.
    """
    answer = '[]'
    if key >= 0:
        box = '' if corners is None else f', "bbox_2d": [{", ".join(map(str, corners))}]'
        answer = f'{{"frame_idx": {key}, "object description": "{description}"{box}}}'
    return f'<think>{reasoning}</think><answer>{answer}</answer>'


def misnamed(
    clip: ReasoningClip, thing: int, description: str, rng: np.random.Generator
) -> str:
    """Return a description with another shape or size, if it still fits no other thing as well."""
    look = list(clip.actors[thing].look)
    part, words = (2, SHAPES) if rng.random() < 0.75 else (0, tuple(SIZES))
    look[part] = str(rng.choice(words))
    for number, other in enumerate(clip.actors):
        if number != thing and sum(a == b for a, b in zip(other.look, look, strict=True)) > 1:
            return description
    return description.replace(words_of(clip.actors[thing].look),
                               words_of((look[0], look[1], look[2])))
