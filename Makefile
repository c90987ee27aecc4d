# Two virtual environments from one lock: .venv for Dagster (no sqlmesh in it), .venv-runner for
# SQLMesh (no dagster in it).
# Needs Python 3.11 and git; uv is installed into .uv if it isn't on the PATH.

SHELL := /bin/bash
UV := $(shell command -v uv || echo .uv/bin/uv)
# Compiled at once: the first run of everything would otherwise do it. System certificates: what a
# company adds counts for uv as well.
export UV_COMPILE_BYTECODE := 1
export UV_SYSTEM_CERTS := 1
export DAGSTER_HOME := $(CURDIR)/.dagster
export SQLMESH_RUNNER := $(CURDIR)/.venv-runner/bin/sqlmesh-runner
export SQLMESH__DISABLE_ANONYMIZED_ANALYTICS := true
# Seconds after which a test has hung: it fails, and the others go on.
export PYTEST_TIMEOUT := 600
# The longest files come first. One worker runs all of a file: its tests share projects and runs.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
# Some machines forbid bytecode; every process would then compile SQLMesh again (2 s become 5).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo ui test test-docker test-kubernetes test-matrix test-beside golden
.PHONY: reference docs build check format bench bench-peers clean

help:  ## Show what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

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
	.venv/bin/pytest -q $(PARALLEL) tests/acceptance/schedule tests/acceptance/local \
		tests/unit/orchestrator
	.venv-runner/bin/pytest -q $(PARALLEL) tests/integration/runner tests/unit/runner

test-docker: setup  ## Run the tests that need a Docker engine
	@# The first test builds the images.
	PYTEST_TIMEOUT=1800 .venv/bin/pytest -q tests/acceptance/docker

test-kubernetes: setup  ## Run the tests that need a cluster: KUBECONFIG's
	PYTEST_TIMEOUT=1800 .venv/bin/pytest -q -n 2 --dist loadfile tests/acceptance/kubernetes \
		--ignore tests/acceptance/kubernetes/test_restarts.py
	@# Restarts of the API server: by themselves.
	PYTEST_TIMEOUT=1800 .venv/bin/pytest -q tests/acceptance/kubernetes/test_restarts.py

test-matrix: setup  ## Run the runner's tests with every SQLMesh version it supports
	UV=$(UV) tests/matrix.sh

test-beside: setup  ## Run the example with dagster-dlt and dagster-dbt
	UV=$(UV) tests/beside.sh

golden: setup  ## Write the golden manifest and streams of tests/contract; read the difference
	.venv-runner/bin/python tests/contract/generate.py
	git diff --stat tests/contract

check: setup  ## Check style, layers and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	PYTHONPATH=runner/src .venv/bin/lint-imports
	.venv/bin/mypy orchestrator/src tests/unit/orchestrator tests/acceptance tests/typing
	.venv-runner/bin/mypy runner/src tests/unit/runner tests/integration/runner
	.venv/bin/python tests/documentation.py .mypy_cache/documentation
	.venv/bin/mypy .mypy_cache/documentation
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*
	.venv/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*
	.venv/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yaml
	.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

format: setup  ## Format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

reference: setup  ## Write the reference pages of options and command line
	.venv/bin/python docs/generate_options.py
	.venv-runner/bin/python docs/generate_cli.py

docs: $(filter .uv/bin/uv,$(UV))  ## Build the documentation into site/; every warning fails
	UV_PROJECT_ENVIRONMENT=.venv-docs $(UV) sync --quiet --locked --only-group docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

build: setup  ## Build both packages, and follow the quickstart and the demo with them
	UV=$(UV) tests/packages.sh dist

bench: setup  ## Measure, side by side in one run; ARGS="--only due --models 100"
	.venv/bin/python benchmarks/run.py $(ARGS)

bench-peers: setup  ## Measure dg-sqlmesh and dagster-sqlmesh beside it
	UV=$(UV) .venv/bin/python benchmarks/peers.py $(ARGS)

clean:  ## Remove what the demo and the tests made
	rm -rf .dagster .pytest_cache .mypy_cache .ruff_cache .venv-peers
	cd examples/shop && rm -rf *.db *.db.wal .cache logs .sqlmesh-pipes
