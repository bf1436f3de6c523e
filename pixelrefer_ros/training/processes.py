# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train in several processes of one machine that average their gradients."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Callable


def run_together(work: Callable[..., None], processes: int, *given: Any) -> None:
    """Run a piece of training in some processes, one thread each; return when all are done.

    Args:
        work: A function of a module, that a new process can import.
        processes: How many; one runs in the caller's own.
        given: What ``work`` is called with.
    """
    if processes == 1:
        _work(0, 0, 1, work, given)
        return
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    spawn(_work, (port, processes, work, given), nprocs=processes)


def _work(
    number: int, port: int, processes: int, work: Callable[..., None], given: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
        distributed.init_process_group('gloo', rank=number, world_size=processes)
    work(*given)
    if distributed.is_initialized():
        distributed.destroy_process_group()
