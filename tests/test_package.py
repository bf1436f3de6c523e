# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hold together what is said in several files: versions, dependencies, interfaces, arguments."""

from __future__ import annotations

import ast
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import pixelrefer_ros
from pixelrefer_ros.core.types import ErrorCode, RegionKind, Task, TrackState

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
CONSTRAINTS = dict(
    line.split('==')
    for line in (ROOT / 'constraints.txt').read_text().splitlines()
    if line and not line.startswith('#')
)
LAUNCH_FILES = sorted((ROOT / 'launch').glob('*.launch.py'))


def declared(kind: str) -> set[str]:
    """Return the names under a tag of package.xml."""
    return {element.text or '' for element in MANIFEST.iter(kind)}


def interface_files() -> set[str]:
    return {
        f'{kind}/{path.name}'
        for kind in ('msg', 'srv', 'action')
        for path in (ROOT / kind).iterdir()
        if path.suffix == f'.{kind}'
    }


def test_package_xml_has_the_version_of_the_python_package() -> None:
    assert MANIFEST.findtext('version') == pixelrefer_ros.__version__


def test_cmake_builds_every_interface_file() -> None:
    listed = re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (ROOT / 'CMakeLists.txt').read_text())

    assert len(listed) == len(set(listed))
    assert set(listed) == interface_files()


def test_every_package_an_interface_uses_is_a_dependency() -> None:
    used = set()
    for name in interface_files():
        used |= set(re.findall(r'^(\w+)/\w+(?:\[\])?\s', (ROOT / name).read_text(), re.MULTILINE))
    used.discard('pixelrefer_ros')

    assert used
    assert used <= declared('depend')


def test_every_ros_package_the_code_imports_is_in_package_xml() -> None:
    """A robot installs what package.xml names; a forgotten one fails at the first import."""
    imported = set()
    sources = [*(ROOT / 'pixelrefer_ros' / 'node').rglob('*.py'), *LAUNCH_FILES]
    for source in sources:
        for item in ast.walk(ast.parse(source.read_text())):
            if isinstance(item, ast.Import):
                imported |= {alias.name.split('.')[0] for alias in item.names}
            elif isinstance(item, ast.ImportFrom) and item.level == 0 and item.module:
                imported.add(item.module.split('.')[0])
    ros = {n for n in imported if n.endswith(('_msgs', '_interfaces'))}
    ros |= imported & {'rclpy', 'launch', 'launch_ros', 'cv_bridge', 'ament_index_python'}
    optional = {'vision_msgs'}

    assert 'rclpy' in ros
    assert ros - optional <= declared('depend') | declared('exec_depend')


def normalized(requirement: str) -> str:
    name = re.split(r'[\[<>=!~ ;]', requirement, maxsplit=1)[0]
    return re.sub(r'[-_.]+', '-', name).lower()


def test_every_requirement_is_pinned() -> None:
    extras = PROJECT['project']['optional-dependencies']
    required = [
        *PROJECT['build-system']['requires'],
        *PROJECT['project']['dependencies'],
        *(item for extra in extras.values() for item in extra),
    ]

    assert [item for item in required if normalized(item) not in CONSTRAINTS] == []


def test_ros_versions_agree_with_the_pins() -> None:
    """The wheels of two ROS distributions do not work together."""
    extras = PROJECT['project']['optional-dependencies']
    exact = [
        item.split('==')
        for item in (*PROJECT['build-system']['requires'], *extras['ros'])
        if item.startswith('ros-')
    ]

    assert exact
    assert {name: version for name, version in exact if CONSTRAINTS[name] != version} == {}


@pytest.mark.parametrize(
    ('message', 'prefix', 'enum'),
    [
        ('Answer', '', ErrorCode),
        ('Region', 'KIND_', RegionKind),
        ('Query', 'TASK_', Task),
        ('Track', 'STATE_', TrackState),
    ],
)
def test_constants_of_a_message_are_those_of_the_enum(
    message: str, prefix: str, enum: type
) -> None:
    text = (ROOT / 'msg' / f'{message}.msg').read_text()
    constants = {
        name.removeprefix(prefix): int(value)
        for name, value in re.findall(r'^uint\d+ ([A-Z_]+)=(\d+)', text, re.MULTILINE)
    }

    assert constants == {item.name: item.value for item in enum}


def launch_arguments(path: str) -> list[dict[str, ast.expr]]:
    """Return the keyword arguments of each DeclareLaunchArgument in a launch file."""
    calls = [item for item in ast.walk(ast.parse(path)) if isinstance(item, ast.Call)]
    return [
        {'name': call.args[0], **{k.arg: k.value for k in call.keywords if k.arg}}
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == 'DeclareLaunchArgument'
    ]


@pytest.mark.parametrize('path', LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_arguments_are_described_and_used(path: Path) -> None:
    text = path.read_text()
    arguments = launch_arguments(text)
    names = [ast.literal_eval(argument['name']) for argument in arguments]

    assert names
    assert len(set(names)) == len(names)
    for name, argument in zip(names, arguments, strict=True):
        assert 'default_value' in argument, name
        assert ast.literal_eval(argument['description']).endswith('.'), name
        assert len(re.findall(rf"'{name}'", text)) >= 2, f'{name} is declared and not used'


def test_dds_profile_takes_three_raw_hd_images_at_once() -> None:
    """Best effort loses what does not fit (three cameras, 1280x720 rgb8)."""
    profile = ElementTree.parse(ROOT / 'config' / 'fastdds.xml').getroot()
    values = {element.tag.rsplit('}', 1)[-1]: element.text for element in profile.iter()}
    image_bytes = 1280 * 720 * 3

    assert int(values['maxMessageSize']) > image_bytes
    assert int(values['segment_size']) > 3 * image_bytes
