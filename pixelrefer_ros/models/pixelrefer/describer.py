# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Describe regions and answer questions about them with PixelRefer."""

from __future__ import annotations

import gc
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pixelrefer_ros.core.describer import RegionDescriber
from pixelrefer_ros.core.types import ErrorCode, Frame, PixelReferError, RegionClip
from pixelrefer_ros.models.devices import pick_device, pick_dtype, spare_threads
from pixelrefer_ros.models.guards import lacks_memory, quietly
from pixelrefer_ros.models.pixelrefer.checkpoint import CheckpointError
from pixelrefer_ros.models.pixelrefer.jobs import Job, tell
from pixelrefer_ros.models.pixelrefer.kinds import kind_of
from pixelrefer_ros.models.pixelrefer.quantization import check_quantization, quantize
from pixelrefer_ros.models.pixelrefer.voice import Voice
from pixelrefer_ros.models.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pixelrefer_ros.core.describer import LanguageStats, Request, VisionStats
    from pixelrefer_ros.models.pixelrefer.base_eyes import BaseEyes
    from pixelrefer_ros.models.pixelrefer.jobs import OnSaid
    from pixelrefer_ros.models.pixelrefer.sights import Prepared
    from pixelrefer_ros.models.pixelrefer.voice import Prompt

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 512
"""Longest answer in tokens, where neither caller nor generation_config.json says another."""

WARM_UP_SIDE = 64  # pixels


