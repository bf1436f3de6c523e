# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test that every picture is encoded once, and that nothing else changes by that."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import Frame, RegionClip, Task
from pixelrefer_ros.models.pixelrefer import PixelReferProcessor, crops
from pixelrefer_ros.models.pixelrefer.eyes import LiteEyes
from pixelrefer_ros.models.pixelrefer.sights import Tokens, as_binary, layout, mask_digest
from tests.models.conftest import box_mask, clip, picture, small_config, small_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixelrefer_ros.models.pixelrefer import PixelReferForConditionalGeneration
    from pixelrefer_ros.models.pixelrefer.voice import Prompt


@dataclass
class Watched:
    """Count what the tower and the region encoder do.

    Attributes:
        passes: Patches of each tower pass.
        encoded: Masks of each call of the region encoder.
    """

    passes: list[int] = field(default_factory=list)
    encoded: list[int] = field(default_factory=list)

    def clear(self) -> None:
        self.passes.clear()
        self.encoded.clear()


@pytest.fixture
def watched(model: PixelReferForConditionalGeneration) -> Iterator[Watched]:
    """Watch the model's own parts."""
    seen = Watched()
    hooks = [
        model.tower.register_forward_hook(lambda _, args, out: seen.passes.append(len(args[0]))),
        model.region_encoder.register_forward_hook(
            lambda _, args, out: seen.encoded.append(len(out))
        ),
    ]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.fixture
def eyes(model: PixelReferForConditionalGeneration, processor: PixelReferProcessor) -> LiteEyes:
    """Make eyes that know nothing yet."""
    return LiteEyes(model, processor)


def ask(
    frames: Sequence[Frame], regions: Sequence[RegionClip], text: str = 'What?', **more: Any
) -> Request:
    return Request(Task.ASK, tuple(frames), tuple(regions), text, **more)


def see(eyes: LiteEyes, *requests: Request) -> list[Prompt | None]:
    with torch.inference_mode():
        return eyes.see([eyes.prepare(request) for request in requests])


def tokens(eyes: LiteEyes, *requests: Request) -> torch.Tensor:
    prompts = see(eyes, *requests)
    return torch.cat([prompt.tokens for prompt in prompts if prompt is not None])


def many(regions: int = 8, frames: int = 8) -> tuple[list[Frame], list[RegionClip]]:
    """Return a clip of masks of many sizes."""
    shown = [Frame('cam', 1 + i, picture(i)) for i in range(frames)]
    every = tuple(range(frames))
    return shown, [
        RegionClip(f'r{k}', every, [box_mask(2 * k + i, 3 * k, 6 + 5 * k, 9 + i) for i in every])
        for k in range(regions)
    ]


def test_second_question_needs_neither_tower_nor_region_encoder(
    eyes: LiteEyes, watched: Watched
) -> None:
    frames, regions = many()
    first = tokens(eyes, ask(frames, regions, 'What is {r0}?'))
    assert watched.encoded == [64]
    assert eyes.stats().misses == 8 + 2 * 64
    watched.clear()
    second = tokens(eyes, ask(frames, regions, 'And {r5}?'))
    apart = [tokens(eyes, ask(frames, [region])) for region in regions]
    assert (watched.passes, watched.encoded) == ([], [])
    assert torch.equal(first, second)
    assert torch.equal(first, torch.cat(apart))
    assert eyes.stats().misses == 8 + 2 * 64
    assert eyes.stats().hits == 8 + 2 * 64 + 8 * (8 + 2 * 8)


