"""Models become asset specs, audits check specs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import SHOP, Make, audit, fqn, model

from dagster_sqlmesh_pipes import SQLMeshTranslator, sqlmesh_assets_factory
from dagster_sqlmesh_pipes.errors import ConfigurationError, TranslationError
from dagster_sqlmesh_pipes.names import digest
from dagster_sqlmesh_pipes.testing import FakeLauncher, finished, materialization
from dagster_sqlmesh_pipes.translator import MappedExternalsTranslator

ORDERS = dg.AssetKey(["shop", "marts", "orders"])


def specs(
    make_resource: Make,
    models: Sequence[dict[str, Any]] = SHOP,
    *,
    other: Any = None,
    fields: Any = None,
    **options: Any,
) -> Any:
    resource = make_resource(FakeLauncher(), models, other=other, **(fields or {}))
    made = sqlmesh_assets_factory(sqlmesh_resource=resource, **options)
    found = {}
    for item in made:
        for spec in item.specs if isinstance(item, dg.AssetsDefinition) else [item]:
            found[spec.key] = spec
    return found


def checks(
    make_resource: Make, models: Sequence[dict[str, Any]], **other: Any
) -> set[tuple[str, str]]:
    made = sqlmesh_assets_factory(
        sqlmesh_resource=make_resource(FakeLauncher(), models, other=other)
    )[0]
    assert isinstance(made, dg.AssetsDefinition)
    return {(key.asset_key.path[-1], key.name) for key in made.check_keys}


def test_a_model_is_shown_with_everything_that_is_known_of_it(
    make_resource: Make, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "orders.sql").write_text("SELECT 1")
    rich = model(
        "marts.orders",
        kind={"name": "INCREMENTAL_BY_UNIQUE_KEY"},
        cron="@hourly",
        tags=["pii", "team/finance: eu", "dagster:group_name:sales"],
        owner="data@example.com",
        description="All orders.",
        path="models/orders.sql",
        relation="shop.marts.orders",
        query="SELECT 1 AS id",
        partitioned_by=['"day"', "DATE_TRUNC('MONTH', \"day\")"],
        columns=[{"name": "id", "type": "BIGINT", "description": "the key"}],
        column_lineage={
            "id": [
                {"fqn": fqn("staging.events"), "column": "order_id"},
                {"fqn": fqn("raw.x"), "column": "y"},
            ]
        },
        depends_on=[fqn("staging.events"), fqn("raw.x")],
    )
    fields = {"project_dir": str(tmp_path)}
    spec = specs(
        make_resource, [SHOP[0], rich], fields=fields, owners=["team:data"], group_name="everything"
    )[ORDERS]
    assert spec.group_name == "sales"
    assert spec.code_version == "hash of marts.orders"
    assert spec.kinds == {"sqlmesh", "duckdb"}
    assert list(spec.owners) == ["data@example.com", "team:data"]
    assert {key: value for key, value in spec.tags.items() if "/" not in key} == {
        "pii": "true",
        "team_finance__eu": "true",
    }
    assert spec.description == "All orders."
    assert {dep.asset_key for dep in spec.deps} == {
        dg.AssetKey(["shop", "staging", "events"]),
        dg.AssetKey(["external", "shop", "raw", "x"]),
    }
    metadata = spec.metadata
    assert metadata["sqlmesh/kind"] == "INCREMENTAL_BY_UNIQUE_KEY"
    assert metadata["sqlmesh/cron"] == "@hourly"
    assert "sqlmesh/owner" not in metadata, "Dagster shows it"
    assert metadata["sqlmesh/tags"] == "pii, team/finance: eu"
    assert metadata["sqlmesh/partitioned_by"] == "day, DATE_TRUNC('MONTH', day)"
    assert "SELECT 1 AS id" in metadata["sqlmesh/query"].value
    assert metadata["dagster/table_name"] == "shop.marts.orders"
    assert metadata["dagster/column_schema"].columns == [
        dg.TableColumn("id", "BIGINT", description="the key")
    ]
    lineage = metadata["dagster/column_lineage"].deps_by_column["id"]
    assert {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage} == {
        ("shop/staging/events", "order_id"),
        ("external/shop/raw/x", "y"),
    }
    assert metadata["dagster/code_references"].code_references[0].file_path == str(
        tmp_path / "models" / "orders.sql"
    )


def test_the_group_is_the_tags_then_the_factorys_then_the_schema(make_resource: Make) -> None:
    tagged = model("marts.tagged", tags=["dagster:group_name:own"])
    plain = model("marts.plain")
    key = dg.AssetKey(["shop", "marts", "plain"])
    assert specs(make_resource, [plain])[key].group_name == "marts"
    given = specs(make_resource, [tagged, plain], group_name="given")
    assert given[key].group_name == "given"
    assert given[dg.AssetKey(["shop", "marts", "tagged"])].group_name == "own"


def test_a_group_that_is_no_name_is_refused_with_the_models_name(make_resource: Make) -> None:
    with pytest.raises(TranslationError, match=r"\"orders\" can't be in the group '/'"):
        specs(make_resource, [model("marts.orders", tags=["dagster:group_name:/"])])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["a b", "c"], ["a_b", "c"]),
        (
            ["日本", "中国", "café"],
            [f"___{digest('日本')}", f"___{digest('中国')}", f"caf__{digest('café')}"],
        ),
        (["a b", "a_b", "a/b"], [f"a_b_{digest('a b')}", "a_b", f"a_b_{digest('a/b')}"]),
        (
            ["x" * 70 + "1", "x" * 70 + "2"],
            [f"{'x' * 54}_{digest('x' * 70 + end)}" for end in "12"],
        ),
        (["x" * 63], ["x" * 63]),
    ],
    ids=["one", "letters", "the same once legal", "too long", "as long as may be"],
)
def test_illegal_tags_become_legal_and_stay_apart(
    make_resource: Make, tags: list[str], expected: list[str]
) -> None:
    spec = specs(make_resource, [model("marts.orders", tags=tags)])[ORDERS]
    assert [tag for tag in spec.tags if "/" not in tag] == expected


def test_a_code_reference_is_to_a_file_of_the_models_own_project(
    make_resource: Make, tmp_path: Path
) -> None:
    """Of two projects one is in the runner's image only; both have a file of that name."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "orders.sql").write_text("SELECT 1")
    places = {"marts.orders": 0, "marts.other": 1}
    models = [
        model(name, path="models/orders.sql", project_dir_index=index)
        for name, index in places.items()
    ]
    found = specs(
        make_resource,
        models,
        fields={"project_dir": ["/in/the/image", str(tmp_path)]},
    )
    assert "dagster/code_references" not in found[ORDERS].metadata
    other = (
        found[dg.AssetKey(["shop", "marts", "other"])]
        .metadata["dagster/code_references"]
        .code_references
    )
    assert [each.file_path for each in other] == [str(tmp_path / "models" / "orders.sql")]


