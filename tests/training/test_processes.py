# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that processes that train together take the same steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pixelrefer_ros.training.loop import average_gradients, rank, world
from pixelrefer_ros.training.processes import run_together


def step(folder: Path) -> None:
    """Leave behind the gradient that this process would go by."""
    weight = torch.nn.Parameter(torch.zeros(2))
    (weight * (rank() + 1.0)).sum().backward()
    average_gradients([weight])
    (folder / f'{rank()}-of-{world()}').write_text(str(weight.grad.tolist()))  # type: ignore[union-attr]


@pytest.mark.parametrize(('processes', 'mean'), [(1, 1.0), (2, 1.5)])
def test_gradients_are_averaged(processes: int, mean: float, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        run_together(step, processes, tmp_path)
    finally:
        torch.set_num_threads(threads)
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == {f'{i}-of-{processes}': str([mean, mean]) for i in range(processes)}
