# The whole interface: install, format, check, test, test-linux, test-slow, demo, bench.
# `make demo` and `make test` do all their set-up on a machine with Python 3.11, make, git and apt.

PYTHON ?= $(shell command -v /usr/bin/python3.11 || command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

export PYTHONDONTWRITEBYTECODE :=

.PHONY: install system format check lint types test test-unit test-linux test-slow fuzz test-vm demo bench clean

install: $(READY)

# System packages first: the venv module itself is one of them.
$(READY): pyproject.toml Makefile tools/system-packages
	tools/system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m compileall -q registry_client runtime builder pipeline
	touch $@

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

check: lint types

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not linux" -n 2 tests
	$(BIN)/python -m pytest -m "linux and not slow" tests

test-unit: $(READY)
	$(BIN)/python -m pytest -n 2 tests/unit

test-linux: $(READY)
	$(BIN)/python -m pytest -m "linux and not slow" tests

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow tests

# Everything that reads foreign input, a minute each (FUZZ="--seconds 600 tar add" for longer, or some targets only).
fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3,<4'
	nice $(BIN)/python -m tests.fuzz $(FUZZ)

# Control groups v2 on a kernel of Debian's, in an emulated machine; a few minutes.
test-vm: $(READY)
	tools/vm

demo: $(READY)
	examples/demo

bench: $(READY)
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
