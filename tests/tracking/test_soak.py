# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what the soak does and concludes; running it whole takes minutes."""

from __future__ import annotations

import pytest

from bench.soak import BACKENDS, COUNTED, MOST_REGIONS, Scene, Soak, flatness, make, row


def test_flat_is_flat() -> None:
    told = flatness([50.0] * 10 + [100.0] * 90)
    assert told['flat']
    assert told['after_warm_up_mib'] == 100.0
    assert told['growth_mib'] == 0.0


@pytest.mark.parametrize(
    'later',
    [[100.0 + 0.05 * number for number in range(90)], [100.0] * 89 + [103.0],
     [100.0] * 89 + [97.0]],
    ids=['a leak', 'a peak', 'a fall'],
)  # fmt: skip
def test_what_grows_or_jumps_is_not_flat(later: list[float]) -> None:
    assert not flatness([50.0] * 10 + later)['flat']


def test_growth_is_told() -> None:
    told = flatness([100.0 + 0.01 * number for number in range(100)])
    assert told['growth_mib'] == pytest.approx(0.72, abs=0.05)


@pytest.mark.parametrize('backend', BACKENDS)
def test_a_soak_does_all_that_can_be_done(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, frames in (('_ADD', 5), ('_CORRECT', 4), ('_FORK', 20), ('_RESIZE', 30)):
        monkeypatch.setattr(f'bench.soak.{name}', frames)
    done = dict.fromkeys(COUNTED, 0)
    soak = Soak(make(backend), Scene(), done)
    for number in range(25, 61):
        soak.frame(number)
        assert len(soak.tracker.region_ids) <= MOST_REGIONS + 1
    assert all(done[what] for what in COUNTED if what != 'refused')
    told = {'backend': backend, **done, 'cpu_ms_per_frame': 1.0, **flatness([1.0] * 100)}
    assert row(told)[-1] == 'yes'
