# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compare the full PixelRefer with stored runs of the reference, key by key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch

from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import NS_PER_S, Frame, RegionClip, Task
from pixelrefer_ros.models.pixelrefer.full import (
    FullPixelReferConfig,
    FullPixelReferForConditionalGeneration,
    FullPixelReferProcessor,
)
from pixelrefer_ros.models.pixelrefer.full.crops import object_crop
from pixelrefer_ros.models.pixelrefer.full.eyes import FullEyes
from pixelrefer_ros.models.pixelrefer.full.modeling import merge_patches
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

FOLDER = Folder.of('full')

pytestmark = FOLDER.marks


@dataclass
class Case(Stored):
    """Run one case; every stage is worked out once, from the case's inputs."""

    model: FullPixelReferForConditionalGeneration
    processor: FullPixelReferProcessor

    @cached_property
    def video(self) -> bool:
        if 'modal' in self.meta:
            return self.meta['modal'] == 'video'
        tagged = '<video>' in self.meta.get('question', '')
        pruned = {'main.kept_mask', 'llm.input_ids_after_compression'} & self.golden.keys()
        named = self.directory.name.startswith('video')
        return bool(self.meta.get('timestamps') or tagged or pruned or named)

    @cached_property
    def frame_count(self) -> int:
        """How many images are shown whole; those of a video's masks come after them."""
        if not self.video:
            return len(self.images)
        if self.meta.get('timestamps'):
            return len(self.meta['timestamps'])
        for key in ('vis.main.grid_thw', 'main.kept_mask'):
            if key in self.golden:
                return len(self.golden[key])
        if 'rendered_prompt' in self.meta:
            return self.meta['rendered_prompt'].count('<image>')
        return len(self.images) - 1 - max(self.mask_ids, default=-1)

    @cached_property
    def masks(self) -> list[np.ndarray]:
        return list(self.golden['in.masks']) if 'in.masks' in self.golden else []

    @cached_property
    def mask_frames(self) -> list[int]:
        first = self.frame_count if self.video else 0
        return [first + mask_id for mask_id in self.mask_ids[: len(self.masks)]]

    @cached_property
    def frames(self):
        return self.processor.frames(self.images[: self.frame_count], video=self.video)

    @cached_property
    def regions(self):
        return self.processor.regions(self.images, self.masks, self.mask_frames)

    @cached_property
    def crops(self):
        return [
            object_crop(self.images[frame], mask, self.processor.config)
            for frame, mask in zip(self.mask_frames, self.masks, strict=True)
        ]

    @cached_property
    def prompt(self) -> str | None:
        """The prompt for the question; None where the question or the times are not stored."""
        times = self.meta.get('timestamps') if self.video else None
        if 'question' not in self.meta or (self.video and times is None):
            return None
        return self.processor.prompt(
            self.meta['question'], self.regions.token_counts, self.frame_count, times
        )

    @cached_property
    def input_ids(self) -> torch.Tensor:
        prompt = self.prompt or self.meta.get('rendered_prompt')
        if prompt is not None:
            return self.processor.encode(prompt, self.frames.token_counts)
        if 'llm.input_ids_after_compression' in self.golden:
            return torch.from_numpy(self.golden['llm.input_ids_after_compression'])[None]
        if 'llm.input_ids' in self.golden:
            ids = torch.from_numpy(self.golden['llm.input_ids'])
            kept = torch.ones_like(ids, dtype=torch.bool)
            places = ids == self.processor.config.image_token_index
            kept[places] = torch.cat(self.frames.kept)
            return ids[kept][None]
        pytest.skip('the case holds neither its prompt nor what it is made from')

    @cached_property
    def starts(self) -> torch.Tensor:
        lengths, count = self.regions.layout.lengths, self.processor.config.mask_num
        return permutation_starts(self.permutations(lengths, count), lengths, count)

    @cached_property
    def pictures(self):
        return {'main': self.frames.pictures, 'crop': self.regions.crops}

    @cached_property
    def features(self) -> dict[str, list[torch.Tensor]]:
        return {
            name: self.model.encode_images(pictures.patches, pictures.grids)
            for name, pictures in self.pictures.items()
        }

    def in_stored_order(self, name: str, values: torch.Tensor, row: int) -> torch.Tensor:
        """Put what belongs to a picture's patches into the order the reference has them in."""
        rows, columns = self.pictures[name].grids[row]
        merge = self.frames.merge if name == 'main' else 1
        squares = torch.arange(rows * columns).view(rows // merge, merge, columns // merge, merge)
        return values[squares.transpose(1, 2).flatten()]

    def stored_spans(self, name: str, key: str) -> list[tuple[int, int, int]]:
        grids = self.pictures[name].grids
        index = self.golden.get(f'vis.{name}.unique_index', np.arange(len(grids))).tolist()
        lengths = [rows * columns for rows, columns in grids]
        return spans(index, lengths, len(self.golden[key]))

    @cached_property
    def object_tokens(self) -> torch.Tensor:
        if not self.masks:
            return torch.zeros(0, self.model.config.mm_hidden_size)
        return self.model.region_encoder.tokenize(
            self.features['crop'], self.regions.layout, self.starts
        )

    @cached_property
    def encoded(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        return self.model.encode(self.frames, self.regions, self.starts)

    @cached_property
    def tokens(self) -> torch.Tensor:
        return self.model.arrange(self.input_ids, *self.encoded)


@pytest.fixture(scope='module', params=FOLDER.cases)
def case(request: pytest.FixtureRequest) -> Case:
    directory = FOLDER.checkpoint(request.param)
    config = FullPixelReferConfig.from_pretrained(
        directory, compat_shared_budget=True, compat_thin_masks=True
    )
    model = FullPixelReferForConditionalGeneration.from_pretrained(
        directory, config=config, dtype=torch.float32
    )
    processor = FullPixelReferProcessor.from_pretrained(directory, config=config)
    with torch.inference_mode():
        yield Case(FOLDER.path / request.param, model, processor)


def test_crops_masks_and_boxes(case: Case) -> None:
    for row, crop in enumerate(case.crops):
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
        assert list(case.regions.token_counts) == case.golden['pre.mask_nums'].tolist()


@pytest.mark.parametrize('name', ['main', 'crop'])
def test_pixels_and_grids(case: Case, name: str) -> None:
    pictures = case.pictures[name]
    if f'vis.{name}.grid_thw' in case.golden:
        grids = [(1, *grid) for grid in pictures.grids]
        np.testing.assert_array_equal(grids, case.golden[f'vis.{name}.grid_thw'])
    if f'vis.{name}.strides' in case.golden:
        merge = case.frames.merge if name == 'main' else 1
        assert case.golden[f'vis.{name}.strides'].tolist() == [merge] * len(pictures.grids)
    key = f'vis.{name}.patches_u8'
    if key in case.golden:
        made = pictures.patches.split([rows * columns for rows, columns in pictures.grids])
        for row, begin, end in case.stored_spans(name, key):
            found = case.in_stored_order(name, made[row], row).numpy()
            np.testing.assert_array_equal(found, case.golden[key][begin:end], err_msg=key)


@pytest.mark.parametrize('name', ['main', 'crop'])
def test_features(case: Case, name: str) -> None:
    key = f'vis.{name}.features'
    if key not in case.golden:
        pytest.skip(f'the case holds no {key}')
    for row, begin, end in case.stored_spans(name, key):
        found = case.in_stored_order(name, case.features[name][row], row)
        close(found, case.golden[key][begin:end], 1e-5, f'{key} {row}')


def test_merging_and_projection(case: Case) -> None:
    skip_without(case, 'main.projector_in', 'main.projector_out')
    grids, merge = case.frames.pictures.grids, case.frames.merge
    if 'main.projector_in' in case.golden:
        merged = [
            merge_patches(features, grid, merge)
            for features, grid in zip(case.features['main'], grids, strict=True)
        ]
        close(torch.cat(merged), case.golden['main.projector_in'], 1e-5, 'main.projector_in')
    if 'main.projector_out' in case.golden:
        tokens = torch.cat(
            case.model.project_frames(case.features['main'], grids, [merge] * len(grids))
        )
        close(tokens, case.golden['main.projector_out'], 1e-5, 'main.projector_out')


def test_tokens_of_frames_that_are_kept(case: Case) -> None:
    if 'main.kept_mask' in case.golden:
        kept = np.concatenate([which.numpy() for which in case.frames.kept])
        np.testing.assert_array_equal(kept, case.golden['main.kept_mask'].ravel())
    assert [len(tokens) for tokens in case.encoded[0]] == case.frames.token_counts


def test_positions(case: Case) -> None:
    skip_without(case, '.feat_plus_pos')
    for row, crop in enumerate(case.crops):
        key = f'region.{row:02d}.feat_plus_pos'
        if key not in case.golden:
            continue
        everything = cell_layout(
            [np.ones_like(crop.grid_mask)],
            [case.regions.crops.grids[row]],
            [crop.box],
            [crop.frame_size],
        )
        found = case.model.region_encoder.locate([case.features['crop'][row]], everything)
        close(found.unflatten(0, crop.grid_mask.shape), case.golden[key], 1e-5, key)


def test_object_tokens(case: Case) -> None:
    skip_without(case, '.tokens', 'region.linear_in', 'region.linear_out')
    for row, tokens in enumerate(case.object_tokens.split(list(case.regions.token_counts))):
        key = f'region.{row:02d}.tokens'
        if key in case.golden:
            close(tokens, case.golden[key], 1e-5, key)
    for key, found in (
        ('region.linear_in', case.object_tokens),
        ('region.linear_out', case.encoded[1]),
    ):
        if key in case.golden:
            close(found, case.golden[key], 1e-5, key)


def test_eyes_see_the_same(case: Case) -> None:
    # the eyes know no masks of frames that are not shown, as a stored video has
    shown = [] if case.video else list(zip(case.mask_ids, case.masks, strict=True))
    regions = tuple(RegionClip(f'r{k}', (frame,), [mask]) for k, (frame, mask) in enumerate(shown))
    times = case.meta.get('timestamps') or range(case.frame_count)
    frames = tuple(
        Frame('', int(time * NS_PER_S), image)
        for time, image in zip(times, case.images[: case.frame_count], strict=True)
    )
    eyes = FullEyes(case.model, case.processor, resize='exact')
    prepared = eyes.prepare(Request(Task.ASK, frames, regions, 'What?'))
    own = [view.picture for view in prepared.sights]
    for name, first in (('main', 0), ('crop', case.frame_count)):
        pictures = case.pictures[name]
        cut = pictures.patches.split([rows * columns for rows, columns in pictures.grids])
        for picture, patches in zip(own[first:], cut, strict=False):
            assert picture is not None
            assert torch.equal(picture.patches, patches)
    for kept, expected in zip(prepared.kept, case.frames.kept, strict=True):
        assert torch.equal(kept, expected)
    if 'main.kept_mask' in case.golden:
        kept = torch.cat(prepared.kept).numpy()
        np.testing.assert_array_equal(kept, case.golden['main.kept_mask'].ravel())
    (prompt,) = eyes.see([prepared])
    assert prompt is not None
    of_frames, of_regions = case.model.encode(case.frames, case.regions)
    seen = torch.cat(of_frames if case.video else [*of_frames, of_regions])
    close(prompt.tokens, seen.numpy(), 1e-5, 'tokens')
    image_id = case.processor.config.image_token_index
    places = int((prompt.input_ids == image_id).sum())
    assert places == sum(case.frames.token_counts)


def test_prompt(case: Case) -> None:
    if case.prompt is None:
        pytest.skip('the case does not hold its question or its times')
    if 'rendered_prompt' in case.meta:
        assert case.prompt == case.meta['rendered_prompt']
    if 'llm.input_ids' in case.golden:
        whole = case.processor.encode(case.prompt, [len(kept) for kept in case.frames.kept])
        assert whole[0].tolist() == case.golden['llm.input_ids'].tolist()
    if 'llm.input_ids_after_compression' in case.golden:
        after = case.golden['llm.input_ids_after_compression'].tolist()
        assert case.input_ids[0].tolist() == after
    if 'llm.attention_mask' in case.golden:
        assert case.golden['llm.attention_mask'].tolist() == [[1] * case.input_ids.shape[1]]


def test_inputs_embeds(case: Case) -> None:
    if 'llm.inputs_embeds' not in case.golden:
        pytest.skip('the case holds no llm.inputs_embeds')
    embeds = case.model.embed(case.input_ids, case.tokens)[0]
    close(embeds, case.golden['llm.inputs_embeds'], 1e-5, 'llm.inputs_embeds')


def test_logits(case: Case) -> None:
    check_logits(case, case.model(case.input_ids, region_tokens=case.tokens).logits[0])


def test_greedy_words(case: Case) -> None:
    check_greedy_words(case, case.model, case.processor, (case.input_ids, case.tokens))


def test_drawn_starts_are_the_stored_ones(case: Case) -> None:
    check_permutations(case, case.regions.layout.lengths, case.processor.config.mask_num)
