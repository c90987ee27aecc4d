"""The sensor over a project of three models."""

import dagster as dg
import pytest
from unit.orchestrator.shop import Make, fqn, model
from unit.orchestrator.state.states import Evaluations, StateLauncher

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.state import sqlmesh_state_sensor_factory

MODELS = [
    model("raw.seed", kind={"name": "SEED"}, interval_unit="day"),
    model("staging.events", interval_unit="day", depends_on=[fqn("raw.seed")]),
    model("marts.orders", interval_unit="day", depends_on=[fqn("staging.events")]),
]


@pytest.fixture
def launcher() -> StateLauncher:
    return StateLauncher()


@pytest.fixture
def resource(make_resource: Make, launcher: StateLauncher) -> SQLMeshResource:
    return make_resource(launcher, MODELS)


@pytest.fixture
def sensor(resource: SQLMeshResource, instance: dg.DagsterInstance) -> Evaluations:
    return Evaluations(sqlmesh_state_sensor_factory(sqlmesh_resource=resource), instance)
