#!/usr/bin/env bash
# Run the example with dagster-dlt and dagster-dbt in one code location, in an environment of its
# own: they need other versions of much than SQLMesh and this repository's lock do.
#
#   tests/beside.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-uv}
unset PYTHONDONTWRITEBYTECODE VIRTUAL_ENV
export UV_COMPILE_BYTECODE=1
[[ -x .venv-beside/bin/python ]] || "$uv" venv --quiet --python .venv/bin/python .venv-beside
"$uv" pip install --quiet --python .venv-beside/bin/python --editable orchestrator \
  --requirement examples/dlt_and_dbt/requirements.txt \
  'pytest>=8.3' 'pytest-timeout>=2.4' 'pytest-rerunfailures>=15' 'hypothesis>=6.100'
.venv-beside/bin/python -m pytest -q tests/acceptance/beside "$@"
