# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare PixelRefer-Lite with stored runs of the reference, key by key.

The folder is named by PIXELREFER_GOLDEN. Each case of its ``lite`` folder holds what the
reference made on the way from pictures to words; keys a case does not hold are passed over.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelrefer_ros.models.pixelrefer import (
    PixelReferConfig,
    PixelReferForConditionalGeneration,
    PixelReferProcessor,
)
from pixelrefer_ros.models.pixelrefer import crops as crop_module
from pixelrefer_ros.models.pixelrefer.object_tokenizer import cell_layout, permutation_starts

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get('PIXELREFER_GOLDEN', ROOT / '../shared/golden/pixelrefer')) / 'lite'
CASES = sorted(path.parent.name for path in GOLDEN.glob('*/golden.npz'))
SEED = 1234

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        not CASES and 'PIXELREFER_GOLDEN' not in os.environ,
        reason=f'no golden cases in {GOLDEN}; name their folder with PIXELREFER_GOLDEN',
    ),
]


@dataclass
class Case:
    """Run one case; every stage is worked out once, from the case's inputs."""

    name: str
    model: PixelReferForConditionalGeneration
    processor: PixelReferProcessor

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((GOLDEN / self.name / 'meta.json').read_text(encoding='utf-8'))

    @cached_property
    def golden(self) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / self.name / 'golden.npz') as file:
            return dict(file)

    @cached_property
    def frames(self) -> list[np.ndarray]:
        return [self.golden[key] for key in sorted(self.golden) if key.startswith('in.image.')]

    @cached_property
    def mask_frames(self) -> list[int]:
        if 'in.mask_ids' in self.golden:
            return self.golden['in.mask_ids'].tolist()
        return list(self.meta['mask_ids'])

    @cached_property
    def inputs(self):
        return self.processor.regions(self.frames, list(self.golden['in.masks']), self.mask_frames)

    @cached_property
    def object_crops(self):
        config = self.processor.config
        return [
            crop_module.object_crop(self.frames[frame], mask, config)
            for frame, mask in zip(self.mask_frames, self.golden['in.masks'], strict=True)
        ]

    @cached_property
    def prompt(self) -> str | None:
        """The prompt for the question; None where masks per object or times are not stored."""
        question = self.meta['question']
        raw, times = self.meta.get('mask_ids_raw'), self.meta.get('timestamps')
        counts = [len(ids) for ids in raw] if raw else [1] * len(self.mask_frames)
        timed = self.meta.get('modal') == 'video' or len(self.frames) > 1
        if len(counts) != question.count('<region>') or (timed and 'timestamps' not in self.meta):
            return None
        times_s = [times[frame] for frame in self.mask_frames] if times else None
        return self.processor.prompt(question, counts, times_s)

    @cached_property
    def input_ids(self):
        prompt = self.prompt or self.meta.get('rendered_prompt')
        if prompt is not None:
            return self.processor.encode(prompt)
        if 'llm.input_ids' in self.golden:
            return torch.from_numpy(self.golden['llm.input_ids'])[None]
        pytest.skip('the case holds neither its prompt nor what it is made from')

    @cached_property
    def starts(self):
        """The reference's random starts: stored, or drawn as the reference drew them."""
        count = self.processor.config.mask_num
        generator = torch.Generator().manual_seed(SEED)
        permutations = []
        for row, length in enumerate(self.inputs.layout.lengths):
            drawn = torch.randperm(length, generator=generator) if length > count else None
            permutations.append(self.golden.get(f'region.{row:02d}.kmeans_perm', drawn))
        return permutation_starts(permutations, self.inputs.layout.lengths, count)

    @cached_property
    def features(self):
        return {
            name: self.model.encode_images(pictures.patches, pictures.grids)
            for name, pictures in (
                ('crop', self.inputs.crops),
                ('global', self.inputs.frames),
                ('local', self.inputs.contexts),
            )
        }

    def rows(self, name: str) -> list[int]:
        """Per mask, the row of its picture among the distinct ones."""
        index = {'global': self.inputs.frame_index, 'local': self.inputs.context_index}
        return index[name].tolist() if name in index else list(range(len(self.mask_frames)))

    def stored_index(self, index_key: str, key: str, name: str, lengths: list[int]) -> list[int]:
        """Per mask, the place of its picture in ``key``, where pictures take ``lengths`` rows.

        Without a stored index, the masks of a frame share its picture and its context crop, in
        order of first appearance, unless ``key`` is long enough for one picture per mask.
        """
        if index_key in self.golden:
            return self.golden[index_key].tolist()
        if name == 'crop' or len(self.golden[key]) == sum(lengths):
            return list(range(len(lengths)))
        places: dict[int, int] = {}
        return [places.setdefault(frame, len(places)) for frame in self.mask_frames]

    @cached_property
    def tokens(self):
        return self.model.region_encoder.tokenize(
            self.features['crop'], self.inputs.layout, self.starts
        )

    @cached_property
    def stages(self) -> dict[str, torch.Tensor]:
        """The tokens before and after each attention, and what goes into the last layers."""
        encoder = self.model.region_encoder
        stages = {}
        tokens = self.tokens
        for name in ('local', 'global'):
            pictures = torch.stack([self.features[name][row] for row in self.rows(name)])
            stages[f'oci.{name}.query'] = tokens
            attention = getattr(encoder, f'fusion_attention_{name}')
            tokens = tokens + attention(getattr(encoder, f'ln_{name}')(tokens), pictures)
            stages[f'oci.{name}.out'] = tokens
            stages[f'oci.{name}.key_shape'] = torch.tensor(pictures.shape)
        stages['region.linear_in'] = tokens.flatten(0, 1)
        return stages

    @cached_property
    def region_tokens(self):
        return self.model.encode(self.inputs, self.starts)


