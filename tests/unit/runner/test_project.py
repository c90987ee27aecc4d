"""What can be known of a project before anything is opened."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sqlmesh_runner.sqlmesh_api.databases import files_of
from sqlmesh_runner.sqlmesh_api.run_scope import path_in_project


def _duckdb(**settings: Any) -> Any:
    return SimpleNamespace(type_="duckdb", **settings)


def test_duckdb_connection_has_its_database_and_attached_files() -> None:
    assert files_of(_duckdb(database="one.duckdb")) == [Path("one.duckdb")]
    catalogs = {"a": "one.duckdb", "b": "/two.duckdb"}
    assert files_of(_duckdb(database=None, catalogs=catalogs)) == [
        Path("one.duckdb"),
        Path("/two.duckdb"),
    ]


@pytest.mark.parametrize(
    "connection",
    [
        _duckdb(database=None),
        _duckdb(database=":memory:"),
        _duckdb(
            database=None, catalogs={"cloud": "md:warehouse", "bucket": "s3://bucket/file.duckdb"}
        ),
        _duckdb(
            database=None,
            catalogs={"erp": SimpleNamespace(type="postgres", path="dbname=erp host=db")},
        ),
        SimpleNamespace(type_="postgres", database="shop"),
    ],
)
def test_connection_to_elsewhere_has_no_files(connection: Any) -> None:
    assert files_of(connection) == []


def test_path_of_another_machine_is_found_in_project(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "orders.sql").touch()
    context: Any = SimpleNamespace(configs={tmp_path: None})

    assert (
        path_in_project(context, Path("/elsewhere/shop/models/orders.sql")) == "models/orders.sql"
    )
    assert (
        path_in_project(context, Path("/elsewhere/shop/models/gone.sql"))
        == "/elsewhere/shop/models/gone.sql"
    )
    assert path_in_project(context, None) is None
