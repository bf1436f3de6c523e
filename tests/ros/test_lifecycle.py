# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check the node's states: what loads when, what a failed transition leaves, what is answered."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.waitable import NumberOfEntities, Waitable

from pixelrefer_ros import msg as ros
from pixelrefer_ros import srv
from pixelrefer_ros.core.types import ErrorCode, Frame, PixelReferError, RegionClip
from pixelrefer_ros.engine import Engine
from pixelrefer_ros.node.conversions import box_from_msg
from pixelrefer_ros.node.parameters import NodeParameters
from tests.doubles import ScriptedDescriber
from tests.ros.rig import WAIT_S, box_region, ns, picture, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ros.rig import Bench

pytestmark = pytest.mark.ros

CONFIGURE = Transition.TRANSITION_CONFIGURE
ACTIVATE = Transition.TRANSITION_ACTIVATE
DEACTIVATE = Transition.TRANSITION_DEACTIVATE
CLEANUP = Transition.TRANSITION_CLEANUP


class Going(Waitable):
    """Be destroyed while an executor gathers what it waits for."""

    def __init__(self) -> None:
        super().__init__(ReentrantCallbackGroup())
        self.met = threading.Event()

    def get_num_entities(self) -> NumberOfEntities:
        return NumberOfEntities()

    def add_to_wait_set(self, wait_set: Any) -> None:
        self.met.set()
        raise InvalidHandle('cannot use Destroyable because destruction was requested')

    def is_ready(self, wait_set: Any) -> bool:
        return False


def test_what_a_transition_destroys_does_not_end_the_executor(bench: Callable[..., Bench]) -> None:
    one = bench(activate=False)
    going = Going()
    one.node.add_waitable(going)
    one.node.executor.wake()
    assert going.met.wait(WAIT_S)
    one.node.remove_waitable(going)
    assert one.change(CONFIGURE)


def test_a_whole_life(bench: Callable[..., Bench]) -> None:
    loads = []

    def factory(parameters: Any) -> ScriptedDescriber:
        loads.append(parameters.model_name)
        return ScriptedDescriber()

    one = bench(factory=factory, activate=False)
    node = one.node
    inputs = ('/image', '/pixelrefer/regions', '/pixelrefer/query')

    def listening() -> list[int]:
        return [node.count_subscribers(topic) for topic in inputs]

    assert node.state() == 'unconfigured'
    for _ in range(2):
        assert one.change(CONFIGURE)
        wait_for(lambda: listening() == [0, 0, 0], 'no inputs')
        for _ in range(2):
            assert one.change(ACTIVATE)
            assert node.state() == 'active'
            wait_for(lambda: listening() == [1, 1, 1], 'the inputs')
            one.send_frames([ns(1)])  # each activation starts with an empty memory
            assert one.change(DEACTIVATE)
            wait_for(lambda: listening() == [0, 0, 0], 'the inputs to go')
        assert one.change(CLEANUP)
        assert node._describer is None
        wait_for(lambda: not node.count_publishers('/pixelrefer/answers'), 'the outputs to go')
    assert loads == ['tabletop', 'tabletop']
    assert one.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert node.state() == 'finalized'


def test_a_missing_model_fails_configure_and_can_be_tried_again(
    bench: Callable[..., Bench], capfd: pytest.CaptureFixture[str]
) -> None:
    missing = [PixelReferError(ErrorCode.MODEL_ERROR, 'no model; run `pixelrefer fetch it`')]

    def factory(parameters: Any) -> ScriptedDescriber:
        if missing:
            raise missing.pop()
        return ScriptedDescriber()

    one = bench(factory=factory, activate=False)
    assert not one.change(CONFIGURE)
    assert one.node.state() == 'unconfigured'
    assert 'cannot configure: no model; run `pixelrefer fetch it`' in capfd.readouterr().err
    assert one.change(CONFIGURE)
    assert one.change(ACTIVATE)
    one.assert_alive()


@pytest.mark.parametrize('name', ['/no/such/folder', 'org/never-fetched'])
def test_the_real_loader_says_what_to_do(
    bench: Callable[..., Bench], capfd: pytest.CaptureFixture[str], name: str
) -> None:
    from pixelrefer_ros.node.node import load_describer

    one = bench(factory=load_describer, activate=False, parameters={'model.name': name})
    assert not one.change(CONFIGURE)
    error = capfd.readouterr().err
    assert name in error
    assert 'pixelrefer fetch' in error or 'neither' in error
    one.assert_alive()


