# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test that the full PixelRefer encodes every picture once, and that nothing changes by that."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pixelrefer_ros.core.describer import Request
from pixelrefer_ros.core.types import Frame, PixelReferError, RegionClip, Task
from pixelrefer_ros.models.pixelrefer.full import FullPixelReferProcessor
from pixelrefer_ros.models.pixelrefer.full import eyes as full_eyes
from pixelrefer_ros.models.pixelrefer.full.eyes import FullEyes
from pixelrefer_ros.models.pixelrefer.sights import Tokens
from tests.models.conftest import box_mask, clip, picture, small_full_config, small_full_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixelrefer_ros.models.pixelrefer.crops import ObjectCrop
    from pixelrefer_ros.models.pixelrefer.voice import Prompt

CLIP_TOKENS = (6, 6, 6)
"""Tokens of the frames of ``clip(3)``, all of them different."""


@pytest.fixture
def passes(full_model) -> Iterator[list[int]]:
    """Collect the patches of each tower pass."""
    seen: list[int] = []
    hook = full_model.tower.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    yield seen
    hook.remove()


@pytest.fixture
def eyes(full_model, full_processor) -> FullEyes:
    """Make eyes that know nothing yet."""
    return FullEyes(full_model, full_processor)


def ask(
    frames: Sequence[Frame],
    regions: Sequence[RegionClip] = (),
    text: str = 'What?',
    **more: Any,
) -> Request:
    return Request(Task.ASK, tuple(frames), tuple(regions), text, **more)


def see(eyes: FullEyes, *requests: Request) -> list[Prompt]:
    with torch.inference_mode():
        prompts = eyes.see([eyes.prepare(request) for request in requests])
    assert None not in prompts
    return prompts  # type: ignore[return-value]


def by_hand(eyes: FullEyes, request: Request, chosen: Sequence[int]) -> torch.Tensor:
    """Return the tokens of a request, its regions' masks on chosen frames, by model alone."""
    model, processor = eyes._model, eyes._processor
    images = [frame.image for frame in request.frames]
    frames = processor.frames(images, video=len(images) > 1)
    masks = [
        region.masks[region.frame_indices.index(place)]
        for region, place in zip(request.regions, chosen, strict=True)
    ]
    regions = processor.regions(images, masks, chosen)
    with torch.inference_mode():
        kept, tokens = model.encode(frames, regions)
    return torch.cat([*kept, tokens])


def test_prompt_holds_all_frames_and_a_mask_of_each_region(eyes: FullEyes) -> None:
    frames, regions = clip(3)
    (prompt,) = see(eyes, ask(frames, regions, 'Is {cup} red?'))
    words = eyes._processor.tokenizer.decode(prompt.input_ids)
    pictures = ','.join(
        f'Time {0.5 * place}s:' + '<image>' * count for place, count in enumerate(CLIP_TOKENS)
    )
    places = '<REGION>' * 8
    assert words == (
        f'<|im_start|>user\n{pictures}\nThere are two objects in the video: <object0>[{places}], '
        f'<object1>[{places}]. Is <object0> red?<|im_end|>\n<|im_start|>assistant\n'
    )
    request = ask(frames, regions)
    torch.testing.assert_close(prompt.tokens, by_hand(eyes, request, [0, 0]), rtol=1e-5, atol=1e-5)