@pytest.mark.parametrize("path", ["../secret.sql", "models/../../secret.sql", "{outside}"])
def test_path_outside_the_project_is_not_a_code_reference(
    make_resource: Make, tmp_path: Path, path: str
) -> None:
    (tmp_path / "project" / "models").mkdir(parents=True)
    secret = tmp_path / "secret.sql"
    secret.write_text("SELECT 1")
    models = [model("marts.orders", path=path.format(outside=secret))]
    found = specs(make_resource, models, fields={"project_dir": str(tmp_path / "project")})
    assert "dagster/code_references" not in found[ORDERS].metadata


def test_names_that_are_not_ascii_have_keys_of_their_own(make_resource: Make) -> None:
    names = ["edge.订单", "edge.客户", "edge.été", "edge.ete"]
    found = specs(make_resource, [model(name) for name in names])
    assert [key.path[-1] for key in found] == [
        f"___{digest('订单')}",
        f"___{digest('客户')}",
        f"_t__{digest('été')}",
        "ete",
    ]


class Layered(SQLMeshTranslator):
    def get_asset_spec(self, context: Any, model: Any, base: dg.AssetSpec) -> dg.AssetSpec:
        if model.schema_name != "staging":
            return base
        key = dg.AssetKey(["layer", model.view_name])
        return base.replace_attributes(key=key).merge_attributes(tags={"layer": "1"})

    def get_asset_check_spec(
        self, context: Any, audit: Any, base: dg.AssetCheckSpec
    ) -> dg.AssetCheckSpec:
        return base._replace(description=f"{base.asset_key.path[0]}: {audit.name}")


