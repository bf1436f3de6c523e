# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold keys and values of several sequences that are read and written together.

A token lies in the slot of its position, in every row: so rows of any lengths lie side by side
without padding in front, what a row may look at follows from positions alone, and keys and
values read in one batch serve in any other. The last slot takes what pads write and is never
looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Slots:
    """Be the key-value cache of a batch, as the layers of transformers' models call one.

    Attributes:
        store: (layers, 2, rows, heads, slots, D), keys and values.
        said: (rows, vocabulary) bool, the tokens a row said; None when nobody asks.
    """

    def __init__(self, store: Tensor, said: Tensor | None = None) -> None:
        """Use a tensor of finite numbers, and one of what nobody said yet."""
        self.store = store
        self.said = said
        self._row = torch.arange(store.shape[2], device=store.device)[:, None]
        self._places = self._row
        self._seen = store.shape[4]

    @property
    def rows(self) -> int:
        """How many sequences it holds."""
        return self.store.shape[2]

    @property
    def size(self) -> int:
        """How many slots a row has; its tokens take one less at most."""
        return self.store.shape[4]

    def between(self, first: int, last: int) -> Slots:
        """Return some of the rows; the memory is the same."""
        said = None if self.said is None else self.said[first:last]
        return Slots(self.store[:, :, first:last], said)

    def put(self, row: int, start: int, kv: Tensor) -> None:
        """Write (layers, 2, heads, n, D) to n slots of a row."""
        self.store[:, :, row, :, start : start + kv.shape[-2]] = kv

    def take(self, row: int, start: int, stop: int) -> Tensor:
        """Return a copy of some slots of a row, (layers, 2, heads, n, D)."""
        return self.store[:, :, row, :, start:stop].clone()

    def copy_of(self, rows: Sequence[int], slots: int) -> Slots:
        """Return a copy of some rows, in the order given, with their first slots."""
        index = torch.tensor(rows, device=self.store.device)
        said = None if self.said is None else self.said.index_select(0, index)
        return Slots(self.store[:, :, :, :, :slots].index_select(2, index), said)

    def fill(self, source: Slots) -> None:
        """Take over all rows and slots of a smaller batch as the first ones."""
        self.store[:, :, : source.rows, :, : source.size] = source.store
        if self.said is not None and source.said is not None:
            self.said[: source.rows] = source.said

    def free(self) -> None:
        """Let go of the memory, whoever still holds this; nothing can be done with it then."""
        self.store = self.store.new_empty(0)
        self.said = None

    def aim(self, places: Tensor, seen: int) -> None:
        """Say where the next tokens are written, (rows, n), and how many slots are looked at."""
        self._places, self._seen = places, seen

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write a layer's keys and values, (rows, heads, n, D); return all that is looked at."""
        all_keys, all_values = self.store[layer]
        all_keys[self._row, :, self._places] = keys.transpose(1, 2)
        all_values[self._row, :, self._places] = values.transpose(1, 2)
        return all_keys[:, :, : self._seen], all_values[:, :, : self._seen]


def store_shape(config: Any, rows: int, size: int) -> tuple[int, int, int, int, int, int]:
    """Return the shape of ``Slots.store`` for a language model."""
    width = getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, 2, rows, config.num_key_value_heads, size, width


def read(model: Any, slots: Slots, embeds: Tensor, positions: Tensor, seen: int) -> Tensor:
    """Run the language model over the next tokens of every row.

    Args:
        model: Qwen2 without its head.
        slots: Hold what was read before, and hold these tokens afterwards.
        embeds: (rows, n, D).
        positions: (rows, n) int64; -1 for pads, whose outcome means nothing.
        seen: Above all positions; slots beyond are left alone.

    Returns:
        (rows, n, D), normed.
    """
    slots.aim(positions.masked_fill(positions < 0, slots.size - 1), seen)
    # a pad looks at the first slot: one that looked at nothing would not be a number
    positions = positions.clamp(min=0)
    hidden = torch.arange(seen, device=embeds.device) > positions[..., None]
    mask = torch.zeros_like(hidden, dtype=embeds.dtype).masked_fill(hidden, float('-inf'))
    states: Tensor = model(
        inputs_embeds=embeds,
        attention_mask={'full_attention': mask[:, None]},
        position_ids=positions,
        past_key_values=slots,
        use_cache=True,
    ).last_hidden_state
    return states
