#!/usr/bin/env bash
# Build both packages, check their metadata, follow the quickstart with them from empty
# environments to a scheduled run, and run the demo in these environments.
#
#   tests/packages.sh [FOLDER]     FOLDER: where the packages go (default: dist)
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-uv}
dist=$(realpath -m "${1:-dist}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONDONTWRITEBYTECODE VIRTUAL_ENV
export UV_COMPILE_BYTECODE=1 SQLMESH__DISABLE_ANONYMIZED_ANALYTICS=true

rm -rf "$dist"
"$uv" build --quiet --all-packages --out-dir "$dist"
"$uv" tool run --quiet twine check --strict "$dist"/*

.venv/bin/python tests/quickstart.py "$work/quickstart" "$dist"
dagster=$work/quickstart/dagster-env/bin
sqlmesh=$work/quickstart/sqlmesh-env/bin

# absent ENVIRONMENT MODULE: the two sides never meet
absent() {
  if "$1/python" -c "import $2" 2>/dev/null; then
    echo "$1 has $2 in it" >&2
    exit 1
  fi
}
absent "$dagster" sqlmesh
absent "$sqlmesh" dagster

# The demo writes its raw tables from a Dagster asset, with DuckDB.
"$dagster/pip" install --quiet "duckdb<2"

cp -r examples "$work/examples"
mkdir "$work/home"
cp examples/dagster.yaml "$work/home/"
DAGSTER_HOME=$work/home SQLMESH_RUNNER=$sqlmesh/sqlmesh-runner \
  "$dagster/python" "$work/examples/demo.py"
ls -l "$dist"