def test_dependencies_follow_key_of_translators_spec(
    make_resource: Make,
) -> None:
    lineage = {"id": [{"fqn": fqn("staging.events"), "column": "id"}]}
    models = [SHOP[0], {**SHOP[1], "column_lineage": lineage}]
    resource = make_resource(FakeLauncher(), models, translator=Layered())
    (assets,) = sqlmesh_assets_factory(sqlmesh_resource=resource)
    assert isinstance(assets, dg.AssetsDefinition)
    events = dg.AssetKey(["layer", "events"])
    assert assets.asset_deps[ORDERS] == {events}
    shown = assets.get_asset_spec(ORDERS).metadata["dagster/column_lineage"]
    assert shown.deps_by_column["id"][0].asset_key == events
    assert assets.get_asset_spec(events).tags["layer"] == "1"
    described = {spec.asset_key: spec.description for spec in assets.check_specs}
    assert described[events] == "layer: not_null"
    assert resource.mapping().fqns[events] == fqn("staging.events")


def test_check_that_a_translators_spec_renames_is_refused(make_resource: Make) -> None:
    class Renaming(SQLMeshTranslator):
        def get_asset_check_spec(
            self, context: Any, audit: Any, base: dg.AssetCheckSpec
        ) -> dg.AssetCheckSpec:
            return base._replace(name="other")

    with pytest.raises(TranslationError, match="Override get_check_name"):
        specs(make_resource, fields={"translator": Renaming()})


def test_an_owner_that_dagster_does_not_take_is_in_the_metadata(make_resource: Make) -> None:
    spec = specs(make_resource, [model("marts.orders", owner="jane")])[ORDERS]
    assert list(spec.owners) == []
    assert spec.metadata["sqlmesh/owner"] == "jane"
    with pytest.raises(ConfigurationError, match="jane"):
        specs(make_resource, owners=["jane"])


def test_external_models_are_upstream_and_embedded_not_run(
    make_resource: Make,
) -> None:
    models = [
        model("raw.events", kind={"name": "EXTERNAL"}, materialized=False),
        model(
            "staging.lookup",
            kind={"name": "EMBEDDED"},
            materialized=False,
            depends_on=[fqn("raw.events")],
        ),
        model("marts.orders", depends_on=[fqn("staging.lookup")]),
    ]
    assets = sqlmesh_assets_factory(sqlmesh_resource=make_resource(FakeLauncher(), models))
    executable, embedded = assets
    assert isinstance(executable, dg.AssetsDefinition)
    assert executable.keys == {ORDERS}
    assert executable.asset_deps[ORDERS] == {dg.AssetKey(["external", "shop", "raw", "events"])}, (
        "what is behind the EMBEDDED model"
    )
    assert isinstance(embedded, dg.AssetSpec)
    assert embedded.metadata.keys().isdisjoint({"dagster/table_name", "sqlmesh/cron"}), (
        "there is no table, and nothing runs"
    )
    assert {dep.asset_key for dep in embedded.deps} == {
        dg.AssetKey(["external", "shop", "raw", "events"])
    }
    graph = dg.Definitions(assets=assets).resolve_asset_graph()
    assert graph.executable_asset_keys == {ORDERS}


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")  # Dagster's own, in its tester
def test_automation_fires_through_embedded_models(
    make_resource: Make,
) -> None:
    """EMBEDDED models and SEEDs are never materialized, external tables maybe never seen to be."""
    models = [
        model("staging.events"),
        model("staging.prices", kind={"name": "SEED"}),
        model(
            "staging.lookup",
            kind={"name": "EMBEDDED"},
            materialized=False,
            depends_on=[fqn("staging.events")],
        ),
        model(
            "marts.orders",
            depends_on=[fqn("staging.lookup"), fqn("staging.prices"), fqn("raw.prices")],
        ),
    ]
    events = dg.AssetKey(["shop", "staging", "events"])
    launcher = FakeLauncher(messages=[materialization(events), finished()])
    made, *embedded = sqlmesh_assets_factory(sqlmesh_resource=make_resource(launcher, models))
    condition = dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing())
    assets = [
        *dg.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=condition), [made]
        ),
        *embedded,
    ]
    definitions = dg.Definitions(assets=assets)
    with dg.DagsterInstance.ephemeral() as instance:
        before = dg.evaluate_automation_conditions(definitions, instance)
        assert dg.materialize(assets, selection=[events], instance=instance).success
        after = dg.evaluate_automation_conditions(definitions, instance, cursor=before.cursor)
    assert after.get_num_requested(ORDERS) == 1
    assert after.total_requested == 1