def test_the_real_loader_does_as_the_parameters_say() -> None:
    from pixelrefer_ros.node.node import load_describer

    parameters = NodeParameters(
        model_device='cpu', model_feature_cache_mib=3.0, model_max_new_tokens=1
    )
    describer = load_describer(parameters)
    assert describer.vision_stats().max_bytes == 3 << 20
    assert describer.vision_stats().held_bytes == 0  # nothing is left of the warm-up
    frame = Frame('', 1, picture())
    mask = np.zeros((48, 64), bool)
    mask[10:30, 10:30] = True
    assert describer.describe([frame], RegionClip('a', (0,), [mask])).tokens_out == 1
    assert describer.vision_stats().held_bytes > 0


def test_the_loader_passes_every_parameter_of_the_model_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pixelrefer_ros.models.pixelrefer.describer import PixelReferDescriber
    from pixelrefer_ros.node.node import load_describer

    wanted: dict[str, Any] = {
        'device': 'cpu',
        'dtype': 'float32',
        'max_new_tokens': 7,
        'quantization': 'torchao-int8',
        'feature_cache_mib': 3.0,
        'prefix_cache_mib': 5.0,
        'resize': 'device',
    }
    loads: list[tuple[str, dict[str, Any]]] = []
    load = PixelReferDescriber.load

    def note(name: str, **options: Any) -> PixelReferDescriber:
        loads.append((name, options))
        return load(name, device='cpu')

    monkeypatch.setattr(PixelReferDescriber, 'load', note)
    load_describer(NodeParameters(**{f'model_{name}': value for name, value in wanted.items()}))
    assert loads == [('tabletop', wanted)]


