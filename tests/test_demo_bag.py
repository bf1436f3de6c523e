# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what the demo asks for in words: that it has one answer, and how much of it is found."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.topics import Role
from pixelrefer_ros.bags.truth import Spot, box_at, load_truth
from pixelrefer_ros.core.types import NS_PER_S, Answer, ErrorCode, Evidence, PixelReferError, Task
from pixelrefer_ros.grounding.load import load_grounder
from pixelrefer_ros.grounding.results import Status
from pixelrefer_ros.models.chat.settings import ChatSettings

ROOT = Path(__file__).resolve().parents[1]
BAG, TRUTH = ROOT / 'demo' / 'tabletop.mcap', load_truth(ROOT / 'demo' / 'tabletop.truth.json')
WINDOW_S = 8.0  # as far back as the node looks
LAST_STOP = 12.8 / 15  # of a window: the model is taught with things that stop before


@pytest.fixture(scope='module')
def queries():
    with Bag(BAG) as bag:
        found = [event.value for event in bag.events({Role.QUERY})]
    return [query for query in found if query.task == Task.GROUND]


def window_s(query):
    """Return the first and the last second a query is about."""
    end_s = (query.stamp_ns - TRUTH.origin_ns) / NS_PER_S
    return max(0.0, end_s - (query.window_s or WINDOW_S)), end_s


def test_the_truth_knows_what_is_asked_for(queries):
    asked = {query.query_id for query in queries}
    assert len(asked) == len(queries) == 7
    for name in asked:
        known = TRUTH.queries[name]
        assert bool(known.track) != known.absent
    assert sum(TRUTH.queries[name].absent for name in asked) == 2


def test_what_is_there_is_in_sight_and_what_happens_is_in_the_window(queries):
    make_bag = pytest.importorskip('demo.make_bag', reason='needs the extra [sim]')
    motions = {f'the {act.look[1]} {act.look[2]}': act.motions for act in make_bag.ACTS}
    for query in queries:
        start_s, end_s = window_s(query)
        for spans in motions.values():  # nothing moves at first
            assert not any(a <= start_s < b for a, b, _ in spans), query
        target = TRUTH.queries[query.query_id].track
        if target:
            track = TRUTH.tracks[target]
            seen = [box_at(track, float(at_s)) for at_s in np.arange(start_s, end_s, 0.1)]
            assert sum(box is not None for box in seen) >= 0.8 * len(seen)
            stops = [b for a, b, _ in motions[target] if start_s < a < end_s]
            assert all(b <= start_s + LAST_STOP * (end_s - start_s) + 0.2 for b in stops), query


def test_the_packaged_model_finds_some_of_it(queries):
    try:
        chain = load_grounder(ChatSettings(model='tabletop', device='cpu'))
    except PixelReferError as error:
        pytest.skip(str(error))
    with Bag(BAG) as bag:
        frames = [event.value for event in bag.events({Role.IMAGE})][::3]  # as the node keeps
    right = 0
    for query in queries:
        start_s, end_s = window_s(query)
        shown = [one for one in frames
                 if start_s <= (one.stamp_ns - TRUTH.origin_ns) / NS_PER_S <= end_s]
        found = chain.ground(shown, query.text)
        answer = Answer(query.query_id, error_code=ErrorCode.NOT_GROUNDED)
        if found.status == Status.OK:
            stamp_ns = shown[found.key_index].stamp_ns
            answer = Answer(query.query_id, evidence=(
                Evidence('', '', stamp_ns, '', found.box, None, 0.0),))
        right += bool(TRUTH.judge_answer(answer))
    assert right >= 4


def test_boxes_of_the_truth_follow_what_falls():
    ring = TRUTH.tracks['the purple ring']
    at = {at_s: box_at(ring, at_s) for at_s in (7.5, 8.2, 8.3, 8.4, 8.5)}
    assert at[7.5].x < at[8.2].x < at[8.4].x
    assert at[8.2].y < at[8.3].y < at[8.4].y < at[8.5].y


def test_what_is_left_out_of_a_track_is_told_by_the_rest():
    make_bag = pytest.importorskip('demo.make_bag', reason='needs the extra [sim]')
    track = [Spot(k / 10, k * 3 + 9 * max(0, k - 12), 50, 20, 20 + (k == 15)) for k in range(30)]
    kept = make_bag.thinned(track)
    assert len(kept) < 10
    assert max(b.at_s - a.at_s for a, b in pairwise(kept)) <= 1.0
    for spot in track:
        box = box_at(kept, spot.at_s)
        assert abs(box.x - spot.x) <= 1
        assert abs(box.height - spot.height) <= 1
    assert make_bag.thinned(track[:1]) == tuple(track[:1])
