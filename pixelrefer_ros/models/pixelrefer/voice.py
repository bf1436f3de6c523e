# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Put prompts into words: several at a time, what they share read once, greedily."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch

from pixelrefer_ros.core.describer import LanguageStats
from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.models.pixelrefer.prefixes import Node, PrefixTree
from pixelrefer_ros.models.pixelrefer.rows import Row, Said
from pixelrefer_ros.models.pixelrefer.slots import Slots, read
from pixelrefer_ros.models.pixelrefer.steps import StaticSteps, Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from pixelrefer_ros.models.pixelrefer.processing import PixelReferProcessor

logger = logging.getLogger(__name__)

MAX_ROWS = 32
"""Most sequences in one batch."""

MAX_SLOTS = 16384
"""Most slots of a batch to begin with, unless it is a single row: 450 MiB at 2B sizes."""

MAX_READ = 8192
"""Most tokens read in one pass, pads among them, unless it is a single row."""

MIN_SHARED = 64
"""A beginning that prompts share is read ahead of them when that spares as many tokens: fewer
are read sooner than the weights once more."""


@dataclass(frozen=True)
class Prompt:
    """Hold what the language model reads.

    Attributes:
        input_ids: (L,) int64 on the CPU, with placeholder ids.
        tokens: (R, D) floats on the model's device; replace the placeholder ids in order.
        names: (R, 2) int64 on the CPU, tell each of them from every other: equal rows mean equal
            tokens, in all prompts.
    """

    input_ids: Tensor
    tokens: Tensor
    names: Tensor


class _Span:
    """Say which tokens of a row are read: from the known ones up to a place.

    Attributes:
        row: The row.
        known: The nodes at its beginning that were read before.
        new: Those that are read with the span.
        start: Place of its first token.
        stop: The place after its last one.
    """

    def __init__(self, row: Row, path: Sequence[Node], stop: int) -> None:
        """Read a row along some nodes, and beyond them, up to a place."""
        self.row = row
        self.known = list(takewhile(lambda node: node.kv is not None, path))
        self.new = path[len(self.known) :]
        self.start = self.known[-1].stop if self.known else 0
        self.stop = stop

    def __len__(self) -> int:
        """Return how many tokens are read."""
        return self.stop - self.start


