# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Take the time of each stage of a model's work, whoever calls it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pixelrefer_ros.models.pixelrefer import PixelReferForConditionalGeneration

STAGES = (
    'preprocess', 'tower', 'tokenizer', 'infusion', 'prefill', 'decode', 'next_token', 'rest',
)  # fmt: skip
"""Cutting pictures and wording; the vision tower; cells under the masks and k-means; the two
cross attentions; reading prompts; reading what was said; the head; all else."""


class Stopwatch:
    """Add up the seconds and calls of each stage.

    Attributes:
        seconds: Per stage.
        calls: Per stage.
    """

    def __init__(self, device: torch.device) -> None:
        """Start at nothing."""
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.calls = dict.fromkeys(STAGES, 0)
        self._device = device

    def now(self) -> float:
        """Return the time [s] once the device has done what it was given."""
        # while a step is recorded, nothing runs that could be waited for
        if self._device.type == 'cuda' and not torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def timed(
        self, function: Callable[..., Any], stage: str | Callable[..., str]
    ) -> Callable[..., Any]:
        """Return a function that does the same and takes its time.

        Args:
            function: What to time.
            stage: Its stage, or what tells it from the arguments.
        """

        def run(*args: Any, **kwargs: Any) -> Any:
            name = stage if isinstance(stage, str) else stage(*args, **kwargs)
            began_s = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += self.now() - began_s
                self.calls[name] += 1

        return run


@contextmanager
def watching(model: PixelReferForConditionalGeneration, preparer: Any) -> Iterator[Stopwatch]:
    """Take times while a model works.

    On CUDA the stages wait for each other, and steps that were recorded are part of the rest.

    Args:
        model: The model.
        preparer: Its ``prepare`` is the preprocessing.
    """
    watch = Stopwatch(model.device)
    encoder = model.region_encoder
    watched = (
        (preparer, 'prepare', 'preprocess'),
        (model, 'encode_images', 'tower'),
        (encoder, 'tokenize', 'tokenizer'),
        (encoder, 'infuse', 'infusion'),
        (model.model, 'forward', _reading),
        (model.lm_head, 'forward', 'next_token'),
    )
    for owner, name, stage in watched:
        setattr(owner, name, watch.timed(getattr(owner, name), stage))
    began_s = watch.now()
    try:
        yield watch
    finally:
        total_s = watch.now() - began_s
        for owner, name, _ in watched:
            delattr(owner, name)  # what the class defines is seen again
        watch.seconds['rest'] = total_s - sum(watch.seconds.values())


def _reading(*args: Any, **kwargs: Any) -> str:
    """Tell reading a prompt from reading one token per sequence."""
    for name in ('inputs_embeds', 'input_ids'):
        if kwargs.get(name) is not None:
            return 'prefill' if kwargs[name].shape[1] > 1 else 'decode'
    return 'prefill' if args[0].shape[1] > 1 else 'decode'
