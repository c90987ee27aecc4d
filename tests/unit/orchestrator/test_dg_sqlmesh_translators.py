"""Translators as written for dg-sqlmesh: what they override, call and read."""

from typing import Any

import dagster as dg
from unit.orchestrator.shop import Make, fqn, model

from dagster_sqlmesh_pipes import SQLMeshTranslator, sqlmesh_assets_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher

MODELS = [
    model(
        "staging.events",
        catalog=None,
        depends_on=[fqn("raw.events")],
        columns=[{"name": "id", "type": "INT"}],
    ),
    model(
        "marts.orders",
        depends_on=[fqn("staging.events"), fqn("raw.prices")],
        tags=["dagster:group_name:sales"],
    ),
]


class Segments(SQLMeshTranslator):
    def get_asset_key(self, model: Any) -> dg.AssetKey:
        catalog = self.normalize_segment(getattr(model, "catalog", "default"))
        return dg.AssetKey(
            [catalog, self.normalize_segment(getattr(model, "view_name", "unknown"))]
        )


class Dependencies(SQLMeshTranslator):
    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        return dg.AssetKey(["target", *external_fqn.replace('"', "").split(".")[1:]])

    def get_model_deps_with_external(self, context: Any, model: Any) -> list[dg.AssetKey]:
        external = self.get_external_dependencies(context, model)
        own = model.depends_on - {*external}
        assert all(
            context.get_model(dep, raise_if_missing=False)
            and not self.is_external_dependency(context, dep)
            for dep in own
        )
        return [
            *map(self.get_external_asset_key, external),
            *map(self.get_asset_key_from_dep_str, own),
        ]


class Groups(SQLMeshTranslator):
    def get_group_name_with_fallback(
        self, context: Any, model: Any, factory_group_name: str | None
    ) -> str:
        own = self._get_dagster_property_from_tags(model, "group_name")
        return own or factory_group_name or self.get_asset_key_name(model.fqn)[-2]

    def get_tags(self, context: Any, model: Any) -> dict[str, str]:
        kind = "incremental" if model.kind.is_incremental_by_time_range else "other"
        return {
            "cron": str(model.cron).strip("@"),
            "models": str(len(context.models)),
            "kind": kind,
        }


class Metadata(SQLMeshTranslator):
    def serialize_metadata(self, model: Any, keys: Any) -> dict[str, Any]:
        return {
            f"dagster-sqlmesh/{key}": str(getattr(model, key))
            for key in ("cron", "kind", "dialect", "partitioned_by")
        }

    def get_table_metadata(self, model: Any) -> dict[str, Any]:
        columns = [
            dg.TableColumn(name, str(getattr(kind, "this", kind)))
            for name, kind in model.columns_to_types.items()
        ]
        return {"dagster/column_schema": dg.TableSchema(columns=columns)}


def spec(make_resource: Make, translator: SQLMeshTranslator, *key: str) -> dg.AssetSpec:
    (assets,) = sqlmesh_assets_factory(
        sqlmesh_resource=make_resource(FakeLauncher(), MODELS, translator=translator)
    )
    assert isinstance(assets, dg.AssetsDefinition)
    return assets.get_asset_spec(dg.AssetKey(key))


def deps(spec: dg.AssetSpec) -> list[str]:
    return [dep.asset_key.to_user_string() for dep in spec.deps]


def test_asset_keys_with_a_catalog_that_is_not_known(make_resource: Make) -> None:
    assert deps(spec(make_resource, Segments(), "shop", "orders")) == [
        "external/shop/raw/prices",
        "unknown/events",
    ]


def test_helpers_distinguish_dependencies(make_resource: Make) -> None:
    assert deps(spec(make_resource, Dependencies(), "shop", "marts", "orders")) == [
        "shop/staging/events",
        "target/raw/prices",
    ]


def test_groups_and_tags_that_go_by_tags_kinds_and_names(make_resource: Make) -> None:
    assert spec(make_resource, Groups(), "shop", "marts", "orders").group_name == "sales"
    events = spec(make_resource, Groups(), "staging", "events")
    assert events.group_name == "staging"
    assert {key: value for key, value in events.tags.items() if "/" not in key} == {
        "cron": "daily",
        "models": "2",
        "kind": "other",
    }


def test_metadata_of_models_and_tables(make_resource: Make) -> None:
    metadata = spec(make_resource, Metadata(), "staging", "events").metadata
    assert metadata["dagster-sqlmesh/kind"] == "FULL"
    assert metadata["dagster/column_schema"].columns == [dg.TableColumn("id", "INT")]


def test_models_by_asset_key(make_resource: Make) -> None:
    models = make_resource(FakeLauncher(), MODELS).project.manifest().models.values()
    assert [key.to_user_string() for key in SQLMeshTranslator().get_assetkey_to_model(models)] == [
        "staging/events",
        "shop/marts/orders",
    ]
