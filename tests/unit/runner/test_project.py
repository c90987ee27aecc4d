"""What can be known of a project before anything is opened."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sqlmesh_runner.project import _missing_files, path_in_project


def _duckdb(**settings: Any) -> Any:
    return SimpleNamespace(type_="duckdb", **settings)


def test_a_duckdb_file_that_is_not_there_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.duckdb").touch()

    assert _missing_files(_duckdb(database="there.duckdb")) == []
    assert _missing_files(_duckdb(database="gone.duckdb")) == [tmp_path / "gone.duckdb"]
    assert _missing_files(_duckdb(database=None, catalogs={"a": "there.duckdb", "b": "gone.duckdb"})) == [tmp_path / "gone.duckdb"]


@pytest.mark.parametrize(
    "connection",
    [
        _duckdb(database=None),
        _duckdb(database=":memory:"),
        _duckdb(database=None, catalogs={"cloud": "md:warehouse", "bucket": "s3://bucket/file.duckdb"}),
        _duckdb(database=None, catalogs={"erp": SimpleNamespace(type="postgres", path="dbname=erp host=db")}),
        SimpleNamespace(type_="postgres", database="shop"),
    ],
)
def test_what_is_no_file_of_this_machine_is_not_looked_for(connection: Any) -> None:
    assert _missing_files(connection) == []


def test_a_path_of_the_machine_that_planned_is_found_in_the_project_here(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "orders.sql").touch()
    context: Any = SimpleNamespace(configs={tmp_path: None})

    assert path_in_project(context, Path("/elsewhere/shop/models/orders.sql")) == "models/orders.sql"
    assert path_in_project(context, Path("/elsewhere/shop/models/gone.sql")) == "/elsewhere/shop/models/gone.sql"
    assert path_in_project(context, None) is None
