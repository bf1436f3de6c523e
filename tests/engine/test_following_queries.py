# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check what queries look at when regions are followed, those that come with a query too."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from pixelrefer_ros.core.types import Answer, Box, ErrorCode, Region, RegionKind
from tests.doubles import ScriptedDescriber
from tests.engine.rig import query
from tests.engine.street import BLUE, BLUE_BOX, RED, Street, at_ns, at_s, number, red_box


def street(frames: int = 20, **settings: float) -> Street:
    rig = Street(describer=ScriptedDescriber(frames_per_region=64), **settings)
    rig.film(range(frames))
    return rig


def with_red(i: int, name: str = 'it') -> Region:
    return Region(name, RegionKind.BOX, stamp_ns=at_ns(i), box=red_box(i))


def frames(answer: Answer) -> list[int]:
    return [number(stamp_ns) for stamp_ns in answer.frame_stamps_ns]


def test_a_region_that_comes_with_a_query_is_followed_through_its_window() -> None:
    rig = street()
    answer = rig.answer('{it}?', regions=(with_red(12),), stamp_s=at_s(15), window_s=0.8)
    assert frames(answer) == list(range(7, 16))
    (call,) = rig.describer.calls
    for frame, mask in zip(call.frames, call.regions[0].masks, strict=True):
        np.testing.assert_array_equal(mask, (frame.image == RED).all(axis=2))
    assert answer.evidence[0].box == red_box(15)
    assert answer.evidence[0].score == 1.0
    # It stays with the query.
    assert rig.engine.list_regions() == []
    assert rig.engine.tracks('') == ()
    assert rig.follower._ledger.pursuits == []


def test_of_the_newest_frame_it_is_followed_back() -> None:
    rig = street()
    region = Region('it', RegionKind.BOX, box=red_box(19))
    assert frames(rig.answer('{it}?', regions=(region,), window_s=0.5)) == list(range(14, 20))


def test_from_before_the_window_it_is_followed_into_it() -> None:
    rig = street()
    answer = rig.answer('{it}?', regions=(with_red(3),), window_s=0.5)
    assert frames(answer) == list(range(14, 20))


def test_given_twice_each_stands_and_the_rest_is_filled_in() -> None:
    rig = street()
    wide = Box(red_box(8).x - 1, 7, 10, 12)
    twice = (with_red(12), Region('it', RegionKind.BOX, stamp_ns=at_ns(8), box=wide))
    answer = rig.answer('{it}?', regions=twice, window_s=1.5)
    assert frames(answer) == list(range(4, 20))
    boxes = dict(zip(frames(answer), rig.describer.calls[0].regions[0].masks, strict=True))
    assert boxes[8].sum() == 120
    assert boxes[9].sum() == 80


def test_it_may_have_the_name_of_a_region_that_is_known() -> None:
    rig = street()
    rig.point('blue', 19)
    rig.engine.run_until_idle()
    alone = rig.answer('{blue}?', regions=(with_red(12, 'blue'),), window_s=0.3)
    assert alone.evidence[0].box == red_box(19)
    assert rig.engine.tracks('')[0].box == BLUE_BOX
    assert set(rig.seen('blue').values()) == {BLUE_BOX}


def test_it_comes_with_the_image_it_waits_for() -> None:
    rig = street()
    handle = rig.ask('{it}?', regions=(with_red(20),), stamp_s=at_s(20), window_s=0.5)
    rig.engine.run_until_idle()
    assert not handle.done
    rig.film([20])
    assert handle.done
    assert frames(rig.answers[0]) == list(range(15, 21))


def test_a_region_nothing_can_be_made_of_is_looked_at_where_it_was_given() -> None:
    rig = street()
    nothing = Region('it', RegionKind.BOX, stamp_ns=at_ns(12), box=Box(60, 0, 3, 3))
    answer = rig.answer('{it}?', regions=(nothing,))
    assert frames(answer) == [12]
    assert any("region 'it' is not followed back" in text for text in rig.problems)


@pytest.mark.parametrize(
    ('region', 'code'),
    [
        (Region('it', RegionKind.BOX, box=Box(900, 0, 3, 3)), ErrorCode.BAD_REGION),
        (Region('', RegionKind.BOX, box=red_box(0)), ErrorCode.BAD_REGION),
        (Region('it', RegionKind.BOX, stamp_ns=5, box=red_box(0)), ErrorCode.BAD_STAMP),
    ],
)
def test_what_is_wrong_with_it_is_said_at_once(region: Region, code: ErrorCode) -> None:
    rig = street()
    handle = rig.engine.submit(query('what?', regions=(region,)))
    assert handle.done
    assert rig.answers[0].error_code == code
    assert rig.follower._ledger.pursuits == []


def test_an_unknown_region_beside_it_fails_and_nothing_is_followed() -> None:
    rig = street()
    handle = rig.engine.submit(query('{cat}?', regions=(with_red(12),)))
    assert handle.done
    assert rig.answers[0].error_code == ErrorCode.UNKNOWN_REGION
    before = len(rig.script.steps)
    rig.engine.run_until_idle()
    assert len(rig.script.steps) == before
    assert rig.follower._ledger.pursuits == []


def test_the_answer_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = street(pending_s=0.5)
    handle = rig.ask('{it}?', regions=(with_red(12),))
    assert not handle.done
    rig.clock.advance(0.6)
    # Nobody has followed it meanwhile: as when the tracker is busy.
    monkeypatch.setattr(rig.engine._following, 'catch_up', lambda: None)
    rig.engine.run_until_idle()
    assert frames(rig.answers[0]) == [12]
    rig.engine._following.catch_up()
    assert rig.script.steps == []


def test_images_that_have_left_the_buffer_meanwhile_are_left_out() -> None:
    one = Street(buffer_full_rate_s=1.0, pending_s=30.0)
    one.film(range(30))
    one.point('blue', 29)
    one.engine.run_until_idle()
    coming = iter(range(30, 60))

    def on_step(_: int) -> None:  # the world goes on while the tracker goes back
        for i in islice(coming, 1):
            one.engine.add_frame(one.picture(i))

    one.script.on_step = on_step
    given = one.region_of('red', 29, red_box(29))
    one.ask('{red}?', query_id='guest', regions=(given,), stamp_s=at_s(29), window_s=2.5)
    one.ask('{blue}?', query_id='known')
    one.engine.run_until_idle()
    codes = {answer.query_id: answer.error_code for answer in one.answers}
    assert codes == {'guest': ErrorCode.OK, 'known': ErrorCode.OK}
    assert one.problems == []


def test_a_reset_ends_it() -> None:
    rig = street()
    handle = rig.ask('{it}?', regions=(with_red(12),))
    assert rig.follower._ledger.pursuits
    rig.engine.reset()
    assert handle.done
    assert rig.follower._ledger.pursuits == []


def test_several_regions_of_several_kinds_in_one_query() -> None:
    rig = street()
    rig.point('red', 19)
    blue = Region('b', RegionKind.BOX, stamp_ns=at_ns(10), box=BLUE_BOX)
    answer = rig.answer('is {red} left of {b}?', regions=(blue,), window_s=0.5)
    assert answer.region_ids == ('b', 'red')
    assert [len(one.track_stamps_ns) for one in answer.evidence] == [6, 6]
    assert BLUE in {tuple(rig.describer.calls[0].frames[-1].image[32, 45].tolist())}
