"""The Pipes context as variables, for launchers that can't hand over a file."""

import os
from typing import Any

import pytest
from dagster_pipes import PipesContextData, decode_param

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.context import context_variables

LIMIT = 1536 * 1024


def context_with(models: dict[str, Any]) -> PipesContextData:
    return {"extras": {"models": models}}  # type: ignore[typeddict-item]


def decoded(variables: dict[str, str]) -> Any:
    """Decode the context as docs/reference/messages.md tells the runner to."""
    params = decode_param(variables["DAGSTER_PIPES_CONTEXT"])
    if "chunks" in params:
        params = decode_param(
            "".join(
                variables[f"DAGSTER_PIPES_CONTEXT_{number}"] for number in range(params["chunks"])
            )
        )
    return params["data"]


def test_small_context_is_one_variable() -> None:
    variables = context_variables(context_with({"a": {}}), limit=LIMIT)
    assert list(variables) == ["DAGSTER_PIPES_CONTEXT"]
    assert decoded(variables) == context_with({"a": {}})


def test_large_context_is_cut_over_several_variables() -> None:
    context = context_with(
        {os.urandom(16).hex(): {"asset_key": f"schema/model_{n}"} for n in range(5000)}
    )
    variables = context_variables(context, limit=LIMIT)
    assert len(variables) > 2
    assert all(len(name) + len(value) < 128 * 1024 for name, value in variables.items())
    assert decoded(variables) == context


def test_context_above_limit_is_an_error_with_both_sizes() -> None:
    with pytest.raises(
        LaunchError,
        match=r"takes [\d,]{9,} bytes, and a container can be given 1,572,864. Select fewer assets",
    ):
        context_variables(context_with({"noise": os.urandom(1_500_000).hex()}), limit=LIMIT)
