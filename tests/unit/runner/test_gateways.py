"""Errors of a run, with the gateway that they come from."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmesh.utils.errors import ConfigError

from sqlmesh_runner.errors import ConfigurationError, RunnerError, UnreachableError
from sqlmesh_runner.sqlmesh_api.gateways import gateway_errors, require_answers


class Adapter:
    """A gateway that answers, or not."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def ping(self) -> None:
        if self._error is not None:
            raise self._error


def project(adapters: Mapping[str, Adapter], unusable: Mapping[str, str] | None = None) -> Any:
    return SimpleNamespace(
        engine_adapters=adapters,
        unusable_gateways=unusable or {},
        selected_gateway="local",
        _get_engine_adapter=adapters.__getitem__,
    )


def model(name: str, gateway: str | None = None) -> Any:
    return SimpleNamespace(name=name, model_gateway=gateway)


AWAY = ConnectionRefusedError("connection refused\n\tby pg:5432?")
MODELS = [model("b", "cloud"), model("a", "cloud"), model("c")]


@pytest.mark.parametrize(
    ("away", "kind", "text"),
    [
        (AWAY, UnreachableError, "does not answer: connection refused by pg:5432? Check its"),
        (ConfigError("No driver."), ConfigurationError, "can't be used: No driver."),
    ],
)
def test_a_failure_names_the_gateway_and_its_models(
    away: Exception, kind: type[RunnerError], text: str
) -> None:
    context = project({"local": Adapter(), "cloud": Adapter(away)})

    with pytest.raises(kind) as failure, gateway_errors(context, MODELS):
        raise away

    assert str(failure.value).startswith(f"Gateway 'cloud', which a, b needs, {text}")
    with pytest.raises(kind, match="Gateway 'cloud'"):
        require_answers(context, MODELS)


def test_a_failure_stays_where_all_gateways_answer() -> None:
    context = project({"local": Adapter(), "cloud": Adapter()})

    with pytest.raises(ConnectionRefusedError), gateway_errors(context, MODELS):
        raise AWAY


def test_an_unusable_gateway_stops_only_its_models() -> None:
    context = project({"local": Adapter()}, unusable={"cloud": "No driver."})

    with gateway_errors(context, [model("c")]):
        pass
    with pytest.raises(ConfigurationError, match="'cloud', which a, b needs, can't be used: No d"):
        require_answers(context, MODELS)