@pytest.fixture(scope='module', params=CASES or ['none'])
def case(request: pytest.FixtureRequest) -> Case:
    assert CASES, f'PIXELREFER_GOLDEN is set and {GOLDEN} holds no case'
    directory = GOLDEN / 'checkpoint'
    config = PixelReferConfig.from_pretrained(
        directory, compat_reuse_context=True, compat_shared_budget=True
    )
    model = PixelReferForConditionalGeneration.from_pretrained(
        directory, config=config, dtype=torch.float32
    )
    with torch.inference_mode():
        yield Case(
            request.param, model, PixelReferProcessor.from_pretrained(directory, config=config)
        )


def close(found: torch.Tensor, golden: np.ndarray, tolerance: float, what: str) -> None:
    assert tuple(found.shape) == golden.shape, what
    np.testing.assert_allclose(found.numpy(), golden, rtol=1e-6, atol=tolerance, err_msg=what)


def test_crops_masks_and_boxes(case: Case) -> None:
    for row, crop in enumerate(case.object_crops):
        found = {
            f'pre.{row:02d}.crop': crop.picture,
            f'pre.{row:02d}.mask': crop.grid_mask,
            f'pre.{row:02d}.box_tlbr_rawhw': [*crop.box, *crop.frame_size],
            f'region.{row:02d}.grid_mask': crop.grid_mask,
        }
        for key, value in found.items():
            if key in case.golden:
                np.testing.assert_array_equal(value, case.golden[key], err_msg=key)
    if 'pre.mask_nums' in case.golden:
        assert set(case.golden['pre.mask_nums'].tolist()) == {case.processor.config.mask_num}


@pytest.mark.parametrize('name', ['global', 'local'])
def test_squares(case: Case, name: str) -> None:
    config = case.processor.config
    key = {'global': 'pre.global336', 'local': 'pre.local224'}[name]
    if key not in case.golden:
        pytest.skip(f'the case holds no {key}')
    made = []
    first: dict[int, int] = {}
    for row, frame in enumerate(case.mask_frames):
        mask = case.golden['in.masks'][first.setdefault(frame, row)]
        made.append(
            crop_module.square(case.frames[frame], config.global_size)
            if name == 'global'
            else crop_module.context_crop(case.frames[frame], mask, config)
        )
    index = case.stored_index(f'{key}_index', key, name, [1] * len(made))
    for row, unique in enumerate(index):
        if unique < len(case.golden[key]):
            np.testing.assert_array_equal(made[row], case.golden[key][unique], err_msg=key)


@pytest.mark.parametrize('name', ['crop', 'global', 'local'])
def test_pixels_and_grids(case: Case, name: str) -> None:
    pictures = {
        'crop': case.inputs.crops, 'global': case.inputs.frames, 'local': case.inputs.contexts
    }[name]  # fmt: skip
    rows = case.rows(name)
    grids = [(1, *pictures.grids[row]) for row in rows]
    if f'vis.{name}.grid_thw' in case.golden:
        np.testing.assert_array_equal(grids, case.golden[f'vis.{name}.grid_thw'])
    if f'vis.{name}.strides' in case.golden:
        assert case.golden[f'vis.{name}.strides'].tolist() == [1] * len(rows)
    key = f'vis.{name}.patches_u8'
    if key not in case.golden:
        return
    made = pictures.patches.split([height * width for height, width in pictures.grids])
    for row, begin, end in golden_spans(case, name, key):
        np.testing.assert_array_equal(
            made[rows[row]].numpy(), case.golden[key][begin:end], err_msg=key
        )


