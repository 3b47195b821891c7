# Set-up and checks. Every target makes the environment it needs in .venv:
#     make demo     make test     make PYTHON=python3.12 test

VENV ?= .venv
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
ifndef PYTHON
PYTHON := $(firstword $(foreach name,python3 python3.11 python3.12 python3.13,\
	$(shell $(name) -c '$(SUPPORTED)' 2>/dev/null && echo $(name))))
endif

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUNTIME := $(VENV)/.latlut-runtime
DEV := $(VENV)/.latlut-dev
DOCS := $(VENV)/.latlut-docs
SETUP := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types wheel docs bench clean

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: $(RUNTIME) ## the whole loop, small, on this machine: latlut quickstart
	$(BIN)/latlut quickstart

test: $(DEV) ## all tests that this machine can run
	$(BIN)/python -m pytest -n 2 --dist loadgroup --durations=30

lint: $(DEV) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV) ## ruff: put files into their form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV) ## mypy
	$(BIN)/mypy

wheel: $(DEV) ## dist/*.whl and dist/*.tar.gz
	rm -rf dist
	$(BIN)/python -m build --quiet --no-isolation --outdir dist .
	@ls -l dist

docs: $(DOCS) ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(DEV) ## performance benchmarks: ratios measured side by side, one process
	$(BIN)/python tests/benchmarks/bench_lookup.py
	$(BIN)/python tests/benchmarks/bench_statistic.py
	$(BIN)/python tests/benchmarks/bench_protocol.py
	$(BIN)/python tests/benchmarks/bench_data.py
	$(BIN)/python tests/benchmarks/bench_supernet.py
	$(BIN)/python tests/benchmarks/bench_penalty.py
	$(BIN)/python tests/benchmarks/bench_predict.py

clean: ## remove packages and caches; the environment stays (rm -rf .venv)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) -c '$(SUPPORTED)'; then \
		echo "latlut needs Python 3.11, 3.12 or 3.13; found $(or $(PYTHON),none of them on PATH);" \
			"name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; fi
	@$(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
		rm -rf $(VENV); exit 1; }

$(RUNTIME): $(SETUP) | $(BIN)/python
	@$(BIN)/python -c '$(SUPPORTED)' || { \
		echo "$(VENV) holds a Python that latlut does not run on; remove it: rm -rf $(VENV)" >&2; exit 1; }
	@echo "installing latlut into $(VENV) (once, some minutes)"
	$(INSTALL) --editable .
	@touch $@

$(DEV): $(SETUP) | $(BIN)/python
	@$(BIN)/python -c '$(SUPPORTED)' || { \
		echo "$(VENV) holds a Python that latlut does not run on; remove it: rm -rf $(VENV)" >&2; exit 1; }
	@echo "installing latlut and its development tools into $(VENV) (once, some minutes)"
	$(INSTALL) --editable ".[dev]"
	@touch $(RUNTIME) $@

$(DOCS): $(DEV)
	@echo "installing the tools that make the documentation (once)"
	$(INSTALL) --editable ".[docs,notebook]"
	@touch $@
