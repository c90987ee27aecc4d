# SQLMesh, the runner and (in the target `project`) a project: what DockerLauncher and KubernetesLauncher start.
#
#   docker build -f docker/runner.Dockerfile --target runner -t sqlmesh-runner .                  # the project is mounted on /project
#   docker build -f docker/runner.Dockerfile --build-arg PROJECT=examples/shop -t shop-runner .   # the project is in the image
#
# There is no HEALTHCHECK: a runner that works is busy, and one that does not has ended.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# SQLMesh refuses a state of another minor version, so the image's version is the project's.
ARG SQLMESH_VERSION=0.236.4
# SQLMesh's extras, with commas: postgres,snowflake,bigquery,… (pip's names: sqlmesh[…]).
ARG EXTRAS=
# Whatever else the project's Python models and macros import, with spaces.
ARG PACKAGES=

RUN python -m venv --without-pip /opt/runner
COPY runner/pyproject.toml /src/runner/
# One layer for all that changes seldom. `sqlmesh[postgres]` asks for psycopg2, which has no wheels; psycopg2-binary is the same module.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -c "import tomllib; print(*tomllib.load(open('/src/runner/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > /src/requirements.txt \
 && extras=$(echo "${EXTRAS}" | tr -d ' ' | tr ',' '\n' | grep -vx postgres | paste -sd, -) \
 && case ",${EXTRAS}," in *postgres,*) driver=psycopg2-binary ;; *) driver= ;; esac \
 && pip --python /opt/runner/bin/python install -r /src/requirements.txt "sqlmesh[${extras}]==${SQLMESH_VERSION}" ${driver} ${PACKAGES} \
 && cd /opt/runner/lib/python3*/site-packages && rm -rf pandas/tests numpy/*/tests numpy/tests

FROM ${BASE} AS package
COPY runner /src/runner
RUN pip wheel --no-deps --wheel-dir /wheels /src/runner

FROM ${BASE} AS runner
RUN useradd --uid 10001 --create-home runner \
 && install --directory --owner=runner /project /manifest \
 && install --directory --mode=1777 /var/cache/sqlmesh
COPY --from=build /opt/runner /opt/runner
# A small layer of its own over the large one.
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    PYTHONDONTWRITEBYTECODE=1 pip --python /opt/runner/bin/python install --no-deps --no-cache-dir /wheels/*.whl
# The root file system may be read-only, with a tmpfs on /tmp and a volume on the cache: byte code is compiled by pip above, SQLMesh makes a
# folder in its home even when analytics are off, and keeps its parsed models in the cache, where the next run finds them.
ENV PATH=/opt/runner/bin:${PATH} \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SQLMESH__CACHE_DIR=/var/cache/sqlmesh \
    SQLMESH__DISABLE_ANONYMIZED_ANALYTICS=true
# By number: Kubernetes compares it where a pod must not run as root.
USER 10001
WORKDIR /project
ENTRYPOINT ["sqlmesh-runner"]

FROM runner AS project
ARG PROJECT=examples/shop
COPY ${PROJECT} /project
