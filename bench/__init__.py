# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the package: one script a question, each prints tables and writes bench/results/."""
