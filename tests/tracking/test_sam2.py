# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test following with SAM 2 on a tiny model: random masks, so what is tested is the structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from bench._tiny_sam2 import believe, tiny_model
from pixelrefer_ros.core.types import (
    ErrorCode,
    PixelReferError,
    Region,
    RegionKind,
    TrackState,
)
from pixelrefer_ros.tracking.sam2 import Sam2Tracker
from pixelrefer_ros.tracking.sam2_model import Segmenter
from tests.tracking.sam2_rig import (
    HEIGHT,
    PERIOD_NS,
    WIDTH,
    box,
    frame,
    masked,
    of,
    points,
    rectangle,
    same,
    segmenter,
    tracker,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixelrefer_ros.core.tracker import Sighting


def steps(follower: Sam2Tracker, first: int, last: int) -> list[list[Sighting]]:
    return [follower.step(frame(number)) for number in range(first, last + 1)]


def test_a_region_is_new_then_tracked_with_masks_of_the_frame() -> None:
    follower = tracker()
    started = follower.start(frame(0), box())
    assert (started.region_id, started.state) == ('a', TrackState.NEW)
    assert follower.region_ids == ('a',)
    sightings = [started, *(seen for told in steps(follower, 1, 5) for seen in told)]
    for sighting in sightings:
        assert sighting.mask is not None
        assert (sighting.mask.shape, sighting.mask.dtype) == ((HEIGHT, WIDTH), np.bool_)
        assert sighting.mask.any()
        assert 0.0 < sighting.score <= 1.0
    assert {seen.state for seen in sightings[1:]} == {TrackState.TRACKED}


def test_the_same_frames_give_the_same_to_the_last_bit() -> None:
    told = []
    for follower in (tracker(), tracker()):
        told.append([follower.start(frame(0), box()), *(s[0] for s in steps(follower, 1, 20))])
    assert all(same(one, other) for one, other in zip(*told, strict=True))


def test_the_model_sees_the_frames() -> None:
    first, second = tracker(), tracker()
    first.start(frame(0), box())
    second.start(frame(0), box())
    assert not same(first.step(frame(1))[0], second.step(frame(2))[0])


@pytest.mark.parametrize(
    'prompt',
    [
        box('r'),
        box('r', -5, -5, 30, 30),
        points('r', [(30.0, 20.0)]),
        points('r', [(30.0, 20.0), (5.0, 5.0)], (1, 0)),
        masked('r', rectangle(12, 10, 20, 20)),
        masked('r', rectangle(40, 30, 1, 1)),
    ],
    ids=['box', 'box half outside', 'point', 'points with labels', 'mask', 'mask of one pixel'],
)
def test_every_kind_of_prompt_starts_a_region(prompt: Region) -> None:
    follower = tracker()
    started = follower.start(frame(0), prompt)
    assert started.mask is not None
    assert started.mask.any()
    assert started.state == TrackState.NEW
    assert [seen.region_id for seen in follower.step(frame(1))] == ['r']


def test_a_mask_is_taken_as_it_is() -> None:
    given = rectangle(12, 10, 21, 17)
    started = tracker().start(frame(0), masked('r', given))
    assert np.array_equal(started.mask, given)
    assert started.score > 0.9


def test_point_labels_and_places_reach_the_model() -> None:
    at = [(30.0, 20.0), (10.0, 40.0)]
    told = [
        tracker().start(frame(0), prompt)
        for prompt in (points('r', at), points('r', at, (1, 0)), points('r', at[:1]), box('r'))
    ]
    for number, one in enumerate(told):
        assert not any(same(one, other) for other in told[number + 1 :])


@pytest.mark.parametrize(
    ('prompt', 'expected', 'labels'),
    [
        # pixels 10 to 29 across, 6 to 17 down, of 64x48, in a square of 64
        (box('r', 10, 6, 20, 12), [[10.0, 8.0], [29.0, 17.0 * 4 / 3]], [2, 3]),
        (box('r', -9, -9, 19, 18), [[0.0, 0.0], [9.0, 8.0 * 4 / 3]], [2, 3]),
        (points('r', [(10.5, 6.5), (70.0, 3.5)], (1, 0)), [[10.0, 8.0], [63.0, 4.0]], [1, 0]),
    ],
)
def test_prompts_are_scaled_from_pixels_of_the_frame(
    prompt: Region, expected: list[list[float]], labels: list[int]
) -> None:
    follower = tracker()
    heard: list[dict[str, torch.Tensor]] = []
    handle = segmenter().model.prompt_encoder.register_forward_pre_hook(
        lambda _module, _args, named: heard.append(named), with_kwargs=True
    )
    try:
        follower.start(frame(0), prompt)
    finally:
        handle.remove()
    assert torch.allclose(heard[0]['input_points'][0, 0], torch.tensor(expected), atol=1e-4)
    assert heard[0]['input_labels'][0, 0].tolist() == labels


def test_where_the_model_finds_nothing_it_is_given_the_mask_of_the_prompt() -> None:
    follower = tracker()
    believe(segmenter().model, False)
    started = follower.start(frame(0), box('r', 10, 8, 20, 16))
    assert np.array_equal(started.mask, rectangle(10, 8, 20, 16))


@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        (box('r', 200, 8), 'outside'),
        (box('r', 5, 5, 0, 4), 'empty'),
        (Region('r', RegionKind.BOX), 'needs a box'),
        (points('r', [(3.0, 3.0)], (0,)), 'at least one point with label 1'),
        (points('r', [(3.0, 3.0)], (1, 0)), 'as many labels'),
        (points('r', [(float('nan'), 3.0)]), 'not finite'),
        (masked('r', np.zeros((HEIGHT, WIDTH), dtype=np.bool_)), 'empty'),
        (masked('r', np.ones((HEIGHT, WIDTH + 1), dtype=np.bool_)), 'size of the image'),
    ],
)
def test_bad_prompts_are_refused_and_change_nothing(bad: Region, words: str) -> None:
    follower, untouched = tracker(), tracker()
    for one in (follower, untouched):
        one.start(frame(0), box('a'))
        one.step(frame(1))
    with pytest.raises(PixelReferError, match=words) as error:
        follower.start(frame(1), bad)
    assert error.value.code == ErrorCode.BAD_REGION
    assert follower.region_ids == ('a',)
    assert same(follower.step(frame(2))[0], untouched.step(frame(2))[0])


