"""A context whose run does no more than it needs to."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from sqlmesh.core import analytics
from sqlmesh.core.config import Config, DuckDBConnectionConfig
from sqlmesh.utils.errors import SQLMeshError

from sqlmesh_runner.sqlmesh_api.run_context import RunContext


@pytest.mark.parametrize(("disabled", "reports"), [(True, 0), (False, 1)])
def test_report_of_use_is_prepared_unless_it_is_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, disabled: bool, reports: int
) -> None:
    config = Config(
        default_connection=DuckDBConnectionConfig(), disable_anonymized_analytics=disabled
    )
    context = RunContext(paths=[str(tmp_path)], config=config, load=False)
    collector = Mock()
    monkeypatch.setattr(analytics, "collector", collector)
    with pytest.raises(SQLMeshError, match="'prod'"):
        context.run("prod")
    context.close()
    assert collector.on_python_api_command.call_count == reports
