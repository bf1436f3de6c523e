# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Prepare what many tests need: a quiet ROS environment, a domain of their own, shared data."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]

# Read by the middleware when rclpy starts, so set before any test imports it.
os.environ.pop('ROS_LOCALHOST_ONLY', None)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
for _name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
    os.environ[_name] = str(ROOT / 'config' / 'fastdds.xml')
os.environ.setdefault('ROS_LOG_DIR', str(Path(tempfile.gettempdir()) / 'pixelrefer_ros_test_log'))
# Nothing may be downloaded in a test.
os.environ['HF_HUB_OFFLINE'] = '1'

# Fast DDS derives ports from the domain id; up to 101 they stay clear of ephemeral ports. 0 is
# everybody's.
_DOMAIN_IDS = range(1, 102)
_LOCK_PORT_BASE = 21000


def _shared_folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT / default)).resolve()
    if not folder.is_dir():
        pytest.skip(f'no folder {folder}: set {variable}')
    return folder


@pytest.fixture(scope='session')
def golden_dir() -> Path:
    """Return the folder with the published model's numbers, or skip."""
    return _shared_folder('PIXELREFER_GOLDEN', '../shared/golden/pixelrefer')


@pytest.fixture(scope='session')
def media_dir() -> Path:
    """Return the folder with pictures and clips, or skip."""
    return _shared_folder('PIXELREFER_MEDIA', '../shared/media')


@contextlib.contextmanager
def reserved_domain_id() -> Iterator[int]:
    """Hold a ROS domain id that no other test on this machine uses.

    A listening socket is the reservation: it ends with the process, however that ends.
    """
    candidates = list(_DOMAIN_IDS)
    random.SystemRandom().shuffle(candidates)
    for domain_id in candidates:
        with socket.socket() as lock:
            try:
                lock.bind(('127.0.0.1', _LOCK_PORT_BASE + domain_id))
            except OSError:
                continue
            yield domain_id
            return
    raise RuntimeError('all ROS domain ids are in use by other tests')


@pytest.fixture
def ros_domain_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Reserve a ROS domain id and set ROS_DOMAIN_ID to it, for this process and its children."""
    with reserved_domain_id() as domain_id:
        monkeypatch.setenv('ROS_DOMAIN_ID', str(domain_id))
        yield domain_id
