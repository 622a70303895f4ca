# Everything that is done with Turnout by hand. `make` alone lists it.
# Needs Python 3.11 or newer (with venv) and make; all else is installed into .venv.

PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; exit; }; done; echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
RUNS := $(VENV)/.turnout-runs
DEVELOPS := $(VENV)/.turnout-develops
WORKERS ?= 2
SEED ?= $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check format bench docs pins clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEVELOPS) ## Install Turnout and its development tools into .venv (done by the others when needed)

demo: $(RUNS) ## See it work: a daemon on real shop data, with audiences, a destination and the console
	@$(BIN)/turnout demo $(DEMO)

test: check ## All checks and all quick tests; minutes on two cores
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-all: check ## The tests again with random seeds, and the long ones: crashes, browser, big worlds
	@echo "seed $(SEED): make test-all SEED=$(SEED) draws the same"
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --hypothesis-profile=draw --hypothesis-seed=$(SEED)

check: $(DEVELOPS) ## Lint, formatting, types and the direction of imports, without running a test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEVELOPS) ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEVELOPS) ## Measure throughput, latency and memory beside their limits (BENCH=ingest for one)
	$(BIN)/python -m scenarios.benchmarks $(or $(BENCH),all)

docs: $(DEVELOPS) ## Write the generated pages of docs/ anew
	$(BIN)/python -m scenarios.cli_reference > docs/cli.md
	$(BIN)/python -m scenarios.demo_picture docs/img/demo.svg

pins: ## Write constraints.txt anew from what a fresh installation gets today
	rm -rf $(VENV)-pins && $(PYTHON) -m venv $(VENV)-pins
	$(VENV)-pins/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	{ sed -n '/^#/p' constraints.txt; $(VENV)-pins/bin/python -m pip freeze --exclude turnout; } > constraints.new
	mv constraints.new constraints.txt && rm -rf $(VENV)-pins

clean: ## Remove .venv and everything that tools left behind
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# -- installing ------------------------------------------------------------------------------------------------------

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Turnout needs Python 3.11 or newer: no $(PYTHON) found." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Turnout needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Say which: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "This Python has no venv module. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(RUNS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Turnout into $(VENV) (once; a minute or so) ..."
	@$(PIP) --editable .
	@touch $@

$(DEVELOPS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Turnout and its development tools into $(VENV) (once; a minute or two) ..."
	@$(PIP) --editable '.[dev]'
	@touch $(RUNS) $@
