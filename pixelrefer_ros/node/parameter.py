# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Describe one parameter of the node in a field of a dataclass."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

UNCONFIGURED = 'unconfigured'
"""Can change in the unconfigured state only: the model or the inputs depend on it."""
STOPPED = 'stopped'
"""Can change in every state but active; used at the next activation."""
ANY_TIME = 'any time'


def parameter(
    name: str,
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    change: str = STOPPED,
    read_only: bool = False,
) -> Any:
    """Return a dataclass field that is a ROS parameter.

    Args:
        name: Of the ROS parameter.
        default: Its default; the type is the parameter's.
        description: What it is, with its unit.
        low: Least value of a number.
        high: Greatest value of a number.
        choices: The only values of a text.
        change: When it may change.
        read_only: Whether it never may after the start.
    """
    metadata = {
        'name': name,
        'description': description,
        'low': low,
        'high': high,
        'choices': choices,
        'change': change,
        'read_only': read_only,
    }
    return field(default=default, metadata=metadata)


def descriptor(item: Any) -> ParameterDescriptor:
    """Return what ROS is told about the parameter of a field."""
    about = item.metadata
    told = ParameterDescriptor(
        description=about['description'], read_only=about['read_only']
    )
    if about['choices']:
        told.additional_constraints = f'one of {", ".join(about["choices"])}'
    if about['low'] is not None:
        if isinstance(item.default, int):
            told.integer_range = [
                IntegerRange(from_value=about['low'], to_value=about['high'], step=1)
            ]
        else:
            told.floating_point_range = [
                FloatingPointRange(from_value=about['low'], to_value=about['high'])
            ]
    return told
