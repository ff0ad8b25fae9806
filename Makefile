# make demo and make test set up everything they need in .venv; they want Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(shell command -v uv 2>/dev/null)
JOBS   ?= 2
BENCH_JSON ?= build/bench
BENCHMARKS := world coding wire undetected goodput security sim_speed delivery boot abft worker

ifdef UV
INSTALL = $(UV) pip install --quiet --python $(BIN)/python
else
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-emulated test-real-time test-nightly test-card test-all lint types bench docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "flatrack needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3.12 ..."; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "could not create $(VENV); on Debian or Ubuntu: apt-get install python3-venv"; exit 2; }

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) ..."
	@$(INSTALL) -e '.[ai,broker]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) with the tools of development ..."
	@$(INSTALL) -e '.[ai,broker,dev]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run  ## twelve satellites run real AI jobs through impaired links
	@$(BIN)/flatrack run three-body-12

lint: $(VENV)/.dev  ## style, banned calls, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

test: lint types  ## linters, types, contracts, tests and a short soak
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not real_time and not emulated"

test-slow: $(VENV)/.dev  ## what needs minutes: 40 randomised seeds, other Pythons, power cuts on real files
	$(BIN)/python -m pytest -n $(JOBS) -m "slow and not nightly and not real_time and not emulated"

test-real-time: $(VENV)/.dev  ## the twelve-node scenario as processes: over ptys, mosquitto, NATS, and mixed
	$(BIN)/python -m pytest -m real_time

test-emulated: $(VENV)/.dev  ## arm64 boards under QEMU: image, restores, recoveries, RAM flips, mixed run
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m emulated tests/emulated

test-nightly: $(VENV)/.dev test-card  ## what no change waits for: 200 randomised seeds, the first boot of a prepared card
	$(BIN)/python -m pytest -m nightly

test-card: $(VENV)/.dev  ## a prepared card's first boot under QEMU; as root; its root file system takes up to an hour once
	$(BIN)/python scripts/nightly_card.py

test-all: test test-slow test-emulated test-real-time  ## all that a change must pass

bench: $(VENV)/.dev  ## run every benchmark; figures also as JSON in build/bench
	@mkdir -p $(BENCH_JSON)
	@for name in $(BENCHMARKS); do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py --json $(BENCH_JSON)/$$name.json || exit 1; done

docs: $(VENV)/.dev  ## print the generated tables into docs/, and the dictionary's names
	$(BIN)/python scripts/print_dictionary.py
	$(BIN)/python scripts/print_docs.py
	$(BIN)/python scripts/print_tour.py

clean:  ## forget the environment, caches and runs
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
