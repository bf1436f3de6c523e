# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the model: tower, region encoder, language model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import VideoLlama3VisionModel

from pixelrefer_ros.models.pixelrefer import (
    PixelReferForConditionalGeneration,
    PixelReferProcessor,
    tower,
)
from pixelrefer_ros.models.pixelrefer.infusion import CrossAttention
from pixelrefer_ros.models.pixelrefer.tower import normalise
from tests.models.conftest import box_mask, picture, small_config, small_model

FRAMES = [picture(0), picture(1)]
MASKS = [
    box_mask(5, 5, 30, 30),
    box_mask(40, 50, 3, 4),
    np.zeros((60, 80), np.uint8),
    box_mask(0, 0, 60, 80),
    box_mask(20, 79, 1, 1),
]
MASK_FRAMES = [0, 1, 0, 1, 1]


def test_tower_is_that_of_transformers(model: PixelReferForConditionalGeneration) -> None:
    stock = VideoLlama3VisionModel(model.config.vision_encoder_config).eval()
    stock.load_state_dict(model.tower.state_dict())
    grids = [(3, 4), (2, 2), (2, 2), (5, 1), (2, 2)]
    patches = torch.randint(0, 255, (sum(h * w for h, w in grids), 588), dtype=torch.uint8)
    grid_thw = torch.tensor([(1, *grid) for grid in grids])
    merge_sizes = torch.ones(len(grids), dtype=torch.int64)
    pixels = normalise(patches)
    with torch.inference_mode():
        expected = stock(pixels, grid_thw, merge_sizes).last_hidden_state
        found = torch.cat(model.encode_images(patches, grids))
        called = model.tower(pixels, grid_thw, merge_sizes).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(called, expected, rtol=1e-5, atol=1e-5)


