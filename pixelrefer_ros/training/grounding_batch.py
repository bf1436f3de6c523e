# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put training rows of conversations together into padded batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pixelrefer_ros.training.grounding_config import CLIP_SIZE, KEY_SIZE, TOKEN_PX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from pixelrefer_ros.training.grounding_rows import Row

LENGTH_STEP = 128


@dataclass(slots=True)
class Batch:
    """Hold padded rows, ready for the model.

    Attributes:
        ids: (B, L) int64.
        place: (3, B, L) int64.
        mask: (B, 1, L, L) float, 0 where a token sees another, else very negative.
        weight: (B, L) float.
        clip_at: (B, n) int64 places of the clip's tokens.
        key_at: (B, m) int64 places of the key frame's tokens.
        rows: The rows.
    """

    ids: Tensor
    place: Tensor
    mask: Tensor
    weight: Tensor
    clip_at: Tensor
    key_at: Tensor
    rows: list[Row]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(self.ids.to(device), self.place.to(device), self.mask.to(device),
                     self.weight.to(device), self.clip_at.to(device), self.key_at.to(device),
                     self.rows)


def sees(row: Row) -> Tensor:
    """Return which tokens of a row each token sees, (n, n) bool."""
    count = len(row.parent)
    leads = torch.eye(count, dtype=torch.bool)
    for node, parent in enumerate(row.parent):
        if parent >= 0:
            leads[node] |= leads[parent]
    of = torch.tensor(row.node)
    return leads[of][:, of] & torch.ones(len(of), len(of), dtype=torch.bool).tril()


def collate(rows: Sequence[Row], pad: int) -> Batch:
    """Pad rows to one length, of few that occur: what is compiled is so for each."""
    longest = -(-max(len(row.ids) for row in rows) // LENGTH_STEP) * LENGTH_STEP
    ids = torch.full((len(rows), longest), pad)
    place = torch.zeros(3, len(rows), longest, dtype=torch.int64)
    weight = torch.zeros(len(rows), longest)
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n] = torch.tensor(row.ids)
        place[:, i, :n] = torch.tensor(row.place).T
        weight[i, :n] = torch.tensor(row.weight)
        seen[i, :n, :n] = sees(row)
    mask = torch.zeros(seen.shape).masked_fill(~seen, -1e9)[:, None]
    tokens = [size[0] * size[1] // TOKEN_PX**2 for size in (CLIP_SIZE, KEY_SIZE)]
    clip_at = torch.tensor([row.clip_at for row in rows])[:, None] + torch.arange(tokens[0])
    key_at = torch.tensor([row.key_at for row in rows])[:, None] + torch.arange(tokens[1])
    return Batch(ids, place, mask, weight, clip_at, key_at, list(rows))
