# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Declare, check and read the node's parameters: one dataclass is the whole truth.

``config/pixelrefer.yaml`` repeats the defaults for people; a test keeps the two the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult

from pixelrefer_ros.engine import EngineConfig
from pixelrefer_ros.engine.types import LOOK_AHEAD
from pixelrefer_ros.node.grounding_parameters import GroundingParameters
from pixelrefer_ros.node.parameter import ANY_TIME, STOPPED, UNCONFIGURED, descriptor
from pixelrefer_ros.node.parameter import parameter as _parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node
    from rclpy.parameter import Parameter

_CAMERA_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*')

@dataclass(frozen=True)
class NodeParameters(GroundingParameters):
    """Hold the node's parameters; each field names its ROS parameter and what it may be."""

    cameras: tuple[str, ...] = _parameter(
        'cameras',
        ('',),
        "Camera names. Each gives an input '<name>/image'; one empty name gives the input "
        "'image'.",
        change=UNCONFIGURED,
    )
    image_transport: str = _parameter(
        'image_transport',
        'raw',
        "What to subscribe to: 'raw' (<image>), 'compressed' (<image>/compressed), or 'auto': "
        'whichever is published, raw if both are.',
        choices=('raw', 'compressed', 'auto'),
    )
    model_name: str = _parameter(
        'model.name',
        'tabletop',
        "Model that describes regions: 'tabletop', the folder of a checkpoint, or a hub name "
        'fetched with `pixelrefer fetch`.',
        change=UNCONFIGURED,
    )
    model_device: str = _parameter(
        'model.device',
        'auto',
        "Where the model runs: 'auto' (cuda if there is one, else cpu), 'cpu', 'cuda' or "
        "'cuda:N'.",
        change=UNCONFIGURED,
    )
    model_dtype: str = _parameter(
        'model.dtype',
        'auto',
        "Number format of the weights: 'auto' (float32 on a cpu, as the checkpoint says "
        "elsewhere), 'float32', 'bfloat16' or 'float16'.",
        choices=('auto', 'float32', 'bfloat16', 'float16'),
        change=UNCONFIGURED,
    )
    model_max_new_tokens: int = _parameter(
        'model.max_new_tokens',
        0,
        "Longest description or answer [tokens]; 0 for the model's own limit.",
        low=0,
        high=4096,
        change=UNCONFIGURED,
    )
    model_quantization: str = _parameter(
        'model.quantization',
        'none',
        "Smaller weights of its language model: 'none'; 'torchao-int8' and 'torchao-int4' need "
        'torchao, on a GPU int4 needs dtype bfloat16; on a cpu int4 is slower than float32.',
        choices=('none', 'torchao-int8', 'torchao-int4'),
        change=UNCONFIGURED,
    )
    model_feature_cache_mib: float = _parameter(
        'model.feature_cache_mib',
        256.0,
        'Memory on the device for what was seen of images, so that a second question about them '
        'need not look again [MiB]; 0 keeps nothing.',
        low=0.0,
        high=1048576.0,
        change=UNCONFIGURED,
    )
    model_prefix_cache_mib: float = _parameter(
        'model.prefix_cache_mib',
        256.0,
        'Memory on the device for what the language model has read, so that a second question '
        'about the same regions is the only thing it reads [MiB]; 0 keeps nothing.',
        low=0.0,
        high=1048576.0,
        change=UNCONFIGURED,
    )
    model_resize: str = _parameter(
        'model.resize',
        'auto',
        "Where images are resized: 'exact' on the host, bit by bit as the weights were trained; "
        "'device' where the model runs, a grey level away here and there; 'auto' on the device "
        'when it is no cpu.',
        choices=('auto', 'exact', 'device'),
        change=UNCONFIGURED,
    )
    tracking_backend: str = _parameter(
        'tracking.backend',
        'anchored',
        "How regions are followed from image to image: 'anchored' (OpenCV on the cpu, no "
        "weights), 'sam2' (a video segmentation model; needs tracking.model), 'auto' (sam2 on "
        "key images, anchored between) or 'none' (only where they are given).",
        choices=('anchored', 'sam2', 'auto', 'none'),
        change=UNCONFIGURED,
    )
    tracking_model: str = _parameter(
        'tracking.model',
        '',
        "Weights for 'sam2' and 'auto': a folder, or a hub name fetched with `pixelrefer fetch`, "
        'such as facebook/sam2.1-hiera-tiny.',
        change=UNCONFIGURED,
    )
    tracking_class_name: str = _parameter(
        'tracking.class_name',
        'Sam2VideoModel',
        'Class of transformers that the weights are for; others with the same video interface '
        'fit.',
        change=UNCONFIGURED,
    )
    tracking_device: str = _parameter(
        'tracking.device',
        'auto',
        "Where 'sam2' runs: 'auto' (cuda if there is one, else cpu), 'cpu', 'cuda' or 'cuda:N'.",
        change=UNCONFIGURED,
    )
    keep_rate_hz: float = _parameter(
        'keep_rate_hz',
        10.0,
        'Images kept per second of image time and camera [Hz]; 0 keeps all.',
        low=0.0,
        high=1000.0,
    )
    buffer_window_s: float = _parameter(
        'buffer.window_s',
        60.0,
        'How far back images are kept [s of image time].',
        low=0.1,
        high=86400.0,
    )
    buffer_full_rate_s: float = _parameter(
        'buffer.full_rate_s',
        10.0,
        'Newest part of the buffer kept at the full kept rate [s of image time]; older images '
        'are thinned.',
        low=0.0,
        high=86400.0,
    )
    buffer_max_mib: float = _parameter(
        'buffer.max_mib',
        512.0,
        'Memory for images of all cameras together [MiB].',
        low=1.0,
        high=1048576.0,
    )
    window_s: float = _parameter(
        'window_s',
        2.0,
        'How far back a description, or a query that does not say, looks, and a region is '
        'followed from where it was given [s of image time].',
        low=0.0,
        high=86400.0,
    )
    describe_enabled: bool = _parameter(
        'describe.enabled', True, 'Whether regions are described without being asked about.'
    )
    describe_after_s: float = _parameter(
        'describe.after_s',
        1.0,
        'How long a new region is watched before its first description [s of image time].',
        low=0.0,
        high=3600.0,
    )
    describe_period_s: float = _parameter(
        'describe.period_s',
        2.0,
        'Time between descriptions of a region [s of image time]; 0 describes it once.',
        low=0.0,
        high=86400.0,
    )
    region_ttl_s: float = _parameter(
        'region_ttl_s',
        30.0,
        'When to forget a region that is neither given nor seen again and has no ttl of its own '
        '[s of image time].',
        low=0.1,
        high=86400.0,
    )
    max_regions: int = _parameter(
        'max_regions', 64, 'Most regions of a camera.', low=1, high=4096
    )
    queue_size: int = _parameter(
        'queue_size',
        64,
        'Most jobs that wait for the model, and as many again for a grounding server; a query '
        'beyond is answered QUEUE_FULL.',
        low=1,
        high=4096,
    )
    max_batch: int = _parameter(
        'max_batch',
        8,
        'Most regions and questions that are put into words together; 1 for one at a time.',
        low=1,
        high=64,
    )
    look_ahead: str = _parameter(
        'look_ahead',
        'regions',
        "Which kept images the model looks at while nothing is asked, so that the next words come "
        "sooner: 'never' any, 'regions' some in which a region is seen, while regions are "
        "described or a query waits, 'always' some of all.",
        choices=LOOK_AHEAD,
    )
    deadline_s: float = _parameter(
        'deadline_s',
        30.0,
        'When to give up on a query that has no deadline of its own [s of wall time, also under '
        'simulated time].',
        low=0.01,
        high=86400.0,
    )
    stamp_tolerance_s: float = _parameter(
        'stamp_tolerance_s',
        0.05,
        "How far a region's stamp may be from its kept image [s]. A detector that stamps images "
        'the sampler does not keep needs half a kept period.',
        low=0.0,
        high=10.0,
    )
    pending_s: float = _parameter(
        'pending_s',
        0.5,
        'How long a region or query that is ahead of the newest image waits for it, and a query '
        'for the tracker [s of image time].',
        low=0.0,
        high=60.0,
    )
    no_image_warn_s: float = _parameter(
        'no_image_warn_s',
        5.0,
        'Warn when a camera has sent no image for this long [s of wall time]; 0 never warns.',
        low=0.0,
        high=3600.0,
        change=ANY_TIME,
    )
    diagnostics_period_s: float = _parameter(
        'diagnostics_period_s',
        1.0,
        'Time between messages on /diagnostics [s of wall time].',
        low=0.1,
        high=60.0,
        read_only=True,
    )

    def __post_init__(self) -> None:
        """Check what a descriptor cannot express.

        Raises:
            ValueError: With what to correct.
        """
        if not self.cameras:
            raise ValueError("cameras is empty: give [''] for the input 'image', or names")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f'cameras has a name twice: {list(self.cameras)}')
        for camera in self.cameras:
            if camera == '' and len(self.cameras) == 1:
                continue
            if not _CAMERA_NAME.fullmatch(camera):
                raise ValueError(
                    f'camera name {camera!r}: use letters, digits, _ and /, as in a topic name; '
                    f'an empty name must be the only one'
                )
        for name, device in (
            ('model.device', self.model_device),
            ('tracking.device', self.tracking_device),
            ('grounding.device', self.grounding_device),
        ):
            if not re.fullmatch(r'auto|cpu|cuda(:\d+)?', device):
                raise ValueError(f"{name} {device!r}: give 'auto', 'cpu', 'cuda' or 'cuda:N'")
        if not self.model_name:
            raise ValueError("model.name is empty: give a name, such as 'tabletop', or a folder")
        for item in fields(self):
            choices = item.metadata['choices']
            value = getattr(self, item.name)
            if choices and value not in choices:
                raise ValueError(
                    f'{item.metadata["name"]} {value!r}: give one of {", ".join(choices)}'
                )
        self._check_grounding()
        self.engine_config()

    def engine_config(self) -> EngineConfig:
        """Return the engine's share.

        Raises:
            ValueError: The engine refuses a combination.
        """
        names = {item.name for item in fields(EngineConfig)}
        return EngineConfig(
            **{item.name: getattr(self, item.name) for item in fields(self) if item.name in names}
        )