def test_the_largest_mask_of_a_region_is_shown(eyes: FullEyes) -> None:
    frames, _ = clip(3)
    masks = [box_mask(10, 10, 20, 20), box_mask(10, 10, 24, 20), box_mask(10, 10, 24, 20)]
    request = ask(frames, [RegionClip('cup', (2, 0, 1), masks)])
    (prompt,) = see(eyes, request)
    torch.testing.assert_close(prompt.tokens, by_hand(eyes, request, [0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('count', [1, 3])
def test_questions_need_no_region(eyes: FullEyes, count: int) -> None:
    frames, _ = clip(count)
    request = ask(frames, text='What happens?')
    (prompt,) = see(eyes, request)
    torch.testing.assert_close(prompt.tokens, by_hand(eyes, request, []), rtol=1e-5, atol=1e-5)
    assert 'What happens?' in eyes._processor.tokenizer.decode(prompt.input_ids)
    assert not eyes.needs_regions


def test_bad_requests_are_refused(eyes: FullEyes) -> None:
    frames, regions = clip(2)
    for request in (ask([], regions), ask(frames, regions, ' '), ask(frames, [], 'Is <image>?')):
        with pytest.raises(PixelReferError):
            eyes.prepare(request)


def test_second_question_needs_no_tower(eyes: FullEyes, passes: list[int]) -> None:
    frames, regions = clip(3)
    (first,) = see(eyes, ask(frames, regions, 'What is {cup}?'))
    assert len(passes) == 1
    assert (eyes.stats().misses, eyes.stats().hits) == (5, 0)
    passes.clear()
    (second,) = see(eyes, ask(frames, regions, 'And {ball}?'))
    (third,) = see(eyes, ask(frames, regions[1:]))
    (fourth,) = see(eyes, ask(frames))
    assert passes == []
    assert (eyes.stats().misses, eyes.stats().hits) == (5, 5 + 4 + 3)
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(third.tokens, torch.cat([first.tokens[:18], first.tokens[26:]]))
    assert torch.equal(fourth.tokens, first.tokens[:18])


def test_frames_shown_as_pictures_are_others_than_those_of_a_video(
    eyes: FullEyes, passes: list[int]
) -> None:
    frames, _ = clip(3)
    see(eyes, ask(frames))
    (alone,) = see(eyes, ask(frames[:1]))
    assert len(passes) == 2
    assert len(alone.tokens) == 24
    see(eyes, ask(frames[1:]))
    assert len(passes) == 2


def of_small_budget(processor: FullPixelReferProcessor, **changes: Any) -> FullEyes:
    """Return eyes of a model that cannot see three frames as large as they are."""
    config = small_full_config(mm_max_length=12, min_pixels=196, **changes)
    return FullEyes(small_full_model(config), FullPixelReferProcessor(config, processor.tokenizer))


def test_growing_clip_is_encoded_frame_by_frame(full_processor) -> None:
    eyes = of_small_budget(full_processor, max_frames_per_region=3)
    frames, _ = clip(3)
    with torch.inference_mode():
        for frame in frames:
            assert eyes.look_ahead(frame)
    for count in (2, 3):
        request = ask(frames[:count])
        (prompt,) = see(eyes, request)
        assert len(prompt.tokens) == 2 * count
        torch.testing.assert_close(prompt.tokens, by_hand(eyes, request, []), rtol=1e-5, atol=1e-5)
    assert (eyes.stats().encoded_ahead, eyes.stats().misses) == (3, 0)


def test_many_frames_are_other_pictures_when_the_reference_is_followed(full_processor) -> None:
    eyes = of_small_budget(full_processor, compat_shared_budget=True)
    frames, _ = clip(3)
    assert len(see(eyes, ask(frames[:2]))[0].tokens) == 12
    (many,) = see(eyes, ask(frames))
    assert len(many.tokens) < 18
    assert eyes.stats().misses == 5
    torch.testing.assert_close(many.tokens, by_hand(eyes, ask(frames), []), rtol=1e-5, atol=1e-5)


def test_what_does_not_change_is_left_out_and_that_is_remembered(
    eyes: FullEyes, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = [Frame('cam', 1 + i, picture(0)) for i in range(3)]
    (first,) = see(eyes, ask(still))
    assert len(first.tokens) == 6 + 1 + 1
    cut: list[int] = []
    monkeypatch.setattr(eyes, '_picture', lambda *args: cut.append(1))
    (second,) = see(eyes, ask(still))
    assert torch.equal(first.tokens, second.tokens)
    assert cut == []


def test_frames_are_compared_with_the_frame_before_them_in_the_request(eyes: FullEyes) -> None:
    a, b, c = (Frame('cam', 1 + i, picture(seed)) for i, seed in enumerate((0, 0, 1)))
    assert len(see(eyes, ask([a, b, c]))[0].tokens) == 6 + 1 + 6
    assert len(see(eyes, ask([a, c]))[0].tokens) == 12
    assert len(see(eyes, ask([c, b]))[0].tokens) == 12
    assert len(see(eyes, ask([a, b]))[0].tokens) == 7


def test_nothing_depends_on_cache_or_company(full_model, full_processor) -> None:
    frames, regions = clip(4)
    requests = [
        ask(frames, regions, 'What is {cup}?'),
        ask(frames[:1], [RegionClip('cup', (0,), regions[0].masks[:1])]),
        ask(frames[1:]),
        ask(frames[::-1], regions[::-1]),
    ]
    together = see(FullEyes(full_model, full_processor), *requests)
    blind = FullEyes(full_model, full_processor, cache_mib=0)
    reused = FullEyes(full_model, full_processor)
    see(reused, *requests[::-1])
    for request, one in zip(requests, together, strict=True):
        for other in (*see(blind, request), *see(reused, request)):
            assert torch.equal(one.input_ids, other.input_ids)
            torch.testing.assert_close(one.tokens, other.tokens, rtol=1e-5, atol=1e-5)
    assert blind.stats().held_bytes == 0
    assert blind.stats().hits == 0


def test_what_requests_of_a_batch_share_is_encoded_once(eyes: FullEyes, passes: list[int]) -> None:
    frames, regions = clip(3)
    first, second = see(eyes, ask(frames, regions), ask(frames, regions[:1]))
    assert len(passes) == 1
    assert eyes.stats().misses == 5
    assert torch.equal(first.tokens[:26], second.tokens)


def test_names_tell_tokens_apart_and_stay_with_them(eyes: FullEyes) -> None:
    frames, regions = clip(3)
    frames.append(Frame('cam', 9_000_000_000, frames[2].image.copy()))
    (first,) = see(eyes, ask(frames, regions))
    (again,) = see(eyes, ask(frames[1:], regions[1:], 'What is {ball} beside?'))
    assert len(first.names) == len(first.tokens) == 18 + 1 + 16
    assert (first.names.dtype, first.names.device.type) == (torch.int64, 'cpu')
    assert len(set(map(tuple, first.names.tolist()))) == len(first.names)
    known = dict(zip(map(tuple, first.names.tolist()), first.tokens, strict=True))
    shared = [known.get(tuple(name)) for name in again.names.tolist()]
    # the ball's largest mask is on another frame
    assert [token is not None for token in shared] == [True] * 13 + [False] * 8
    for token, own in zip(shared[:13], again.tokens[:13], strict=True):
        assert token is not None
        assert torch.equal(token, own)


def test_tokens_that_are_read_keep_their_names(eyes: FullEyes) -> None:
    before = Frame('cam', 1, picture(0))
    after = Frame('cam', 2, picture(0))
    after.image[-10:, -10:] ^= 255
    (some,) = see(eyes, ask([before, after]))
    (every,) = see(eyes, ask([after, before]))
    assert len(some.tokens) == 6 + 1
    place = every.names.tolist().index(some.names[6].tolist())
    assert place == 5
    assert torch.equal(every.tokens[place], some.tokens[6])


def test_pictures_that_were_cut_are_held_in_patches_alone(
    eyes: FullEyes, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, regions = clip(2)
    cut: list[weakref.ref[np.ndarray]] = []
    object_crop = full_eyes.object_crop

    def watch(*args: Any) -> ObjectCrop:
        found = object_crop(*args)
        cut.append(weakref.ref(found.picture))
        return found

    monkeypatch.setattr(full_eyes, 'object_crop', watch)
    prepared = eyes.prepare(ask(frames, regions))
    gc.collect()
    assert [picture() for picture in cut] == [None] * 2
    assert [view.cut is not None for view in prepared.sights] == [False, False, True, True]


def test_corrected_mask_is_seen_anew(eyes: FullEyes, passes: list[int]) -> None:
    frames, regions = clip(2)
    (before,) = see(eyes, ask(frames, regions))
    corrected = [mask.copy() for mask in regions[1].masks]
    corrected[0][5:9, 50:60] = 1
    (after,) = see(eyes, ask(frames, [regions[0], RegionClip('ball', (0, 1), corrected)]))
    assert eyes.stats().misses == 4 + 1
    assert len(passes) == 2
    assert torch.equal(before.tokens[:20], after.tokens[:20])
    assert not torch.allclose(before.tokens[20:], after.tokens[20:])


def test_empty_mask_has_no_tokens_and_needs_no_tower(eyes: FullEyes, passes: list[int]) -> None:
    frames, regions = clip(2)
    gone = RegionClip('ghost', (0, 1), [np.zeros((60, 80), bool)] * 2)
    see(eyes, ask(frames))
    passes.clear()
    (prompt,) = see(eyes, ask(frames, [gone]))
    assert passes == []
    assert len(prompt.tokens) == 12
    assert '<object0>[].' in eyes._processor.tokenizer.decode(prompt.input_ids)
    (both,) = see(eyes, ask(frames, [gone, regions[0]]))
    assert len(both.tokens) == 20


def test_what_was_kept_goes_with_the_frames(eyes: FullEyes) -> None:
    frames, regions = clip(3)
    see(eyes, ask(frames, regions))
    held = eyes.stats().held_bytes
    assert held >= (18 + 16) * 32 * 4
    for one in eyes._cache._kept.values():
        tensor = one.values if isinstance(one, Tokens) else one
        assert tensor.untyped_storage().nbytes() == tensor.nbytes == one.nbytes
    frames.pop()
    gc.collect()
    assert eyes.stats().held_bytes <= held - 6 * 32 * 4
    eyes.forget()
    assert eyes.stats().held_bytes == 0


def test_frame_looked_at_ahead_is_not_encoded_again(eyes: FullEyes, passes: list[int]) -> None:
    frames, regions = clip(2)
    with torch.inference_mode():
        assert eyes.look_ahead(frames[0])
        assert not eyes.look_ahead(frames[0])
    assert passes == [24]
    request = ask(frames, regions)
    (prompt,) = see(eyes, request)
    stats = eyes.stats()
    assert (stats.encoded_ahead, stats.misses, stats.hits) == (1, 3, 1)
    torch.testing.assert_close(prompt.tokens, by_hand(eyes, request, [0, 0]), rtol=1e-5, atol=1e-5)


def test_nothing_is_looked_at_ahead_where_nothing_is_kept(
    full_model, full_processor, passes: list[int]
) -> None:
    frames, _ = clip(1)
    assert not FullEyes(full_model, full_processor, cache_mib=0).look_ahead(frames[0])
    assert passes == []


def test_passes_are_bounded_and_stopped_requests_leave_between_them(
    eyes: FullEyes, passes: list[int]
) -> None:
    frames, regions = clip(4)
    (expected,) = see(FullEyes(eyes._model, eyes._processor), ask(frames, regions))
    passes.clear()
    eyes.max_patches = 30
    (found,) = see(eyes, ask(frames, regions))
    assert len(passes) >= 5
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-5, atol=1e-5)
    eyes.forget()
    passes.clear()
    stopped = ask(frames, regions, should_stop=lambda: True)
    with torch.inference_mode():
        nothing, other = eyes.see([eyes.prepare(stopped), eyes.prepare(ask(frames[:2]))])
    assert nothing is None
    assert other is not None
    torch.testing.assert_close(other.tokens, expected.tokens[:12], rtol=1e-5, atol=1e-5)
    assert sum(passes) < 24 * 4 + 1


def test_device_resizes_as_the_host_does(full_model, full_processor) -> None:
    frames = [Frame('cam', i, picture(i, 240, 330)) for i in range(2)]
    regions = [RegionClip('a', (0, 1), [box_mask(30, 40, 90, 100, (240, 330))] * 2)]
    host, device = (
        FullEyes(full_model, full_processor, resize=resize) for resize in ('exact', 'device')
    )
    one, other = (eyes.prepare(ask(frames, regions)) for eyes in (host, device))
    assert torch.equal(one.input_ids, other.input_ids)
    for mine, theirs in zip(one.sights, other.sights, strict=True):
        assert mine.picture is not None
        assert theirs.picture is not None
        assert mine.picture.grid == theirs.picture.grid
        assert (mine.picture.patches.int() - theirs.picture.patches.int()).abs().max() <= 1
