# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Check that this machine can build the package; run by `make setup` before anything else.

Uses nothing newer than Python 3.6, to be able to say that a Python is too old.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig

OLDEST = (3, 11)
NEWEST = (3, 14)


def missing_packages():
    """List the Debian packages that hold what is missing."""
    version = '{}.{}'.format(*sys.version_info[:2])
    packages = []
    if importlib.util.find_spec('ensurepip') is None:
        packages.append(f'python{version}-venv')
    if not os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')):
        if sys.prefix != '/usr':
            sys.exit(
                f'make setup: {sys.executable} has no Python.h: install its development files, '
                f'or choose another Python with make setup PYTHON=...'
            )
        packages.append(f'python{version}-dev')
    if shutil.which('cc') is None:
        packages.append('gcc')
    if shutil.which('c++') is None:
        packages.append('g++')
    return packages


def main():
    """Install what is missing when run as root, or say how to."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        oldest, newest, found = (
            '{}.{}'.format(*v) for v in (OLDEST, NEWEST, sys.version_info[:2])
        )
        sys.exit(
            f'make setup: {sys.executable} is Python {found}; it takes {oldest} to {newest}. '
            f'Install one and name it: make setup PYTHON=python{oldest}'
        )
    packages = missing_packages()
    if not packages:
        return
    install = ['apt-get', 'install', '-y', '--no-install-recommends', *packages]
    if os.geteuid() != 0 or shutil.which('apt-get') is None:
        sys.exit(
            f'make setup: the ROS messages are compiled, and this machine lacks '
            f'{", ".join(packages)}. Run\n  sudo {" ".join(install)}\nand try again.'
        )
    print(f'make setup: installing what compiles the ROS messages: {packages}', flush=True)
    environment = dict(os.environ, DEBIAN_FRONTEND='noninteractive')
    for command in (['apt-get', 'update'], install):
        if subprocess.call(command, env=environment) != 0:
            sys.exit(f'make setup: {" ".join(command)} failed: see above')


main()
