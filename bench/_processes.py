# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run the processes of a benchmark: they are told words on stdin and answer JSON lines.

A process ends when its stdin does, so that none outlives the script that started it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench._common import ROOT

if TYPE_CHECKING:
    from types import TracebackType

_PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
_TIMEOUT_S = 300.0


def set_environment(*, profile: bool) -> None:
    """Prepare this process and its children for ROS, before rclpy is initialized.

    Args:
        profile: Use config/fastdds.xml, else Fast DDS' own transports.
    """
    os.environ.pop('ROS_LOCALHOST_ONLY', None)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    # Up to 101 the ports stay clear of ephemeral ones; 0 is everybody's.
    os.environ['ROS_DOMAIN_ID'] = str(random.SystemRandom().randrange(1, 102))
    os.environ['ROS_LOG_DIR'] = str(Path(tempfile.gettempdir()) / 'pixelrefer_ros_bench_log')
    os.environ['HF_HUB_OFFLINE'] = '1'
    for name in _PROFILE_VARIABLES:
        if profile:
            os.environ[name] = str(ROOT / 'config' / 'fastdds.xml')
        else:
            os.environ.pop(name, None)


class Child:
    """Run a module of this package as a process."""

    def __init__(self, module: str, *arguments: object) -> None:
        """Start it with the environment of now."""
        self._name = module
        self._log = tempfile.TemporaryFile('w+')  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, '-m', module, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def tell(self, word: str) -> None:
        """Send a word."""
        assert self._process.stdin is not None
        self._process.stdin.write(f'{word}\n')
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for the next answer.

        Raises:
            RuntimeError: The process ended, or took too long and was ended.
        """
        assert self._process.stdout is not None
        patience = threading.Timer(_TIMEOUT_S, self._process.kill)
        patience.start()
        try:
            for line in self._process.stdout:
                if line.startswith('{'):  # libraries may print too
                    answer: dict[str, Any] = json.loads(line)
                    return answer
        finally:
            patience.cancel()
        self._log.seek(0)
        log = self._log.read()[-2000:]
        raise RuntimeError(f'{self._name} gave no answer; its log ends:\n{log}')

    def ask(self, word: str) -> dict[str, Any]:
        """Send a word and wait for the answer."""
        self.tell(word)
        return self.hear()

    def __enter__(self) -> Child:
        """Return the child."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(15.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


def answer(values: dict[str, Any]) -> None:
    """Answer the parent; called in the child."""
    print(json.dumps(values), flush=True)
