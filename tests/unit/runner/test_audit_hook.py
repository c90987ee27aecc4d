"""What is reported of an audit whose query fails: SQLMesh has no result of it."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlglot import exp
from sqlmesh.core.audit import ModelAudit
from sqlmesh.core.snapshot import SnapshotEvaluator

from sqlmesh_runner.recording.aggregation import AuditRun
from sqlmesh_runner.sqlmesh_api.audit_hook import audit_hook


class Recorder:
    """Keep what is recorded of audits."""

    def __init__(self) -> None:
        self.audits: list[AuditRun] = []

    def audit_finished(self, audit: AuditRun) -> None:
        self.audits.append(audit)

    def internal_error(self, doing: str, exc: Exception) -> None:
        raise AssertionError(doing) from exc


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("in_call", [None, True, False])
def test_failed_query_blocks_as_the_audit_is_called(
    monkeypatch: pytest.MonkeyPatch, *, in_call: bool | None, own: bool
) -> None:
    error = ValueError("no such column")

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(SnapshotEvaluator, "_audit", fail)
    audit = ModelAudit(name="no_zero", query="SELECT 1", blocking=own)
    called = {} if in_call is None else {"blocking": exp.convert(in_call)}
    evaluator: Any = SimpleNamespace(get_adapter=lambda _: SimpleNamespace(dialect="duckdb"))
    snapshot = SimpleNamespace(model_gateway=None, model_or_none=None)
    recorder: Any = Recorder()

    with audit_hook(recorder), pytest.raises(ValueError, match="no such column"):
        SnapshotEvaluator._audit(evaluator, audit, called, snapshot)

    (recorded,) = recorder.audits
    assert recorded.error == "no such column"
    assert recorded.blocking is (own if in_call is None else in_call)
