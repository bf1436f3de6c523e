# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Describe regions and answer questions about them with PixelRefer-Lite."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from pixelrefer_ros.core.describer import RegionDescriber, VisionStats
from pixelrefer_ros.core.types import NS_PER_S, ErrorCode, PixelReferError, Task, Utterance
from pixelrefer_ros.models.devices import pick_device, pick_dtype, spare_threads
from pixelrefer_ros.models.guards import quietly
from pixelrefer_ros.models.pixelrefer import prompts
from pixelrefer_ros.models.pixelrefer.checkpoint import CheckpointError
from pixelrefer_ros.models.pixelrefer.decoding import Watch
from pixelrefer_ros.models.pixelrefer.modeling import PixelReferForConditionalGeneration
from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor
from pixelrefer_ros.models.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pixelrefer_ros.core.describer import Request
    from pixelrefer_ros.core.types import Frame, RegionClip

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 512
"""Longest answer in tokens, where neither caller nor generation_config.json says another."""


class PixelReferDescriber(RegionDescriber):
    """Put regions into words; implements ``core.describer.RegionDescriber``.

    Attributes:
        name: Model name, as it appears in the results.
        frames_per_region: How many frames of a region the model wants to see at most.
        model: The model.
        processor: Its processor.
    """

    def __init__(
        self,
        model: PixelReferForConditionalGeneration,
        processor: PixelReferProcessor,
        name: str,
        max_new_tokens: int = 0,
    ) -> None:
        """Join a model and its processor.

        Args:
            model: On the device it shall run on.
            processor: Of the same directory.
            name: Appears in the results.
            max_new_tokens: Longest answer; 0 for the model's own limit.
        """
        self.model = model
        self.processor = processor
        self.name = name
        self.frames_per_region = model.config.max_frames_per_region
        self.needs_regions = True
        generation = model.generation_config
        self._max_new_tokens = max_new_tokens or generation.max_new_tokens or MAX_NEW_TOKENS
        if generation.eos_token_id is None:
            generation.eos_token_id = processor.tokenizer.eos_token_id
        if generation.pad_token_id is None:
            generation.pad_token_id = processor.tokenizer.pad_token_id

    @classmethod
    def load(
        cls, name: str, *, device: str = 'auto', dtype: str = 'auto', max_new_tokens: int = 0
    ) -> PixelReferDescriber:
        """Load a model that is on this machine.

        Args:
            name: 'tabletop', a model directory, or a hub name fetched before.
            device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
            dtype: 'auto', 'float32', 'bfloat16' or 'float16'; 'auto' is float32 on a CPU and
                what config.json says elsewhere.
            max_new_tokens: Longest answer; 0 for the model's own limit.

        Raises:
            PixelReferError: MODEL_ERROR with what to do, OUT_OF_MEMORY when it does not fit.
        """
        place = pick_device(device)
        own: torch.dtype | str = torch.float32 if place.type == 'cpu' else 'auto'
        directory = resolve(name)
        try:
            with quietly(), _refusals(ErrorCode.MODEL_ERROR):
                model = PixelReferForConditionalGeneration.from_pretrained(
                    directory, dtype=pick_dtype(dtype) or own
                )
                processor = PixelReferProcessor.from_pretrained(directory, model.config)
                model.to(place)
                spare_threads(model)
        except CheckpointError as error:
            raise PixelReferError(ErrorCode.MODEL_ERROR, str(error)) from error
        logger.info('loaded %s on %s as %s', name, place, model.dtype)
        return cls(model, processor, name, max_new_tokens)

    def say(
        self,
        requests: Sequence[Request],
        on_said: Callable[[int, Utterance | PixelReferError], None],
    ) -> None:
        """Put requests into words; see ``RegionDescriber``."""
        for place, request in enumerate(requests):
            outcome: Utterance | PixelReferError
            try:
                outcome = self._say(
                    self._text(request),
                    request.frames,
                    request.regions,
                    request.should_stop,
                    request.on_progress,
                )
            except PixelReferError as error:
                outcome = error
            on_said(place, outcome)

    def look_ahead(self, frame: Frame) -> bool:
        """Encode a frame before it is asked about; see ``RegionDescriber``."""
        return False

    def forget(self) -> None:
        """Drop what is kept of frames; see ``RegionDescriber``."""

    def vision_stats(self) -> VisionStats:
        """Return the counts so far; see ``RegionDescriber``."""
        return VisionStats()

    def _text(self, request: Request) -> str:
        """Return what to ask the model, with one ``<region>`` per region."""
        config = self.model.config
        video = len(request.frames) > 1
        if request.task == Task.DESCRIBE:
            text = config.describe_prompt_video if video else config.describe_prompt_image
            if prompts.REGION_MARK not in text:
                text = f'{self._introduction(1, video)} {text}'
            if request.text:
                text = f'{text} {_named(request.text, request.regions)}'
            return text
        if not request.text.strip():
            raise PixelReferError(ErrorCode.BAD_REQUEST, 'the question is empty')
        if not request.regions:
            raise PixelReferError(ErrorCode.BAD_REQUEST, 'the question needs at least one region')
        introduction = self._introduction(len(request.regions), video)
        return f'{introduction} {_named(request.text, request.regions)}'

    def _introduction(self, count: int, video: bool) -> str:
        config = self.model.config
        one, many = (
            (config.one_object_prefix_video, config.many_objects_prefix_video)
            if video
            else (config.one_object_prefix_image, config.many_objects_prefix_image)
        )
        return prompts.introduction(one, many, count)

    def _say(
        self,
        request: str,
        frames: Sequence[Frame],
        regions: Sequence[RegionClip],
        should_stop: Callable[[], bool] | None,
        on_progress: Callable[[str, str], None] | None,
    ) -> Utterance:
        """Run the model on a request with one ``<region>`` per region.

        Raises:
            PixelReferError: BAD_REQUEST, OUT_OF_MEMORY or MODEL_ERROR.
        """
        stop = should_stop or (lambda: False)
        tell = on_progress or (lambda stage, text: None)
        _check(frames, regions)
        with torch.inference_mode(), _refusals(ErrorCode.BAD_REQUEST):
            began = time.perf_counter()
            tell('preprocess', '')
            masks, mask_frames, counts = _flatten(regions, video=len(frames) > 1)
            times = [(frames[i].stamp_ns - frames[0].stamp_ns) / NS_PER_S for i in mask_frames]
            prompt = self.processor.prompt(request, counts, times if len(frames) > 1 else None)
            input_ids = self.processor.encode(prompt)
            room = self._room(input_ids.shape[1])
            inputs = self.processor.regions([f.image for f in frames], masks, mask_frames)
            prepared = time.perf_counter()
            if stop():
                return _canceled(input_ids.shape[1], prepared - began)

            tell('vision', '')
            input_ids = input_ids.to(self.model.device)
            with _refusals(ErrorCode.MODEL_ERROR):
                tokens = self.model.encode(inputs)
                self._wait()
            seen = time.perf_counter()
            if stop():
                return _canceled(input_ids.shape[1], prepared - began, seen - prepared)

            tell('language', '')
            ids = [region.region_id for region in regions]

            def on_text(text: str) -> None:
                tell('language', prompts.say_region_ids(text, ids))

            watch = Watch(self.processor, should_stop, on_text if on_progress else None)
            with _refusals(ErrorCode.MODEL_ERROR):
                self.model.generate_from_regions(
                    input_ids,
                    tokens,
                    max_new_tokens=min(room, self._max_new_tokens),
                    stopping_criteria=StoppingCriteriaList([watch]),
                    logits_processor=LogitsProcessorList([watch.keeper]),
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                )
        return Utterance(
            text=prompts.say_region_ids(watch.text, ids),
            tokens_in=input_ids.shape[1],
            tokens_out=len(watch.token_ids),
            mean_logprob=watch.mean_logprob,
            preprocess_s=prepared - began,
            vision_s=seen - prepared,
            language_s=time.perf_counter() - seen,
            canceled=watch.canceled,
        )

    def _room(self, tokens: int) -> int:
        """Return how many tokens fit after a prompt; refuse one that leaves no room."""
        limit = self.model.config.max_position_embeddings
        if tokens >= limit:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f'the question takes {tokens} tokens, the model reads {limit}: ask about fewer '
                'regions or fewer frames',
            )
        return int(limit - tokens)

    def _wait(self) -> None:
        """Wait for the GPU, so that the timings are split where the work is."""
        if self.model.device.type == 'cuda':
            torch.cuda.synchronize(self.model.device)


