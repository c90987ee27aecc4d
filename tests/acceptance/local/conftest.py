"""Deployments of projects of one test's own."""

from collections.abc import Callable
from functools import partial

import pytest
from acceptance.local.deployment import Deployment
from acceptance.local.planned import deploy_planned

Deploy = Callable[..., Deployment]


@pytest.fixture
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Deploy:
    """Deploy a planned project."""
    return partial(deploy_planned, tmp_path_factory=tmp_path_factory)
