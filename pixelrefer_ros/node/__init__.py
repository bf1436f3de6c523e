# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Join the engine to ROS 2; the only part of the package that needs rclpy."""
