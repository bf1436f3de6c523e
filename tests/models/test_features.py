# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Test that features are kept within their bytes, and only as long as their frames."""

from __future__ import annotations

import gc
import threading

import numpy as np
import torch

from pixelrefer_ros.core.describer import VisionStats
from pixelrefer_ros.models.pixelrefer.features import FeatureCache


def image(value: int = 0) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def tensor(value: float, floats: int = 4) -> torch.Tensor:
    return torch.full((floats,), float(value))


def test_what_is_put_is_there_under_its_picture_and_name() -> None:
    cache = FeatureCache(100)
    first, second = image(), image()
    cache.put(first, 'a', tensor(1))
    cache.put(second, 'a', tensor(2))
    assert cache.get(first, 'a') is not cache.get(second, 'a')
    assert cache.get(second, 'a').tolist() == [2] * 4
    assert cache.get(first, 'b') is None
    assert cache.get(image(), 'a') is None


def test_the_same_name_again_takes_the_place_of_the_first() -> None:
    cache, one = FeatureCache(100), image()
    cache.put(one, 'a', tensor(1))
    cache.put(one, 'a', tensor(2, 2))
    assert cache.get(one, 'a').tolist() == [2, 2]
    assert cache.stats().held_bytes == 8


def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    cache, one, other = FeatureCache(48), image(), image()
    cache.put(one, 'a', tensor(1))
    cache.put(one, 'b', tensor(2))
    cache.put(other, 'a', tensor(3))
    cache.get(one, 'a')
    cache.put(other, 'b', tensor(4))
    assert cache.get(one, 'b') is None
    assert [cache.get(*key).tolist()[0] for key in ((one, 'a'), (other, 'a'), (other, 'b'))] == [
        1, 3, 4,
    ]  # fmt: skip
    assert cache.stats().held_bytes == 48


def test_what_is_cheap_goes_first_and_drives_nothing_out() -> None:
    cache, one, other = FeatureCache(48), image(), image()
    cache.put(one, 'features', tensor(1))
    cache.put(one, 'pixels', tensor(2), cheap=True)
    cache.put(other, 'pixels', tensor(3), cheap=True)
    assert cache.get(one, 'pixels') is not None
    cache.put(other, 'features', tensor(4))
    assert cache.get(other, 'pixels') is None
    assert cache.get(one, 'pixels') is not None
    cache.put(other, 'mask', tensor(5))
    cache.put(other, 'pixels', tensor(6), cheap=True)
    assert cache.get(one, 'pixels') is cache.get(other, 'pixels') is None
    for picture, name in ((one, 'features'), (other, 'features'), (other, 'mask')):
        assert cache.get(picture, name) is not None
    assert cache.stats().held_bytes == 48


def test_what_is_too_large_is_not_kept_and_moves_nothing() -> None:
    cache, one = FeatureCache(20), image()
    cache.put(one, 'a', tensor(1))
    cache.put(one, 'b', tensor(2, 6))
    assert cache.get(one, 'a') is not None
    assert cache.get(one, 'b') is None
    nothing = FeatureCache(0)
    nothing.put(one, 'a', tensor(1))
    assert nothing.get(one, 'a') is None


def test_entries_go_with_their_picture() -> None:
    cache, kept = FeatureCache(10_000), image()
    cache.put(kept, 'a', tensor(7))
    for number in range(50):
        passing = image()
        # its number may be that of one that is gone: nothing of that must be found
        assert cache.get(passing, 'a') is None
        cache.put(passing, 'a', tensor(number))
        cache.put(passing, 'b', tensor(number))
        del passing
    gc.collect()
    assert cache.stats().held_bytes == 16
    assert cache.get(kept, 'a').tolist() == [7] * 4


def test_a_picture_that_was_evicted_may_go_and_another_come() -> None:
    cache = FeatureCache(16)
    one = image()
    cache.put(one, 'a', tensor(1))
    other = image()
    cache.put(other, 'a', tensor(2))
    del one
    gc.collect()
    assert cache.get(other, 'a').tolist() == [2] * 4
    assert cache.stats().held_bytes == 16


def test_forgetting_keeps_the_counts() -> None:
    cache, one = FeatureCache(100), image()
    cache.put(one, 'a', tensor(1))
    cache.count(hits=2, misses=3)
    cache.count(misses=1, ahead=1)
    cache.forget()
    assert cache.get(one, 'a') is None
    assert cache.stats() == VisionStats(2, 4, 1, 0, 100)
    cache.put(one, 'a', tensor(1))
    del one
    gc.collect()
    assert cache.stats().held_bytes == 0


def test_counts_may_be_read_while_it_is_used() -> None:
    cache, done, seen = FeatureCache(64), threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen.append(cache.stats().held_bytes)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(2000):
        cache.put(image(), number, tensor(number))
    done.set()
    reader.join()
    assert max(seen, default=0) <= 64