def count_encodings(run: Callable[[], object]) -> int:
    """Return how often the image encoder ran."""
    counted: list[int] = []
    encoder = segmenter().model.vision_encoder
    handle = encoder.register_forward_hook(lambda *_: counted.append(1))
    try:
        run()
    finally:
        handle.remove()
    return len(counted)


def test_a_frame_is_encoded_once_for_all_regions() -> None:
    follower = tracker()
    start = [box('a'), points('b', [(40.0, 30.0)]), masked('c', rectangle(3, 3, 9, 9))]
    assert count_encodings(lambda: [follower.start(frame(0), one) for one in start]) == 1
    assert count_encodings(lambda: follower.step(frame(1))) == 1
    # a region that is added or corrected on the frame of the last step needs no second look
    assert count_encodings(lambda: follower.start(frame(1), box('d'))) == 0
    assert count_encodings(lambda: follower.start(frame(1), box('a', 12, 9))) == 0


def test_no_region_no_work() -> None:
    follower = tracker()
    assert count_encodings(lambda: follower.step(frame(0))) == 0
    assert follower.step(frame(1)) == []
    follower.start(frame(1), box())
    follower.remove('a')
    follower.remove('never there')
    assert count_encodings(lambda: follower.step(frame(2))) == 0
    assert follower.region_ids == ()


