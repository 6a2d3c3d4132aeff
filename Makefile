# `make demo` and `make test` do all set-up themselves; they need Python 3.10 or newer and network access for pip.

PYTHON ?= python3
MODEL  ?= digits_mlp
JOBS   ?= auto
ARGS   ?=

BIN := .venv/bin
# Two stamps, so that the demo installs nothing that only the tests need.
RUNTIME := .venv/.stamp-runtime
DEV     := .venv/.stamp-dev
PEERS   := .peers/.stamp

DEMO = $(BIN)/nnc train models/$(MODEL).nn --data models/data/digits.npz \
	--weights-out out/$(MODEL).npz --artifact out/$(MODEL).so --report-stages --test

.DEFAULT_GOAL := help
.PHONY: help venv demo test check peers fuzz bench tables clean
.DELETE_ON_ERROR:

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  variables: PYTHON=$(PYTHON) MODEL=$(MODEL) JOBS=$(JOBS) ARGS=$(ARGS)"

venv: $(DEV)  ## create .venv with the project (editable) and the development tools

demo: $(RUNTIME)  ## compile a model, train it on the bundled digits, report test accuracy (MODEL=name)
	@mkdir -p out
	$(DEMO)

test: $(DEV)  ## run the whole test suite (JOBS=number of processes)
	$(BIN)/python -m pytest -n $(JOBS)

check: $(DEV)  ## ruff and mypy strict
	$(BIN)/ruff check .
	$(BIN)/mypy

peers: $(DEV) $(PEERS)  ## create .peers; compare layers and training with PyTorch: tests/data/, docs/layers.md, docs/training.md
	.peers/bin/python -W ignore benchmarks/peers_layers.py arrays
	$(BIN)/python benchmarks/peers_layers.py table
	.peers/bin/python -W ignore benchmarks/peers_training.py arrays
	$(BIN)/python benchmarks/peers_training.py table

fuzz: $(DEV) $(PEERS)  ## compare 500 random graphs and their gradients with PyTorch (ARGS="--first N --count M")
	$(BIN)/python -m tests.fuzz_torch $(ARGS)

bench: $(RUNTIME) $(PEERS)  ## compare with them, alone on the machine (ARGS="--quick --model mlp,tiny")
	$(BIN)/python benchmarks/run.py $(ARGS)

tables: $(RUNTIME) $(PEERS)  ## the further tables of docs/benchmarks/, alone on the machine
	for table in contraction compile_time startup overhead scaling; do \
	  $(BIN)/python benchmarks/$$table.py --write || exit 1; done

clean:  ## remove what was built, but not .venv and .peers
	rm -rf out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +

$(RUNTIME): pyproject.toml
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "error: expected Python 3.10 or newer, but found no '$(PYTHON)'"; \
	  echo "  help: install it, or name one: make PYTHON=/path/to/python3.12"; exit 1; } >&2
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "error: expected Python 3.10 or newer, but '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1)"; \
	  echo "  help: name a newer one: make PYTHON=/path/to/python3.12"; exit 1; } >&2
	@"$(PYTHON)" -m venv .venv || { \
	  echo "error: '$(PYTHON)' cannot create a virtual environment"; \
	  echo "  help: on Debian and Ubuntu, install the package python3-venv"; exit 1; } >&2
	@# Editable installs from pyproject.toml alone came with pip 21.3; Python 3.10.0 bundles an older one.
	$(BIN)/python -m pip install --quiet 'pip>=21.3'
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(PEERS): benchmarks/requirements-peers.txt | $(RUNTIME)
	@"$(PYTHON)" -m venv .peers
	.peers/bin/python -m pip install --quiet 'pip>=21.3'
	.peers/bin/python -m pip install --quiet --upgrade --requirement $<
	@touch $@

$(DEV): $(RUNTIME)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
