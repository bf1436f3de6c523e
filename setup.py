# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Build the package for pip: the metadata is in pyproject.toml, the interfaces need CMake.

colcon builds from package.xml and CMakeLists.txt and never runs this file.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE = 'pixelrefer_ros'
INTERFACE_KINDS = ('msg', 'srv', 'action')


def ros_prefixes() -> list[Path]:
    """List the prefixes that hold ROS packages, in the order they are searched.

    They are those of a sourced ROS installation, then the environment of each site-packages
    folder on the path (pip's isolated build environment is one), then this Python's own.
    """
    candidates = [Path(p) for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    for entry in map(Path, sys.path):
        if entry.name in ('site-packages', 'dist-packages') and len(entry.parents) > 2:
            candidates.append(entry.parents[2])  # <prefix>/lib/pythonX.Y/site-packages
    candidates.append(Path(sys.prefix))
    unique = dict.fromkeys(candidates)
    return [p for p in unique if (p / 'share/ament_index/resource_index/packages').is_dir()]


def tool(name: str, module: str, attribute: str) -> str | None:
    """Find a build tool: that of its PyPI wheel if importable, else the one on the PATH."""
    try:
        return str(Path(getattr(importlib.import_module(module), attribute)) / name)
    except ImportError:
        return shutil.which(name)


class BuildInterfaces(build_ext):
    """Run CMakeLists.txt and hand what it installs to setuptools."""

    def run(self) -> None:
        """Build the messages, services and action, or say why they are left out."""
        prefixes = ros_prefixes()
        if not any((p / 'share/rosidl_cmake').is_dir() for p in prefixes):
            print(
                f'{PACKAGE}: no ROS 2 interface generators found: installing without the ROS '
                'messages. The command-line tool works, the node does not. Source a ROS 2 '
                'installation, or run pip without --no-build-isolation, to have both.'
            )
            # Reading and writing bags needs the definitions all the same.
            texts = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'msg').glob('*.msg'))
            self.distribution.data_files.append((f'share/{PACKAGE}/msg', texts))
            return
        stage = self.run_cmake(prefixes)
        (python_package,) = stage.glob(f'l*/**/*-packages/{PACKAGE}')
        self.take_generated_python(python_package)
        self.take_data_files(stage, python_package.parent)

    def run_cmake(self, prefixes: list[Path]) -> Path:
        """Configure, build and install into a staging folder; return it."""
        cmake = tool('cmake', 'cmake', 'CMAKE_BIN_DIR')
        if cmake is None:
            raise SystemExit(f'{PACKAGE}: CMake is missing: pip install cmake')
        base = Path(self.build_temp).resolve()
        search_path = os.pathsep.join(map(str, prefixes))
        if self.inplace:
            # Kept, so that an editable install builds again only what changed. A folder for each
            # environment, because CMake remembers where it found things.
            key = hashlib.sha256(f'{ROOT}:{sys.executable}:{search_path}'.encode()).hexdigest()
            base = ROOT / 'build' / f'interfaces-{key[:8]}'
        else:
            # What is there may name a pip build environment that is gone.
            shutil.rmtree(base / 'cmake', ignore_errors=True)
        build, stage = base / 'cmake', base / 'stage'
        shutil.rmtree(stage, ignore_errors=True)
        env = {**os.environ, 'AMENT_PREFIX_PATH': search_path, 'CMAKE_PREFIX_PATH': search_path}
        ninja = tool('ninja', 'ninja', 'BIN_DIR')
        generator = ['-G', 'Ninja', f'-DCMAKE_MAKE_PROGRAM={ninja}'] if ninja else []
        configure = [
            cmake, '-S', str(ROOT), '-B', str(build), *generator,
            '-DCMAKE_BUILD_TYPE=Release',
            '-DBUILD_TESTING=OFF',
            f'-DCMAKE_INSTALL_PREFIX={stage}',
            f'-DCMAKE_PROJECT_INCLUDE={ROOT / "cmake/pip_wheels_fix.cmake"}',
            f'-DPython3_EXECUTABLE={sys.executable}',
            f'-DPython3_INCLUDE_DIR={sysconfig.get_path("include")}',
        ]  # fmt: skip
        jobs = os.environ.get('CMAKE_BUILD_PARALLEL_LEVEL', str(os.cpu_count() or 1))
        install = [cmake, '--build', str(build), '--target', 'install', '-j', jobs]
        for command in (configure, install):
            subprocess.run(command, env=env, check=True)
        return stage

    def take_generated_python(self, python_package: Path) -> None:
        """Copy the generated modules and their type support into the package."""
        target = ROOT / PACKAGE if self.inplace else Path(self.build_lib).resolve() / PACKAGE
        for kind in INTERFACE_KINDS:
            shutil.copytree(
                python_package / kind,
                target / kind,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns('__pycache__', '*.c'),
            )
        for library in python_package.glob('*.so'):
            # Replaced, not overwritten: a running process may have the old one mapped.
            fresh = target / f'.{library.name}.new'
            shutil.copy2(library, fresh)
            fresh.replace(target / library.name)

    def take_data_files(self, stage: Path, python_dir: Path) -> None:
        """Have everything but Python and headers installed relative to ``sys.prefix``."""
        for folder, _, names in os.walk(stage):
            path = Path(folder)
            relative = path.relative_to(stage)
            if not names or path.is_relative_to(python_dir) or relative.parts[0] == 'include':
                continue
            self.distribution.data_files.append((str(relative), [str(path / n) for n in names]))

    def get_outputs(self) -> list[str]:
        """List no outputs: there are no setuptools extensions."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Map no outputs, as above; editable installs ask."""
        return {}

    def get_source_files(self) -> list[str]:
        """List no sources beside those of MANIFEST.in."""
        return []


class BinaryDistribution(Distribution):
    """Make the wheel one for this platform, with data files even when editable."""

    def has_ext_modules(self) -> bool:
        """Say that there is compiled code."""
        return True

    def has_data(self) -> bool:
        """Answer the name under which editable installs look for data files."""
        return self.has_data_files()


setup(
    data_files=[],
    cmdclass={'build_ext': BuildInterfaces},
    distclass=BinaryDistribution,
)
