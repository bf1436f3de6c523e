# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Record and replay work on the CPU as CUDA graphs do on a GPU.

What is recorded are the operations with the very tensors they read and wrote: replayed, they read
what lies in those tensors by then, and what was a number in Python stays what it was.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

_WAITS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
)
"""Operations that need to know what the device found; a GPU refuses them while it records."""


class Graph:
    """Stand in for ``torch.cuda.CUDAGraph``.

    Attributes:
        replays: How often it was replayed.
    """

    def __init__(self) -> None:
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.replays = 0

    def pool(self) -> str:
        return 'pool'

    def replay(self) -> None:
        self.replays += 1
        for operation, args, kwargs, recorded in self.operations:
            again = operation(*args, **kwargs)
            if operation._schema.is_mutable:
                continue
            for old, new in zip(tree_leaves(recorded), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _WAITS:
            raise RuntimeError('operation not permitted when stream is capturing')
        result = func(*args, **(kwargs or {}))
        # what lies where an operand lies is a view of it, and shows what it holds
        if func._schema.is_mutable or not _places(result) <= _places((args, kwargs)):
            self._graph.operations.append((func, args, kwargs or {}, result))
        return result


def _places(values: Any) -> set[int]:
    """Return where the tensors among some values lie."""
    return {
        one.untyped_storage().data_ptr()
        for one in tree_leaves(values)
        if isinstance(one, torch.Tensor)
    }


class _Stream:
    def wait_stream(self, other: object) -> None:
        pass


def install(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Put the stand-ins where torch has the real ones; return the graphs recorded from now on."""
    graphs: list[Graph] = []

    @contextmanager
    def record(graph: Graph, pool: object, stream: object, mode: str) -> Iterator[None]:
        assert pool in (None, 'pool')
        assert isinstance(stream, _Stream)
        assert mode == 'thread_local'
        graphs.append(graph)
        with _Recorder(graph):
            yield

    monkeypatch.setattr(torch.cuda, 'device', lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, 'CUDAGraph', Graph)
    monkeypatch.setattr(torch.cuda, 'graph', record)
    monkeypatch.setattr(torch.cuda, 'Stream', _Stream)
    monkeypatch.setattr(torch.cuda, 'current_stream', _Stream)
    monkeypatch.setattr(torch.cuda, 'set_stream', lambda stream: None)
    monkeypatch.setattr(torch.cuda, 'stream', lambda stream: nullcontext())
    return graphs
