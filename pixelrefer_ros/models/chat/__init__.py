# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold conversations with vision language models, on this machine or on a server."""
