# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Build the package with colcon in a workspace of its own, and use what it installs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COLCON = 'colcon-common-extensions==0.3.0'
# What git does not track, by name anywhere and by path from the root.
UNTRACKED_NAMES = (
    '.git',
    '.venv*',
    '__pycache__',
    '*.so',
    '*.egg-info',
    'build',
    'runs',
    '.*_cache',
)
GENERATED = tuple(ROOT / 'pixelrefer_ros' / kind for kind in ('msg', 'srv', 'action'))

pytestmark = [pytest.mark.slow, pytest.mark.ros, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Workspace:
    """Hold a built colcon workspace."""

    install: Path
    env: dict[str, str]

    def command(self, script: str) -> list[str]:
        """Return a command line that runs a bash script with the workspace sourced."""
        return ['bash', '-c', f'source "{self.install}/setup.bash" && {script}']


def run(command: list[str], **kwargs) -> subprocess.CompletedProcess[str]:
    """Run a command; fail the test with all it printed when it fails."""
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs
    )
    if result.returncode != 0:
        pytest.fail(f'{command} returned {result.returncode}:\n{result.stdout[-8000:]}')
    return result


def clean_environment() -> dict[str, str]:
    """Return the environment without what the ROS wheels put there for this process alone."""
    env = dict(os.environ)
    if env.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None):
        env.pop('LD_LIBRARY_PATH', None)
    return env


def ignore(folder: str, names: list[str]) -> set[str]:
    """Leave out what git would, for copytree."""
    ignored = set(shutil.ignore_patterns(*UNTRACKED_NAMES)(folder, names))
    return ignored | {name for name in names if Path(folder, name) in GENERATED}


@pytest.fixture(scope='module')
def colcon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return colcon, installed into a virtual environment of its own."""
    venv = tmp_path_factory.mktemp('colcon') / 'venv'
    env = clean_environment()
    run([sys.executable, '-m', 'venv', str(venv)], env=env)
    pip = [str(venv / 'bin/python'), '-m', 'pip', '--disable-pip-version-check', '--retries=1']
    result = subprocess.run(
        [*pip, 'install', '--quiet', COLCON], env=env, capture_output=True, text=True
    )
    if result.returncode != 0:
        pytest.skip(f'pip cannot install colcon here: {result.stderr[-500:]}')
    return venv / 'bin/colcon'


@pytest.fixture(scope='module')
def workspace(colcon: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which colcon has built a copy of the package."""
    base = tmp_path_factory.mktemp('workspace')
    shutil.copytree(ROOT, base / 'src/pixelrefer_ros', ignore=ignore)
    env = clean_environment()
    prefix = env.get('AMENT_PREFIX_PATH', sys.prefix)
    env |= {
        'AMENT_PREFIX_PATH': prefix,
        'CMAKE_PREFIX_PATH': prefix,
        'PATH': os.pathsep.join((sysconfig.get_path('scripts'), env['PATH'])),
    }
    if not any(Path(p, 'share/rosidl_cmake').is_dir() for p in prefix.split(os.pathsep)):
        pytest.skip('the ROS interface generators are not installed: make setup installs them')
    run(
        [
            str(colcon), 'build', '--event-handlers', 'console_direct+', '--cmake-args',
            '-DBUILD_TESTING=OFF',
            f'-DPython3_EXECUTABLE={sys.executable}',
            f'-DPython3_INCLUDE_DIR={sysconfig.get_path("include")}',
            f'-DCMAKE_PROJECT_INCLUDE={base}/src/pixelrefer_ros/cmake/pip_wheels_fix.cmake',
        ],
        cwd=base,
        env=env,
    )  # fmt: skip
    return Workspace(install=base / 'install', env=env)


def test_interfaces_and_package_come_from_the_workspace(workspace: Workspace) -> None:
    program = (
        'import pixelrefer_ros, pixelrefer_ros.core.types\n'
        'from pixelrefer_ros.msg import Answer, Region, TrackArray\n'
        'from pixelrefer_ros.srv import AddRegions, ListRegions, RemoveRegions, Reset\n'
        'from pixelrefer_ros.action import Ask\n'
        'from rclpy.serialization import deserialize_message, serialize_message\n'
        'query = Ask.Goal().query\n'
        'query.regions = [Region(region_id="cup")]\n'
        'print(deserialize_message(serialize_message(query), type(query)).regions[0].region_id)\n'
        'print(pixelrefer_ros.__file__)\n'
        'print(Answer.__module__, pixelrefer_ros.__version__)\n'
    )
    result = run(workspace.command(f"{sys.executable} -c '{program}'"), cwd='/', env=workspace.env)

    region_id, package_file, _ = result.stdout.splitlines()[-3:]
    assert region_id == 'cup'
    assert Path(package_file).is_relative_to(workspace.install)


def test_share_folder_holds_what_launch_and_node_look_for(workspace: Workspace) -> None:
    share = workspace.install / 'pixelrefer_ros/share/pixelrefer_ros'
    for folder in ('launch', 'config'):
        expected = {path.name for path in (ROOT / folder).iterdir() if path.is_file()}
        assert expected <= {path.name for path in (share / folder).iterdir()}


def test_package_data_is_installed(workspace: Workspace) -> None:
    (package,) = workspace.install.glob('pixelrefer_ros/l*/**/*-packages/pixelrefer_ros')
    wanted = {
        path.relative_to(ROOT / 'pixelrefer_ros')
        for path in (ROOT / 'pixelrefer_ros/models').rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }

    assert [path for path in sorted(wanted) if not (package / path).is_file()] == []


def test_command_line_tool_is_where_ros2_run_looks(workspace: Workspace) -> None:
    tool = workspace.install / 'pixelrefer_ros/lib/pixelrefer_ros/pixelrefer'

    result = run(workspace.command(f'"{tool}" --help'), cwd='/', env=workspace.env)

    assert 'replay' in result.stdout


def test_node_executable_serves_its_lifecycle(workspace: Workspace, ros_domain_id: int) -> None:
    rclpy = pytest.importorskip('rclpy')
    from lifecycle_msgs.srv import GetState

    executable = workspace.install / 'pixelrefer_ros/lib/pixelrefer_ros/pixelrefer_node'
    process = subprocess.Popen(
        workspace.command(f'exec "{executable}"'),
        cwd='/',
        env={**workspace.env, 'ROS_DOMAIN_ID': str(ros_domain_id)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    context = rclpy.Context()
    try:
        rclpy.init(context=context, domain_id=ros_domain_id)
        node = rclpy.create_node('colcon_test', context=context)
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        client = node.create_client(GetState, '/pixelrefer/get_state')
        deadline = time.monotonic() + 120
        while not client.service_is_ready() and process.poll() is None:
            assert time.monotonic() < deadline, 'the node does not come up'
            executor.spin_once(timeout_sec=0.2)
        future = client.call_async(GetState.Request())
        executor.spin_until_future_complete(future, timeout_sec=30)

        assert process.poll() is None, process.stdout.read()
        assert future.result().current_state.label == 'unconfigured'
    finally:
        rclpy.try_shutdown(context=context)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
