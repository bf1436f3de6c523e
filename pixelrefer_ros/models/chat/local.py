# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold conversations with a vision language model on this machine."""

from __future__ import annotations

import inspect
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import TemplateError
from transformers import (
    AutoModelForImageTextToText,
    DynamicCache,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from pixelrefer_ros.core.chat import Reply
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.chat.clips import ClipPatches, load_processor
from pixelrefer_ros.models.chat.prompt import (
    Prompt,
    Sight,
    picture_multiple,
    read,
    shared_tokens,
)
from pixelrefer_ros.models.chat.quantization import quantization_config
from pixelrefer_ros.models.chat.watch import Watch
from pixelrefer_ros.models.devices import pick_device, pick_dtype, spare_threads
from pixelrefer_ros.models.guards import failures, quietly
from pixelrefer_ros.models.quantization import NONE
from pixelrefer_ros.models.registry import Use, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixelrefer_ros.core.chat import Decoding, Turn

logger = logging.getLogger(__name__)

_ADVICE = 'show fewer or smaller frames, use a smaller model, or set quantization'

_VISION_IDS = (
    'image_token_id',
    'video_token_id',
    'image_token_index',
    'video_token_index',
    'vision_start_token_id',
    'vision_end_token_id',
)
_VISION_TOKENS = ('<|vision_start|>', '<|vision_end|>', '<|vision_pad|>')


@dataclass(frozen=True, slots=True)
class _Read:
    """Hold what was read last: its tokens, where its pictures are, keys and values of all."""

    ids: tuple[int, ...]
    sights: tuple[Sight, ...]
    cache: DynamicCache


class _Words:
    """Turn tokens into words as ``Watch`` wants them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words, without special tokens."""
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


class LocalChat:
    """Reply to conversations with pictures; implements ``core.chat.ChatModel``.

    What was read of a conversation is kept (keys and values, on the model's device) until another
    one is read or ``forget`` is called. A conversation is compared with it token by token and
    picture by picture, and only what differs is read: the reply is the same either way. This
    needs a model whose tokens can be told from its pictures' (``mm_token_type_ids``) and takes
    what its tower saw from outside (``mm_encoder_outputs``), as the Qwen-VL models do; others
    read all anew.

    Attributes:
        name: Model name, as it appears in the results.
        shows_video: Whether a turn may hold a Video.
        picture_multiple: Sides of pictures must be multiples of it, in pixels.
        remote: False.
        model: The model.
        processor: Its processor.
    """

    remote = False

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        """Join a model and its processor.

        Args:
            model: An image-text-to-text model of transformers, on the device it shall run on.
            processor: See ``clips.load_processor``.
            name: Appears in the results.
        """
        self.name = name
        self.model = model.eval()
        self.processor = processor
        self.shows_video = isinstance(getattr(processor, 'video_processor', None), ClipPatches)
        self.picture_multiple = picture_multiple(processor) or 1
        self._words: Any = _Words(processor.tokenizer)
        self._last: _Read | None = None
        generation = model.generation_config
        if generation.eos_token_id is None:
            generation.eos_token_id = processor.tokenizer.eos_token_id
        if generation.pad_token_id is None:
            generation.pad_token_id = processor.tokenizer.pad_token_id
        ends = generation.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self._never = sorted({*_vision_ids(model, processor), *(generation.suppress_tokens or ())})

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: str = 'auto',
        dtype: str = 'auto',
        quantization: str = NONE,
    ) -> LocalChat:
        """Load a model that is on this machine.

        Args:
            name: 'tabletop', a model directory, or a hub name fetched before.
            device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
            dtype: 'auto', 'float32', 'bfloat16' or 'float16'; 'auto' is float32 on a CPU and
                what config.json says elsewhere.
            quantization: 'none' or a key of ``quantization.PACKAGES``.

        Raises:
            PixelReferError: MODEL_ERROR with what to do, OUT_OF_MEMORY when it does not fit.
        """
        directory = resolve(name, Use.GROUNDING)
        place = pick_device(device)
        own: torch.dtype | str = torch.float32 if place.type == 'cpu' else 'auto'
        options: dict[str, Any] = {'dtype': pick_dtype(dtype) or own}
        smaller = quantization_config(quantization, place.type)
        if smaller is not None:
            # quantised weights cannot be moved afterwards
            options |= {'quantization_config': smaller, 'device_map': {'': str(place)}}
        with failures(f"loading '{name}'", _ADVICE), quietly():
            model = AutoModelForImageTextToText.from_pretrained(directory, **options)
            processor = load_processor(directory, model.config)
            if smaller is None:
                model.to(place)
        spare_threads(model)
        logger.info('loaded %s on %s as %s, quantization %s', name, place, dtype, quantization)
        return cls(model, processor, name)

    def reply(
        self,
        turns: Sequence[Turn],
        decoding: Decoding,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Say the assistant's next turn; see ``ChatModel``."""
        stop = should_stop or (lambda: False)
        try:
            prompt = read(self.processor, turns)
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST, f"'{self.name}' cannot read this conversation: {error}"
            ) from error
        room = self._room(len(prompt.ids))
        if stop():
            return _nothing(prompt)
        with torch.inference_mode(), failures(f"asking '{self.name}'", _ADVICE):
            inputs, known = self._continue(prompt)
            if stop():
                return _nothing(prompt)
            last, self._last = self._last, None  # nothing is kept of what goes wrong from here on
            cache = last.cache if last is not None and known else self._empty_cache()
            if known < cache.get_seq_length():
                cache.crop(known - cache.get_seq_length())
            del last
            watch = Watch(self._words, should_stop, on_text)
            self.model.generate(
                **inputs,
                past_key_values=cache,
                max_new_tokens=min(decoding.max_new_tokens, room),
                suppress_tokens=self._never or None,
                stopping_criteria=StoppingCriteriaList([watch]),
                logits_processor=LogitsProcessorList([watch.keeper]),
                **_sampling(decoding.temperature),
            )
        ids = (*prompt.ids, *watch.token_ids)
        if prompt.sights is not None:
            # the last token was said, not read
            self._last = _Read(ids[: cache.get_seq_length()], prompt.sights, cache)
        return Reply(
            text=watch.text,
            complete=bool(watch.token_ids) and watch.token_ids[-1] in self._ends,
            tokens_in=len(prompt.ids),
            tokens_reused=known,
            tokens_out=len(watch.token_ids),
            log_prob=watch.mean_logprob if watch.token_ids else math.nan,
        )

    def trouble(self) -> str:
        """Return '': a model on this machine is there once it is loaded."""
        return ''

    def forget(self) -> None:
        """Free what is kept of the last conversation."""
        self._last = None
        if self.model.device.type == 'cuda':
            torch.cuda.empty_cache()

    def _continue(self, prompt: Prompt) -> tuple[dict[str, Any], int]:
        """Look at the pictures that were not seen last time.

        Returns:
            What ``generate`` takes, and how many tokens of the prompt need not be read again.
        """
        if prompt.sights is None or not self._takes_features():
            return {key: self._move(value) for key, value in prompt.inputs.items()}, 0
        known = self._known(prompt)
        inputs = {
            key: self._move(value)
            for key, value in prompt.inputs.items()
            if not key.startswith('pixel_values')
        }
        features = {}
        if (pixels := prompt.pixels_from(known, 'image')) is not None:
            features['image'] = self.model.get_image_features(
                *map(self._move, pixels), return_dict=True
            )
        if (pixels := prompt.pixels_from(known, 'video')) is not None:
            features['video'] = self.model.get_video_features(
                *map(self._move, pixels), return_dict=True
            )
        inputs['mm_encoder_outputs'] = features
        # Left from another conversation, it would be taken for this one's.
        self.model.base_model.rope_deltas = None
        return inputs, known

    def _known(self, prompt: Prompt) -> int:
        """Return how many tokens from the start are those of the last conversation."""
        last = self._last
        if last is None or prompt.sights is None:
            return 0
        known = shared_tokens(prompt.ids[:-1], prompt.sights, last.ids, last.sights)
        if known < last.cache.get_seq_length() and not last.cache.is_croppable:
            return 0
        return known

    def _takes_features(self) -> bool:
        """Say whether pictures can be looked at apart from reading."""
        takes = inspect.signature(self.model.forward).parameters
        return 'mm_encoder_outputs' in takes and hasattr(self.model.base_model, 'rope_deltas')

    def _empty_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.config.get_text_config(decoder=True))

    def _move(self, value: Any) -> Any:
        """Put a tensor where the model is; pixels in its number format."""
        if not isinstance(value, torch.Tensor):
            return value
        kind = self.model.dtype if value.is_floating_point() and value.dim() > 1 else None
        return value.to(self.model.device, kind)

    def _room(self, tokens: int) -> int:
        """Return how many tokens fit after a prompt; refuse one that leaves no room."""
        text = self.model.config.get_text_config(decoder=True)
        limit = getattr(text, 'max_position_embeddings', None)
        if limit is None:
            return 1 << 30
        if tokens >= limit:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f"the conversation takes {tokens} tokens, '{self.name}' reads {limit}: show fewer "
                'or smaller frames',
            )
        return int(limit - tokens)


def _vision_ids(model: Any, processor: Any) -> set[int]:
    """Return tokens that stand for something seen; said, the next turn could not be read."""
    ids = {
        getattr(owner, name, None) for owner in (model.config, processor) for name in _VISION_IDS
    }
    known = processor.tokenizer.get_added_vocab()
    ids |= {known.get(token) for token in _VISION_TOKENS}
    return {int(one) for one in ids if one is not None}


def _sampling(temperature: float) -> dict[str, Any]:
    """Return what ``generate`` takes; what else steers sampling is the model's own."""
    if temperature > 0.0:
        return {'do_sample': True, 'temperature': temperature}
    return {'do_sample': False, 'temperature': None, 'top_p': None, 'top_k': None}


def _nothing(prompt: Prompt) -> Reply:
    """Return the reply that was stopped before its first token."""
    return Reply('', False, len(prompt.ids), 0, 0, math.nan)