def test_second_use_of_audit_is_a_check_with_a_suffix(
    make_resource: Make,
) -> None:
    uses = [
        audit("not_null", "11111111"),
        audit("not_null", "22222222"),
        audit("not_null", "11111111"),
        audit("accepted.values", "33333333"),
    ]
    assert checks(make_resource, [model("marts.orders", audits=uses)]) == {
        ("orders", "not_null"),
        ("orders", "not_null_22222222"),
        ("orders", "accepted_values"),
    }


def test_audits_with_equal_legal_names_stay_apart(
    make_resource: Make,
) -> None:
    first, second, third = (audit(name) for name in ("a.b", "a_b", "a-b"))
    named = checks(make_resource, [model("marts.orders", audits=[first, second, third])])
    assert named == {
        ("orders", "a_b"),
        ("orders", "a_b_00000000"),
        ("orders", f"a_b_00000000_{digest('a-b:00000000')}"),
    }


def test_standalone_audit_is_check_of_each_model_it_reads(make_resource: Make) -> None:
    standalone = {
        "fqn": fqn("audits.totals"),
        "name": "totals",
        "id": "totals:44444444",
        "depends_on": [fqn("marts.orders"), fqn("marts.customers"), fqn("raw.events")],
    }
    models = [model("marts.orders", audits=[audit("totals", "55555555")]), model("marts.customers")]
    assert checks(make_resource, models, standalone_audits=[standalone]) == {
        ("orders", "totals"),
        ("orders", "totals_44444444"),
        ("customers", "totals"),
    }


def test_checks_never_block_in_dagster(make_resource: Make) -> None:
    made = sqlmesh_assets_factory(sqlmesh_resource=make_resource(FakeLauncher()))[0]
    assert isinstance(made, dg.AssetsDefinition)
    assert [spec.blocking for spec in made.check_specs] == [False] * 3
    shown = {(spec.asset_key.path[-1], spec.name): spec.metadata for spec in made.check_specs}
    assert shown["orders", "positive"]["audit_blocking"] is False
    assert shown["orders", "not_null"]["audit_blocking"] is True


def test_check_describes_its_audit_and_effect_of_failure(
    make_resource: Make,
) -> None:
    uses = [
        audit(
            "accepted_range",
            args={"column": "quantity", "max_v": "8"},
            blocking=False,
            description="Large orders are rare.",
        ),
        audit("not_null"),
    ]
    made = sqlmesh_assets_factory(
        sqlmesh_resource=make_resource(FakeLauncher(), [model("marts.orders", audits=uses)])
    )[0]
    assert isinstance(made, dg.AssetsDefinition)
    assert {spec.name: spec.description for spec in made.check_specs} == {
        "accepted_range": "Large orders are rare.\n\nSQLMesh audit "
        "`accepted_range(column := quantity, max_v := 8)`. In SQLMesh a failure only warns.",
        "not_null": "SQLMesh audit `not_null`. In SQLMesh a failure keeps what is downstream from "
        "running.",
    }