def test_a_broken_model_folder_is_refused(
    bench: Callable[..., Bench], capfd: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    from pixelrefer_ros.node.node import load_describer

    (tmp_path / 'config.json').write_text('{"model_type": "something_else"}')
    one = bench(factory=load_describer, activate=False, parameters={'model.name': str(tmp_path)})
    assert not one.change(CONFIGURE)
    assert 'cannot configure' in capfd.readouterr().err
    assert one.node.state() == 'unconfigured'
    one.assert_alive()


def test_an_unexpected_error_in_configure_is_a_failure_too(bench: Callable[..., Bench]) -> None:
    def factory(parameters: Any) -> ScriptedDescriber:
        raise RuntimeError('out of luck')

    one = bench(factory=factory, activate=False)
    assert not one.change(CONFIGURE)
    assert one.node.state() == 'unconfigured'
    one.assert_alive()


def test_bad_qos_overrides_fail_activate(
    bench: Callable[..., Bench], capfd: pytest.CaptureFixture[str]
) -> None:
    one = bench(
        activate=False, parameters={'qos_overrides./image.subscription.reliability': 'perhaps'}
    )
    assert one.change(CONFIGURE)
    assert not one.change(ACTIVATE)
    assert one.node.state() == 'inactive'
    assert 'perhaps' in capfd.readouterr().err
    one.assert_alive()


def test_an_engine_that_does_not_start_fails_activate_and_leaves_no_thread(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench(activate=False)
    assert one.change(CONFIGURE)

    def fail(_: Engine) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, 'start', fail)
        assert not one.change(ACTIVATE)
    assert one.node.state() == 'inactive'
    assert 'painter' not in [thread.name for thread in threading.enumerate()]
    assert one.change(ACTIVATE)
    one.assert_alive()


def test_impossible_transitions_do_not_end_the_node(bench: Callable[..., Bench]) -> None:
    one = bench()
    assert not one.change(ACTIVATE)
    assert not one.change(CONFIGURE)
    assert not one.change(99)
    request = ChangeState.Request(transition=Transition(label='no such'))
    assert not one.client.call(ChangeState, 'pixelrefer/change_state', request).success
    assert one.node.state() == 'active'
    one.assert_alive()


def test_the_state_can_be_asked_for_while_a_model_loads(bench: Callable[..., Bench]) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def factory(parameters: Any) -> ScriptedDescriber:
        loading.set()
        assert go_on.wait(WAIT_S)
        return ScriptedDescriber()

    one = bench(factory=factory, activate=False)
    change = one.client.node.create_client(ChangeState, 'pixelrefer/change_state')
    assert change.wait_for_service(WAIT_S)
    request = ChangeState.Request(transition=Transition(id=CONFIGURE))
    future = one.client.run(lambda: change.call_async(request))
    wait_for(loading.is_set, 'the load')
    state = one.client.call(GetState, 'pixelrefer/get_state', GetState.Request())
    assert state.current_state.label == 'configuring'
    # a second transition meanwhile is refused and harms nothing
    assert not one.change(CONFIGURE)
    go_on.set()
    wait_for(future.done, 'configured')
    assert future.result().success


@pytest.mark.parametrize('configured', [False, True])
def test_services_say_when_the_node_is_not_active(
    bench: Callable[..., Bench], configured: bool
) -> None:
    one = bench(activate=False)
    if configured:
        assert one.change(CONFIGURE)
    add = one.client.call(
        srv.AddRegions,
        'pixelrefer/add_regions',
        srv.AddRegions.Request(regions=[box_region('a'), box_region('b')]),
    )
    assert list(add.error_codes) == [ErrorCode.NOT_ACTIVE] * 2
    assert 'configure and activate' in add.error_msgs[0]
    for kind, name in (
        (srv.RemoveRegions, 'remove_regions'),
        (srv.ListRegions, 'list_regions'),
        (srv.Reset, 'reset'),
    ):
        response = one.client.call(kind, f'pixelrefer/{name}', kind.Request())
        assert response.error_code == ErrorCode.NOT_ACTIVE
        assert response.error_msg


def test_deactivating_answers_what_is_open(bench: Callable[..., Bench]) -> None:
    one = bench(parameters={'describe.enabled': False, 'max_batch': 1})
    one.describer.gate = threading.Event()  # never set: the model is stuck until told to stop
    answers = one.client.listen('pixelrefer/answers', ros.Answer)
    one.send_frames([ns(1)])
    for query_id in ('running', 'waiting'):
        one.client.publish(
            'pixelrefer/query',
            ros.Query(query_id=query_id, text='what?', regions=[box_region('a')]),
        )
    wait_for(one.describer.started.is_set, 'the model')
    wait_for(lambda: one.node._session.engine.stats().queue_depth == 1, 'the second')
    assert one.change(DEACTIVATE)
    wait_for(lambda: len(answers) == 2, 'both answers')
    assert {a.query_id for a in answers} == {'running', 'waiting'}
    assert {a.error_code for a in answers} == {ErrorCode.CANCELED}


def test_services_work_when_active(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.send_frames([ns(1)])
    call = one.client.call
    add = call(
        srv.AddRegions,
        'pixelrefer/add_regions',
        srv.AddRegions.Request(
            regions=[box_region('a', label='cup'), box_region('', 0), box_region('b')]
        ),
    )
    assert list(add.error_codes) == [0, ErrorCode.BAD_REGION, 0]
    assert [bool(text) for text in add.error_msgs] == [False, True, False]
    listed = call(srv.ListRegions, 'pixelrefer/list_regions', srv.ListRegions.Request())
    assert [region.region_id for region in listed.regions] == ['a', 'b']
    assert listed.regions[0].label == 'cup'
    assert listed.regions[0].header.stamp.sec == 1
    assert box_from_msg(listed.regions[0].box) is not None
    removed = call(
        srv.RemoveRegions,
        'pixelrefer/remove_regions',
        srv.RemoveRegions.Request(region_ids=['a', 'nobody']),
    )
    assert removed.removed_ids == ['a']
    assert removed.error_code == ErrorCode.UNKNOWN_REGION
    assert 'nobody' in removed.error_msg
    reset = call(srv.Reset, 'pixelrefer/reset', srv.Reset.Request())
    assert reset.error_code == 0
    listed = call(srv.ListRegions, 'pixelrefer/list_regions', srv.ListRegions.Request())
    assert not listed.regions
    for kind, name in ((srv.ListRegions, 'list_regions'), (srv.Reset, 'reset')):
        response = call(kind, f'pixelrefer/{name}', kind.Request(camera='attic'))
        assert response.error_code == ErrorCode.UNKNOWN_CAMERA
    removed = call(
        srv.RemoveRegions,
        'pixelrefer/remove_regions',
        srv.RemoveRegions.Request(camera='attic'),
    )
    assert removed.error_code == ErrorCode.UNKNOWN_CAMERA


def test_a_model_that_is_still_busy_is_not_given_a_second_thread(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Engine.stop
    monkeypatch.setattr(Engine, 'stop', lambda engine: stop(engine, 0.05))
    describer = ScriptedDescriber()
    describer.deaf, describer.gate = True, threading.Event()
    one = bench(parameters={'describe.enabled': False}, describer=describer)
    one.send_frames([ns(1)])
    one.client.publish(
        'pixelrefer/query', ros.Query(text='what?', task=1, regions=[box_region('a', ns(1))])
    )
    wait_for(describer.started.is_set, 'the model')
    assert one.change(DEACTIVATE)
    assert not one.change(ACTIVATE)
    assert 'still at a job' in one.node._model['error']
    describer.gate.set()
    wait_for(lambda: not one.node._stopped.alive, 'the end of the job')
    assert one.change(ACTIVATE)
    one.assert_alive()
