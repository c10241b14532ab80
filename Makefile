.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs-installed
ARGS ?=
# Two busy BLAS threads on a shared machine can be a hundred times slower than one.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: help install compare test lint fast slow browser-test attack boundscheck interop ranges docs clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(STAMP): requirements.lock setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(DOCS_STAMP): $(STAMP) requirements-docs.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	touch $@

install: $(STAMP)  ## build .venv from requirements.lock

compare: $(STAMP)  ## train and compare the agents on synthetic sessions; more options: make compare ARGS="--help"
	$(BIN)/musicbox compare $(ARGS)

# Side by side: mypy takes one core for a minute.
test: $(STAMP)  ## lint, types, import boundaries, fast tests
	$(MAKE) -j 2 lint fast

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Halves that lie together: a fixture of a module is made once, not by both.
fast: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal

slow: $(DOCS_STAMP) boundscheck attack  ## the tests that take minutes, attacks and those with bounds checks among them
	$(BIN)/pytest -m slow --ignore tests/attack

browser-test: $(STAMP)  ## the page of musicbox serve in the system's Chromium; skipped without one
	$(BIN)/pytest -m browser tests/experiments/serve

attack: $(STAMP)  ## tampered files, kills, full disks, killed workers: twenty minutes
	$(BIN)/pytest -n 2 -m slow tests/attack

# Machine code with checks lies apart; numba would take it for that without.
boundscheck: $(STAMP)  ## the fast tests of the environment, every index in compiled kernels checked
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(abspath .boundscheck_cache) $(BIN)/pytest -n 2 tests/env tests/attack

interop: $(STAMP)  ## train with other libraries, each in an environment of its own under .interop: hours
	$(BIN)/python tests/interop/run.py $(ARGS)

ranges: $(STAMP)  ## tests of the environment with the lowest and newest versions of what it needs
	$(BIN)/python tests/interop/ranges.py $(ARGS)

docs: $(DOCS_STAMP)  ## build the site in build/docs and execute its notebooks; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs

clean:  ## remove .venv and caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .boundscheck_cache .interop
