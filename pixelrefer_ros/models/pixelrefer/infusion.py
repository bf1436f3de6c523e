# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Let object tokens read from the context crop and the whole frame (object-centric infusion)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


class CrossAttention(nn.Module):
    """Attend from object tokens to picture features; parameters named as in nn.MultiheadAttention.

    Keys and values are projected once per picture, however many masks read from it.
    """

    def __init__(self, width: int, heads: int) -> None:
        """Create the projections.

        Args:
            width: Of queries, keys and values alike.
            heads: Must divide the width.
        """
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, queries: Tensor, pictures: Tensor, index: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            queries: (M, n, V).
            pictures: (U, L, V), neither normalised nor masked.
            index: (M,) int64, the picture each query reads from; None when M is U, in order.

        Returns:
            (M, n, V).
        """
        width = queries.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        query = self._split(functional.linear(queries, weight[:width], bias[:width]))
        both = functional.linear(pictures, weight[width:], bias[width:])
        key, value = (self._split(part) for part in both.chunk(2, dim=-1))
        if index is not None:
            key, value = key[index], value[index]
        read = functional.scaled_dot_product_attention(query, key, value)
        return self.out_proj(read.transpose(1, 2).flatten(2))

    def _split(self, tensor: Tensor) -> Tensor:
        """Turn (B, L, V) into (B, heads, L, V / heads)."""
        return tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)