def declare_parameters(node: Node) -> None:
    """Declare every parameter with its description and range; overrides apply."""
    for item in fields(NodeParameters):
        value = list(item.default) if isinstance(item.default, tuple) else item.default
        node.declare_parameter(item.metadata['name'], value, descriptor(item))


def read_parameters(node: Node, changes: Sequence[Parameter] = ()) -> NodeParameters:
    """Read the parameters.

    Args:
        node: The node they are declared on.
        changes: Values to use instead of the node's own.

    Raises:
        ValueError: A value is not acceptable.
    """
    changed = {change.name: change.value for change in changes}
    values: dict[str, Any] = {}
    for item in fields(NodeParameters):
        name = item.metadata['name']
        value = changed.get(name, node.get_parameter(name).value)
        values[item.name] = tuple(value) if isinstance(item.default, tuple) else value
    return NodeParameters(**values)


def check_changes(
    node: Node, state: Callable[[], str]
) -> Callable[[Sequence[Parameter]], SetParametersResult]:
    """Return an on-set-parameters callback that refuses bad values with the reason.

    Args:
        node: The node.
        state: Returns the label of its lifecycle state.
    """
    rules = {item.metadata['name']: item.metadata['change'] for item in fields(NodeParameters)}

    def check(changes: Sequence[Parameter]) -> SetParametersResult:
        ours = [change for change in changes if change.name in rules]
        now = state()
        for change in ours:
            if change.value == node.get_parameter(change.name).value:
                continue
            if rules[change.name] == UNCONFIGURED and now != 'unconfigured':
                return _refuse(
                    f'{change.name} can change in the unconfigured state only, the node is '
                    f'{now}: deactivate and clean up first'
                )
            if rules[change.name] == STOPPED and now == 'active':
                return _refuse(
                    f'{change.name} cannot change while the node is active: deactivate it first'
                )
        try:
            if ours:
                read_parameters(node, ours)
        except (TypeError, ValueError) as error:
            return _refuse(str(error))
        return SetParametersResult(successful=True)

    return check


def _refuse(reason: str) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=reason)