def test_many_pictures_take_several_passes(
    model: PixelReferForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids = [(3, 4), (5, 5), (2, 2), (2, 2)]
    patches = torch.randint(0, 255, (45, 588), dtype=torch.uint8)
    sizes = []
    hook = model.tower.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    with torch.inference_mode():
        at_once = model.encode_images(patches, grids)
        monkeypatch.setattr(tower, 'MAX_PATCHES', 20)
        in_parts = model.encode_images(patches, grids)
    hook.remove()
    assert sizes == [45, 12, 25, 8]
    for one, other in zip(at_once, in_parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_cross_attention_is_multi_head_attention() -> None:
    torch.manual_seed(0)
    ours, torchs = CrossAttention(32, 4), torch.nn.MultiheadAttention(32, 4, batch_first=True)
    torch.nn.init.normal_(torchs.in_proj_bias)
    ours.load_state_dict(torchs.state_dict())
    queries, pictures = torch.randn(3, 8, 32), torch.randn(2, 11, 32)
    index = torch.tensor([1, 0, 1])
    expected, _ = torchs(queries, pictures[index], pictures[index])
    torch.testing.assert_close(ours(queries, pictures, index), expected, rtol=1e-4, atol=1e-5)


def test_all_masks_at_once_are_each_mask_alone(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    with torch.inference_mode():
        together = model.encode(processor.regions(FRAMES, MASKS, MASK_FRAMES))
        assert together.shape == (5, 8, 32)
        for row, (mask, frame) in enumerate(zip(MASKS, MASK_FRAMES, strict=True)):
            alone = model.encode(processor.regions(FRAMES, [mask], [frame]))
            torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)


def test_tokens_differ_where_masks_differ(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    with torch.inference_mode():
        tokens = model.encode(processor.regions(FRAMES, MASKS, MASK_FRAMES))
    apart = [(tokens[a] - tokens[b]).abs().max() for a in range(5) for b in range(a)]
    assert min(apart) > 1e-3


def test_each_mask_has_its_own_context_unless_the_reference_is_followed(
    processor: PixelReferProcessor,
) -> None:
    masks = [MASKS[0], box_mask(40, 50, 15, 20)]
    own = processor.regions(FRAMES, masks, [0, 0])
    assert own.context_index.tolist() == [0, 1]
    assert own.frame_index.tolist() == [0, 0]
    assert len(own.frames.grids) == 1
    config = small_config(compat_reuse_context=True)
    shared = PixelReferProcessor(config, processor.tokenizer).regions(FRAMES, masks, [0, 0])
    assert shared.context_index.tolist() == [0, 0]
    assert torch.equal(shared.contexts.patches, own.contexts.patches[: 4 * 4])


def test_budget_is_shared_only_when_the_reference_is_followed(
    processor: PixelReferProcessor,
) -> None:
    masks = [box_mask(40, 50, 5, 5)] * 4
    small = {'mm_max_length': 40, 'min_pixels': 196}
    own = PixelReferProcessor(small_config(**small), processor.tokenizer)
    shared = PixelReferProcessor(
        small_config(compat_shared_budget=True, **small), processor.tokenizer
    )
    own_inputs = own.regions(FRAMES, masks, [0] * 4)
    assert own_inputs.frames.grids == ((5, 5),)
    assert all(25 < rows * columns <= 40 for rows, columns in own_inputs.crops.grids)
    shared_inputs = shared.regions(FRAMES, masks, [0] * 4)
    assert shared_inputs.frames.grids == ((3, 3),)
    assert all(rows * columns <= 10 for rows, columns in shared_inputs.crops.grids)
    with torch.inference_mode():
        assert small_model(shared.config).encode(shared_inputs).shape == (4, 8, 32)


def test_region_tokens_take_their_places(model: PixelReferForConditionalGeneration) -> None:
    ids = torch.tensor([[65, *[262] * 8, 66, *[262] * 8]])
    tokens = torch.randn(2, 8, 32)
    embeds = model.embed(ids, tokens)
    assert torch.equal(embeds[0, 1:9], tokens[0])
    assert torch.equal(embeds[0, 10:], tokens[1])
    assert torch.equal(embeds[0, 9], model.model.embed_tokens.weight[66])


def test_wrong_number_of_region_tokens_is_refused(
    model: PixelReferForConditionalGeneration,
) -> None:
    with pytest.raises(ValueError, match='room for 8 region tokens, 16 given'):
        model.embed(torch.tensor([[262] * 8]), torch.randn(2, 8, 32))


def test_generate_takes_region_tokens(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    ids = processor.encode(processor.prompt('What is <region>?', [1]))
    with torch.inference_mode():
        tokens = model.encode(processor.regions(FRAMES, MASKS[:1], [0]))
        out = model.generate(ids, region_tokens=tokens, max_new_tokens=5, do_sample=False)
        again = model.generate(ids, region_tokens=tokens, max_new_tokens=5, do_sample=False)
        first = model(ids, region_tokens=tokens).logits[0, -1].argmax()
    assert out.tolist() == again.tolist()
    assert out[0, 0] == first
    assert out.shape[1] <= 5


def test_starts_of_the_clustering_can_be_given(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    inputs = processor.regions(FRAMES, MASKS[:1], [0])
    assert inputs.layout.lengths[0] > 8
    with torch.inference_mode():
        even = model.encode(inputs)
        other = model.encode(inputs, torch.arange(8)[None])
    assert (even - other).abs().max() > 1e-4


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_stays_near(
    dtype: torch.dtype,
    model: PixelReferForConditionalGeneration,
    processor: PixelReferProcessor,
    checkpoint,
) -> None:
    half = PixelReferForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype)
    assert half.dtype == dtype
    inputs = processor.regions(FRAMES, MASKS, MASK_FRAMES)
    ids = processor.encode(processor.prompt('<region>' * 5, [1] * 5))
    with torch.inference_mode():
        # few cells are never clustered, so that no rounding can change a cluster
        row = inputs.layout.lengths.index(0)
        tokens, exact = half.encode(inputs), model.encode(inputs)
        out = half.generate(ids, region_tokens=tokens, max_new_tokens=4, do_sample=False)
    assert tokens.dtype == dtype
    assert bool(tokens.isfinite().all())
    scale = exact[row].abs().max()
    assert (tokens[row].float() - exact[row]).abs().max() < 0.05 * scale
    assert 1 <= out.shape[1] <= 4


def test_gradients_reach_all_parts(processor: PixelReferProcessor) -> None:
    model = small_model(small_config(use_mm_proj=False, use_mask_embedding=False))
    ids = processor.encode(processor.prompt('What is <region>?', [1]) + 'a cup')
    tokens = model.encode(processor.regions(FRAMES, MASKS[:1], [0]))
    model(ids, region_tokens=tokens, labels=ids).loss.backward()
    without = [name for name, value in model.named_parameters() if value.grad is None]
    assert without == []


def test_no_masks_make_no_tokens(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    assert model.encode(processor.regions(FRAMES, [], [])).shape == (0, 8, 32)


def test_features_can_be_kept_and_used_again(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    inputs = processor.regions(FRAMES, MASKS, MASK_FRAMES)
    with torch.inference_mode():
        frames, contexts, crops = (
            model.encode_images(pictures.patches, pictures.grids)
            for pictures in (inputs.frames, inputs.contexts, inputs.crops)
        )
        # a second question needs no pictures, only where the masks lie
        found = model.encode_regions(
            inputs.layout, frames, contexts, crops, inputs.frame_index, inputs.context_index
        )
        torch.testing.assert_close(found, model.encode(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_cuda_agrees_with_the_cpu(
    dtype: torch.dtype,
    model: PixelReferForConditionalGeneration,
    processor: PixelReferProcessor,
    checkpoint,
) -> None:
    cuda = PixelReferForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype).to('cuda')
    inputs = processor.regions(FRAMES, MASKS, MASK_FRAMES)
    ids = processor.encode(processor.prompt('<region>' * 5, [1] * 5))
    with torch.inference_mode():
        tokens, exact = cuda.encode(inputs), model.encode(inputs)
        out = cuda.generate(ids.to('cuda'), region_tokens=tokens, max_new_tokens=4)
    assert (tokens.dtype, tokens.device.type) == (dtype, 'cuda')
    if dtype == torch.float32:
        torch.testing.assert_close(tokens.cpu(), exact, rtol=1e-2, atol=1e-2)
    assert bool(tokens.isfinite().all())
    assert 1 <= out.shape[1] <= 4