def golden_spans(case: Case, name: str, key: str) -> list[tuple[int, int, int]]:
    """Per mask whose picture is in ``key``, where it lies among the distinct ones there."""
    lengths = [len(case.features[name][row]) for row in case.rows(name)]
    index = case.stored_index(f'vis.{name}.unique_index', key, name, lengths)
    bounds: dict[int, tuple[int, int]] = {}
    begin = 0
    spans = []
    for row, unique in enumerate(index):
        if unique not in bounds:
            bounds[unique] = (begin, begin + lengths[row])
            begin += lengths[row]
        if bounds[unique][1] <= len(case.golden[key]):
            spans.append((row, *bounds[unique]))
    assert spans, f'{key} does not hold one whole picture'
    return spans


@pytest.mark.parametrize('name', ['crop', 'global', 'local'])
def test_features(case: Case, name: str) -> None:
    key = f'vis.{name}.features'
    if key not in case.golden:
        pytest.skip(f'the case holds no {key}')
    rows = case.rows(name)
    for row, begin, end in golden_spans(case, name, key):
        close(case.features[name][rows[row]], case.golden[key][begin:end], 1e-5, f'{key} {row}')


def test_positions(case: Case) -> None:
    for row, crop in enumerate(case.object_crops):
        key = f'region.{row:02d}.feat_plus_pos'
        if key not in case.golden:
            continue
        everything = cell_layout(
            [np.ones_like(crop.grid_mask)],
            [case.inputs.crops.grids[row]],
            [crop.box],
            [crop.frame_size],
        )
        found = case.model.region_encoder.locate([case.features['crop'][row]], everything)
        close(found.unflatten(0, crop.grid_mask.shape), case.golden[key], 1e-5, key)


def test_object_tokens(case: Case) -> None:
    for row, length in enumerate(case.inputs.layout.lengths):
        key = f'region.{row:02d}.tokens'
        if key in case.golden:
            golden = case.golden[key]
            assert len(golden) in (min(length, len(case.tokens[row])), len(case.tokens[row]))
            close(case.tokens[row, : len(golden)], golden, 1e-5, key)
        assert not case.tokens[row, length:].any()


def test_infusion_and_projection(case: Case) -> None:
    for key, value in case.stages.items():
        if key in case.golden:
            close(value, case.golden[key], 1e-5, key)
    if 'region.linear_out' in case.golden:
        close(
            case.region_tokens.flatten(0, 1), case.golden['region.linear_out'], 1e-5,
            'region.linear_out',
        )  # fmt: skip


def test_prompt(case: Case) -> None:
    if case.prompt is None:
        pytest.skip('the case does not hold its masks per object or its times')
    if 'rendered_prompt' in case.meta:
        assert case.prompt == case.meta['rendered_prompt']
    if 'llm.input_ids' in case.golden:
        assert case.input_ids[0].tolist() == case.golden['llm.input_ids'].tolist()
    if 'llm.attention_mask' in case.golden:
        assert case.golden['llm.attention_mask'].tolist() == [[1] * case.input_ids.shape[1]]


def test_inputs_embeds(case: Case) -> None:
    if 'llm.inputs_embeds' not in case.golden:
        pytest.skip('the case holds no llm.inputs_embeds')
    embeds = case.model.embed(case.input_ids, case.region_tokens)[0]
    close(embeds, case.golden['llm.inputs_embeds'], 1e-5, 'llm.inputs_embeds')


def test_logits(case: Case) -> None:
    logits = case.model(case.input_ids, region_tokens=case.region_tokens).logits[0]
    if 'llm.logits' in case.golden:
        close(logits, case.golden['llm.logits'], 1e-4, 'llm.logits')
    if 'llm.logits_last16' in case.golden:
        last = case.golden['llm.logits_last16']
        close(logits[-len(last) :], last, 1e-4, 'llm.logits_last16')
    if 'llm.logits_argmax' in case.golden:
        assert logits.argmax(-1).tolist() == case.golden['llm.logits_argmax'].tolist()


def test_greedy_words(case: Case) -> None:
    if 'llm.greedy_ids' not in case.golden:
        pytest.skip('the case holds no llm.greedy_ids')
    golden = case.golden['llm.greedy_ids'].tolist()
    found = case.model.generate_from_regions(
        case.input_ids, case.region_tokens, max_new_tokens=len(golden), do_sample=False
    )[0]
    assert found.tolist() == golden
    if 'text' in case.meta:
        assert case.processor.decode(found) == case.meta['text'].strip()


def test_drawn_starts_are_the_stored_ones(case: Case) -> None:
    stored = [
        case.golden.get(f'region.{row:02d}.kmeans_perm')
        for row in range(len(case.inputs.layout.lengths))
    ]
    generator = torch.Generator().manual_seed(SEED)
    for permutation, length in zip(stored, case.inputs.layout.lengths, strict=True):
        if permutation is not None:
            assert length > case.processor.config.mask_num
            np.testing.assert_array_equal(
                torch.randperm(length, generator=generator).numpy(), permutation
            )
