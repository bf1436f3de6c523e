# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the engine as the ROS 2 lifecycle node ``pixelrefer``.

Configuring loads the model, activating listens and starts the engine, and so on back. The node
makes no transition of its own: launch files or lifecycle managers do.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from pixelrefer_ros.core.types import ErrorCode, PixelReferError
from pixelrefer_ros.node.ask import AskServer
from pixelrefer_ros.node.diagnostics import Diagnostics, missing_images
from pixelrefer_ros.node.executor import SlowCallbackGroup, TransportExecutor
from pixelrefer_ros.node.loading import load_describer, load_grounder
from pixelrefer_ros.node.outputs import Outputs
from pixelrefer_ros.node.parameters import check_changes, declare_parameters, read_parameters
from pixelrefer_ros.node.requests import Ids, RegionServices
from pixelrefer_ros.node.session import Session
from pixelrefer_ros.tracking.registry import tracker_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.lifecycle import LifecycleState

    from pixelrefer_ros.core.describer import RegionDescriber
    from pixelrefer_ros.core.tracker import RegionTracker
    from pixelrefer_ros.core.types import Answer, Query
    from pixelrefer_ros.engine import Engine, QueryHandle
    from pixelrefer_ros.grounding.chain import GroundingChain
    from pixelrefer_ros.node.parameters import NodeParameters

    DescriberFactory = Callable[[NodeParameters], RegionDescriber]
    GrounderFactory = Callable[[NodeParameters], GroundingChain | None]
    MakeTracker = Callable[[], RegionTracker]

_WATCH_PERIOD_S = 0.5


