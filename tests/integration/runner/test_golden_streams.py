"""The runner writes what `tests/contract/golden/` says it writes."""

from collections.abc import Callable
from importlib.metadata import version

import pytest
from contract.streams import SCENARIOS, Messages, golden, normalised
from integration.runner.harness import Finished

# From release to release: the wording of SQLGlot and DuckDB, and whether SQLMesh keeps the time of
# a recording when it compacts its rows.
_DIFFERS = {"audit_query", "audit_error", "query", "error", "recorded_at"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_messages_are_numbered_without_gaps(name: str, scenario: Callable[[str], Finished]) -> None:
    messages = scenario(name).messages

    assert [message["seq"] for message in messages] == list(range(len(messages)))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_writes_its_golden_stream(name: str, scenario: Callable[[str], Finished]) -> None:
    written = normalised(scenario(name).messages)

    expected = golden(name)
    if version("sqlmesh").startswith("0.236."):
        assert written == expected
    assert _reported_by_all_releases(written) == _reported_by_all_releases(expected)


def _reported_by_all_releases(messages: Messages) -> object:
    return _without_wording([message for message in messages if message["method"] != "log"])


def _without_wording(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_wording(item) for key, item in value.items() if key not in _DIFFERS}
    if isinstance(value, list):
        return [_without_wording(item) for item in value]
    return value
