# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make trackers by the name of their backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.tracking.anchored import AnchoredTracker
from pixelrefer_ros.tracking.weights import find_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.core.tracker import RegionTracker

BACKENDS = ('anchored', 'sam2', 'auto', 'none')


def tracker_factory(
    backend: str,
    *,
    model: str = '',
    class_name: str = 'Sam2VideoModel',
    device: str = 'auto',
    dtype: str = 'auto',
) -> Callable[[], RegionTracker] | None:
    """Return what makes trackers, one a camera; weights are loaded once, here.

    None for 'none': regions are not followed.

    Args:
        backend: 'anchored' follows what moves stiffly, without weights; 'sam2' follows anything,
            on a GPU; 'auto' asks SAM 2 on some frames and follows its masks on the others.
        model: Folder or hub name of the weights; 'anchored' needs none.
        class_name: Class of transformers the weights are for: Sam2VideoModel, EdgeTamVideoModel
            or Sam3TrackerVideoModel.
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        dtype: 'auto', 'float32', 'bfloat16' or 'float16'.

    Raises:
        PixelReferError: MODEL_ERROR with what to do, OUT_OF_MEMORY when the weights do not fit.
    """
    if backend == 'none':
        return None
    if backend == 'anchored':
        return AnchoredTracker
    if backend not in BACKENDS:
        raise PixelReferError(
            ErrorCode.MODEL_ERROR,
            f"tracking backend is '{backend}', must be one of {', '.join(BACKENDS)}",
        )
    find_weights(model)
    # imported here: who follows without weights needs no torch, and torch takes seconds
    from pixelrefer_ros.tracking.auto import AutoTracker
    from pixelrefer_ros.tracking.sam2 import Sam2Tracker
    from pixelrefer_ros.tracking.sam2_model import load_segmenter

    segmenter = load_segmenter(model, class_name=class_name, device=device, dtype=dtype)
    if backend == 'sam2':
        return lambda: Sam2Tracker(segmenter)
    return lambda: AutoTracker(Sam2Tracker(segmenter), AnchoredTracker())
