# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that replay with a real network gives the same bytes every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.replay import replay
from pixelrefer_ros.core.types import ErrorCode, Query, Task
from pixelrefer_ros.engine import EngineConfig
from tests.bags.makers import Script, at, box_at, write_bag


@pytest.fixture
def describer():
    """Give the embedded model, or skip where it has not been made."""
    from pixelrefer_ros.core.types import PixelReferError
    from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield PixelReferDescriber.load('tabletop', device='cpu', max_new_tokens=4)
    except PixelReferError as error:
        pytest.skip(str(error))
    finally:
        torch.set_num_threads(threads)


def test_replay_with_the_embedded_model_is_the_same_to_the_byte(tmp_path, describer):
    script = Script(
        frames=[k * 0.1 for k in range(16)],
        regions=[(0.11, [box_at(0.1), box_at(0.1, 'lid', x=40)]), (0.51, [box_at(0.5, x=14)])],
        queries=[(1.01, Query('q1', 'what is {cup}?', stamp_ns=at(1.0)))],
    )
    write_bag(tmp_path / 'bag.mcap', script)
    outputs = []
    for place in ('a', 'b'):
        # what ran before must not matter
        torch.manual_seed(len(outputs))
        np.random.seed(len(outputs))
        with Bag(tmp_path / 'bag.mcap') as bag:
            result = replay(bag, describer, tmp_path / place / 'out.mcap')
        assert result.problems == ()
        assert len(result.descriptions) == 2
        assert len(result.answers) == 1
        assert all(0.0 <= answer.confidence <= 1.0 for answer in result.answers)
        outputs.append((tmp_path / place / 'out.mcap').read_bytes())
    assert outputs[0] == outputs[1]


def play(tmp_path, describer, queries, **settings):
    """Replay a bag of two regions and some questions."""
    script = Script(
        frames=[k * 0.1 for k in range(16)],
        regions=[(0.11, [box_at(0.1), box_at(0.1, 'lid', x=40)]), (0.51, [box_at(0.5, x=14)])],
        queries=queries,
    )
    path = tmp_path / 'bag.mcap'
    path.unlink(missing_ok=True)
    with Bag(write_bag(path, script)) as bag:
        return replay(bag, describer, tmp_path / 'out.mcap', config=EngineConfig(**settings))


def test_what_runs_together_says_the_same_as_one_by_one(tmp_path, describer):
    # both ask for an image that is still to come, so that they run together when it is there
    queries = [
        (0.91, Query('q1', 'what is {cup}?', stamp_ns=at(1.0))),
        (0.92, Query('q2', 'what is left of {lid}?', stamp_ns=at(1.0))),
        (0.93, Query('q3', '', Task.DESCRIBE, stamp_ns=at(1.0))),
    ]
    together, alone = (
        play(tmp_path, describer, queries, max_batch=max_batch) for max_batch in (8, 1)
    )
    assert alone.stats.mean_batch == 1
    assert together.stats.mean_batch > 2
    for one, other in (
        (together.answers, alone.answers), (together.descriptions, alone.descriptions)
    ):
        assert sorted(result.text for result in one) == sorted(result.text for result in other)
        assert all(result.text for result in one)


def test_a_second_question_about_the_same_images_looks_at_nothing_again(tmp_path, describer):
    query = Query('q1', 'what is {cup}?', stamp_ns=at(1.0))
    misses = []
    for queries in ([], [(1.01, query)], [(1.01, query), (1.21, replace(query, query_id='q2'))]):
        before = describer.vision_stats()
        result = play(tmp_path, describer, queries, describe_enabled=False)
        assert [answer.error_code for answer in result.answers] == [ErrorCode.OK] * len(queries)
        misses.append(result.stats.vision.misses - before.misses)
    assert misses[0] == 0 < misses[1] == misses[2]
