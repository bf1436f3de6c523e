# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the parameters: their documentation, ranges, and what a set is refused for."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter

from pixelrefer_ros.engine import EngineConfig
from pixelrefer_ros.node.parameters import NodeParameters, read_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ros.rig import Bench

CONFIG = Path(__file__).parents[2] / 'config' / 'pixelrefer.yaml'
NAMES = [item.metadata['name'] for item in fields(NodeParameters)]


def flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
    return out


def test_the_file_holds_every_default() -> None:
    tree = yaml.safe_load(CONFIG.read_text())
    assert list(tree) == ['/**']
    expected = {
        item.metadata['name']: list(item.default)
        if isinstance(item.default, tuple)
        else item.default
        for item in fields(NodeParameters)
    }
    values = flat(tree['/**']['ros__parameters'])
    assert values == expected
    # a float without a point would be an integer to ROS, and refused
    assert {n: type(v) for n, v in values.items()} == {n: type(v) for n, v in expected.items()}


def test_the_file_states_every_range() -> None:
    text = ' '.join(line.strip().lstrip('#') for line in CONFIG.read_text().splitlines())
    text = ' '.join(text.split())
    for item in fields(NodeParameters):
        if item.metadata['low'] is not None:
            wanted = f'{item.metadata["low"]:g} to {item.metadata["high"]:.0f}'
            assert wanted in text, f'{item.metadata["name"]}: {wanted}'


def test_every_engine_setting_is_a_parameter() -> None:
    ours = {item.name for item in fields(NodeParameters)}
    # timings are left out for replays only
    assert {item.name for item in fields(EngineConfig)} - ours == {'record_timings'}
    ranges = {
        item.metadata['name']: (item.metadata['low'], item.metadata['high'])
        for item in fields(NodeParameters)
    }
    defaults = EngineConfig()
    for item in fields(EngineConfig):
        if item.name in ours:
            assert getattr(NodeParameters(), item.name) == getattr(defaults, item.name)
    assert ranges['keep_rate_hz'] == (0.0, 1000.0)


@pytest.mark.parametrize('end', ['low', 'high'])
def test_both_ends_of_every_range_are_accepted(end: str) -> None:
    NodeParameters(
        **{
            item.name: item.metadata[end]
            for item in fields(NodeParameters)
            if item.metadata[end] is not None
        }
    )


@pytest.mark.parametrize(
    ('values', 'match'),
    [
        ({'cameras': ()}, 'cameras is empty'),
        ({'cameras': ('a', 'a')}, 'twice'),
        ({'cameras': ('a', '')}, 'must be the only one'),
        ({'cameras': ('front camera',)}, 'letters'),
        ({'cameras': ('/front',)}, 'letters'),
        ({'model_device': 'tpu'}, 'cuda:N'),
        ({'model_name': ''}, 'tabletop'),
        ({'image_transport': 'theora'}, 'raw, compressed, auto'),
        ({'model_dtype': 'int8'}, 'bfloat16'),
        ({'model_quantization': 'int8'}, 'torchao-int8'),
        ({'model_resize': 'gpu'}, 'auto, exact, device'),
        ({'look_ahead': 'sometimes'}, 'never, regions, always'),
    ],
)
def test_bad_values_say_what_to_give(values: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        NodeParameters(**values)


@pytest.mark.ros
def test_parameters_are_described_and_ranged(bench: Callable[..., Bench]) -> None:
    node = bench(activate=False).node
    for item in fields(NodeParameters):
        descriptor = node.describe_parameter(item.metadata['name'])
        assert descriptor.description.endswith('.')
        if isinstance(item.default, float):
            assert descriptor.floating_point_range
        elif isinstance(item.default, int) and not isinstance(item.default, bool):
            assert descriptor.integer_range
        assert descriptor.read_only == (item.name == 'diagnostics_period_s')


@pytest.mark.ros
def test_sets_are_refused_with_the_reason(bench: Callable[..., Bench]) -> None:
    one = bench(activate=False)

    def set_to(name: str, value: Any) -> str:
        result = one.node.set_parameters([Parameter(name, value=value)])[0]
        return '' if result.successful else result.reason

    assert set_to('keep_rate_hz', 5.0) == ''
    assert read_parameters(one.node).keep_rate_hz == 5.0
    assert 'keep_rate_hz' in set_to('keep_rate_hz', -1.0)
    assert set_to('queue_size', 0)
    assert set_to('queue_size', 'many')
    assert 'raw, compressed, auto' in set_to('image_transport', 'theora')
    assert 'twice' in set_to('cameras', ['a', 'a'])
    assert 'cuda' in set_to('model.device', 'tpu')
    assert set_to('diagnostics_period_s', 2.0)  # read-only

    assert one.change(Transition.TRANSITION_CONFIGURE)
    assert set_to('keep_rate_hz', 6.0) == ''
    assert 'unconfigured state only' in set_to('model.name', 'other')
    assert 'unconfigured state only' in set_to('cameras', ['front'])
    assert set_to('model.name', 'tabletop') == ''  # no change

    assert one.change(Transition.TRANSITION_ACTIVATE)
    assert 'deactivate it first' in set_to('keep_rate_hz', 7.0)
    assert set_to('no_image_warn_s', 1.0) == ''
    assert one.node._session is not None
    one.assert_alive()


@pytest.mark.ros
def test_parameters_of_others_are_left_alone(bench: Callable[..., Bench]) -> None:
    one = bench()
    result = one.node.set_parameters([Parameter('use_sim_time', value=True)])[0]
    assert result.successful
