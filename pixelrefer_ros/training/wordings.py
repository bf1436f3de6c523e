# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Word the questions people ask about things on a table, in many ways.

``{s}`` is the thing spoken of, ``{a}`` and ``{b}`` two of them, ``{v}`` a value. A core that
starts with ``!`` is held out: training never sees it. Of the rest, one in eight combinations of
core and sentence around it is held out too.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SUBJECTS = ('it', 'this', 'this object', 'the object', 'that object', 'this thing', 'the thing',
            'that thing', '<object0>')
PAIRS = ('<object0>', '<object1>')

LEAD_INS = ('tell me {q}', 'please tell me {q}', 'can you tell me {q}?', 'could you tell me {q}?',
            'do you know {q}?', 'I want to know {q}', 'please say {q}', 'say {q}',
            'can you say {q}?', 'do you see {q}?', 'can you see {q}?', 'I would like to know {q}',
            'please let me know {q}')
TAILS = ('{q}?', '{q}?', '{q}?', '{q}', 'please, {q}?', '{q}, please?', 'robot, {q}?', 'now, {q}?')

# What a camera does not tell, asked in the sentences that colour, shape and size are asked in: it
# is the noun that decides, not the sentence around it.
_HIDDEN_NOUNS = ('brand', 'weight', 'age', 'price', 'name', 'owner', 'temperature', 'material',
                 'smell', 'taste', 'origin', 'maker', 'value', 'content', 'purpose', 'history',
                 'number', 'date', 'job', 'story')
_NOUN_QUESTIONS = ('what is the {n} of {{s}}', 'which {n} does {{s}} have',
                   'what {n} does {{s}} have', 'what {n} is {{s}}', 'which {n} is {{s}}',
                   'what {n} has {{s}}', 'what is its {n}', 'the {n} of {{s}}')
_NOUNS_HELD_OUT = ('which brand does {s} have', 'what is the material of {s}')
_HIDDEN = tuple(
    text for noun in _HIDDEN_NOUNS for text in (q.format(n=noun) for q in _NOUN_QUESTIONS)
    if text not in _NOUNS_HELD_OUT)

