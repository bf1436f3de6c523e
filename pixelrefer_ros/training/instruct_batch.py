# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put training samples together into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pixelrefer_ros.models.pixelrefer.inputs import Pictures, RegionInputs
from pixelrefer_ros.models.pixelrefer.object_tokenizer import CellLayout
from pixelrefer_ros.training.instruct_data import IGNORED, Refusal, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def join_regions(parts: Sequence[RegionInputs]) -> RegionInputs:
    """Put the pictures of several samples together, for one call of the tower."""
    layouts = [part.layout for part in parts]
    cells = [sum(rows * columns for rows, columns in layout.mask_grids) for layout in layouts]
    return RegionInputs(
        frames=_join_pictures([part.frames for part in parts]),
        contexts=_join_pictures([part.contexts for part in parts]),
        crops=_join_pictures([part.crops for part in parts]),
        frame_index=_shifted(
            [part.frame_index for part in parts], [len(part.frames.grids) for part in parts]
        ),
        context_index=_shifted(
            [part.context_index for part in parts], [len(part.contexts.grids) for part in parts]
        ),
        layout=CellLayout(
            feature_grids=tuple(grid for layout in layouts for grid in layout.feature_grids),
            mask_grids=tuple(grid for layout in layouts for grid in layout.mask_grids),
            lengths=tuple(length for layout in layouts for length in layout.lengths),
            cells=_shifted([layout.cells for layout in layouts], cells),
            positions=torch.cat([torch.zeros(0, 2), *(layout.positions for layout in layouts)]),
        ),
    )


def _join_pictures(parts: Sequence[Pictures]) -> Pictures:
    patches = [part.patches for part in parts] or [torch.zeros(0, 0, dtype=torch.uint8)]
    return Pictures(torch.cat(patches), tuple(grid for part in parts for grid in part.grids))


def _shifted(indices: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Concatenate indices, each part's counted on from what the parts before it hold."""
    starts = np.cumsum([0, *counts])
    shifted = [index + int(start) for index, start in zip(indices, starts[:-1], strict=True)]
    return torch.cat([torch.zeros(0, dtype=torch.int64), *shifted])


def collate(items: Sequence[Sample | Refusal], pad_id: int) -> dict[str, Any]:
    """Make a batch, padded on the right; refused samples are only listed.

    Args:
        items: Of ``InstructData``.
        pad_id: Token id put where a sample is over.

    Returns:
        input_ids, attention_mask, labels, (B, L) int64 each; regions, of all samples; refused.
        Without any usable sample B and L are 1 and nothing is labelled.
    """
    samples = [item for item in items if isinstance(item, Sample)]
    shape = (max(len(samples), 1), max((len(sample.input_ids) for sample in samples), default=1))
    ids = torch.full(shape, pad_id)
    labels = torch.full(shape, IGNORED)
    attention = torch.zeros(shape, dtype=torch.int64)
    attention[:, 0] = 1
    for row, sample in enumerate(samples):
        length = len(sample.input_ids)
        ids[row, :length], labels[row, :length] = sample.input_ids, sample.labels
        attention[row, :length] = 1
    return {
        'input_ids': ids,
        'attention_mask': attention,
        'labels': labels,
        'regions': join_regions([sample.regions for sample in samples]),
        'refused': [item for item in items if isinstance(item, Refusal)],
    }
