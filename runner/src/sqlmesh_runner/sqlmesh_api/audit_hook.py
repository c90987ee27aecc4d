"""The result of every audit, as SQLMesh runs it."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlmesh.core.audit.definition import StandaloneAudit
from sqlmesh.core.model.definition import AuditResult
from sqlmesh.core.snapshot import SnapshotEvaluator
from sqlmesh.utils.date import make_exclusive, to_timestamp

from sqlmesh_runner.errors import describe
from sqlmesh_runner.recording.aggregation import AuditRun
from sqlmesh_runner.recording.recorded import Interval
from sqlmesh_runner.recording.recorder import Recorder
from sqlmesh_runner.sqlmesh_api.audit_ids import argument_texts, audit_id

__all__ = ["audit_hook"]


@contextmanager
def audit_hook(
    recorder: Recorder, *, is_selected: Callable[[Any, AuditRun], bool] | None = None
) -> Iterator[None]:
    """Pass each audit's result to the recorder, in the thread that ran it.

    SQLMesh's console and its notifications report some of the failures only. The method is wrapped
    on the class, because a run makes an evaluator of its own.

    Args:
        recorder: where the results go.
        is_selected: for `audit`: whether to run a snapshot's audit. SQLMesh counts those that are
            not selected as skipped, and those that end in an error too, so that the next audit of
            the model runs.
    """
    original = SnapshotEvaluator._audit  # noqa: SLF001 - see compatibility.PRIVATE_NAMES

    @functools.wraps(original)
    def hook(
        evaluator: SnapshotEvaluator,
        audit: Any,
        audit_args: dict[Any, Any],
        snapshot: Any,
        *args: Any,
        **kwargs: Any,
    ) -> AuditResult:
        describe_run = _description(evaluator, audit, audit_args, snapshot, kwargs)
        skipped = AuditResult(
            audit=audit, audit_args=audit_args, model=snapshot.model_or_none, skipped=True
        )
        if is_selected is not None and not is_selected(snapshot, describe_run()):
            return skipped
        started = time.perf_counter()
        try:
            result = original(evaluator, audit, audit_args, snapshot, *args, **kwargs)
        except Exception as exc:
            duration, error = time.perf_counter() - started, describe(exc)
            _record(recorder, lambda: describe_run(duration=duration, error=error))
            if is_selected is None:
                raise
            return skipped
        duration = time.perf_counter() - started
        _record(recorder, lambda: describe_run(duration=duration, result=result))
        return result

    SnapshotEvaluator._audit = hook  # noqa: SLF001
    try:
        yield
    finally:
        SnapshotEvaluator._audit = original  # noqa: SLF001


def _record(recorder: Recorder, audit: Callable[[], AuditRun]) -> None:
    try:
        recorder.audit_finished(audit())
    except Exception as exc:  # noqa: BLE001 - in SQLMesh it would fail the model
        recorder.internal_error("recording an audit", exc)


def _description(
    evaluator: Any, audit: Any, audit_args: dict[Any, Any], snapshot: Any, kwargs: Mapping[str, Any]
) -> Callable[..., AuditRun]:
    """Return a function that describes this execution of the audit.

    The arguments are copied now: `_audit` removes `blocking` from them.
    """
    own_args = dict(audit_args)

    def describe_run(
        *, duration: float = 0.0, result: Any = None, error: str | None = None
    ) -> AuditRun:
        dialect = evaluator.get_adapter(snapshot.model_gateway).dialect
        query = result.query if result is not None else None
        return AuditRun(
            id=audit_id(audit.name, own_args),
            name=audit.name,
            args=argument_texts(own_args),
            blocking=_is_blocking(audit, own_args) if result is None else bool(result.blocking),
            skipped=bool(audit.skip) if result is None else bool(result.skipped),
            interval=_interval(kwargs),
            duration=duration,
            failing_rows=int(result.count or 0) if result is not None else 0,
            query=_as_written(audit) if query is None else query.sql(dialect=dialect, pretty=True),
            dialect=dialect,
            error=error,
            write_audit_publish="this_model" in kwargs and not isinstance(audit, StandaloneAudit),
        )

    return describe_run


def _is_blocking(audit: Any, args: Mapping[Any, Any]) -> bool:
    own = args.get("blocking")  # the use's own argument wins over the audit's
    return bool(audit.blocking) if own is None else str(own).upper() == "TRUE"


def _as_written(audit: Any) -> str | None:
    try:
        return str(audit.query.sql(dialect=audit.dialect or None, pretty=True))
    except Exception:  # noqa: BLE001 - a Jinja query has no SQL before it is rendered
        return None


def _interval(kwargs: Mapping[str, Any]) -> Interval | None:
    start, end = kwargs.get("start"), kwargs.get("end")
    if start is None or end is None:
        return None
    return to_timestamp(start), to_timestamp(make_exclusive(end))
