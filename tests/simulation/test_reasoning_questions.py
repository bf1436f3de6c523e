# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check questions about stories against the paths of their things; nothing is rendered."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='needs the extra [sim]')

from pixelrefer_ros.simulation.reasoning_clips import KINDS, assignment, rehearse
from pixelrefer_ros.simulation.reasoning_questions import ask, questions, roles_for
from pixelrefer_ros.simulation.reasoning_story import STEPS, StoryTeller
from pixelrefer_ros.simulation.reasoning_wordings import WORDINGS, word
from pixelrefer_ros.simulation.world import COLOURS, SHAPES, SIZES, TABLE_HALF, footprint_m

CLIPS = 100


@pytest.fixture(scope='module')
def told():
    """Return stories with their clips, two rounds of every kind and its absent target."""
    made = []
    for seed in range(CLIPS):
        kind, absent = assignment(seed)
        rng = np.random.default_rng(seed)
        teller = StoryTeller(rng, 16)
        for _ in range(60):
            story = teller.tell(roles_for(kind, absent, rng), kind in ('stayed', 'moved'))
            clip = rehearse(story, seed, 16)
            question = ask(clip, kind, absent, np.random.default_rng(seed))
            if question is not None:
                made.append((story, clip, question))
                break
    return made


def deeds(story) -> list[dict[str, float]]:
    """Read from its path alone what every thing does."""
    times = np.linspace(0, story.span_s, 400)
    found = []
    for thing in story.world.things:
        path = np.array([thing.position(t) for t in times])
        step = np.linalg.norm(np.diff(path, axis=0), axis=1) > 1e-6
        found.append({
            'moves': bool(step.any()),
            'starts': float(times[np.argmax(step)]) if step.any() else np.inf,
            'ends': float(times[len(step) - np.argmax(step[::-1])]) if step.any() else -np.inf,
            'falls': bool(path[-1, 2] < -0.1),
            'rests': bool(step.any() and not step[-20:].any()),
        })
    return found


DOERS = {
    'fell': lambda a: a.role == 'fall',
    'carried': lambda a: a.role == 'carry',
    'stopped': lambda a: a.stop >= 0,
    'stayed': lambda a: not a.moves,
    'moved': lambda a: a.moves,
}


def said_of(text: str) -> tuple[set[str], str]:
    """Return the looks that a question names, and what it says of another thing."""
    words = re.findall('[a-z]+', text.lower())
    return {w for w in words if w in COLOURS or w in SHAPES or w in SIZES}, ' '.join(words)


def test_every_kind_is_asked_and_every_fifth_target_is_absent(told) -> None:
    assert len(told) == CLIPS
    present = Counter(q.kind for _, _, q in told if q.target is not None)
    absent = Counter(q.kind for _, _, q in told if q.target is None)
    assert present == dict.fromkeys(KINDS, 8)
    assert absent == dict.fromkeys(KINDS, 2)


def test_exactly_one_thing_answers_by_its_path(told) -> None:
    """What the words ask for is found again from words and paths; once, or never if absent."""
    checked = 0
    for story, clip, question in told:
        done = {
            'fell': lambda d: d['falls'],
            'moved': lambda d: d['moves'],
            'stayed': lambda d: not d['moves'],
            'stopped': lambda d: d['rests'],
        }.get(question.kind)
        if done is None:
            continue
        looks, _ = said_of(question.text)
        answers = [
            k for k, (d, a) in enumerate(zip(deeds(story), clip.actors, strict=True))
            if done(d) and looks <= {a.colour, a.shape, a.size}]
        assert answers == ([] if question.target is None else [question.target]), question
        checked += 1
    assert checked == 40


def test_the_first_starts_clearly_first_and_the_last_moves_last(told) -> None:
    for story, _, question in told:
        if question.kind not in ('first', 'last'):
            continue
        found = deeds(story)
        movers = [k for k, d in enumerate(found) if d['moves']]
        if question.target is None:
            assert not movers
            continue
        gap = story.span_s / STEPS
        others = [found[k] for k in movers if k != question.target]
        assert others
        own = found[question.target]
        if question.kind == 'first':
            assert all(own['starts'] + gap < d['starts'] for d in others)
        else:
            assert all(own['starts'] > d['starts'] + gap for d in others)
            assert all(own['ends'] > d['ends'] for d in others)


def test_what_is_hit_moves_when_the_other_reaches_it(told) -> None:
    hits = 0
    for story, _, question in told:
        if question.kind not in ('hit', 'hitter') or question.target is None:
            continue
        event = next(e for e in story.events if e.kind == 'hits')
        assert question.target == (event.other if question.kind == 'hit' else event.thing)
        a, b = story.world.things[event.thing], story.world.things[event.other]
        reach = footprint_m(a.shape, a.extent_m) + footprint_m(b.shape, b.extent_m)
        gap = np.linalg.norm(a.position(event.start_s) - b.position(event.start_s))
        assert gap == pytest.approx(reach, abs=1e-6)
        np.testing.assert_allclose(b.position(0.0), b.position(event.start_s))
        assert np.linalg.norm(b.position(story.span_s) - b.position(0.0)) > 0.09
        hits += 1
    assert hits == 16


