# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read stored runs of the reference, and compare with them.

The folder is named by PIXELREFER_GOLDEN. Each case holds what the reference made on the way from
pictures to words; keys a case does not hold are passed over.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pixelrefer_ros.models.pixelrefer.rows import Said
from pixelrefer_ros.models.pixelrefer.voice import Prompt, Voice

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
SEED = 1234


@dataclass(frozen=True)
class Folder:
    """Name the golden folder of one kind of model.

    Attributes:
        path: Where it is.
    """

    path: Path

    @classmethod
    def of(cls, kind: str) -> Folder:
        """Return the folder of 'lite' or 'full'."""
        named = os.environ.get('PIXELREFER_GOLDEN', ROOT / '../shared/golden/pixelrefer')
        return cls(Path(named) / kind)

    @property
    def cases(self) -> list[str]:
        """Names of the cases; 'none' where there are none."""
        return sorted(path.parent.name for path in self.path.glob('*/golden.npz')) or ['none']

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """Marks of the tests: skipped where there are no cases, unless a named folder is empty."""
        empty = not any(self.path.parent.glob('*/*/golden.npz'))
        absent = self.cases == ['none'] and not (empty and 'PIXELREFER_GOLDEN' in os.environ)
        reason = f'no golden cases in {self.path}; name their folder with PIXELREFER_GOLDEN'
        return [pytest.mark.parity, pytest.mark.skipif(absent, reason=reason)]

    def checkpoint(self, case: str) -> Path:
        """Return the model's directory; a folder that was named must hold cases."""
        assert case != 'none', f'PIXELREFER_GOLDEN is set and {self.path} holds no case'
        return self.path / 'checkpoint'


@dataclass
class Stored:
    """Hold what a case stores."""

    directory: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.directory / 'meta.json').read_text(encoding='utf-8'))

    @cached_property
    def golden(self) -> dict[str, np.ndarray]:
        with np.load(self.directory / 'golden.npz') as file:
            return dict(file)

    @cached_property
    def images(self) -> list[np.ndarray]:
        return [self.golden[key] for key in sorted(self.golden) if key.startswith('in.image.')]

    @cached_property
    def mask_ids(self) -> list[int]:
        if 'in.mask_ids' in self.golden:
            return self.golden['in.mask_ids'].tolist()
        return list(self.meta.get('mask_ids') or [])

    def permutations(self, lengths: Sequence[int], count: int) -> list[Any]:
        """Return the reference's random starts: stored, or drawn as the reference drew them."""
        generator = torch.Generator().manual_seed(SEED)
        permutations = []
        for row, length in enumerate(lengths):
            drawn = torch.randperm(length, generator=generator) if length > count else None
            permutations.append(self.golden.get(f'region.{row:02d}.kmeans_perm', drawn))
        return permutations


def skip_without(stored: Stored, *ends: str) -> None:
    """Skip a test of a case that stores nothing it could compare: no key with one of the ends."""
    if not any(key.endswith(ends) for key in stored.golden):
        pytest.skip(f'the case holds no {" or ".join(ends)}')


def close(found: torch.Tensor, golden: np.ndarray, tolerance: float, what: str) -> None:
    """Compare numbers, absolutely."""
    assert tuple(found.shape) == golden.shape, what
    np.testing.assert_allclose(found.numpy(), golden, rtol=1e-6, atol=tolerance, err_msg=what)


def spans(index: Sequence[int], lengths: Sequence[int], held: int) -> list[tuple[int, int, int]]:
    """Say where pictures lie among the distinct ones that are stored one after another.

    Args:
        index: Per picture, its place among the distinct ones.
        lengths: Per picture, its patches.
        held: Patches that are stored; pictures that reach past them are left out.

    Returns:
        (picture, begin, end) each.
    """
    bounds: dict[int, tuple[int, int]] = {}
    begin = 0
    found = []
    for row, unique in enumerate(index):
        if unique not in bounds:
            bounds[unique] = (begin, begin + lengths[row])
            begin += lengths[row]
        if bounds[unique][1] <= held:
            found.append((row, *bounds[unique]))
    assert found, 'not one whole picture is stored'
    return found


def check_logits(stored: Stored, logits: torch.Tensor) -> None:
    """Compare the language model's last layer, (L, vocabulary)."""
    skip_without(stored, 'llm.logits', 'llm.logits_last16', 'llm.logits_argmax')
    golden = stored.golden
    if 'llm.logits' in golden:
        close(logits, golden['llm.logits'], 1e-4, 'llm.logits')
    if 'llm.logits_last16' in golden:
        last = golden['llm.logits_last16']
        close(logits[-len(last) :], last, 1e-4, 'llm.logits_last16')
    if 'llm.logits_argmax' in golden:
        assert logits.argmax(-1).tolist() == golden['llm.logits_argmax'].tolist()


def check_greedy_words(stored: Stored, model: Any, processor: Any, prompt: Any) -> None:
    """Compare what is said after a prompt of (input_ids, tokens)."""
    if 'llm.greedy_ids' not in stored.golden:
        pytest.skip('the case holds no llm.greedy_ids')
    golden = stored.golden['llm.greedy_ids'].tolist()
    input_ids, tokens = prompt
    found = model.generate(
        input_ids, region_tokens=tokens, max_new_tokens=len(golden), do_sample=False
    )[0]
    assert found.tolist() == golden
    said: list[Said] = []
    voice = Voice(model, processor, max_new_tokens=len(golden))
    flat = tokens.flatten(0, -2)
    voice.say(
        [Prompt(input_ids[0], flat, torch.arange(2 * len(flat)).reshape(-1, 2))],
        should_stop=[lambda: False],
        on_text=[None],
        on_said=lambda _, one: said.append(one),
    )
    assert list(said[0].token_ids) == golden
    if 'text' in stored.meta:
        # the reference also tells a letter that is cut at the end
        assert said[0].text == stored.meta['text'].rstrip('\N{REPLACEMENT CHARACTER}').strip()
        assert processor.decode(golden) == stored.meta['text'].strip()


def check_permutations(stored: Stored, lengths: Sequence[int], count: int) -> None:
    """Make sure that the stored starts are those the reference drew."""
    generator = torch.Generator().manual_seed(SEED)
    for row, length in enumerate(lengths):
        permutation = stored.golden.get(f'region.{row:02d}.kmeans_perm')
        if length > count:
            drawn = torch.randperm(length, generator=generator).numpy()
            if permutation is not None:
                np.testing.assert_array_equal(drawn, permutation)
        else:
            assert permutation is None
