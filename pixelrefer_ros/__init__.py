# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Describe regions of live video and answer questions about them, in ROS 2."""

__version__ = '0.1.0'