# kind: (questions of their own, parts of a sentence for a lead-in)
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'colour': (
        ('what colour is {s}', 'which colour is {s}', 'what is the colour of {s}',
         'what colour does {s} have', 'which colour does {s} have', 'what colour has {s}',
         'of what colour is {s}', 'what is its colour', 'the colour of {s}',
         '!which is the colour of {s}', '!of which colour is {s}', 'which colour do you see',
         'what colour do you see', 'which colour of object is {s}', 'what colour of thing is {s}',
         'how would you name the colour of {s}'),
        ('what colour {s} is', 'which colour {s} is', 'what colour {s} has',
         'which colour {s} has', 'the colour of {s}', '!what the colour of {s} is',
         'of what colour {s} is', 'its colour'),
    ),
    'shape': (
        ('what shape is {s}', 'which shape is {s}', 'what is the shape of {s}',
         'what shape does {s} have', 'which shape does {s} have', 'what kind of object is {s}',
         'what kind of thing is {s}', 'what sort of object is {s}', 'what sort of thing is {s}',
         'what type of object is {s}', 'what is {s}', 'what object is {s}', 'which object is {s}',
         'what thing is {s}', 'what is its shape', 'the shape of {s}', 'what shape has {s}',
         '!which is the shape of {s}', '!what type of thing is {s}', 'what would you call {s}',
         'how would you name the shape of {s}', 'of what shape is {s}',
         'which type of object is {s}', 'which kind of object is {s}', 'what shape do you see'),
        ('what shape {s} is', 'which shape {s} has', 'what {s} is', 'what kind of object {s} is',
         'what sort of thing {s} is', 'the shape of {s}', 'what type of object {s} is',
         '!what the shape of {s} is', 'what shape {s} has', 'what kind of thing {s} is'),
    ),
    'size': (
        ('how big is {s}', 'how large is {s}', 'what size is {s}', 'what is the size of {s}',
         'which size is {s}', 'what size does {s} have', 'which size does {s} have',
         'of what size is {s}', 'what is its size', 'the size of {s}', 'what size has {s}',
         'how small is {s}', 'is {s} small, medium or large', 'is {s} small or large',
         '!which is the size of {s}', '!how large or small is {s}',
         'how would you name the size of {s}',
         'how big or small is {s}', 'what size do you see'),
        ('how big {s} is', 'how large {s} is', 'what size {s} is', 'which size {s} has',
         'the size of {s}', '!what the size of {s} is', 'what size {s} has', 'how small {s} is'),
    ),
    'motion': (
        ('what is {s} doing', 'how is {s} moving', 'how does {s} move', 'what does {s} do',
         'what is the motion of {s}', 'what motion does {s} make', 'which motion does {s} make',
         'what is happening to {s}', 'what happens to {s}', 'what kind of motion does {s} make',
         'what sort of motion does {s} make', 'in what way is {s} moving',
         'in which way does {s} move', 'what is its motion', 'the motion of {s}',
         'what motion has {s}', 'which motion do you see', 'what movement does {s} make',
         'what is the movement of {s}', '!which is the motion of {s}',
         '!what type of motion does {s} make', 'how would you name the motion of {s}',
         'what kind of movement is {s} making', 'what motion is {s} making',
         'which movement does {s} make', 'in what way does {s} move',
         'what happened to {s}', 'what did {s} do', 'how did {s} move', 'what has {s} done',
         'what has happened to {s}', 'how has {s} moved'),
        ('what {s} is doing', 'how {s} is moving', 'how {s} moves', 'the motion of {s}',
         'what is happening to {s}', 'what happens to {s}', 'what motion {s} makes',
         'what {s} does', '!what the motion of {s} is', 'in what way {s} moves',
         'what kind of motion {s} makes', 'which motion {s} makes', 'what happened to {s}',
         'what {s} did', 'how {s} moved'),
    ),
    'moving': (
        ('is {s} moving', 'does {s} move', 'is {s} in motion', 'has {s} moved', 'did {s} move',
         'is {s} moving at all', 'does {s} move at all', 'is there motion', 'is {s} on the move',
         'does {s} change its place', 'has {s} changed its place', 'do you see {s} move',
         'do you see {s} moving', '!did {s} move at all', '!is {s} in motion at all',
         'would you say {s} is moving', 'would you say that {s} moves', 'is {s} moving or still',
         'has {s} moved at all', 'did {s} change its place'),
        ('whether {s} is moving', 'if {s} is moving', 'whether {s} moves', 'if {s} moves',
         'if {s} moved', 'whether {s} is in motion', '!whether {s} has moved',
         'if {s} has moved', 'whether {s} changes its place', 'if {s} is in motion'),
    ),
    'is_value': (
        ('is {s} {v}', 'is this one {v}', 'does {s} look {v}', 'would you say {s} is {v}',
         'would you say that {s} is {v}', 'is {s} really {v}', 'do you see that {s} is {v}',
         'is {s} {v} or not', '!do you think {s} is {v}', '!does {s} really look {v}',
         'do you think that {s} is {v}', 'does {s} look {v} or not', 'do you think this is {v}'),
        ('whether {s} is {v}', 'if {s} is {v}', '!whether {s} looks {v}', 'if {s} looks {v}',
         'whether {s} is really {v}'),
    ),
    'is_a_value': (
        ('is {s} a {v}', 'does {s} look like a {v}', 'would you say {s} is a {v}',
         'would you call {s} a {v}', 'is {s} really a {v}', 'is {s} some kind of {v}',
         'is {s} a {v} or not', '!do you think {s} is a {v}', '!is {s} really some kind of {v}',
         'do you think that {s} is a {v}', 'do you see a {v}', 'do you think this is a {v}'),
        ('whether {s} is a {v}', 'if {s} is a {v}', '!whether {s} looks like a {v}',
         'if {s} looks like a {v}', 'whether {s} is really a {v}'),
    ),
    'left_or_right': (
        ('is {a} to the left or to the right of {b}', 'is {a} left or right of {b}',
         'on which side of {b} is {a}', 'which side of {b} is {a} on',
         'on what side of {b} is {a}',
         'is {a} on the left or on the right of {b}', 'is {a} on the left or the right of {b}',
         'where is {a}, left or right of {b}', 'is {a} to the left or the right of {b}',
         'left or right of {b}, where is {a}', '!where is {a}, to the left or to the right of {b}',
         '!is {a} at the left or at the right of {b}', 'on which side of {b} do you see {a}',
         'is {a} at the left or the right of {b}'),
        ('whether {a} is left or right of {b}', 'on which side of {b} {a} is',
         'if {a} is to the left or to the right of {b}', '!if {a} is left or right of {b}',
         'whether {a} is on the left or on the right of {b}'),
    ),
    'is_left': (
        ('is {a} to the left of {b}', 'is {a} left of {b}', 'is {a} on the left of {b}',
         'is {a} on the left side of {b}', 'is {a} at the left of {b}',
         'do you see {a} left of {b}',
         '!is {a} really to the left of {b}', 'is {a} really left of {b}'),
        ('whether {a} is left of {b}', 'if {a} is to the left of {b}',
         '!if {a} is on the left of {b}'),
    ),
    'is_right': (
        ('is {a} to the right of {b}', 'is {a} right of {b}', 'is {a} on the right of {b}',
         'is {a} on the right side of {b}', 'is {a} at the right of {b}',
         'do you see {a} right of {b}', '!is {a} really to the right of {b}',
         'is {a} really right of {b}'),
        ('whether {a} is right of {b}', 'if {a} is to the right of {b}',
         '!if {a} is on the right of {b}'),
    ),
    'closer': (
        ('which is closer to the camera, {a} or {b}', 'which is closer, {a} or {b}',
         'which one is closer to the camera, {a} or {b}', 'which of {a} and {b} is closer',
         'is {a} or {b} closer to the camera', 'which object is closer to the camera, {a} or {b}',
         'what is closer to the camera, {a} or {b}', 'which is nearer to the camera, {a} or {b}',
         'which one is nearer, {a} or {b}', 'is {a} or {b} nearer',
         'which of {a} and {b} is nearer to the camera', 'which thing is closer, {a} or {b}',
         'which is closer to us, {a} or {b}', 'what is nearer, {a} or {b}',
         '!which object is nearer, {a} or {b}', '!is {a} or {b} closer to us',
         'which of {a} and {b} is closer to the camera'),
        ('which is closer, {a} or {b}', 'whether {a} or {b} is closer to the camera',
         'which of {a} and {b} is nearer', '!if {a} or {b} is closer',
         'which one is closer to the camera, {a} or {b}', 'if {a} or {b} is nearer'),
    ),
    'neighbour': (
        ('what is next to {s}', 'what is beside {s}', 'what is near {s}',
         'which object is next to {s}', 'what object is beside {s}', 'what thing is next to {s}',
         'what stands next to {s}', 'what is the neighbour of {s}',
         'is there anything next to {s}',
         'is anything beside {s}', 'what else is near {s}', 'what do you see next to {s}',
         'which object is near {s}', 'which thing is beside {s}', 'what stands beside {s}',
         '!which thing is next to {s}', '!what else is beside {s}', 'is there anything near {s}',
         'what is its neighbour', 'which object stands next to {s}'),
        ('what is next to {s}', 'what is beside {s}', 'what is near {s}',
         'which object is next to {s}', '!which object is beside {s}', 'what stands next to {s}',
         'the neighbour of {s}', 'what else is next to {s}'),
    ),
    'describe': (
        ('describe {s}', 'please describe {s}', 'describe {s} in detail', 'tell me about {s}',
         'give a description of {s}', 'give me a description of {s}', 'what do you see',
         'describe {s} in a sentence', 'what can you say about {s}',
         'what can you tell me about {s}',
         'describe what you see', 'please describe {s} in detail', 'describe {s} and its motion',
         'what do you know about {s}', '!give me a description of {s} in detail',
         '!describe {s} in one sentence', 'describe {s} for me', 'can you describe {s}',
         'could you describe {s}', 'please tell me about {s}', 'what do you see here',
         'how would you describe {s}', 'say what you see', 'please describe what you see',
         'what does {s} look like'),
        ('what you see', 'about {s}', 'what you know about {s}', '!what {s} looks like'),
    ),
    'unknowable': (
        ('what brand is {s}', 'who made {s}', 'who owns {s}', 'whose is {s}', 'how heavy is {s}',
         'how much does {s} weigh', 'how much does {s} cost', 'what is the price of {s}',
         'what is {s} made of', 'how old is {s}', 'what is inside {s}', 'what is in {s}',
         'where was {s} made', 'when was {s} made', 'where does {s} come from', 'why is {s} here',
         'what is {s} used for', 'what is {s} for', 'who put {s} here', 'how warm is {s}',
         'what does {s} smell like', 'what does {s} taste like', 'is {s} heavy', 'is {s} new',
         'is {s} old', 'is {s} expensive', 'is {s} warm', 'is {s} full', 'is {s} empty',
         'is {s} clean', 'is {s} broken', 'is {s} mine', 'does {s} belong to me',
         'what will happen next', 'what will {s} do next', 'what was {s} doing before',
         'what is the name of {s}', 'which material is {s}', 'what time is it',
         'what day is it', 'who is here', 'how many people are there', 'what is your name',
         'what is written on {s}', 'does {s} feel soft', 'how soft is {s}', 'is {s} made of wood',
         'is {s} made of metal', 'which brand is {s}', 'what brand of thing is {s}',
         'what is the weight of {s}', 'what is the brand of {s}', 'what is the age of {s}',
         '!which brand does {s} have', '!what is the material of {s}', '!who does {s} belong to',
         '!how expensive is {s}', '!what does {s} weigh', 'can I eat {s}', 'can I buy {s}',
         'what does {s} contain', 'what does {s} need', 'what does {s} want', 'what does {s} know',
         'what does {s} hold', 'does {s} weigh much', 'does {s} cost much', 'how cheap is {s}',
         'how hot is {s}', 'how strong is {s}', 'how good is {s}', 'how full is {s}',
         'how clean is {s}', 'how new is {s}', 'who does {s} know', 'who does {s} work for',
         'who gave {s} to me', 'who left {s} here', 'does {s} belong to us', *_HIDDEN,
         'where can I buy {s}', 'what does {s} cost', 'is {s} a person', 'is {s} a dog',
         'is {s} a car', 'how fast does {s} drive', 'what music is playing',
         'what is the weather'),
        ('what brand {s} is', 'who made {s}', 'who owns {s}', 'how heavy {s} is',
         'what {s} is made of', 'how old {s} is', 'what is inside {s}', 'what {s} costs',
         '!which brand {s} is', 'where {s} was made', 'whether {s} is heavy', 'if {s} is new',
         'why {s} is here', 'what {s} is used for', 'how much {s} weighs', 'the price of {s}',
         'the weight of {s}', 'the brand of {s}', 'what will happen next'),
    ),
}


