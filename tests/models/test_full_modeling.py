# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test the full PixelRefer: whole frames, regions, language model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pixelrefer_ros.models.pixelrefer.full import (
    FullPixelReferForConditionalGeneration,
    FullPixelReferProcessor,
)
from pixelrefer_ros.models.pixelrefer.full.modeling import merge_patches
from tests.models.conftest import box_mask, picture, small_full_config, small_full_model

FRAMES = [picture(0), picture(1), picture(1)]
MASKS = [
    box_mask(5, 5, 30, 30),
    box_mask(40, 50, 3, 4),
    np.zeros((60, 80), np.uint8),
    box_mask(0, 0, 60, 80),
    box_mask(59, 79, 1, 1),
]
MASK_FRAMES = [0, 1, 0, 1, 1]


def test_merging_by_two_is_the_mean_of_squares() -> None:
    features = torch.randn(4 * 6, 5)
    squares = features.t().reshape(1, 5, 4, 6)
    expected = functional.avg_pool2d(squares, 2)[0].flatten(1).t()
    torch.testing.assert_close(merge_patches(features, (4, 6), 2), expected)
    assert merge_patches(features, (4, 6), 1) is features


def test_frames_and_regions_take_their_places_in_any_order(full_model) -> None:
    region, image = 262, 259
    ids = torch.tensor([65, region, image, image, 66, region, image])
    frames, regions = list(torch.randn(3, 32).split([2, 1])), torch.randn(2, 32)
    tokens = full_model.arrange(ids, frames, regions)
    expected = torch.stack([regions[0], *frames[0], regions[1], *frames[1]])
    assert torch.equal(tokens, expected)
    embeds = full_model.embed(ids[None], tokens)[0]
    assert torch.equal(embeds[[1, 2, 3, 5, 6]], expected)
    assert torch.equal(embeds[4], full_model.model.embed_tokens.weight[66])


def test_wrong_numbers_of_tokens_are_refused(full_model) -> None:
    ids = torch.tensor([262, 259, 259])
    two, one = torch.randn(2, 32), torch.randn(1, 32)
    with pytest.raises(ValueError, match='room for 2 picture tokens, 1 given'):
        full_model.arrange(ids, [one], one)
    with pytest.raises(ValueError, match='room for 1 region tokens, 2 given'):
        full_model.arrange(ids, [two], two)


def test_all_masks_at_once_are_each_mask_alone(full_model, full_processor) -> None:
    nothing = full_processor.frames([], video=False)
    inputs = full_processor.regions(FRAMES, MASKS, MASK_FRAMES)
    with torch.inference_mode():
        _, together = full_model.encode(nothing, inputs)
        split = together.split(list(inputs.token_counts))
        for mask, frame, tokens in zip(MASKS, MASK_FRAMES, split, strict=True):
            one = full_processor.regions(FRAMES, [mask], [frame])
            _, alone = full_model.encode(nothing, one)
            torch.testing.assert_close(tokens, alone, rtol=1e-4, atol=1e-5)


def test_few_cells_are_tokens_as_they_are(full_model, full_processor) -> None:
    inputs = full_processor.regions(FRAMES, [box_mask(58, 78, 2, 2)], [1])
    (count,) = inputs.token_counts
    assert 0 < count == inputs.layout.lengths[0] < 8
    with torch.inference_mode():
        features = full_model.encode_images(inputs.crops.patches, inputs.crops.grids)
        tokens = full_model.region_encoder.tokenize(features, inputs.layout)
        cells = full_model.region_encoder.locate(features, inputs.layout)
    assert torch.equal(tokens, cells)


def test_a_video_is_read_without_what_does_not_change(full_model, full_processor) -> None:
    frames = full_processor.frames(FRAMES, video=True)
    with torch.inference_mode():
        kept, regions = full_model.encode(frames, full_processor.regions([], [], []))
        whole = full_model.project_frames(
            full_model.encode_images(frames.pictures.patches, frames.pictures.grids),
            frames.pictures.grids,
            [2] * 3,
        )
    assert [len(tokens) for tokens in kept] == [6, 6, 1]
    assert torch.equal(kept[2], whole[2][:1])
    assert regions.shape == (0, 32)


