"""The resource of the schedule's tests."""

import pytest
from unit.orchestrator.schedule.evaluation import MODELS
from unit.orchestrator.shop import Make

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.testing import FakeLauncher


@pytest.fixture
def resource(make_resource: Make) -> SQLMeshResource:
    return make_resource(FakeLauncher(), MODELS)
