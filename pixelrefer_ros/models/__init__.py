# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Describe regions, hold conversations: torch and transformers."""

import logging

# transformers imports torchao wherever it is installed, whether or not anything is quantised, and
# these would tell of kernels that nobody asked for.
for _name in ('torchao', 'torch.utils._pytree'):
    logging.getLogger(_name).setLevel(logging.ERROR)
