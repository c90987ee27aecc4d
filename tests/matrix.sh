#!/usr/bin/env bash
# Run the runner's tests with every SQLMesh version that it supports, one environment each, and
# with dbt; import the orchestrator with the oldest versions that it allows of what it needs.
#
#   tests/matrix.sh                                   all versions, then dbt
#   SQLMESH_VERSIONS="0.220.3" tests/matrix.sh        this one
#   SQLMESH_VERSIONS="0.220 dbt" tests/matrix.sh      its latest patch; the newest with dbt
#   tests/matrix.sh -k "test_kinds"                   arguments go to pytest
#   MATRIX_ONLY_PREPARE=1 tests/matrix.sh             only make the environments
#
# The newest SQLMesh is what `make test` runs with, from the lock.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-uv}
python=${MATRIX_PYTHON:-3.11}  # old SQLMesh does not support the newest Python
read -ra versions <<<"${SQLMESH_VERSIONS:-0.180 0.200 0.220 dbt}"
unset PYTHONDONTWRITEBYTECODE VIRTUAL_ENV
export UV_COMPILE_BYTECODE=1 SQLMESH__DISABLE_ANONYMIZED_ANALYTICS=true PYTEST_TIMEOUT=600

# Print what an environment needs besides the runner, one requirement a line.
requirements() {
  printf '%s\n' 'pytest>=8.3' 'pytest-timeout>=2.4' 'pytest-rerunfailures>=15' \
    'pytest-xdist>=3.7' 'hypothesis>=6.100' 'psycopg2-binary>=2.9'
  case $1 in
    # dbt-core 1.12 fetches a binary while it is installed.
    dbt) printf '%s\n' 'sqlmesh[dbt]' 'dbt-core<1.12' dbt-duckdb ;;
    *.*.*) echo "sqlmesh==$1" ;;
    *) echo "sqlmesh==$1.*" ;;
  esac
}

# Make the environment of a version, or change it to what it should be.
prepare() {
  local folder=.venv-matrix/$1 wanted
  [[ -x $folder/bin/python ]] || "$uv" venv --quiet --python "$python" "$folder"
  mapfile -t wanted < <(requirements "$1")
  "$uv" pip install --quiet --python "$folder/bin/python" --editable runner "${wanted[@]}"
}

oldest=.venv-matrix/oldest/bin/python
[[ -x $oldest ]] || "$uv" venv --quiet --python "$python" .venv-matrix/oldest
"$uv" pip install --quiet --python "$oldest" --resolution lowest-direct \
  --editable "orchestrator[docker]"
"$oldest" -W ignore \
  -c 'import dagster_sqlmesh_pipes.launchers.docker, dagster_sqlmesh_pipes.testing'

failed=()
for version in "${versions[@]}"; do
  folder=.venv-matrix/$version
  prepare "$version"
  echo "== $version: SQLMesh $("$folder/bin/python" \
    -c 'import importlib.metadata as m; print(m.version("sqlmesh"))')"
  suites=(tests/unit/runner tests/integration/runner)
  if [[ $version == dbt ]]; then suites=(tests/integration/runner/test_dbt.py); fi
  if [[ -n ${MATRIX_ONLY_PREPARE:-} ]]; then continue; fi
  "$folder/bin/python" -m pytest -q -n auto "${suites[@]}" "$@" || failed+=("$version")
done

if ((${#failed[@]})); then
  echo "failed with: ${failed[*]}" >&2
  exit 1
fi
