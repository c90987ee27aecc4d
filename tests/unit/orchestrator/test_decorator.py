"""Assets of `@sqlmesh_assets` and the resource that runs them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from unit.orchestrator.shop import SHOP, Make, materialized, step_error

from dagster_sqlmesh_pipes import SQLMeshResource, SQLMeshTranslator, sqlmesh_assets
from dagster_sqlmesh_pipes.testing import FakeLauncher, finished, materialization


def run(
    resource: SQLMeshResource, made_from: SQLMeshResource, **options: Any
) -> dg.ExecuteInProcessResult:
    @sqlmesh_assets(project=made_from.project, **options)
    def models(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        yield from sqlmesh.run(context)

    return dg.materialize([models], resources={"sqlmesh": resource}, raise_on_error=False)


class Prefixed(SQLMeshTranslator):
    def __init__(self) -> None:
        self.asked: list[str] = []

    def get_asset_spec(self, context: Any, model: Any, base: dg.AssetSpec) -> dg.AssetSpec:
        self.asked.append(model.name)
        return base.replace_attributes(key=base.key.with_prefix("wh"))


def test_decorators_translator_holds_for_runs_and_is_asked_once(make_resource: Make) -> None:
    launcher = FakeLauncher(messages=[materialization("wh/shop/marts/orders"), finished()])
    resource, translator = make_resource(launcher), Prefixed()
    result = run(resource, resource, translator=translator)
    assert result.success
    assert materialized(result) == ["wh/shop/marts/orders"]
    assert sorted(translator.asked) == sorted(each["name"] for each in SHOP)


def test_resource_of_another_environment_is_refused(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher())
    made_from = make_resource(FakeLauncher(), environment="dev")
    error = step_error(run(resource, made_from))
    assert "assets are of the environment dev, and the SQLMeshResource of prod" in error


def test_resource_of_another_project_is_refused(make_resource: Make, tmp_path: Path) -> None:
    resource = make_resource(FakeLauncher())
    other = tmp_path / "other.json"
    other.write_text(Path(str(resource.manifest_path)).read_text().replace("customers", "people"))
    made_from = SQLMeshResource(manifest_path=other)
    error = step_error(run(resource, made_from))
    assert 'The SQLMeshResource\'s manifest has no "shop"."marts"."people"' in error
