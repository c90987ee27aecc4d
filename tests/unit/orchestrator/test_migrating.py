"""Code locations like other integrations' samples, changed as docs/how-to/migrating.md says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import Make, fqn, model

from dagster_sqlmesh_pipes import (
    SQLMeshProject,
    SQLMeshResource,
    SQLMeshRunConfig,
    SQLMeshTranslator,
    sqlmesh_assets,
    sqlmesh_assets_factory,
)
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.testing import FakeLauncher, finished, materialization

MODELS = [
    model("sqlmesh_example.full_model", depends_on=[fqn("sources.test_source")]),
    model("marts.other", depends_on=[fqn("sqlmesh_example.full_model")]),
]


class Rewritten(SQLMeshTranslator):
    """A translator of dagster-sqlmesh's sample: no catalog, a prefix for one schema."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def get_asset_key(self, model: Any) -> dg.AssetKey:
        schema = self.prefix if model.schema_name == "sqlmesh_example" else model.schema_name
        return dg.AssetKey([schema, model.view_name])

    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        return dg.AssetKey(self.get_asset_key_name(external_fqn)[-2:])

    def get_group_name(self, context: Any, model: Any) -> str:
        return self.prefix


def test_dagster_sqlmeshs_sample_runs(make_resource: Make) -> None:
    launcher = FakeLauncher(
        messages=[materialization("prefix/full_model"), materialization("marts/other"), finished()]
    )
    made = make_resource(launcher, MODELS, translator=Rewritten("prefix"))
    greetings: list[str] = []

    @dg.asset(key=["sources", "test_source"])
    def test_source() -> None: ...

    @dg.asset(deps=[dg.AssetKey(["prefix", "full_model"])])
    def post_full_model() -> None: ...

    @sqlmesh_assets(
        project=SQLMeshProject(manifest_path=Path(str(made.manifest_path))),
        translator=Rewritten("prefix"),
    )
    def sqlmesh_project(
        context: dg.AssetExecutionContext,
        config: SQLMeshRunConfig,
        sqlmesh: SQLMeshResource,
        greeting: dg.ResourceParam[str],
    ) -> Iterator[Any]:
        greetings.append(greeting)
        yield from sqlmesh.run(context, config)

    assets = [sqlmesh_project, test_source, post_full_model]
    result = dg.materialize(assets, resources={"sqlmesh": made, "greeting": "hello"})

    assert result.success
    keys = {
        event.asset_key.to_user_string()
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert keys == {"sources/test_source", "prefix/full_model", "marts/other", "post_full_model"}
    spec = sqlmesh_project.get_asset_spec(dg.AssetKey(["prefix", "full_model"]))
    assert [dep.asset_key.to_user_string() for dep in spec.deps] == ["sources/test_source"]
    assert (spec.group_name, "sqlmesh" in spec.kinds) == ("prefix", True)
    assert greetings == ["hello"]


def test_dg_sqlmeshs_assets_are_a_list(make_resource: Make) -> None:
    made = make_resource(FakeLauncher(), MODELS)
    owned = sqlmesh_assets_factory(sqlmesh_resource=made, owners=["team:data-team"])
    defs = dg.Definitions(assets=[*owned])
    owners = {owner for spec in defs.resolve_all_asset_specs() for owner in spec.owners}
    assert "team:data-team" in owners


def test_owner_refused_by_dagster_names_an_accepted_one(
    make_resource: Make,
) -> None:
    made = make_resource(FakeLauncher(), MODELS)
    with pytest.raises(ConfigurationError, match="such as \\['team:data-team'\\]"):
        sqlmesh_assets_factory(sqlmesh_resource=made, owners=["data-team"])
