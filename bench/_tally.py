# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Add up the memory that work on the meta device would take, tensor by tensor.

Memory is what lives at one moment: it comes with the operation that makes it and goes with the
last tensor that looks at it. Attention is one operation that makes its output alone, as the
fused kernels on CUDA do. Not in it: the library's context, scratch memory of kernels, and what
an allocator rounds up or cannot use.
"""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from torch import Tensor, nn


class Tally(TorchDispatchMode):
    """Follow the tensors that are made on the meta device, in inference mode.

    Attributes:
        held: Bytes that live now, the model's among them.
        peak: Most bytes that lived at once.
    """

    def __init__(self, model: nn.Module) -> None:
        """Start with a model's parameters and buffers."""
        super().__init__()
        self._users: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self.held = self.peak = 0
        for tensor in (*model.parameters(), *model.buffers()):
            self._note(tensor)

    def __enter__(self) -> Tally:
        """Follow from here on."""
        # autocast, which the region encoder switches off, does not know the meta device
        self._patch = patch('torch.autocast', lambda *_, **__: nullcontext())
        self._patch.start()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Follow no longer."""
        super().__exit__(*error)
        self._patch.stop()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and take note of what it made."""
        made = function(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.device.type == 'meta':
                self._note(one)
        return made

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        number = storage._cdata
        if number not in self._users:
            self._users[number] = 0
            self._sizes[number] = storage.nbytes()
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
        self._users[number] += 1
        weakref.finalize(tensor, self._gone, number)

    def _gone(self, number: int) -> None:
        self._users[number] -= 1
        if not self._users[number]:
            self.held -= self._sizes.pop(number)
            del self._users[number]
