# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take decoding steps: one token for every row of a batch."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pixelrefer_ros.models.pixelrefer.slots import Slots, read, store_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

logger = logging.getLogger(__name__)

GROWTH = 64
"""Slots that rows grow by."""

MIN_SIZE = 256
"""Fewest slots of a row of fixed shape; there are those, twice those, and so on."""

WARM_ROWS = (1, 2, 4, 8)
"""Rows of the batches that are made ready beforehand."""

WARM_SIZES = (256, 512, 1024)
"""Slots of their rows."""


class Steps:
    """Take steps with batches of exactly as many rows as there are sequences."""

    def __init__(self, model: Any) -> None:
        """Use a language model and its head; see ``Voice``."""
        self._model = model
        self._penalty = float(model.generation_config.repetition_penalty or 1.0)

    def shape(self, rows: int, needed: int) -> tuple[int, int]:
        """Return rows and slots of a batch whose longest row takes a number of tokens now."""
        return rows, (-(-(needed + 1) // GROWTH) + 1) * GROWTH

    def batch(self, rows: int, needed: int) -> Slots:
        """Return empty slots of the shape that fits."""
        shape = store_shape(self._model.config, *self.shape(rows, needed))
        return Slots(self._model.model.embed_tokens.weight.new_zeros(shape), self._unsaid(rows))

    def fit(self, slots: Slots, going: Sequence[int], needed: int) -> Slots:
        """Let finished rows go when that pays, and make room when the rest needs it.

        Args:
            slots: The batch.
            going: Its rows that go on.
            needed: How many tokens the longest of them takes with the next one.

        Returns:
            The batch itself, or another whose first rows are those going on; the one before is
            over then.
        """
        if needed < slots.size and not self._shrinks(len(going), slots.rows):
            return slots
        kept = slots.copy_of(going, needed)  # the next batch may lie where this one does
        self._end(slots)
        fitting = self.batch(len(going), needed)
        fitting.fill(kept)
        return fitting

    def warm_up(self) -> None:
        """Do what the first step would take long for."""
        self.step(self.batch(1, 1), [0], [0])

    def release(self) -> None:
        """Free what is held for steps to come."""

    def step(self, slots: Slots, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Read one token per row; return the next ones as ``pick`` does.

        Args:
            slots: The batch.
            tokens: Per row, the token said last.
            positions: Per row, where it goes.
        """
        now = torch.tensor([tokens, positions], device=slots.store.device)
        return self._step(slots, now[0, :, None], now[1, :, None], max(positions) + 1)

    def pick(self, states: Tensor, said: Tensor | None) -> Tensor:
        """Choose tokens from the language model's states.

        Args:
            states: (rows, D).
            said: (rows, vocabulary) bool, as ``Slots.said``.

        Returns:
            (2, rows) float64: the ids, and the natural-log probabilities.
        """
        scores = self._model.lm_head(states).float()
        if said is not None:
            less = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
            scores = torch.where(said, less, scores)
        best = scores.max(dim=-1)
        logprobs = best.values - scores.logsumexp(dim=-1)
        # one tensor, so that the device is waited for once; float64 holds any id
        return torch.stack([best.indices.double(), logprobs.double()])

    def _step(self, slots: Slots, tokens: Tensor, positions: Tensor, seen: int) -> Tensor:
        """Do what ``step`` says, with (rows, 1) tensors and slots looked at."""
        if slots.said is not None:
            slots.said.scatter_(1, tokens, True)
        language = self._model.model
        states = read(language, slots, language.embed_tokens(tokens), positions, seen)
        return self.pick(states[:, -1], slots.said)

    def _unsaid(self, rows: int) -> Tensor | None:
        """Return a new ``Slots.said``."""
        if self._penalty == 1.0:
            return None
        weight = self._model.lm_head.weight
        return torch.zeros(rows, weight.shape[0], dtype=torch.bool, device=weight.device)

    def _end(self, slots: Slots) -> None:
        """Free what a batch that is over takes."""
        slots.free()

    def _shrinks(self, going: int, rows: int) -> bool:
        """Say whether the rest goes on so much faster alone that it pays to copy it."""
        return 4 * going <= 3 * rows


@dataclass(frozen=True)
class _Recorded:
    """Hold a step that was recorded on the GPU.

    Attributes:
        graph: Reads and writes the tensors below, and the slots it was recorded with.
        inputs: (2, rows) int64, tokens and positions.
        picked: As ``pick`` returns it.
    """

    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    picked: Tensor


class StaticSteps(Steps):
    """Take steps with batches of few fixed shapes that always lie at the same place.

    On CUDA a step of every shape is recorded once and replayed as a whole from then on: at batch
    1 starting its thousand kernels one by one takes longer than they do. All shapes lie in one
    piece of memory; only one batch is in use at a time.
    """

    def __init__(self, model: Any) -> None:
        """Use a language model and its head; see ``Voice``."""
        super().__init__(model)
        self._device = model.model.embed_tokens.weight.device
        self._records = self._device.type == 'cuda'
        self._memory: Tensor | None = None
        self._shapes: dict[tuple[int, int], Slots] = {}
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._pool: Any = None

    def shape(self, rows: int, needed: int) -> tuple[int, int]:
        """Return powers of two."""
        return _power_of_2(rows), max(MIN_SIZE, _power_of_2(needed + 1 + GROWTH))

    def batch(self, rows: int, needed: int) -> Slots:
        """Return empty slots of the shape that fits; the batch before is over."""
        slots = self._slots(*self.shape(rows, needed))
        slots.store.zero_()
        if slots.said is not None:
            slots.said.zero_()
        return slots

    def step(self, slots: Slots, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Read one token per row; see ``Steps``. The outcome is good until the next step."""
        inputs = torch.tensor([tokens, positions])
        shape = (slots.rows, slots.size)
        if self._records and shape not in self._recorded:
            self._record(slots, inputs.to(self._device))
        recorded = self._recorded.get(shape)
        if recorded is None:
            return self._fixed_step(slots, inputs.to(self._device))
        recorded.inputs.copy_(inputs)
        recorded.graph.replay()
        return recorded.picked

    def warm_up(self) -> None:
        """Record the steps of the usual shapes."""
        self._slots(WARM_ROWS[-1], WARM_SIZES[-1])  # the largest first: the memory stays
        for rows in WARM_ROWS:
            for size in WARM_SIZES:
                self.step(self._slots(rows, size), [0] * rows, [0] * rows)

    def release(self) -> None:
        """Free the memory and the recorded steps; the batch before is over."""
        for slots in self._shapes.values():
            slots.free()
        self._recorded.clear()
        self._shapes.clear()
        self._memory = self._pool = None

    def _end(self, slots: Slots) -> None:
        """Keep the slots: those of the next batch may be the same."""

    def _shrinks(self, going: int, rows: int) -> bool:
        return 2 * going <= rows

    def _slots(self, rows: int, size: int) -> Slots:
        """Return the slots of a shape, as they were left."""
        if (rows, size) in self._shapes:
            return self._shapes[rows, size]
        shape = store_shape(self._model.config, rows, size)
        wanted = math.prod(shape)
        if self._memory is None or self._memory.numel() < wanted:
            self.release()  # recorded steps know where the memory was
            self._memory = self._model.model.embed_tokens.weight.new_zeros(wanted)
        store = self._memory[:wanted].view(shape)
        self._shapes[rows, size] = slots = Slots(store, self._unsaid(rows))
        return slots

    def _fixed_step(self, slots: Slots, inputs: Tensor) -> Tensor:
        """Take a step that looks at all slots, (2, rows) tokens and positions."""
        return self._step(slots, inputs[0, :, None], inputs[1, :, None], slots.size)

    def _record(self, slots: Slots, inputs: Tensor) -> None:
        """Record the step of a shape; taking it more than once changes nothing."""
        with torch.cuda.device(self._device):
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            try:
                aside.wait_stream(here)
                with torch.cuda.stream(aside):
                    for _ in range(3):  # libraries choose kernels and memory in the first runs
                        self._fixed_step(slots, inputs)
                here.wait_stream(aside)
                graph = torch.cuda.CUDAGraph()
                # other threads may use the device meanwhile
                with torch.cuda.graph(graph, self._pool, aside, 'thread_local'):
                    picked = self._fixed_step(slots, inputs)
            except RuntimeError as error:
                torch.cuda.set_stream(here)  # where it failed may have been aside
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                logger.warning('decoding steps cannot be recorded, they take longer: %s', error)
                self._records = False
                return
        self._pool = graph.pool()
        self._recorded[slots.rows, slots.size] = _Recorded(graph, inputs, picked)


def _power_of_2(number: int) -> int:
    """Return the smallest power of two that is not below a number."""
    return 1 << (number - 1).bit_length()