class PixelReferNode(LifecycleNodeMixin, Node):
    """Describe regions of camera images and answer questions about them.

    Any executor will do. ``TransportExecutor`` moves images with the least effort and still
    tells the state while a model loads.
    """

    def __init__(
        self,
        *,
        describer_factory: DescriberFactory = load_describer,
        grounder_factory: GrounderFactory = load_grounder,
        **kwargs: Any,
    ) -> None:
        """Create the node in the unconfigured state.

        Args:
            describer_factory: Loads the model when the node is configured.
            grounder_factory: Loads what answers GROUND queries then, or returns None.
            kwargs: As for rclpy.node.Node: context, namespace, parameter_overrides, ...
        """
        Node.__init__(self, 'pixelrefer', **kwargs)
        # A group of their own lets state requests be answered during a transition.
        LifecycleNodeMixin.__init__(self, callback_group=SlowCallbackGroup())
        self._keep_refused_transitions_from_ending_the_node()
        self._describer_factory = describer_factory
        self._grounder_factory = grounder_factory
        self._describer: RegionDescriber | None = None
        self._grounder: GroundingChain | None = None
        self._make_tracker: MakeTracker | None = None
        self._outputs: Outputs | None = None
        self._session: Session | None = None
        self._stopped: Engine | None = None  # of the session before
        self._model: dict[str, str] = {}
        self._next_id = Ids()
        self._destroyed = False
        declare_parameters(self)
        self.add_on_set_parameters_callback(check_changes(self, self.state))
        self._services_of_regions = RegionServices(self, self._engine, self._regions_changed)
        self._ask = AskServer(self, self._submit, self._next_id, self._answered)
        self._diagnostics = Diagnostics(self)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        group = MutuallyExclusiveCallbackGroup()
        self.create_timer(
            self.get_parameter('diagnostics_period_s').value,
            self._report,
            callback_group=group,
            clock=steady,
        )
        self.create_timer(_WATCH_PERIOD_S, self._watch, callback_group=group, clock=steady)

    def state(self) -> str:
        """Return the label of the lifecycle state."""
        return str(self._state_machine.current_state[1])

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, load model and tracker and create the publishers."""
        try:
            parameters = read_parameters(self)
            self._model = {
                'name': parameters.model_name,
                'device': parameters.model_device,
                'tracker': parameters.tracking_backend,
            }
            self._make_tracker = tracker_factory(
                parameters.tracking_backend,
                model=parameters.tracking_model,
                class_name=parameters.tracking_class_name,
                device=parameters.tracking_device,
            )
            self.get_logger().info(f'loading model {parameters.model_name!r} ...')
            self._describer = self._describer_factory(parameters)
            self._model['name'] = self._describer.name
            self._grounder = self._grounder_factory(parameters)
            if self._grounder is not None and (trouble := self._grounder.trouble()):
                self.get_logger().warning(f'GROUND queries cannot be answered yet: {trouble}')
            self._outputs = Outputs(self)
        except Exception as error:
            return self._failed('configure', error)
        self.get_logger().info(f'model {self._describer.name!r} is ready')
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the engine and listen."""
        assert self._describer is not None
        assert self._outputs is not None
        if self._stopped is not None and self._stopped.alive:
            # it would be two threads in one model
            error = PixelReferError(
                ErrorCode.MODEL_ERROR,
                'the model is still at a job from before; activate again when it is done',
            )
            return self._failed('activate', error)
        result = super().on_activate(state)  # first: the engine may speak at once
        try:
            self._session = Session(
                self,
                read_parameters(self),
                self._describer,
                self._make_tracker,
                self._grounder,
                self._outputs,
                self._next_id,
            )
        except Exception as error:
            super().on_deactivate(state)
            return self._failed('activate', error)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening and answer what is open with CANCELED."""
        self._end_session()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and the publishers."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, from whatever state."""
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; the node can be configured again."""
        self._release()
        return super().on_error(state)

    def destroy_node(self) -> None:
        """Free everything and destroy the node; a second call does nothing."""
        if self._destroyed:
            return
        self._destroyed = True
        self._release()
        self._ask.destroy()
        super().destroy_node()

    def _failed(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        """Report why a transition failed; it can be tried again."""
        known = isinstance(error, PixelReferError | ValueError)
        reason = str(error) if known else f'{type(error).__name__}: {error}'
        self._model['error'] = reason
        self.get_logger().error(f'cannot {transition}: {reason}')
        if not known:
            logging.getLogger(__name__).exception('cannot %s', transition)
        if transition == 'configure':
            self._free_model()
        return TransitionCallbackReturn.FAILURE

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
            self._stopped = session.engine

    def _free_model(self) -> None:
        self._describer = self._grounder = None
        self._make_tracker = None
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        # torch keeps freed GPU memory for itself unless told; absent when no model was loaded
        torch = sys.modules.get('torch')
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _release(self) -> None:
        self._end_session()
        self._free_model()
        self._model = {}

    def _keep_refused_transitions_from_ending_the_node(self) -> None:
        """Answer a transition that the state does not allow with success false.

        The mixin of Jazzy lets the error out of the service callback, which ends the executor.
        """
        service = getattr(self, '_service_change_state', None)
        if service is None:  # not the mixin this is written for
            return
        change = service.callback

        def guarded(request: Any, response: Any) -> Any:
            try:
                return change(request, response)
            except _rclpy.RCLError:
                wanted = request.transition.label or request.transition.id
                self.get_logger().warning(
                    f'transition {wanted!r} is not possible in state {self.state()!r}'
                )
                response.success = False
                return response

        service.callback = guarded

    # What the services and the action ask for

    def _engine(self) -> Engine:
        session = self._session
        if session is None:
            raise PixelReferError(
                ErrorCode.NOT_ACTIVE,
                f'the node is {self.state()}, not active: configure and activate it '
                f'(ros2 lifecycle set {self.get_fully_qualified_name()} activate)',
            )
        return session.engine

    def _submit(
        self,
        query: Query,
        on_answer: Callable[[Answer], None],
        on_progress: Callable[[str, str, int], None],
    ) -> QueryHandle:
        return self._engine().submit(query, on_answer=on_answer, on_progress=on_progress)

    def _answered(self, answer: Answer) -> None:
        """Publish what ``~/ask`` was answered, so that a recording holds every answer."""
        outputs = self._outputs
        if outputs is not None:
            outputs.answer(answer)

    def _regions_changed(self) -> None:
        session = self._session
        if session is not None:
            session.painter.regions_changed()

    # Health

    def _report(self) -> None:
        session, grounder = self._session, self._grounder
        try:
            self._diagnostics.publish(
                self.state(),
                self._model | ({'grounding': grounder.name} if grounder is not None else {}),
                {camera.camera: camera.report() for camera in session.cameras} if session else {},
                session.engine.stats() if session else None,
                session.tracks() if session else {},
                session.problems() if session else (0, ''),
                grounder.trouble() if grounder is not None else '',
                self.get_parameter('no_image_warn_s').value,
            )
        except Exception as error:  # a callback must not end the node
            self.get_logger().debug(f'no diagnostics: {error!r}')

    def _watch(self) -> None:
        """Follow what is published, and warn about cameras that are silent."""
        session = self._session
        if session is None:
            return
        try:
            warn_s = self.get_parameter('no_image_warn_s').value
            for camera in session.cameras:
                camera.choose()
                silent_s = camera.silent_s()
                if warn_s and silent_s > warn_s:
                    self.get_logger().warning(
                        f'no image for {silent_s:.0f} s: {missing_images(camera.report())}',
                        throttle_duration_sec=10.0,
                    )
        except Exception as error:  # a callback must not end the node
            self.get_logger().debug(f'no look at the inputs: {error!r}')


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    The executor spins in a thread, so that the signals find the main thread waiting where
    Python can handle them at once, however often they come.

    Returns:
        The exit status: 0, or 1 when the executor failed.
    """
    done = threading.Event()
    failure: list[Exception] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    rclpy.init(
        args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO
    )
    try:
        node = PixelReferNode()
    except (ParameterException, ValueError) as error:
        get_logger('pixelrefer').error(f'a parameter cannot be used: {error}')
        rclpy.try_shutdown()
        return 1
    executor = TransportExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
        except Exception as error:
            failure.append(error)
            logging.getLogger(__name__).exception('the executor failed')
        finally:
            done.set()

    spinner = threading.Thread(target=spin, name='executor')
    spinner.start()
    done.wait()
    executor.stop()
    spinner.join()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Python gives signals their deadly default back while it exits, but not ignored ones.
        signal.signal(number, signal.SIG_IGN)
    return 1 if failure else 0


if __name__ == '__main__':
    sys.exit(main())