def test_tokens_are_those_of_the_model_alone(
    eyes: LiteEyes, model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    frames, regions = many(5, 4)
    found = tokens(eyes, ask(frames, regions))
    with torch.inference_mode():
        masks = [mask for region in regions for mask in region.masks]
        inputs = processor.regions([frame.image for frame in frames], masks, [0, 1, 2, 3] * 5)
        expected = model.encode(inputs).flatten(0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_nothing_depends_on_cache_or_company(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    frames, regions = many()
    requests = [ask(frames[k:], [RegionClip(region.region_id, (0, 1), region.masks[k : k + 2])])
                for k, region in enumerate(regions[:6])]  # fmt: skip
    together = see(LiteEyes(model, processor), *requests)
    blind = LiteEyes(model, processor, cache_mib=0)
    reused = LiteEyes(model, processor)
    see(reused, *requests[::-1])
    for request, one in zip(requests, together, strict=True):
        assert one is not None
        for other in (*see(blind, request), *see(reused, request)):
            assert other is not None
            assert torch.equal(one.input_ids, other.input_ids)
            torch.testing.assert_close(one.tokens, other.tokens, rtol=1e-5, atol=1e-5)
    assert blind.stats().held_bytes == 0
    assert blind.stats().hits == 0


def test_what_requests_of_a_batch_share_is_encoded_once(eyes: LiteEyes, watched: Watched) -> None:
    frames, regions = clip(3)
    requests = [ask(frames, regions), ask(frames, regions[:1]), ask(frames, regions[::-1])]
    first, second, third = see(eyes, *requests)
    assert watched.encoded == [6]
    assert len(watched.passes) == 1
    assert eyes.stats().misses == 3 + 2 * 6
    assert first is not None
    assert second is not None
    assert third is not None
    assert torch.equal(first.tokens[:24], second.tokens)
    assert torch.equal(first.tokens, torch.cat([third.tokens[24:], third.tokens[:24]]))


def test_corrected_mask_is_seen_anew_and_the_same_one_is_known(
    eyes: LiteEyes, watched: Watched
) -> None:
    frames, regions = clip(2)
    before = tokens(eyes, ask(frames, regions))
    watched.clear()
    given_again = [mask.astype(bool) for mask in regions[0].masks]
    corrected = [mask.copy() for mask in regions[1].masks]
    corrected[1][5:9, 50:60] = 1
    after = tokens(eyes, ask(frames, [RegionClip('cup', (0, 1), given_again),
                                      RegionClip('ball', (0, 1), corrected)]))  # fmt: skip
    assert watched.encoded == [1]
    assert eyes.stats().misses == (2 + 2 * 4) + 2  # the whole frame was still there
    assert torch.equal(after[:24], before[:24])
    assert not torch.allclose(after[24:], before[24:])


def test_names_tell_tokens_apart_and_stay_with_them(eyes: LiteEyes) -> None:
    frames, regions = clip(2)
    (first,) = see(eyes, ask(frames, regions))
    (again,) = see(eyes, ask(frames, regions[1:]))
    (other,) = see(LiteEyes(eyes._model, eyes._processor), ask(frames, regions))
    assert first is not None
    assert again is not None
    assert other is not None
    assert (first.names.dtype, first.names.device.type) == (torch.int64, 'cpu')
    assert torch.equal(first.names[16:], again.names)
    everything = torch.cat([first.names, other.names]).tolist()
    assert len(set(map(tuple, everything))) == 2 * 32


def test_pictures_that_were_cut_are_held_in_patches_alone(
    eyes: LiteEyes, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, regions = clip(2)
    cut: list[weakref.ref[np.ndarray]] = []
    object_crop = crops.object_crop

    def watch(*args: Any) -> crops.ObjectCrop:
        found = object_crop(*args)
        cut.append(weakref.ref(found.picture))
        return found

    monkeypatch.setattr(crops, 'object_crop', watch)
    prepared = eyes.prepare(ask(frames, regions))
    gc.collect()
    assert [picture() for picture in cut] == [None] * 4
    assert all(sight.parts is not None for sight in prepared.sights)


def test_another_picture_with_the_same_stamp_is_another_picture(eyes: LiteEyes) -> None:
    frames, regions = clip(1)
    first = tokens(eyes, ask(frames, regions))
    other = [Frame('cam', frames[0].stamp_ns, picture(9))]
    second = tokens(eyes, ask(other, regions))
    assert not torch.allclose(first, second)
    torch.testing.assert_close(
        second, tokens(LiteEyes(eyes._model, eyes._processor), ask(other, regions))
    )


def test_what_was_kept_goes_with_the_frames(eyes: LiteEyes) -> None:
    frames, regions = clip(3)
    tokens(eyes, ask(frames, regions))
    whole, mask = 25 * 32 * 4, 8 * 32 * 4
    assert eyes.stats().held_bytes == 3 * whole + 6 * mask
    frames.pop()
    gc.collect()
    assert eyes.stats().held_bytes == 2 * whole + 4 * mask
    eyes.forget()
    assert eyes.stats().held_bytes == 0
    assert eyes.stats().misses == 3 + 12


def test_features_hold_no_more_memory_than_their_own(eyes: LiteEyes) -> None:
    frames, regions = clip(3)
    tokens(eyes, ask(frames, regions))
    kept = list(eyes._cache._kept.values())
    assert len(kept) == 3 + 6
    for one in kept:
        tensor = one.values if isinstance(one, Tokens) else one
        assert tensor.untyped_storage().nbytes() == tensor.nbytes == one.nbytes


def test_little_room_is_enough(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    frames, regions = many(4, 4)
    small = LiteEyes(model, processor, cache_mib=0.01)
    expected = tokens(LiteEyes(model, processor), ask(frames, regions))
    for _ in range(2):
        torch.testing.assert_close(tokens(small, ask(frames, regions)), expected)
        assert 0 < small.stats().held_bytes <= small.stats().max_bytes


def test_passes_are_bounded(eyes: LiteEyes, watched: Watched) -> None:
    frames, regions = many(6, 4)
    expected = tokens(LiteEyes(eyes._model, eyes._processor), ask(frames, regions))
    watched.clear()
    eyes.max_patches = 300
    found = tokens(eyes, ask(frames, regions))
    assert len(watched.passes) > 5
    assert max(watched.passes) <= 300
    assert sum(watched.encoded) == 24
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_mask_larger_than_a_pass_is_a_pass(eyes: LiteEyes, watched: Watched) -> None:
    frames, regions = clip(2)
    eyes.max_patches = 1
    assert len(tokens(eyes, ask(frames, regions))) == 4 * 8
    assert watched.encoded == [1] * 4


def test_stopped_requests_leave_between_passes(eyes: LiteEyes, watched: Watched) -> None:
    frames, regions = many(6, 2)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 2

    eyes.max_patches = 1
    stopped = ask(frames, regions[:3], should_stop=stop)
    first, second = see(eyes, stopped, ask(frames, regions[3:]))
    assert first is None
    assert second is not None
    assert asked == 2
    assert 6 <= sum(watched.encoded) < 12
    torch.testing.assert_close(
        second.tokens, tokens(LiteEyes(eyes._model, eyes._processor), ask(frames, regions[3:]))
    )


def test_a_single_pass_asks_nobody_to_stop(eyes: LiteEyes) -> None:
    frames, regions = clip(2)
    assert see(eyes, ask(frames, regions, should_stop=lambda: True))[0] is not None


def test_frame_looked_at_ahead_is_not_encoded_again(eyes: LiteEyes, watched: Watched) -> None:
    frames, regions = clip(2)
    with torch.inference_mode():
        assert eyes.look_ahead(frames[0])
        assert not eyes.look_ahead(frames[0])
    assert watched.passes == [25]
    found = tokens(eyes, ask(frames, regions))
    stats = eyes.stats()
    assert (stats.encoded_ahead, stats.misses, stats.hits) == (1, 1 + 8, 1)
    expected = tokens(LiteEyes(eyes._model, eyes._processor), ask(frames, regions))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_looked_at_ahead_where_nothing_is_kept(
    model: PixelReferForConditionalGeneration,
    processor: PixelReferProcessor,
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames, _ = clip(1)
    for resize in ('exact', 'device'):
        blind = LiteEyes(model, processor, cache_mib=0, resize=resize)
        monkeypatch.setattr(blind, '_resizer', None)  # nothing is cut or uploaded
        assert not blind.look_ahead(frames[0])
    assert watched.passes == []


def test_room_for_what_is_looked_at_ahead_is_known_to_the_byte(
    model: PixelReferForConditionalGeneration, processor: PixelReferProcessor
) -> None:
    frames, _ = clip(1)
    whole = 25 * 32 * 4
    for room, expected in ((whole, True), (whole - 1, False)):
        with torch.inference_mode():
            assert (
                LiteEyes(model, processor, cache_mib=room / 2**20).look_ahead(frames[0])
                == expected
            )


@pytest.mark.parametrize(
    'compat',
    [{'compat_reuse_context': True}, {'compat_shared_budget': True, 'mm_max_length': 540},
     {'compat_reuse_context': True, 'compat_shared_budget': True, 'mm_max_length': 540}],
)  # fmt: skip
def test_the_reference_can_be_followed(processor: PixelReferProcessor, compat) -> None:
    config = small_config(global_size=140, **compat)
    processor = PixelReferProcessor(config, processor.tokenizer)
    model = small_model(config)
    frames, regions = many(3, 3)
    requests = [ask(frames, regions), ask(frames, regions[::-1]), ask(frames, regions[1:2])]
    eyes = LiteEyes(model, processor)
    for _ in range(2):
        for request, prompt in zip(requests, see(eyes, *requests), strict=True):
            masks = [mask for region in request.regions for mask in region.masks]
            places = [i for region in request.regions for i in region.frame_indices]
            with torch.inference_mode():
                inputs = processor.regions([frame.image for frame in frames], masks, places)
                expected = model.encode(inputs).flatten(0, 1)
            assert prompt is not None
            torch.testing.assert_close(prompt.tokens, expected, rtol=1e-5, atol=1e-5)


def test_context_of_a_known_mask_is_shared_when_the_reference_is_followed(
    processor: PixelReferProcessor,
) -> None:
    config = small_config(compat_reuse_context=True)
    model = small_model(config)
    frames, regions = clip(2)
    expected = tokens(LiteEyes(model, processor), ask(frames, regions))
    eyes = LiteEyes(model, processor)
    own = tokens(eyes, ask(frames, regions[1:]))
    tokens(eyes, ask(frames, regions[:1]))
    found = tokens(eyes, ask(frames, regions))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found[16:], own, atol=1e-3)


def test_regions_out_of_sight_have_no_tokens(eyes: LiteEyes, watched: Watched) -> None:
    frames, _ = clip(2)
    gone = RegionClip('ball', (0, 1), [np.zeros((60, 80), bool)] * 2)
    (prompt,) = see(eyes, ask(frames, [gone]))
    assert prompt is not None
    assert prompt.tokens.shape == (0, 32)
    assert watched.passes == []


def test_device_resizes_as_the_host_does_and_uploads_once(
    model: PixelReferForConditionalGeneration,
    processor: PixelReferProcessor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = [Frame('cam', i, picture(i, 240, 320)) for i in range(2)]
    regions = [
        RegionClip('a', (0, 1), [box_mask(30, 40, 90, 100, (240, 320))] * 2),
        RegionClip('b', (0, 1), [box_mask(100, 200, 12, 9, (240, 320))] * 2),
    ]
    on_host, on_device = (
        LiteEyes(model, processor, resize=resize) for resize in ('exact', 'device')
    )
    uploads: list[int] = []
    upload = on_device._resizer.upload
    monkeypatch.setattr(
        on_device._resizer, 'upload', lambda image: uploads.append(1) or upload(image)
    )
    host, device = (eyes.prepare(ask(frames, regions)) for eyes in (on_host, on_device))
    for one, other in zip(host.sights, device.sights, strict=True):
        assert one.parts is not None
        assert other.parts is not None
        for mine, theirs in zip(one.unseen(), other.unseen(), strict=True):
            assert mine.grid == theirs.grid
            assert (mine.patches.int() - theirs.patches.int()).abs().max() <= 1
        np.testing.assert_array_equal(one.parts.cut.grid_mask, other.parts.cut.grid_mask)
    tokens(on_device, ask(frames, regions))
    with torch.inference_mode():
        on_device.look_ahead(frames[0])
    corrected = RegionClip('a', (0, 1), [box_mask(30, 40, 80, 90, (240, 320))] * 2)
    found = tokens(on_device, ask(frames, [corrected]))
    assert uploads == [1, 1]
    expected = tokens(on_host, ask(frames, [corrected]))
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_working_size_is_kept_on_the_device(
    processor: PixelReferProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(working_long_side=80)
    small = PixelReferProcessor(config, processor.tokenizer)
    eyes = LiteEyes(small_model(config), small, resize='device')
    frame = Frame('cam', 1, picture(0, 240, 320))
    region = RegionClip('a', (0,), [box_mask(30, 40, 90, 100, (240, 320))])
    tokens(eyes, ask([frame], [region]))
    assert eyes._cache.get(frame.image, 'pixels').shape == (60, 80, 3)


def test_masks_are_known_by_their_pixels() -> None:
    mask = box_mask(10, 12, 20, 30)
    same = [mask.astype(bool), mask * 255, mask.astype(np.int64), np.asfortranarray(mask)]
    digest = mask_digest(as_binary(mask))
    assert {mask_digest(as_binary(other)) for other in same} == {digest}
    other = mask.copy()
    other[11, 13] = 0
    moved = box_mask(10, 13, 20, 30)
    empty = np.zeros_like(mask)
    others = {mask_digest(one) for one in (other, moved, empty, box_mask(10, 12, 30, 20))}
    assert len(others) == 4
    assert digest not in others


def test_one_crop_of_many_cells_changes_nothing_for_others(
    eyes: LiteEyes, model: PixelReferForConditionalGeneration
) -> None:
    size = (480, 640)
    frame = Frame('cam', 1, picture(0, *size))
    regions = [RegionClip(f'r{k}', (0,), [box_mask(20 * k, 30 * k, 20, 24, size)]) for k in (1, 2)]
    thin = np.zeros(size, np.uint8)
    thin[np.arange(480), np.arange(480)] = 1  # few pixels, many cells
    prepared = eyes.prepare(ask([frame], [*regions, RegionClip('thin', (0,), [thin])]))
    cells = [
        layout([sight.parts.cut], [sight.parts.object]).lengths[0]
        for sight in prepared.sights
        if sight.parts is not None
    ]
    assert cells[2] > 4 * max(cells[:2])
    with torch.inference_mode():
        (both,) = eyes.see([prepared])
    alone = tokens(LiteEyes(model, eyes._processor), ask([frame], regions))
    assert both is not None
    torch.testing.assert_close(both.tokens[:16], alone, rtol=1e-5, atol=1e-5)
