# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare PixelRefer-Lite with stored runs of the reference, key by key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch

from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import Frame, RegionClip, Task
from pixelrefer_ros.models.pixelrefer import (
    PixelReferConfig,
    PixelReferForConditionalGeneration,
    PixelReferProcessor,
)
from pixelrefer_ros.models.pixelrefer import crops as crop_module
from pixelrefer_ros.models.pixelrefer.eyes import LiteEyes
from pixelrefer_ros.models.pixelrefer.object_tokenizer import cell_layout, permutation_starts
from tests.parity.golden import (
    Folder,
    Stored,
    check_greedy_words,
    check_logits,
    check_permutations,
    close,
    skip_without,
    spans,
)

FOLDER = Folder.of('lite')

pytestmark = FOLDER.marks


@dataclass
class Case(Stored):
    """Run one case; every stage is worked out once, from the case's inputs."""

    model: PixelReferForConditionalGeneration
    processor: PixelReferProcessor

    @cached_property
    def inputs(self):
        return self.processor.regions(self.images, list(self.golden['in.masks']), self.mask_ids)

    @cached_property
    def object_crops(self):
        config = self.processor.config
        return [
            crop_module.object_crop(self.images[frame], mask, config)
            for frame, mask in zip(self.mask_ids, self.golden['in.masks'], strict=True)
        ]

    @cached_property
    def prompt(self) -> str | None:
        """The prompt for the question; None where masks per object or times are not stored."""
        question = self.meta['question']
        raw, times = self.meta.get('mask_ids_raw'), self.meta.get('timestamps')
        counts = [len(ids) for ids in raw] if raw else [1] * len(self.mask_ids)
        timed = self.meta.get('modal') == 'video' or len(self.images) > 1
        if len(counts) != question.count('<region>') or (timed and 'timestamps' not in self.meta):
            return None
        times_s = [times[frame] for frame in self.mask_ids] if times else None
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
        lengths, count = self.inputs.layout.lengths, self.processor.config.mask_num
        return permutation_starts(self.permutations(lengths, count), lengths, count)

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
        return index[name].tolist() if name in index else list(range(len(self.mask_ids)))

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
        return [places.setdefault(frame, len(places)) for frame in self.mask_ids]

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


@pytest.fixture(scope='module', params=FOLDER.cases)
def case(request: pytest.FixtureRequest) -> Case:
    directory = FOLDER.checkpoint(request.param)
    config = PixelReferConfig.from_pretrained(
        directory, compat_reuse_context=True, compat_shared_budget=True
    )
    model = PixelReferForConditionalGeneration.from_pretrained(
        directory, config=config, dtype=torch.float32
    )
    processor = PixelReferProcessor.from_pretrained(directory, config=config)
    with torch.inference_mode():
        yield Case(FOLDER.path / request.param, model, processor)


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
    for row, frame in enumerate(case.mask_ids):
        mask = case.golden['in.masks'][first.setdefault(frame, row)]
        made.append(
            crop_module.square(case.images[frame], config.global_size)
            if name == 'global'
            else crop_module.context_crop(case.images[frame], mask, config)
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
    return spans(index, lengths, len(case.golden[key]))


@pytest.mark.parametrize('name', ['crop', 'global', 'local'])
def test_features(case: Case, name: str) -> None:
    key = f'vis.{name}.features'
    if key not in case.golden:
        pytest.skip(f'the case holds no {key}')
    rows = case.rows(name)
    for row, begin, end in golden_spans(case, name, key):
        close(case.features[name][rows[row]], case.golden[key][begin:end], 1e-5, f'{key} {row}')


def test_positions(case: Case) -> None:
    skip_without(case, '.feat_plus_pos')
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
    skip_without(case, *case.stages, 'region.linear_out')
    for key, value in case.stages.items():
        if key in case.golden:
            close(value, case.golden[key], 1e-5, key)
    if 'region.linear_out' in case.golden:
        close(
            case.region_tokens.flatten(0, 1), case.golden['region.linear_out'], 1e-5,
            'region.linear_out',
        )  # fmt: skip


def test_eyes_see_the_same(case: Case) -> None:
    """What questions go through cuts the reference's pictures, and encodes them as above."""
    if len(case.images) > 1 and not all(mask.any() for mask in case.golden['in.masks']):
        pytest.skip('frames of a video where a region is hidden are not asked about')
    raw = case.meta.get('mask_ids_raw') or [[frame] for frame in case.mask_ids]
    masks = iter(case.golden['in.masks'])
    regions = [
        RegionClip(f'r{k}', tuple(ids), [next(masks) for _ in ids]) for k, ids in enumerate(raw)
    ]
    frames = tuple(Frame('', stamp, image) for stamp, image in enumerate(case.images))
    eyes = LiteEyes(case.model, case.processor, resize='exact')
    prepared = eyes.prepare(Request(Task.ASK, frames, tuple(regions), 'What?'))
    for name in ('crop', 'global', 'local'):
        pictures = {
            'crop': case.inputs.crops, 'global': case.inputs.frames, 'local': case.inputs.contexts
        }[name]  # fmt: skip
        cut = pictures.patches.split([height * width for height, width in pictures.grids])
        for row, sight in zip(case.rows(name), prepared.sights, strict=True):
            assert sight.parts is not None
            own = {
                'crop': sight.parts.object, 'global': sight.parts.whole.picture,
                'local': sight.parts.context,
            }[name]  # fmt: skip
            assert own is not None
            assert torch.equal(own.patches, cut[row])
    (prompt,) = eyes.see([prepared])
    assert prompt is not None
    close(prompt.tokens, case.model.encode(case.inputs).flatten(0, 1).numpy(), 1e-5, 'tokens')


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
    check_logits(case, case.model(case.input_ids, region_tokens=case.region_tokens).logits[0])


def test_greedy_words(case: Case) -> None:
    prompt = case.input_ids, case.region_tokens
    check_greedy_words(case, case.model, case.processor, prompt)


def test_drawn_starts_are_the_stored_ones(case: Case) -> None:
    check_permutations(case, case.inputs.layout.lengths, case.processor.config.mask_num)
