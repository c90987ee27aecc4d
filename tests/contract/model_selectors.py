"""Selectors, and what SQLMesh's own selector makes of them. Runs in the runner's environment."""

import json
from pathlib import Path
from typing import Any

from sqlglot import parse_one
from sqlmesh.core.model import Model, create_external_model, create_sql_model
from sqlmesh.core.selector import NativeSelector
from sqlmesh.utils.dag import DAG

PATH = Path(__file__).with_name("model_selectors.json")

MODELS = {  # name: tags, what it reads
    "staging.events": (["raw", "PII"], ["raw.events"]),
    "staging.events_2": ([], ["raw.events"]),
    "staging.2024_events": (["archive"], ["raw.events"]),
    "marts.orders": (["daily", "finance"], ["staging.events", "marts.lookup"]),
    "marts.revenue": (["finance:core"], ["marts.orders"]),
    "marts.lookup": ([], ["staging.events_2"]),
    "other.marts.orders": (["finance_eu"], ["shop.marts.orders"]),
}
SELECTORS = [
    "marts.orders", "MARTS.Orders", "shop.marts.orders", "other.marts.orders", "no.such",
    '"shop"."marts"."orders"', "marts.*", "*orders", "*", "*.orders", "staging.events*", "stag*",
    "MARTS.*", "staging.2024_events", "+marts.orders", "marts.orders+", "+marts.orders+",
    "+staging.events", "raw.events", "raw.events+", "tag:finance", "tag:FINANCE", "tag:fin*",
    "tag:pii", "tag:*", "tag:none", "+tag:daily", "tag:finance:core", "TAG:raw", "^tag:finance",
    "marts.* & tag:finance", "marts.* | staging.events", "marts.* & ^marts.orders",
    "(marts.* | staging.*) & ^tag:raw", "+(marts.orders | marts.lookup)", "(marts.orders)+",
    "+(tag:raw)+", "^^marts.orders", "^(marts.* | staging.*)", "resource_type:model",
    "resource_type:audit", "a & b | c", "a | marts.orders & tag:finance",
    "marts.orders & marts.* & tag:finance", "marts.orders marts.revenue", "(marts.orders", "", "&",
    "tag:", "marts.orders &", "+", "resource_type:none", "events", "*events*", "m*s", "+marts.*+",
    " marts.orders ", "+ marts.orders", "marts.orders +",
]  # fmt: skip


def models() -> dict[str, Model]:
    made = {}
    for name, (tags, reads) in MODELS.items():
        query = parse_one(f"SELECT 1 AS x FROM {', '.join(reads)}", dialect="duckdb")
        model = create_sql_model(
            name, query, tags=tags, dialect="duckdb", default_catalog="shop", defaults={}
        )
        made[model.fqn] = model
    external = create_external_model(
        "raw.events", columns={"x": "int"}, dialect="duckdb", default_catalog="shop"
    )
    return {**made, external.fqn: external}


def expected() -> dict[str, Any]:
    made = models()
    dag: DAG[str] = DAG()
    for fqn, model in made.items():
        dag.add(fqn, model.depends_on)
    selector = NativeSelector(None, made, dag=dag, default_catalog="shop", dialect="duckdb")
    results: dict[str, list[str] | None] = {}
    for text in SELECTORS:
        try:
            results[text] = sorted(selector.expand_model_selections([text]))
        except Exception:  # noqa: BLE001 - errors of several kinds; that it is one is what counts
            results[text] = None
    listed = [
        {
            "fqn": fqn,
            "name": model.name,
            "tags": list(model.tags),
            "depends_on": sorted(model.depends_on),
            "kind": model.kind.name.value,
        }
        for fqn, model in sorted(made.items())
    ]
    return {"models": listed, "expected": results}


def main() -> None:
    PATH.write_text(json.dumps(expected(), indent=2, ensure_ascii=False) + "\n")
