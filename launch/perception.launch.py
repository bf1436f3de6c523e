# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Start the pixelrefer node, and by default bring it to the active state.

An argument left empty leaves the matter to the parameter file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterFile
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

if TYPE_CHECKING:
    from launch import LaunchContext
    from launch.action import Action
    from launch.events.process import ProcessStarted

BOOLEANS = ['true', 'false']
RETRY_S = 5.0


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the node with them."""
    config = PathJoinSubstitution([FindPackageShare('pixelrefer_ros'), 'config'])
    # A profile the caller has chosen stays.
    dds_profile = EnvironmentVariable(
        'FASTDDS_DEFAULT_PROFILES_FILE',
        default_value=EnvironmentVariable(
            'FASTRTPS_DEFAULT_PROFILES_FILE',
            default_value=PathJoinSubstitution([config, 'fastdds.xml']),
        ),
    )
    arguments = [
        DeclareLaunchArgument(
            'namespace',
            default_value='',
            description='Namespace of the node; its inputs and outputs move with it.',
        ),
        DeclareLaunchArgument(
            'params_file',
            default_value=PathJoinSubstitution([config, 'pixelrefer.yaml']),
            description='YAML file with the parameters of the node.',
        ),
        DeclareLaunchArgument(
            'use_sim_time',
            default_value='false',
            choices=BOOLEANS,
            description='Take the time from /clock, as when a bag is played with --clock.',
        ),
        DeclareLaunchArgument(
            'log_level',
            default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Least severity that is logged.',
        ),
        DeclareLaunchArgument(
            'autostart',
            default_value='true',
            choices=BOOLEANS,
            description='Configure (load the model) and activate the node once it is up. With '
            'false that is left to a lifecycle manager or ros2 lifecycle set.',
        ),
        DeclareLaunchArgument(
            'respawn',
            default_value='false',
            choices=BOOLEANS,
            description='Start the node again when it dies.',
        ),
        DeclareLaunchArgument(
            'model',
            default_value='',
            description='Model that describes regions: tabletop, a checkpoint folder, or a hub '
            "name fetched before. Empty: the parameter file's model.name.",
        ),
        DeclareLaunchArgument(
            'device',
            default_value='',
            description='Where the model runs: auto, cpu, cuda or cuda:N. Empty: the parameter '
            "file's model.device.",
        ),
        DeclareLaunchArgument(
            'quantization',
            default_value='',
            description='Smaller weights of the model: none, torchao-int8 or torchao-int4. Empty: '
            "the parameter file's model.quantization.",
        ),
        DeclareLaunchArgument(
            'tracking',
            default_value='',
            description='How regions are followed: anchored, sam2, auto or none. Empty: the '
            "parameter file's tracking.backend.",
        ),
        DeclareLaunchArgument(
            'grounding_model',
            default_value='',
            description='Vision language model that answers GROUND queries: tabletop, a folder, a '
            "hub name fetched before, or with grounding_url the server's name for it. Empty: the "
            "parameter file's grounding.model.",
        ),
        DeclareLaunchArgument(
            'grounding_url',
            default_value='',
            description='Base URL of an OpenAI-compatible server that runs that model. Empty: the '
            "parameter file's grounding.url.",
        ),
        DeclareLaunchArgument(
            'grounding_profile',
            default_value='',
            description='How that model is asked: revseg, qwen2.5-vl, qwen3-vl, tabletop, a YAML '
            "file, or auto. Empty: the parameter file's grounding.profile.",
        ),
        DeclareLaunchArgument(
            'cameras',
            default_value='',
            description='Camera names with commas between, each an input <name>/image. Empty: '
            "the parameter file's cameras.",
        ),
        DeclareLaunchArgument(
            'image_topic',
            default_value='image',
            description='Topic of the only camera: remaps image, and image/compressed to '
            '<image_topic>/compressed.',
        ),
        DeclareLaunchArgument(
            'dds_profile',
            default_value=dds_profile,
            description='Fast DDS profile of the node, by which large images get through: by '
            'default the one the environment names, else config/fastdds.xml. The process of the '
            'camera driver needs it too. Empty: none.',
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])


def start_node(context: LaunchContext) -> list[Action]:
    """Return the node and, when it starts by itself, what brings it to the active state."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    overrides: dict[str, object] = {'use_sim_time': value('use_sim_time') == 'true'}
    for argument, parameter in (
        ('model', 'model.name'),
        ('device', 'model.device'),
        ('quantization', 'model.quantization'),
        ('tracking', 'tracking.backend'),
        ('grounding_model', 'grounding.model'),
        ('grounding_url', 'grounding.url'),
        ('grounding_profile', 'grounding.profile'),
    ):
        if value(argument):
            overrides[parameter] = value(argument)
    if value('cameras'):
        overrides['cameras'] = [name.strip() for name in value('cameras').split(',')]

    profile = value('dds_profile')
    # The variable's name on Jazzy and before, and since.
    profile_names = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
    image_topic = value('image_topic')
    node = LifecycleNode(
        package='pixelrefer_ros',
        executable='pixelrefer_node',
        name='pixelrefer',
        namespace=value('namespace'),
        parameters=[ParameterFile(value('params_file'), allow_substs=True), overrides],
        remappings=[
            ('image', image_topic),
            ('image/compressed', f'{image_topic}/compressed'),
        ],
        additional_env=dict.fromkeys(profile_names, profile) if profile else {},
        ros_arguments=['--log-level', value('log_level')],
        respawn=value('respawn') == 'true',
        respawn_delay=2.0,
        output='screen',
        emulate_tty=True,
    )
    return [*(autostart(node) if value('autostart') == 'true' else []), node]


def autostart(node: LifecycleNode) -> list[Action]:
    """Return handlers that configure the node whenever it starts and activate it after that.

    Events do it, because the autostart argument of LifecycleNode is newer than Jazzy.
    """
    starts = 0
    heard = False  # that the node of the latest start is being configured

    def request(transition_id: int) -> EmitEvent:
        return EmitEvent(
            event=ChangeState(
                lifecycle_node_matcher=matches_action(node), transition_id=transition_id
            )
        )

    def configure(event: ProcessStarted, context: LaunchContext) -> list[Action]:
        nonlocal starts, heard
        starts += 1
        heard = False
        if starts == 1:
            return [request(Transition.TRANSITION_CONFIGURE)]
        return insist(context)

    def insist(context: LaunchContext) -> list[Action]:
        # For some seconds after a crash the services of the dead node still seem to be there,
        # and a request to them is lost.
        if heard:
            return []
        again = TimerAction(period=RETRY_S, actions=[OpaqueFunction(function=insist)])
        return [request(Transition.TRANSITION_CONFIGURE), again]

    def hear(context: LaunchContext) -> None:
        nonlocal heard
        heard = True

    def on_transition(start: str, goal: str, action: Action) -> RegisterEventHandler:
        return RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state=start,
                goal_state=goal,
                entities=[action],
            )
        )

    failed = LogInfo(
        msg='pixelrefer could not be configured: its log says why. Correct that, then: '
        'ros2 lifecycle set <node> configure'
    )
    return [
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=configure)),
        on_transition('unconfigured', 'configuring', OpaqueFunction(function=hear)),
        on_transition('configuring', 'inactive', request(Transition.TRANSITION_ACTIVATE)),
        on_transition('configuring', 'unconfigured', failed),
    ]