class Voice:
    """Decode greedily with a Qwen2-style language model.

    What several prompts begin with is read once, and what was read is kept for the next call up
    to a number of bytes: a second question about the same regions reads only its own words. A
    row's words do not depend on the other rows, apart from rounding.

    Of the model's generation_config, ``eos_token_id`` and ``repetition_penalty`` (which counts
    what was said, not the prompt) have a meaning here.
    """

    def __init__(
        self,
        model: Any,
        processor: PixelReferProcessor,
        *,
        max_new_tokens: int,
        cache_mib: float = 256.0,
        static: bool | None = None,
    ) -> None:
        """Use a model on the device where it is.

        Args:
            model: Qwen2ForCausalLM or a relative: ``model.model``, ``lm_head``, ``config`` with
                ``placeholder_ids``, ``generation_config``.
            processor: Turns ids into words.
            max_new_tokens: Longest answer.
            cache_mib: What keys and values may take that are kept between calls; 0 keeps none.
            static: Whether batches have few fixed shapes, which CUDA's recorded steps need;
                None for those alone.

        Raises:
            PixelReferError: MODEL_ERROR when its layers do not all look at everything before.
        """
        kinds = set(getattr(model.config, 'layer_types', None) or ['full_attention'])
        if kinds != {'full_attention'}:
            raise PixelReferError(
                ErrorCode.MODEL_ERROR,
                f'the language model has layers of {sorted(kinds)}; only full_attention is '
                'supported: set use_sliding_window to false in config.json',
            )
        self._model = model
        self._processor = processor
        self._max_new_tokens = max_new_tokens
        self._prefixes = PrefixTree(int(cache_mib * 2**20))
        self._hits = self._misses = 0
        self._warned = False
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = processor.tokenizer.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or ())
        on_cuda = model.model.embed_tokens.weight.device.type == 'cuda'
        self._steps = (
            StaticSteps(model) if static or (static is None and on_cuda) else Steps(model)
        )

    def stats(self) -> LanguageStats:
        """Return the counts so far; may be called from any thread."""
        kept = self._prefixes
        return LanguageStats(self._hits, self._misses, kept.held_bytes, kept.max_bytes)

    def room(self, tokens: int) -> int:
        """Return how many tokens may be said after a prompt of some length.

        Raises:
            PixelReferError: BAD_REQUEST when the prompt leaves no room.
        """
        limit = int(self._model.config.max_position_embeddings)
        if tokens >= limit:
            raise PixelReferError(
                ErrorCode.BAD_REQUEST,
                f'the question takes {tokens} tokens, the model reads {limit}: ask about fewer '
                'regions or fewer frames',
            )
        return min(limit - tokens, self._max_new_tokens)

    def say(
        self,
        prompts: Sequence[Prompt],
        *,
        should_stop: Sequence[Callable[[], bool]],
        on_text: Sequence[Callable[[str], None] | None],
        on_said: Callable[[int, Said], None],
    ) -> None:
        """Put prompts into words together.

        Args:
            prompts: At least one token each.
            should_stop: Per prompt, asked after each of its tokens, and before it is read while
                others speak first; True ends it there.
            on_text: Per prompt, called with the text so far whenever a token changes it; letters
                whose last bytes have not come yet are left out.
            on_said: Called once per prompt, with its place, as soon as it ends.

        Raises:
            PixelReferError: BAD_REQUEST, before anything is said, when a prompt leaves no room.
            ValueError: A prompt has another number of placeholders than tokens or names.
            RuntimeError: As torch raises it, ``torch.OutOfMemoryError`` among them. What was
                kept is dropped; the next call starts anew.
        """
        rooms = [self.room(len(prompt.input_ids)) for prompt in prompts]
        try:
            with torch.inference_mode():
                left = [
                    self._row(*one)
                    for one in zip(
                        range(len(prompts)), prompts, rooms, should_stop, on_text, strict=True
                    )
                ]
                while left:
                    count = self._batch_size(left)
                    batch, left = left[:count], left[count:]
                    self._say(batch, left, on_said)
                    left = self._wanted(left, on_said)
                self._prefixes.trim()
        except BaseException as error:
            self.forget()
            if isinstance(error, torch.OutOfMemoryError):
                self._steps.release()
            raise

    def warm_up(self) -> None:
        """Do beforehand what the first words would have to wait for: seconds on CUDA."""
        with torch.inference_mode():
            self._steps.warm_up()

    def forget(self) -> None:
        """Drop the keys and values kept between calls."""
        self._prefixes.clear()

    def _row(
        self,
        place: int,
        prompt: Prompt,
        room: int,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None,
    ) -> Row:
        """Find where a prompt's tokens go, and what tells it from others."""
        ids = prompt.input_ids
        stand_ins = ids.new_tensor(self._model.config.placeholder_ids)
        places = torch.isin(ids, stand_ins).nonzero()[:, 0]
        if not len(places) == len(prompt.tokens) == len(prompt.names):
            raise ValueError(
                f'the prompt has room for {len(places)} tokens, {len(prompt.tokens)} given with '
                f'{len(prompt.names)} names'
            )
        key = ids.new_zeros(len(ids), 3)
        key[:, 0] = ids
        key[places, 1:] = prompt.names
        return Row(place, ids, prompt.tokens, places, key.numpy(), room, should_stop, on_text)

    def _batch_size(self, rows: Sequence[Row]) -> int:
        """Return how many of the rows, from the first on, make a batch of bounded size."""
        longest = 0
        for count, row in enumerate(rows):
            longest = max(longest, row.length)
            slots = math.prod(self._steps.shape(count + 1, longest + 1))
            if count and (count == MAX_ROWS or slots > MAX_SLOTS):
                return count
        return len(rows)

    def _wanted(self, rows: Sequence[Row], on_said: Callable[[int, Said], None]) -> list[Row]:
        """End the rows that were stopped while others spoke; return the rest."""
        going = []
        for row in rows:
            row.canceled = row.should_stop()
            if row.canceled:
                on_said(row.place, row.said(self._processor))
            else:
                going.append(row)
        return going

    def _say(
        self, rows: Sequence[Row], later: Sequence[Row], on_said: Callable[[int, Said], None]
    ) -> None:
        """Put one batch into words: say token after token until all its rows have ended.

        Args:
            rows: The batch.
            later: Those of the batches to come; what was read of them is kept.
            on_said: See ``say``.
        """
        rows = self._follow(rows)
        slots = self._steps.batch(len(rows), max(row.length for row in rows) + 1)
        ids, logprobs = self._begin(slots, rows, later)
        going: list[Row | None] = list(rows)
        while True:
            for place, row in enumerate(going):
                if row is None:
                    continue
                if row.hear(int(ids[place]), logprobs[place], self._ends, self._processor):
                    going[place] = None
                    on_said(row.place, row.said(self._processor))
            left = [(place, row) for place, row in enumerate(going) if row is not None]
            if not left:
                return
            needed = max(row.position for _, row in left) + 1
            fitting = self._steps.fit(slots, [place for place, _ in left], needed)
            if fitting is not slots:
                slots, going = fitting, [row for _, row in left]
            going += [None] * (slots.rows - len(going))
            # a row that ended says something nobody hears
            ids, logprobs = self._steps.step(
                slots,
                [0 if row is None else row.token_ids[-1] for row in going],
                [0 if row is None else row.position for row in going],
            ).tolist()

    def _follow(self, rows: Sequence[Row]) -> list[Row]:
        """Find rows in the tree and read what they share; return them ordered by what is left."""
        for row in rows:
            self._prefixes.path(row.key[:-1])
        for row in rows:
            row.path = self._prefixes.path(row.key[:-1])
        self._read_shared(rows)
        return sorted(rows, key=lambda row: len(_Span(row, row.path, row.length)))

    def _begin(
        self, slots: Slots, rows: Sequence[Row], later: Sequence[Row]
    ) -> tuple[list[float], list[float]]:
        """Read what is left of the prompts; return the first tokens as ``Steps.pick`` does.

        What was read is let go of here, except in the slots and what the tree may keep.
        """
        states = self._read(slots, [_Span(row, row.path, row.length) for row in rows])
        said = None if slots.said is None else slots.said[: len(rows)]
        ids, logprobs = self._steps.pick(states, said).tolist()
        for row in rows:
            self._hits += row.length - row.prefill_tokens
            self._misses += row.prefill_tokens
            self._warn_if_too_long(row)
            row.path = []
        self._prefixes.trim(row.key[:-1] for row in later)
        return ids, logprobs

    def _warn_if_too_long(self, row: Row) -> None:
        """Say once that a prompt is too long to be kept."""
        taken = sum(node.kv.nbytes for node in row.path if node.kv is not None)
        if self._warned or not 0 < self._prefixes.max_bytes < taken:
            return
        self._warned = True
        logger.warning(
            'what was read of %d tokens takes %.0f MiB, more than the %.0f MiB that may be kept '
            'between questions: the next one about the same reads most of it again',
            row.length,
            taken / 2**20,
            self._prefixes.max_bytes / 2**20,
        )

    def _read_shared(self, rows: Sequence[Row]) -> None:
        """Read what several prompts begin with, where that spares enough."""
        sharers = Counter(node for row in rows for node in row.path)
        while True:
            ahead: dict[Node, _Span] = {}
            for row in rows:
                for count, node in enumerate(row.path, start=1):
                    if node.kv is None and (sharers[node] - 1) * len(node) >= MIN_SHARED:
                        ahead.setdefault(node, _Span(row, row.path[:count], node.stop))
                        break
            if not ahead:
                return
            spans = sorted(ahead.values(), key=len)
            self._read(self._steps.batch(len(spans), max(span.stop for span in spans)), spans)

    def _read(self, slots: Slots, spans: list[_Span]) -> Tensor:
        """Read a span per row, as many together as ``MAX_READ`` allows; keep what was read.

        Returns:
            (rows, D), the state after the last token of each.
        """
        states = []
        first = 0
        while first < len(spans):
            last = first + 1
            while last < len(spans) and (last + 1 - first) * len(spans[last]) <= MAX_READ:
                last += 1
            states.append(self._read_together(slots.between(first, last), spans[first:last]))
            first = last
        return torch.cat(states)

    def _read_together(self, slots: Slots, spans: list[_Span]) -> Tensor:
        """Do one pass of ``_read``; the spans are ordered by length."""
        lengths = [len(span) for span in spans]
        longest = lengths[-1]
        ids = torch.zeros(len(spans), longest, dtype=torch.int64)
        positions = torch.full((len(spans), longest), -1)
        for place, (span, length) in enumerate(zip(spans, lengths, strict=True)):
            for node in span.known:
                assert node.kv is not None
                slots.put(place, node.start, node.kv)
            ids[place, :length] = span.row.ids[span.start : span.stop]
            positions[place, :length] = torch.arange(span.start, span.stop)
            span.row.prefill_tokens += length
        embeds = self._model.model.embed_tokens(ids.to(slots.store.device))
        for place, span in enumerate(spans):
            bounds = torch.tensor([span.start, span.stop])
            first, last = torch.searchsorted(span.row.places, bounds).tolist()
            where = (span.row.places[first:last] - span.start).to(embeds.device)
            embeds[place, where] = span.row.tokens[first:last].to(embeds)
        seen = max(span.stop for span in spans)
        states = read(self._model.model, slots, embeds, positions.to(embeds.device), seen)
        for place, span in enumerate(spans):
            for node in span.new:
                if node.kv is None:  # a row before may have read it too
                    self._prefixes.keep(node, slots.take(place, node.start, node.stop))
        ends = torch.tensor(lengths, device=states.device) - 1
        return states[torch.arange(len(spans), device=states.device), ends]