def test_what_is_carried_hangs_on_the_arm(told) -> None:
    for story, _, question in told:
        if question.kind == 'carried' and question.target is not None:
            thing = story.world.things[question.target]
            event = next(e for e in story.events if e.kind == 'carried')
            middle = (event.start_s + event.end_s) / 2
            assert thing.hand is not None
            assert thing.hand(middle) == 0.0
            assert thing.hand(0.0) > 0.5
            assert thing.position(middle)[2] > 0.06
            assert thing.position(story.span_s)[2] == 0.0


def test_things_move_far_enough_and_do_not_run_through_each_other(told) -> None:
    for story, _, _ in told:
        times = np.linspace(0, story.span_s, 90)
        things = story.world.things
        paths = [np.array([t.position(s) for s in times]) for t in things]
        pairs = {(e.thing, e.other) for e in story.events if e.kind == 'hits'}
        for k, path in enumerate(paths):
            travel = np.linalg.norm(path - path[0], axis=1).max()
            assert travel == 0 or travel > 0.089
            high = path[:, 2] >= 0
            # Before it falls the middle of a thing may pass the edge by less than its half.
            assert (np.abs(path[high, :2]) <= np.array(TABLE_HALF) + 0.06).all()
            for j in range(k):
                apart = np.hypot(*(path - paths[j])[:, :2].T)
                level = np.abs(path[:, 2] - paths[j][:, 2]) < 0.02
                reach = sum(footprint_m(things[i].shape, things[i].extent_m) for i in (j, k))
                # Between two of the times that were checked, things may come a little closer.
                slack = 0.001 if (j, k) in pairs or (k, j) in pairs else 0.004
                assert (apart[level] > reach - slack).all()


def test_reasoning_ends_in_the_verdict_and_names_the_target(told) -> None:
    for _, clip, question in told:
        assert 2 <= len(question.reasoning.split()) < 90
        if question.target is None:
            assert question.description == ''
            assert question.key == -1
            assert re.search(r'\b[Nn]o(thing)?\b', question.reasoning.split('. ')[-1]), question
        else:
            actor = clip.actors[question.target]
            assert question.description.startswith(
                f'the {actor.size} {actor.colour} {actor.shape}')
            last = question.reasoning.rstrip('.').split('. ')[-1]
            assert {actor.colour, actor.shape} <= set(last.split()), question.reasoning


def test_descriptions_tell_look_alikes_apart(told) -> None:
    sides = 0
    for _, clip, question in told:
        if question.target is None:
            continue
        own = clip.actors[question.target]
        for k, other in enumerate(clip.actors):
            if k != question.target and other.look == own.look:
                side = 'left' if own.x[question.key] < other.x[question.key] else 'right'
                assert question.description.endswith(f'on the {side}')
                sides += 1
    assert sides >= 3


def test_look_alikes_that_do_something_else_are_common(told) -> None:
    """Most questions for what moved or stayed name looks that another thing has too."""
    hard = total = 0
    for _, clip, question in told:
        if question.kind in ('moved', 'stayed') and question.target is not None:
            looks, _ = said_of(question.text)
            hard += sum(looks <= {a.colour, a.shape, a.size} for a in clip.actors) > 1
            total += 1
    assert hard / total > 0.6


def test_several_questions_of_a_clip_differ_in_kind(told) -> None:
    counts: Counter[bool] = Counter()
    for i, (_, clip, _) in enumerate(told):
        some = questions(clip, np.random.default_rng(i), 4)
        kinds = [q.kind for q in some]
        assert 1 <= len(kinds) == len(set(kinds)) <= 4
        assert kinds[0] == clip.kind or clip.kind not in kinds
        counts.update(q.target is None for q in some)
    assert 0.1 < counts[True] / counts.total() < 0.35


@pytest.mark.parametrize('kind', list(WORDINGS))
def test_training_never_sees_the_wordings_held_out(kind: str) -> None:
    rng = np.random.default_rng(3)

    def some(held_out: bool) -> set[str]:
        texts = (word(kind, rng, 'red ball', 'the blue cube', held_out=held_out)
                 for _ in range(400))
        return {re.sub('[^a-z ]', '', t.lower()) for t in texts}

    seen, held_out = some(False), some(True)
    assert not seen & held_out
    assert len(seen) > 20
    assert len(held_out) > 8
    assert all('red ball' in text for text in seen | held_out)
    if kind not in ('first', 'last', 'fell', 'carried', 'stopped', 'stayed', 'moved', 'refer'):
        assert all('the blue cube' in text for text in seen | held_out)


