# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compute the efficiency figures of the PixelRefer paper (Table 5) by its own formula.

The formula counts multiply-accumulates of the language model's prefill, in Lite also of the two
cross attentions; neither tower nor text. As printed it gives the MLP three matrices, which Qwen2
has; the rows of the table follow from two. In the rows about videos the language model is
charged for the 32 tokens of one mask, and the cross attentions for all 20 frames.
"""

from __future__ import annotations

from dataclasses import dataclass

VIDEO_FRAMES = 20
REGION_TOKENS = 32
PICTURE_TOKENS = {'image': 1408, 'video': 7185}
LOCAL_TOKENS, WHOLE_TOKENS = 256, 576
ROW_MATRICES, PRINTED_MATRICES = 2, 3


@dataclass(frozen=True)
class Sizes:
    """Hold a language model's widths and depth, named as in the paper."""

    d: int
    d_kv: int
    m: int
    layers: int


MODELS = {'2B': Sizes(1536, 256, 8960, 28), '7B': Sizes(3584, 512, 18944, 28)}

# (model, lite, medium) -> 10^12 operations, as printed
PRINTED = {
    ('2B', False, 'image'): 1.51, ('2B', False, 'video'): 11.15,
    ('2B', True, 'image'): 0.03, ('2B', True, 'video'): 0.11,
    ('7B', False, 'image'): 7.08, ('7B', False, 'video'): 43.83,
    ('7B', True, 'image'): 0.17, ('7B', True, 'video'): 0.61,
}  # fmt: skip


def language(sizes: Sizes, tokens: int, mlp_matrices: int) -> int:
    """Return the operations of reading tokens: projections, attention, MLP."""
    d, n = sizes.d, tokens
    layer = 2 * n * d**2 + 2 * n * d * sizes.d_kv + 2 * n**2 * d + mlp_matrices * n * d * sizes.m
    return sizes.layers * layer


def infusion(sizes: Sizes) -> int:
    """Return the operations of both cross attentions for one mask."""
    read = (REGION_TOKENS + LOCAL_TOKENS) + (REGION_TOKENS + WHOLE_TOKENS)
    return 2 * read * sizes.d**2


def operations(model: str, lite: bool, medium: str, mlp_matrices: int = ROW_MATRICES) -> int:
    """Return the operations of one row and column of the table.

    Args:
        model: '2B' or '7B'.
        lite: PixelRefer-Lite instead of PixelRefer.
        medium: 'image' or 'video'.
        mlp_matrices: 2 as the table's numbers have it, 3 as its formula says.
    """
    sizes = MODELS[model]
    if not lite:
        return language(sizes, REGION_TOKENS + PICTURE_TOKENS[medium], mlp_matrices)
    frames = VIDEO_FRAMES if medium == 'video' else 1
    return language(sizes, REGION_TOKENS, mlp_matrices) + frames * infusion(sizes)


def rows() -> list[dict[str, object]]:
    """Return each figure of the table: as printed, as computed, and with three MLP matrices."""
    return [
        {
            'model': f'PixelRefer{"-Lite" if lite else ""}-{model}',
            'medium': medium,
            'printed_t': printed,
            'computed_t': operations(model, lite, medium) / 1e12,
            'with_three_mlp_matrices_t': operations(model, lite, medium, PRINTED_MATRICES) / 1e12,
        }
        for (model, lite, medium), printed in PRINTED.items()
    ]
