# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
#
# Everything runs in .venv, which each target sets up when it has to.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-stamp
PYTEST_ARGS ?=
LINTED := pixelrefer_ros tests demo bench launch scripts setup.py

# A change to one of these sets up again; compiled interfaces that did not change are kept.
SETUP_INPUTS := pyproject.toml constraints.txt setup.py package.xml CMakeLists.txt \
  $(wildcard cmake/* scripts/* msg/* srv/* action/* launch/* config/*)

PIP := $(PY) -m pip --disable-pip-version-check
# The ROS wheels mark a Python process as prepared, and a Python of another environment that
# inherits the mark would not prepare itself.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: help setup demo test lint bench clean

help:
	@echo 'make setup   virtual environment, pinned packages, ROS interfaces, this package'
	@echo 'make demo    play the demo bag through the live node; results in demo/out/'
	@echo 'make test    run the tests (PYTEST_ARGS="-k name -x" to choose)'
	@echo 'make lint    ruff, mypy, import-linter'
	@echo 'make bench   run every benchmark; results in bench/results/'
	@echo 'make clean   remove what the targets above made, .venv included'

setup: $(STAMP)

$(STAMP): $(SETUP_INPUTS)
	@$(PYTHON) scripts/check_host.py
	@echo '== 1/4 virtual environment $(VENV)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt pip setuptools wheel
	@echo '== 2/4 tools that build the ROS interfaces'
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  > $(VENV)/build-requirements.txt
	@$(PIP) install -c constraints.txt -r $(VENV)/build-requirements.txt
	@echo '== 3/4 packages it runs on (PyTorch is a large download)'
	@$(PY) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *sum(p["optional-dependencies"].values(), []), sep="\n")' \
	  > $(VENV)/requirements.txt
	@$(PIP) install -c constraints.txt -r $(VENV)/requirements.txt
	@echo '== 4/4 ROS interfaces and this package (the first time compiles for about a minute)'
	@{ $(PIP) install -v --no-build-isolation --no-deps -e . 2>&1; echo $$? > $(VENV)/build.status; } \
	  | tee $(VENV)/build.log | sed -u -n -E 's|^ *\[([0-9]*0)/([0-9]+)\].*|   \1 of \2|p'
	@test "$$(cat $(VENV)/build.status)" = 0 \
	  || { tail -n 60 $(VENV)/build.log; echo 'make setup: the build failed; all of it is in $(VENV)/build.log'; exit 1; }
	@$(PY) -c 'import pixelrefer_ros.msg, rclpy'
	@touch $@
	@echo '== ready'

demo: setup
	$(PY) -m demo.run

test: setup
	$(PY) -m pytest $(PYTEST_ARGS)

lint: setup
	$(PY) -m ruff check $(wildcard $(LINTED))
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

bench: setup
	@set -e; for script in $(wildcard bench/[!_]*.py); do \
	  echo "== $$script"; $(PY) -m "$$(echo $${script%.py} | tr / .)"; \
	done

clean:
	rm -rf $(VENV) build install log dist *.egg-info demo/out
	rm -rf pixelrefer_ros/msg pixelrefer_ros/srv pixelrefer_ros/action pixelrefer_ros/*.so
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
