# `make demo` and `make test` install everything first when needed.
PYTHON ?= python3
BIN := .venv/bin
# The versions to install: CONSTRAINTS= takes the newest ones, CONSTRAINTS=constraints-lowest.txt the oldest.
CONSTRAINTS ?= constraints.txt
# What to run: make test TESTS=tests/core.
TESTS ?=
# Tests run in one process for each core, with one thread in each (tests/conftest.py).
JOBS ?= auto
# Threads that wait by spinning bring each other to a standstill where others use the cores too.
export OMP_WAIT_POLICY ?= passive
# The processes that tests start read what the first one has compiled.
export PYTHONDONTWRITEBYTECODE =

.PHONY: setup demo test coverage lint docs bench

setup: .venv/installed

.venv/installed: setup.cfg setup.py pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/python experiments/feature_viz.py

test: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(TESTS)

coverage: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal --cov --cov-report term:skip-covered $(TESTS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, docs/_build/html/index.html: the scripts of the gallery run, and a warning is an error.
docs: setup
	$(BIN)/pip install --quiet --editable ".[docs]"
	MPLBACKEND=Agg $(BIN)/python -m sphinx -W --keep-going --builder html docs docs/_build/html

# torch-lucent asks for kornia <= 0.4.1, but the parts that are measured run with the current one.
bench: setup
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,benchmarks]"
	$(BIN)/pip install --quiet --no-deps --requirement benchmarks/requirements.txt
	set -e; for script in $(filter-out %/timing.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done