def _held_out(core: str, template: str) -> bool:
    """Tell whether training never sees a template: its core is held out, or it is one of 1 in 8.

    Signs and capitals do not count, so that "What colour is it" and "what colour is it?" are one.
    """
    words = re.findall(r"[a-z']+|{.}", template.lower())
    return core.startswith('!') or zlib.crc32(' '.join(words).encode()) % 8 == 0


def word(
    kind: str, rng: np.random.Generator, *, held_out: bool = False, two: bool = False,
    swap: bool = False, value: str = '',
) -> str:
    """Word a question.

    Args:
        kind: Key of ``WORDINGS``.
        rng: Chooses among the wordings.
        held_out: Use a wording that training never sees; otherwise one that it may see.
        two: Two things are in view: name the one spoken of.
        swap: Speak of ``<object1>`` first.
        value: For ``is_value`` and ``is_a_value``.
    """
    while True:
        lead = rng.random() < 0.3
        own, embedded = WORDINGS[kind]
        core = str(rng.choice(embedded if lead else own))
        frame = str(rng.choice(LEAD_INS if lead else TAILS))
        text = frame.replace('{q}', core.removeprefix('!'))
        named = '{s}' in text or '{a}' in text
        if _held_out(core, text) == held_out and (named or not two):
            break
    if kind == 'describe' and not lead:
        text = text.replace('?', '.') if core.split()[0] in ('describe', 'give', 'say') else text
    first, second = reversed(PAIRS) if swap else PAIRS
    text = text.format(
        s=first if two else str(rng.choice(SUBJECTS)), a=first, b=second, v=value)
    if value and value[0] in 'aeiou':
        text = text.replace(f' a {value}', f' an {value}')
    if rng.random() < 0.4:
        text = text.replace('colour', 'color').replace('neighbour', 'neighbor')
    if rng.random() < 0.75:
        text = text[0].upper() + text[1:]
    return text if text.endswith('?') or rng.random() < 0.3 else text.rstrip('.') + '.'
