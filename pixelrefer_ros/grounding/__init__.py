# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find what a question speaks of: which frame shows it best, and where it is in that frame."""
