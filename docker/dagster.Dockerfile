# Dagster: webserver, daemon, code location and run workers are this one image with different
# commands. There is no SQLMesh in it.
#
#   docker build -f docker/dagster.Dockerfile -t shop-dagster .

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Dagster's packages pin each other, and an index has only some of a release for a while.
ARG DAGSTER_VERSION=1.13.27
ARG DAGSTER_LIBRARIES_VERSION=0.29.27
RUN python -m venv --without-pip /opt/venv
COPY orchestrator/pyproject.toml /src/orchestrator/
# One layer for all that changes seldom. dagster-postgres 0.29 is broken with SQLAlchemy 2.1.
# dagster-docker and dagster-k8s are here for their run launchers only.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -c "import tomllib; p = tomllib.load(open('/src/orchestrator/pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['docker'], *p['optional-dependencies']['kubernetes'], sep='\n')" > /src/requirements.txt \
 && pip --python /opt/venv/bin/python install -r /src/requirements.txt \
    "dagster==${DAGSTER_VERSION}" "dagster-webserver==${DAGSTER_VERSION}" \
    "dagster-postgres==${DAGSTER_LIBRARIES_VERSION}" "dagster-docker==${DAGSTER_LIBRARIES_VERSION}" \
    "dagster-k8s==${DAGSTER_LIBRARIES_VERSION}" "sqlalchemy<2.1"

FROM ${BASE} AS package
COPY orchestrator /src/orchestrator
RUN pip wheel --no-deps --wheel-dir /wheels /src/orchestrator

FROM ${BASE}
# The logs' folder is everybody's: a named volume takes its mode from here.
RUN useradd --uid 10001 --create-home dagster \
 && install --directory --owner=dagster /opt/dagster /opt/dagster/logs
COPY --from=build /opt/venv /opt/venv
# A small layer of its own over the large one.
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    PYTHONDONTWRITEBYTECODE=1 pip --python /opt/venv/bin/python install --no-deps --no-cache-dir /wheels/*.whl
COPY docker/dagster.yaml docker/workspace.yaml docker/entrypoint.sh /opt/dagster/
COPY docker/daemon_is_alive.py docker/definitions.py examples/shop/raw_data.py /opt/dagster/app/
ENV PATH=/opt/venv/bin:${PATH} \
    HOME=/home/dagster \
    PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/opt/dagster
# By number: Kubernetes compares it where a pod must not run as root.
USER 10001
WORKDIR /opt/dagster/app
ENTRYPOINT ["/opt/dagster/entrypoint.sh"]
CMD ["dagster-webserver", "--host", "0.0.0.0", "--port", "3000", "--workspace", "/opt/dagster/workspace.yaml"]
