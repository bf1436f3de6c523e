# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that replay with a real network gives the same bytes every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelrefer_ros.bags.reading import Bag
from pixelrefer_ros.bags.replay import replay
from pixelrefer_ros.core.types import Query
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
