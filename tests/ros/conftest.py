# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Give the tests of the node a node to test."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ros.rig import Bench

collect_ignore_glob = [] if importlib.util.find_spec('rclpy') else ['test_*.py']


@pytest.fixture
def bench(ros_domain_id: int) -> Iterator[Callable[..., Bench]]:
    """Give a function that starts a bench; all are closed at the end."""
    from tests.ros.rig import Bench

    benches: list[Bench] = []

    def start(**options: Any) -> Bench:
        benches.append(Bench(ros_domain_id, **options))
        return benches[-1]

    yield start
    for one in benches:
        one.close()
