# Two virtual environments from one lock: .venv for Dagster (no sqlmesh in it), .venv-runner for SQLMesh (no dagster in it).
# Needs Python 3.11 and git; uv is installed into .uv if it isn't on the PATH.

SHELL := /bin/bash
UV := $(shell command -v uv || echo .uv/bin/uv)
# Compiled at once: the first run of everything would otherwise do it. System certificates: what a company adds counts for uv as well.
export UV_COMPILE_BYTECODE := 1
export UV_SYSTEM_CERTS := 1
export DAGSTER_HOME := $(CURDIR)/.dagster
export SQLMESH_RUNNER := $(CURDIR)/.venv-runner/bin/sqlmesh-runner
export SQLMESH__DISABLE_ANONYMIZED_ANALYTICS := true
# Seconds after which a test has hung: it fails, and the others go on.
export PYTEST_TIMEOUT := 600
# Some machines forbid bytecode; every process would then compile SQLMesh again (2 s become 5).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo ui test test-docker test-matrix check format bench clean

help:  ## Show what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv

setup: $(filter .uv/bin/uv,$(UV))  ## Make both environments
	@$(UV) sync --quiet --locked --package dagster-sqlmesh-pipes
	@UV_PROJECT_ENVIRONMENT=.venv-runner $(UV) sync --quiet --locked --package sqlmesh-runner

demo: setup  ## Plan the example project on DuckDB, run it through Dagster, show what happened
	@mkdir -p $(DAGSTER_HOME) && cp examples/dagster.yaml $(DAGSTER_HOME)/
	@.venv/bin/python examples/demo.py

ui: setup  ## Open the example in Dagster's UI on http://localhost:3000
	@mkdir -p $(DAGSTER_HOME) && cp examples/dagster.yaml $(DAGSTER_HOME)/
	.venv/bin/dagster dev -f examples/shop/definitions.py

test: setup  ## Run every test that needs no engine
	.venv/bin/pytest -q tests/unit/orchestrator tests/acceptance/local tests/acceptance/schedule
	.venv-runner/bin/pytest -q tests/unit/runner tests/integration/runner

test-docker: setup  ## Run the tests that need a Docker engine
	PYTEST_TIMEOUT=1800 .venv/bin/pytest -q tests/acceptance/docker  # the first test builds the images

test-matrix: setup  ## Run the runner's tests with every SQLMesh version it supports
	UV=$(UV) tests/matrix.sh

check: setup  ## Check style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy orchestrator/src tests/unit/orchestrator tests/acceptance tests/typing
	.venv-runner/bin/mypy runner/src tests/unit/runner tests/integration/runner

format: setup  ## Format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: setup  ## Measure, side by side in one run
	.venv/bin/python benchmarks/run.py

clean:  ## Remove what the demo and the tests made
	rm -rf .dagster .pytest_cache .mypy_cache .ruff_cache
	cd examples/shop && rm -rf *.db *.db.wal .cache logs .sqlmesh-pipes