def test_two_models_on_one_key_are_refused_by_name(make_resource: Make) -> None:
    class Flat(SQLMeshTranslator):
        def get_asset_key(self, model: Any) -> dg.AssetKey:
            return dg.AssetKey(["everything"])

    with pytest.raises(TranslationError) as error:
        specs(make_resource, fields={"translator": Flat()})
    assert "Flat gives several models one asset key" in str(error.value)
    assert all(
        fqn(name) in str(error.value)
        for name in ("staging.events", "marts.orders", "marts.customers")
    )


def test_template_without_table_name_is_refused(
    make_resource: Make,
) -> None:
    models = [model("a.b", depends_on=[fqn("raw.x"), fqn("raw.y")])]
    with pytest.raises(TranslationError) as error:
        specs(
            make_resource,
            models,
            fields={"translator": MappedExternalsTranslator("sling/{node.schema}")},
        )
    assert "external_asset_mapping='sling/{node.schema}'" in str(error.value)
    assert f"sling/raw: {fqn('raw.x')}, {fqn('raw.y')}" in str(error.value)


@pytest.mark.parametrize("key", [None, dg.AssetKey([]), dg.AssetKey(["a", ""]), "orders"])
def test_unusable_key_is_refused_with_models_name(make_resource: Make, key: Any) -> None:
    class Odd(SQLMeshTranslator):
        def get_asset_key(self, model: Any) -> dg.AssetKey:
            return key if model.name == "marts.orders" else super().get_asset_key(model)

    with pytest.raises(
        TranslationError, match=r'returns the asset key .* for "shop"\."marts"\."orders"'
    ):
        specs(make_resource, fields={"translator": Odd()})


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("sling/{node.schema}/{node.name}", "sling/raw/my_events"),
        ("{{ node.database }}/{{node.name}}", "shop/my_events"),
        ("plain_{node.name}", "plain_my_events"),
    ],
)
def test_external_tables_are_mapped_by_a_template(template: str, key: str) -> None:
    assert (
        MappedExternalsTranslator(template)
        .get_external_asset_key('"shop"."raw"."my-events"')
        .to_user_string()
        == key
    )


@pytest.mark.parametrize("template", ["{node.table}", "{other}", "{node.name", "{0}"])
def test_template_with_unknown_field_lists_fields(template: str) -> None:
    with pytest.raises(TranslationError, match=r"It may use \{node\.database\}"):
        MappedExternalsTranslator(template).get_external_asset_key('"shop"."raw"."events"')


def test_template_translator_may_share_keys_if_it_says_so(
    make_resource: Make,
) -> None:
    class Shared(MappedExternalsTranslator):
        shares_external_keys = True

    models = [model("a.b", depends_on=[fqn("raw.x"), fqn("raw.y")])]
    found = specs(make_resource, models, fields={"translator": Shared("sling/{node.schema}")})
    assert [dep.asset_key for dep in found[dg.AssetKey(["shop", "a", "b"])].deps] == [
        dg.AssetKey(["sling", "raw"])
    ]


def test_importing_the_definitions_starts_no_process(make_resource: Make) -> None:
    launcher = FakeLauncher()
    sqlmesh_assets_factory(sqlmesh_resource=make_resource(launcher))
    assert launcher.requests == []


def test_the_manifest_is_all_that_is_read(make_resource: Make, tmp_path: Path) -> None:
    sqlmesh_assets_factory(sqlmesh_resource=make_resource(FakeLauncher()))
    assert json.loads((tmp_path / "manifest.json").read_text())["schema_version"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