class PixelReferDescriber(RegionDescriber):
    """Put regions into words; implements ``core.describer.RegionDescriber``.

    Attributes:
        name: Model name, as it appears in the results.
        frames_per_region: How many frames of a region the model wants to see at most.
        needs_regions: Whether a question without any region is refused.
        model: The model.
        processor: Its processor.
        eyes: See for it.
        voice: Speaks for it.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        *,
        eyes: BaseEyes[Any],
        max_new_tokens: int = 0,
        prefix_cache_mib: float = 256.0,
    ) -> None:
        """Join a model, its processor and its eyes.

        Args:
            model: On the device it shall run on.
            processor: Of the same directory.
            name: Appears in the results.
            eyes: Of the same model.
            max_new_tokens: Longest answer; 0 for the model's own limit.
            prefix_cache_mib: What the language model may keep between questions.
        """
        self.model = model
        self.processor = processor
        self.name = name
        self.eyes = eyes
        self.frames_per_region = model.config.max_frames_per_region
        self.needs_regions = eyes.needs_regions
        self.voice = Voice(
            model,
            processor,
            max_new_tokens=max_new_tokens
            or model.generation_config.max_new_tokens
            or MAX_NEW_TOKENS,
            cache_mib=prefix_cache_mib,
        )
        self._looks_ahead = True

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: str = 'auto',
        dtype: str = 'auto',
        max_new_tokens: int = 0,
        feature_cache_mib: float = 256.0,
        prefix_cache_mib: float = 256.0,
        resize: str = 'auto',
        quantization: str = 'none',
    ) -> PixelReferDescriber:
        """Load a model that is on this machine.

        Args:
            name: 'tabletop', a model directory, or a hub name fetched before.
            device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
            dtype: 'auto', 'float32', 'bfloat16' or 'float16'; 'auto' is float32 on a CPU and
                what config.json says elsewhere.
            max_new_tokens: Longest answer; 0 for the model's own limit.
            feature_cache_mib: What features of pictures may take on the device; 0 keeps none.
            prefix_cache_mib: The same for what the language model has read.
            resize: Where pictures are resized: 'exact', 'device' or 'auto'; see ``LiteEyes``.
            quantization: Of the language model's weights; see ``quantization.quantize``.

        Raises:
            PixelReferError: MODEL_ERROR with what to do, OUT_OF_MEMORY when it does not fit.
        """
        check_quantization(quantization)
        place = pick_device(device)
        own: torch.dtype | str = torch.float32 if place.type == 'cpu' else 'auto'
        directory = resolve(name)
        try:
            with quietly(), _refusals(ErrorCode.MODEL_ERROR):
                kind = kind_of(directory)
                model = kind.model.from_pretrained(directory, dtype=pick_dtype(dtype) or own)
                processor = kind.processor.from_pretrained(directory, model.config)
                model.to(place)
                quantize(model, quantization)
                spare_threads(model)
                eyes = kind.eyes(model, processor, cache_mib=feature_cache_mib, resize=resize)
        except CheckpointError as error:
            raise PixelReferError(ErrorCode.MODEL_ERROR, str(error)) from error
        logger.info('loaded %s on %s as %s', name, place, model.dtype)
        return cls(
            model,
            processor,
            name,
            eyes=eyes,
            max_new_tokens=max_new_tokens,
            prefix_cache_mib=prefix_cache_mib,
        )

    def warm_up(self) -> None:
        """Do what the first request would take long for: see something and say a word about it.

        Raises:
            PixelReferError: OUT_OF_MEMORY or MODEL_ERROR.
        """
        with torch.inference_mode(), _refusals(ErrorCode.MODEL_ERROR):
            self.voice.warm_up()
        side = WARM_UP_SIDE
        frame = Frame('', 1, np.full((side, side, 3), 127, np.uint8))
        mask = np.zeros((side, side), bool)
        mask[side // 4 : -side // 4, side // 4 : -side // 4] = True
        stages: list[str] = []
        self.describe(
            [frame],
            RegionClip('warm-up', (0,), [mask]),
            should_stop=lambda: 'language' in stages,
            on_progress=lambda stage, _: stages.append(stage),
        )
        self.forget()

    def say(self, requests: Sequence[Request], on_said: OnSaid) -> None:
        """Put requests into words; see ``RegionDescriber``."""
        self._looks_ahead = True
        for place in self._say_together(dict(enumerate(requests)), on_said):
            self._free()  # the pictures of the others are gone by now
            self._say_together({place: requests[place]}, on_said)

    def look_ahead(self, frame: Frame) -> bool:
        """Encode a frame before it is asked about; see ``RegionDescriber``.

        Nothing is done from when memory did not suffice for it until the next question: who
        asks needs it more.

        Raises:
            PixelReferError: MODEL_ERROR.
        """
        if not self._looks_ahead:
            return False
        try:
            with torch.inference_mode(), _refusals(ErrorCode.MODEL_ERROR):
                return self.eyes.look_ahead(frame)
        except PixelReferError as error:
            if error.code != ErrorCode.OUT_OF_MEMORY:
                raise
        self._looks_ahead = False
        self._empty()
        return False

    def forget(self) -> None:
        """Drop what is kept of frames and of what was read; see ``RegionDescriber``."""
        self.eyes.forget()
        self.voice.forget()

    def vision_stats(self) -> VisionStats:
        """Return the counts so far; see ``RegionDescriber``."""
        return self.eyes.stats()

    def language_stats(self) -> LanguageStats:
        """Return the counts so far; see ``RegionDescriber``."""
        return self.voice.stats()

    def _say_together(self, requests: Mapping[int, Request], on_said: OnSaid) -> list[int]:
        """Put requests into words, given by their places.

        Returns:
            The places of those whose pictures found no room beside the others'; they have no
            outcome.
        """
        began = time.perf_counter()
        jobs: list[Job] = []
        aside = []
        for place, request in requests.items():
            try:
                jobs.append(Job(place, request, self._prepare(request), on_said))
            except PixelReferError as error:
                if jobs and error.code == ErrorCode.OUT_OF_MEMORY:
                    aside.append(place)
                else:
                    on_said(place, _bare(error))
        for job in jobs:
            job.preprocess_s = time.perf_counter() - began
        code = self._run(jobs, give_up=False)
        # one of several may be at fault, and memory may do for one after the other
        for job in jobs:
            if not job.done:
                if code == ErrorCode.OUT_OF_MEMORY:
                    self._free()
                self._run([job], give_up=True)
        return aside

    def _prepare(self, request: Request, *, give_up: bool = False) -> Prepared[Any]:
        """Do what does not need the model yet; pictures may go to the device, though.

        Raises:
            PixelReferError: BAD_REQUEST, OUT_OF_MEMORY or MODEL_ERROR.
        """
        try:
            with torch.inference_mode(), _refusals(ErrorCode.BAD_REQUEST):
                tell(request, 'preprocess')
                prepared = self.eyes.prepare(request)
                self.voice.room(len(prepared.input_ids))
                return prepared
        except PixelReferError as error:
            if give_up or error.code != ErrorCode.OUT_OF_MEMORY:
                raise
        self._free()
        return self._prepare(request, give_up=True)

    def _run(self, jobs: Sequence[Job], *, give_up: bool) -> ErrorCode | None:
        """See and speak.

        Args:
            jobs: Those that have no outcome.
            give_up: Whether what goes wrong is their outcome, though trying again might help.

        Returns:
            What went wrong with those that have no outcome now. The error itself is let go of:
            it holds what was in memory.
        """
        try:
            with torch.inference_mode(), _refusals(ErrorCode.MODEL_ERROR):
                self._speak(self._see(jobs))
        except PixelReferError as error:
            if give_up or (len(jobs) == 1 and error.code != ErrorCode.OUT_OF_MEMORY):
                for job in jobs:
                    if not job.done:
                        job.end(_bare(error))
                return None
            logger.warning('asked %d together, trying one at a time: %s', len(jobs), error)
            return error.code
        return None

    def _see(self, jobs: Sequence[Job]) -> list[tuple[Job, Prompt]]:
        """Encode pictures; return the jobs that go on, and what to ask."""
        going = []
        for job in jobs:
            if job.should_stop():
                job.end(None)
            else:
                job.tell('vision')
                going.append(job)
        if not going:
            return []
        began = time.perf_counter()
        prompts_seen = self.eyes.see([job.prepared for job in going])
        if self.model.device.type == 'cuda':
            torch.cuda.synchronize(self.model.device)  # so that the timings say where work is
        vision_s = time.perf_counter() - began
        ready = []
        for job, prompt in zip(going, prompts_seen, strict=True):
            job.vision_s = vision_s
            if prompt is None or job.should_stop():
                job.end(None)
            else:
                ready.append((job, prompt))
        return ready

    def _speak(self, ready: Sequence[tuple[Job, Prompt]]) -> None:
        """Put what was seen into words."""
        if not ready:
            return
        began = time.perf_counter()
        jobs = [job for job, _ in ready]
        for job in jobs:
            job.tell('language')

        def teller(job: Job) -> Callable[[str], None] | None:
            if job.request.on_progress is None:
                return None
            return lambda text: job.tell('language', text)

        self.voice.say(
            [prompt for _, prompt in ready],
            should_stop=[job.should_stop for job in jobs],
            on_text=[teller(job) for job in jobs],
            on_said=lambda place, said: jobs[place].end(said, time.perf_counter() - began),
        )

    def _free(self) -> None:
        """Give back all memory that can be done without."""
        self.forget()
        gc.collect()  # what failed may still be held by its own traceback
        self._empty()

    def _empty(self) -> None:
        """Give back the memory that is not in use."""
        if self.model.device.type == 'cuda':
            torch.cuda.empty_cache()


def _bare(error: PixelReferError) -> PixelReferError:
    """Return an error without the calls it came through: who keeps it would keep pictures."""
    logger.debug('a request failed', exc_info=error)
    return PixelReferError(error.code, str(error))


@contextmanager
def _refusals(code: ErrorCode) -> Iterator[None]:
    """Turn what goes wrong inside into a PixelReferError: memory as such, values as ``code``."""
    try:
        yield
    except (PixelReferError, CheckpointError):
        raise
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise PixelReferError(
                ErrorCode.OUT_OF_MEMORY,
                'the GPU has not enough memory: ask about fewer regions or frames, or use a '
                'smaller model',
            ) from error
        if lacks_memory(error):
            raise PixelReferError(
                ErrorCode.OUT_OF_MEMORY, 'out of memory: ask about fewer regions or frames'
            ) from error
        if isinstance(error, ValueError):
            raise PixelReferError(code, str(error)) from error
        what = str(error) if isinstance(error, RuntimeError) else repr(error)
        raise PixelReferError(ErrorCode.MODEL_ERROR, f'the model failed: {what}') from error
