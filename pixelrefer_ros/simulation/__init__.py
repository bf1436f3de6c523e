# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Simulate coloured objects on a table, with exact masks (extra ``[sim]``)."""
