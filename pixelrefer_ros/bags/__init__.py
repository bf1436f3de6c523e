# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Read, replay, write and show rosbag2 files, without a ROS installation."""