def test_regions_that_come_and_go_change_no_bit_of_another() -> None:
    alone, crowded = tracker(), tracker()
    for one in (alone, crowded):
        one.start(frame(0), box('a'))
    crowded.start(frame(0), points('b', [(40.0, 30.0)]))
    for number in range(1, 30):
        expected = alone.step(frame(number))[0]
        assert same(of(crowded.step(frame(number)), 'a'), expected)
        if number == 5:
            crowded.start(frame(number), masked('c', rectangle(30, 20, 10, 10)))
        if number == 10:
            crowded.remove('b')
        if number in (12, 20):
            crowded.start(frame(number), box('c', 28, 18, 14, 14))
        if number == 15:
            crowded.start(frame(number), box('b', 1, 1, 9, 9))
    assert crowded.region_ids == ('a', 'c', 'b')


def test_64_regions_at_once() -> None:
    follower = tracker()
    for number in range(64):
        follower.start(frame(0), box(f'r{number}', number % 8 * 7, number // 8 * 5, 8, 8))
    told = follower.step(frame(1))
    assert [seen.region_id for seen in told] == [f'r{number}' for number in range(64)]
    assert all(0.0 <= seen.score <= 1.0 for seen in told)
    follower.remove('r7')
    assert len(follower.step(frame(2))) == 63


def test_a_region_goes_on_in_frames_of_another_size() -> None:
    follower = tracker()
    follower.start(frame(0), box())
    follower.step(frame(1))
    sighting = follower.step(frame(2, 96, 80))[0]
    assert sighting.mask is not None
    assert sighting.mask.shape == (96, 80)
    assert sighting.state == TrackState.TRACKED
    corrected = follower.start(frame(2, 96, 80), masked('a', rectangle(20, 20, 40, 40, (96, 80))))
    assert corrected.mask is not None
    assert corrected.mask.shape == (96, 80)


def test_a_correction_is_heard_and_remembered() -> None:
    corrected, left = tracker(), tracker()
    for one in (corrected, left):
        one.start(frame(0), box())
        steps(one, 1, 4)
    given = rectangle(5, 5, 40, 30)
    sighting = corrected.start(frame(4), masked('a', given))
    assert sighting.state == TrackState.TRACKED
    assert np.array_equal(sighting.mask, given)
    told = list(zip(steps(corrected, 5, 40), steps(left, 5, 40), strict=True))
    # long after the window of followed frames it is still remembered: it is a prompted frame
    assert not same(told[-1][0][0], told[-1][1][0])
    assert corrected.region_ids == ('a',)


def test_the_last_correction_of_a_frame_is_the_one_that_counts() -> None:
    once, twice = tracker(), tracker()
    for one in (once, twice):
        one.start(frame(0), box())
        steps(one, 1, 3)
    twice.start(frame(3), masked('a', rectangle(8, 6, 30, 30)))
    for one in (once, twice):
        one.start(frame(3), masked('a', rectangle(5, 5, 40, 30)))
    pairs = zip(steps(once, 4, 12), steps(twice, 4, 12), strict=True)
    assert all(same(first[0], second[0]) for first, second in pairs)


def test_a_prompt_for_the_same_id_at_the_first_frame_replaces_the_first() -> None:
    follower, fresh = tracker(), tracker()
    follower.start(frame(0), masked('a', rectangle(5, 5, 20, 20)))
    assert follower.start(frame(0), box()).state == TrackState.NEW
    fresh.start(frame(0), box())
    pairs = zip(steps(follower, 1, 8), steps(fresh, 1, 8), strict=True)
    assert all(same(first[0], second[0]) for first, second in pairs)


def test_a_prompt_somewhere_else_starts_the_region_anew() -> None:
    follower, fresh = tracker(), tracker()
    follower.start(frame(0), box())
    seen = follower.step(frame(1))[0]
    assert seen.mask is not None
    elsewhere = np.zeros_like(seen.mask)
    row, column = np.argwhere(~seen.mask)[0]
    elsewhere[row, column] = True
    assert follower.start(frame(1), masked('a', elsewhere)).state == TrackState.TRACKED
    fresh.start(frame(1), masked('a', elsewhere))
    pairs = zip(steps(follower, 2, 8), steps(fresh, 2, 8), strict=True)
    assert all(same(first[0], second[0]) for first, second in pairs)


def test_a_detector_that_corrects_each_frame_keeps_memory_bounded() -> None:
    follower = tracker()
    sizes = []
    for number in range(50):
        if number:
            follower.step(frame(number))
        prompt = box('a', 8 + number % 4) if number % 2 else masked('a', rectangle(9, 9, 20, 18))
        follower.start(frame(number), prompt)
        sizes.append(stored_bytes(follower))
    assert max(sizes[20:]) == min(sizes[20:])


def stored_bytes(follower: Sam2Tracker) -> int:
    """Return the bytes of all tensors a tracker's sessions hold."""
    found: dict[int, int] = {}

    def walk(value: object) -> None:
        if isinstance(value, torch.Tensor):
            found[value.data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            for one in value.values():
                walk(one)
        elif isinstance(value, list | tuple):
            for one in value:
                walk(one)

    for followed in follower._regions.values():
        session = followed.memory._session
        walk(vars(session))
        walk(vars(session.cache))
    return sum(found.values())


def test_what_is_stored_of_a_followed_region_does_not_grow() -> None:
    follower = tracker()
    follower.start(frame(0), box())
    sizes = []
    for number in range(1, 60):
        follower.step(frame(number))
        sizes.append(stored_bytes(follower))
    assert min(sizes[20:]) == max(sizes[20:]) > 0


def test_out_of_sight_it_is_occluded_lost_within_half_a_second_and_found_again() -> None:
    follower = tracker()
    follower.start(frame(0), masked('a', rectangle(8, 8, 32, 28)))
    steps(follower, 1, 3)
    believe(segmenter().model, False)
    gone = [told[0] for told in steps(follower, 4, 12)]
    assert gone[0].state == TrackState.OCCLUDED
    assert all(seen.mask is None and seen.score == 0.0 for seen in gone)
    lost_at = next(number for number, seen in enumerate(gone, 1) if seen.state == TrackState.LOST)
    assert lost_at * PERIOD_NS <= 500_000_000
    assert {seen.state for seen in gone[lost_at - 1 :]} == {TrackState.LOST}
    believe(segmenter().model, True)
    back, after = (told[0] for told in steps(follower, 13, 14))
    assert back.state == TrackState.REACQUIRED
    assert back.mask is not None
    assert after.state == TrackState.TRACKED


def test_a_prompt_for_a_lost_region_finds_it() -> None:
    follower = tracker()
    follower.start(frame(0), box())
    believe(segmenter().model, False)
    assert steps(follower, 1, 8)[-1][0].state == TrackState.LOST
    believe(segmenter().model, True)
    assert follower.start(frame(8), box()).state == TrackState.REACQUIRED
    assert follower.step(frame(9))[0].state == TrackState.TRACKED


def test_backward_is_like_forward() -> None:
    follower = tracker()
    follower.start(frame(20), box())
    told = [follower.step(frame(number))[0] for number in range(19, 10, -1)]
    assert {seen.state for seen in told} == {TrackState.TRACKED}
    believe(segmenter().model, False)
    gone = [follower.step(frame(number))[0] for number in range(10, 4, -1)]
    assert gone[0].state == TrackState.OCCLUDED
    assert gone[-1].state == TrackState.LOST


def test_a_fork_starts_empty_shares_the_model_and_disturbs_nothing() -> None:
    follower, untouched = tracker(), tracker()
    for one in (follower, untouched):
        one.start(frame(0), box('a'))
        steps(one, 1, 3)
    fork = follower.fork()
    assert fork.region_ids == ()
    assert fork._segmenter is follower._segmenter
    fork.start(frame(1), box('b'))
    steps(fork, 2, 3)
    assert same(follower.step(frame(4))[0], untouched.step(frame(4))[0])


def test_an_adopted_region_goes_on_as_if_followed_here_from_the_start() -> None:
    follower, straight = tracker(), tracker()
    straight.start(frame(2), box('b'))
    follower.start(frame(0), box('a'))
    steps(follower, 1, 20)
    fork = follower.fork()
    fork.start(frame(2), box('b'))
    steps(fork, 3, 20)
    steps(straight, 3, 20)
    follower.adopt(fork, 'b', frame(20))
    assert follower.region_ids == ('a', 'b')
    assert fork.region_ids == ()
    for number in range(21, 30):
        assert same(of(follower.step(frame(number)), 'b'), straight.step(frame(number))[0])
    # and corrections go on where it came from
    corrected = [one.start(frame(29), box('b', 14, 10)) for one in (follower, straight)]
    assert same(*corrected)


def test_adopting_replaces_a_region_of_the_same_name() -> None:
    follower = tracker()
    for region_id in 'ab':
        follower.start(frame(0), box(region_id))
    fork = follower.fork()
    given = rectangle(2, 2, 30, 30)
    fork.start(frame(0), masked('a', given))
    follower.adopt(fork, 'a', frame(0))
    assert follower.region_ids == ('a', 'b')
    with pytest.raises(KeyError):
        follower.adopt(fork, 'a', frame(0))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=['bf16', 'fp16'])
def test_half_precision(dtype: torch.dtype) -> None:
    follower = Sam2Tracker(Segmenter(tiny_model().to(dtype), 'tiny'))
    follower.start(frame(0), box('a'))
    follower.start(frame(0), masked('b', rectangle(3, 3, 20, 20)))
    follower.start(frame(0), points('c', [(30.0, 20.0)]))
    for told in steps(follower, 1, 18):
        assert [seen.state for seen in told] == [TrackState.TRACKED] * 3
        assert all(0.0 <= seen.score <= 1.0 for seen in told)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=['bf16', 'fp16'])
def test_on_cuda(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip('no CUDA device')
    follower = Sam2Tracker(Segmenter(tiny_model().to('cuda', dtype), 'tiny'))
    follower.start(frame(0), box('a'))
    follower.start(frame(0), masked('b', rectangle(3, 3, 20, 20)))
    for told in steps(follower, 1, 18):
        assert [seen.state for seen in told] == [TrackState.TRACKED] * 2


def break_model(model: torch.nn.Module, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    model.mask_decoder.register_forward_pre_hook(fail)


@pytest.mark.parametrize(
    ('error', 'code'),
    [
        (torch.cuda.OutOfMemoryError('CUDA out of memory'), ErrorCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ErrorCode.OUT_OF_MEMORY),
        (MemoryError(), ErrorCode.OUT_OF_MEMORY),
        (RuntimeError('CUDA error: an illegal access'), ErrorCode.MODEL_ERROR),
        (ValueError('shapes'), ErrorCode.MODEL_ERROR),
    ],
)
def test_what_fails_inside_is_classed(error: BaseException, code: ErrorCode) -> None:
    follower = Sam2Tracker(Segmenter(tiny_model(), 'tiny'))
    follower.start(frame(0), box())
    break_model(follower._segmenter.model, error)
    with pytest.raises(PixelReferError) as raised:
        follower.step(frame(1))
    assert raised.value.code == code
    with pytest.raises(PixelReferError) as raised:
        follower.start(frame(1), box('b'))
    assert raised.value.code == code
    assert follower.region_ids == ('a',)


def test_numbers_that_are_not_finite_are_an_error_not_a_mask() -> None:
    follower = Sam2Tracker(Segmenter(tiny_model(), 'tiny'))
    follower.start(frame(0), box())
    with torch.no_grad():
        follower._segmenter.model.memory_attention.layer_norm.weight.fill_(float('nan'))
    with pytest.raises(PixelReferError, match='not finite') as raised:
        follower.step(frame(1))
    assert raised.value.code == ErrorCode.MODEL_ERROR