def test_any_thing_is_asked_for_in_words_too() -> None:
    rng = np.random.default_rng(5)
    texts = {word('fell', rng) for _ in range(200)}
    assert any('what fell' in t.lower() for t in texts)
    assert not any('{' in t or '!' in t for t in texts)


def test_a_question_of_another_clip_is_not_asked(told) -> None:
    """A clip in which nothing falls has no fallen thing to ask for, and the other way round."""
    rng = np.random.default_rng(1)
    for story, clip, _ in told[:40]:
        falls = any(e.kind == 'falling' for e in story.events)
        present = ask(clip, 'fell', False, rng)
        assert present is None or falls
        if not falls:
            in_vain = ask(clip, 'fell', True, rng)
            assert in_vain is not None
            assert in_vain.target is None


def test_wordings_held_out_ask_the_same(told) -> None:
    for _, clip, question in told[:50]:
        other = ask(clip, clip.kind, clip.absent, np.random.default_rng(clip.seed),
                    held_out=True)
        assert other is not None
        assert other.text != question.text
        assert (other.target, other.reasoning, other.key, other.description) == (
            question.target, question.reasoning, question.key, question.description)


@pytest.mark.parametrize('frames', [8, 24])
def test_other_numbers_of_frames_count_in_their_own_frames(told, frames: int) -> None:
    for story, clip, _ in told[:30]:
        other = rehearse(story, clip.seed, frames)
        for few, many in zip(clip.actors, other.actors, strict=True):
            assert few.moves == many.moves
            assert max(many.start, many.stop) < frames
            if few.start > 0:
                assert abs(few.start / 15 - many.start / (frames - 1)) < 1.01 / min(frames - 1, 15)


@pytest.mark.parametrize('kinds', [('refer',), ('moved', 'stayed', 'stopped')])
def test_the_words_of_a_look_do_not_tell_whether_it_is_there(told, kinds) -> None:
    """Who asks for a "small red cube" is as likely to be asking in vain as who wants a "cube"."""
    lengths = {True: [], False: []}
    for number, (_, clip, _) in enumerate(told):
        for absent, found in lengths.items():
            for n, kind in product(range(4), kinds):
                asked = ask(clip, kind, absent, np.random.default_rng((number, n)))
                if asked is not None and 'percent' not in asked.reasoning:
                    found.append(len(said_of(asked.text)[0]))
    # But for what moved, whatever it looks like.
    lengths = {absent: [n for n in found if n] for absent, found in lengths.items()}
    assert min(map(len, lengths.values())) > 100
    shares = {absent: [found.count(n) / len(found) for n in (1, 2, 3)]
              for absent, found in lengths.items()}
    assert np.abs(np.subtract(shares[True], shares[False])).max() < 0.12
    assert min(shares[True] + shares[False]) > 0.03


def test_what_comes_nearest_is_held_against_the_question(told) -> None:
    """Word by word: what is asked for, then what the thing is; the first that differs is last."""
    counts = Counter()
    for number, (_, clip, _) in enumerate(told):
        looks = [a.look for a in clip.actors]
        for kind, absent in product(('refer', *DOERS), (False, True)):
            asked = ask(clip, kind, absent, np.random.default_rng(number))
            if asked is None or 'percent' in asked.reasoning:
                continue
            wanted, _ = said_of(asked.text)
            pairs = re.findall(r'(\w+)\? It is (?:a )?(\w+)\.', asked.reasoning)
            named = re.search(r'[Tt]he (\w+ \w+ \w+)( on|\.| stays| is| moves)',
                              asked.reasoning)
            verdict = asked.reasoning.rpartition('. ')[2]
            if 'othing' in verdict or named is None:
                assert not pairs
                assert absent
                continue
            look = tuple(named[1].split())
            able = looks if kind == 'refer' else [a.look for a in clip.actors if DOERS[kind](a)]
            assert look in able
            assert len(wanted & set(look)) == max(len(wanted & set(other)) for other in able)
            held = [(word.lower(), has) for word, has in pairs]
            assert all(has in look for _, has in held)
            assert all(word == has for word, has in held[:-1])
            assert (not held or held[-1][0] == held[-1][1]) == (not absent)
            assert {word for word, _ in held} <= wanted
            assert absent or {word for word, _ in held} == wanted
            assert verdict.startswith('So it is ') == (not absent)
            counts[kind, absent] += bool(held)
    assert min(counts[kind, absent] for kind in ('refer', *DOERS) for absent in (False, True)) > 4


def test_what_is_spoken_of_is_named_first(told) -> None:
    """Which thing to begin with must not take knowing how the answer will end."""
    counts = Counter()
    for number, (_, clip, _) in enumerate(told):
        for kind, absent in product(('hit', 'hitter'), (False, True)):
            asked = ask(clip, kind, absent, np.random.default_rng(number))
            if asked is None:
                continue
            spoken, _ = said_of(asked.text)
            assert spoken
            assert spoken <= set(asked.reasoning.split('.')[0].split()[1:4])
            counts[kind, absent] += 1
    assert min(counts.values()) > 10
