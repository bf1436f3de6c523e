# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Build the tabletop model's word tokenizer from the wordings it is trained on."""

from __future__ import annotations

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pixelrefer_ros.models.pixelrefer.prompts import REGION_TOKEN
from pixelrefer_ros.simulation.world import COLOURS, MOTIONS, SHAPES, SIZES
from pixelrefer_ros.training.questions import CANNOT_TELL, DISTANCES, MOTION_WORDS
from pixelrefer_ros.training.wordings import LEAD_INS, SUBJECTS, TAILS, WORDINGS

SPECIAL = ('<|endoftext|>', '<|im_start|>', '<|im_end|>', REGION_TOKEN)
UNKNOWN = '<unk>'
OBJECTS = tuple(f'<object{i}>' for i in range(10))
# Numbers with one decimal (times) or two (distances) and whole numbers are one token each, words
# keep their apostrophe, every other sign stands alone; white space only separates.
_PIECES = r"\d+\.\d{1,2}|\d+|[A-Za-z_]+(?:'[a-z]+)?|[^\sA-Za-z0-9_]"
_ANSWERS = ('It is an so yes no. Nothing is next to it. At and percent of the width: left right '
            'closer m A a An being still Objects Object: user assistant Time [ ] , . ? ! : % -')


def _texts() -> list[str]:
    texts = [*SUBJECTS, *LEAD_INS, *TAILS, *COLOURS, *SHAPES, *SIZES, *MOTIONS,
             *MOTION_WORDS.values(), CANNOT_TELL, _ANSWERS]
    for own, embedded in WORDINGS.values():
        texts += [core for core in (*own, *embedded) if not core.startswith('!')]
    texts += [t.replace('colour', 'color').replace('neighbour', 'neighbor') for t in texts]
    return [t.replace('{', ' ').replace('}', ' ') for t in texts]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: a token per known word, ``<unk>`` for every other.

    Words of held-out wordings that occur in no other wording are unknown.
    """
    split = pre_tokenizers.Split(Regex(_PIECES), 'isolated')
    space = pre_tokenizers.Split(Regex(r'\s+'), 'removed')
    cut = pre_tokenizers.Sequence([space, split])
    words: set[str] = set()
    for text in _texts():
        for word, _ in cut.pre_tokenize_str(text):
            words |= {word, word[0].upper() + word[1:]}
    words |= {f'{t:.1f}' for t in np.arange(0, 10, 0.1)}
    words |= {str(n) for n in range(101)} | set(DISTANCES)
    listed = [*SPECIAL, UNKNOWN, *OBJECTS, *sorted(words)]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(listed)}, UNKNOWN))
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.Sequence([
        decoders.WordPiece(prefix='##', cleanup=True),
        decoders.Replace(' : ', ': '),
        decoders.Replace(Regex(r' :'), ':'),
    ])
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t) for t in (UNKNOWN, *OBJECTS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, eos_token='<|im_end|>',
        pad_token='<|endoftext|>', padding_side='right', clean_up_tokenization_spaces=False,
        additional_special_tokens=[SPECIAL[1], REGION_TOKEN], model_max_length=1024)