def _named(text: str, regions: Sequence[RegionClip]) -> str:
    """Put ``<objectK>`` for the regions a text names."""
    try:
        return prompts.name_objects(text.strip(), [region.region_id for region in regions])
    except ValueError as error:
        raise PixelReferError(ErrorCode.BAD_REQUEST, str(error)) from error


def _check(frames: Sequence[Frame], regions: Sequence[RegionClip]) -> None:
    """Refuse clips that do not fit together."""
    if not frames:
        raise PixelReferError(ErrorCode.BAD_REQUEST, 'there are no frames to look at')
    for region in regions:
        indices = region.frame_indices
        if not indices or len(indices) != len(region.masks):
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f"region '{region.region_id}' has {len(region.masks)} masks for {len(indices)} "
                'frames; it needs one per frame, and at least one',
            )
        if min(indices) < 0 or max(indices) >= len(frames):
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f"region '{region.region_id}' speaks of frame {max(indices)} of {len(frames)}",
            )


def _flatten(
    regions: Sequence[RegionClip], *, video: bool
) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Return all masks, their frames, and how many each region has.

    Video prompts list only the frames where a region is to be seen; a picture's region always
    has its tokens.
    """
    masks: list[np.ndarray] = []
    mask_frames: list[int] = []
    counts = []
    for region in regions:
        before = len(masks)
        for frame, mask in zip(region.frame_indices, region.masks, strict=True):
            if not video or np.any(mask):
                masks.append(mask)
                mask_frames.append(frame)
        counts.append(len(masks) - before)
    return masks, mask_frames, counts


def _canceled(tokens_in: int, preprocess_s: float, vision_s: float = 0.0) -> Utterance:
    return Utterance(
        text='',
        tokens_in=tokens_in,
        tokens_out=0,
        mean_logprob=0.0,
        preprocess_s=preprocess_s,
        vision_s=vision_s,
        canceled=True,
    )


@contextmanager
def _refusals(code: ErrorCode) -> Iterator[None]:
    """Turn what goes wrong inside into a PixelReferError: memory as such, values as ``code``."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise PixelReferError(
            ErrorCode.OUT_OF_MEMORY,
            'the GPU has not enough memory: ask about fewer regions or frames, or use a smaller '
            'model',
        ) from error
    except MemoryError as error:
        raise PixelReferError(
            ErrorCode.OUT_OF_MEMORY, 'out of memory: ask about fewer regions or frames'
        ) from error
    except CheckpointError:
        raise
    except ValueError as error:
        raise PixelReferError(code, str(error)) from error
    except RuntimeError as error:
        raise PixelReferError(ErrorCode.MODEL_ERROR, f'the model failed: {error}') from error