def generate(model, processor: FullPixelReferProcessor, text: str, masks, *, video: bool):
    """Go all the way from pictures to new ids."""
    frames = processor.frames(FRAMES if video else FRAMES[:1], video=video)
    regions = processor.regions(FRAMES, masks, [0] * len(masks))
    times = [0.0, 0.5, 1.0] if video else None
    prompt = processor.prompt(text, regions.token_counts, len(frames.kept), times)
    ids = processor.encode(prompt, frames.token_counts)
    with torch.inference_mode():
        tokens = model.arrange(ids, *model.encode(frames, regions))
        out = model.generate(ids, region_tokens=tokens, max_new_tokens=4, do_sample=False)
        first = model(ids, region_tokens=tokens).logits[0, -1]
    return out[0].tolist(), first


def test_words_come_of_pictures_and_regions(full_model, full_processor) -> None:
    out, first = generate(full_model, full_processor, 'What is <region>?', MASKS[:1], video=True)
    assert out[0] == int(first.argmax())
    assert len(out) <= 4
    _, other = generate(full_model, full_processor, 'What is <region>?', MASKS[3:4], video=True)
    assert (first - other).abs().max() > 1e-4
    _, still = generate(full_model, full_processor, 'What is <region>?', MASKS[:1], video=False)
    assert (first - still).abs().max() > 1e-4


@pytest.mark.parametrize('video', [False, True])
def test_questions_need_no_region(full_model, full_processor, video: bool) -> None:
    out, first = generate(full_model, full_processor, 'What is there?', [], video=video)
    assert out[0] == int(first.argmax())


def test_empty_mask_does_no_harm(full_model, full_processor) -> None:
    out, _ = generate(full_model, full_processor, 'What is <region>?', MASKS[2:3], video=False)
    assert 1 <= len(out) <= 4


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_stays_near(
    dtype: torch.dtype, full_model, full_processor, full_checkpoint
) -> None:
    half = FullPixelReferForConditionalGeneration.from_pretrained(full_checkpoint, dtype=dtype)
    frames = full_processor.frames(FRAMES, video=True)
    regions = full_processor.regions(FRAMES, MASKS, MASK_FRAMES)
    with torch.inference_mode():
        kept, tokens = half.encode(frames, regions)
        exact, _ = full_model.encode(frames, regions)
    assert tokens.dtype == kept[0].dtype == dtype
    assert bool(tokens.isfinite().all())
    scale = exact[0].abs().max()
    assert (kept[0].float() - exact[0]).abs().max() < 0.05 * scale


def test_gradients_reach_all_parts(full_processor) -> None:
    model = small_full_model(small_full_config())
    frames = full_processor.frames(FRAMES, video=True)
    regions = full_processor.regions(FRAMES, MASKS[:1], [0])
    prompt = full_processor.prompt('What is <region>?', [8], 3, [0.0, 0.5, 1.0])
    ids = full_processor.encode(prompt, frames.token_counts)
    tokens = model.arrange(ids, *model.encode(frames, regions))
    model(ids, region_tokens=tokens, labels=ids).loss.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_cuda_agrees_with_the_cpu(
    dtype: torch.dtype, full_model, full_processor, full_checkpoint
) -> None:
    load = FullPixelReferForConditionalGeneration.from_pretrained
    cuda = load(full_checkpoint, dtype=dtype).to('cuda')
    frames = full_processor.frames(FRAMES, video=True)
    regions = full_processor.regions(FRAMES, MASKS, MASK_FRAMES)
    with torch.inference_mode():
        kept, tokens = cuda.encode(frames, regions)
        exact, exact_tokens = full_model.encode(frames, regions)
    assert (tokens.dtype, tokens.device.type) == (dtype, 'cuda')
    if dtype == torch.float32:
        torch.testing.assert_close(torch.cat(kept).cpu(), torch.cat(exact), rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(tokens.cpu(), exact_tokens, rtol=1e-2, atol=1e-2)
    assert bool(tokens.isfinite().all())
