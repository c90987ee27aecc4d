"""Every audit that SQLMesh runs, as it runs it."""

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlmesh.core.audit.definition import StandaloneAudit
from sqlmesh.core.model.definition import AuditResult
from sqlmesh.core.snapshot import SnapshotEvaluator
from sqlmesh.utils.date import make_exclusive, to_timestamp

from sqlmesh_runner.audit_ids import argument_texts, audit_id
from sqlmesh_runner.errors import describe
from sqlmesh_runner.folding import AuditRun, Interval

__all__ = ["watch_audits"]

logger = logging.getLogger(__name__)


@contextmanager
def watch_audits(told: Callable[[AuditRun], None], *, wanted: Callable[[Any, AuditRun], bool] | None = None) -> Iterator[None]:
    """Tell each audit's verdict while the context lasts, in the thread that ran it.

    SQLMesh's console and its notifications only show some of the failures. `SnapshotEvaluator._audit` sees every audit, and has had the
    same signature from 0.150 to 0.236; wrapping it on the class is needed because a run makes an evaluator of its own.

    With `wanted` audits are run alone. It says of a snapshot's audit whether it is to run; one that is not counts as skipped for SQLMesh and
    is not told. One that breaks does not keep the next from running.
    """
    original = SnapshotEvaluator._audit  # noqa: SLF001 - there is no public place that sees passed audits

    @functools.wraps(original)
    def watched(self: SnapshotEvaluator, audit: Any, audit_args: dict[Any, Any], snapshot: Any, *args: Any, **kwargs: Any) -> AuditResult:
        about = _about(self, audit, audit_args, snapshot, kwargs)
        if wanted is not None and not wanted(snapshot, about()):
            return AuditResult(audit=audit, audit_args=audit_args, model=snapshot.model_or_none, skipped=True)
        began = time.perf_counter()
        try:
            result = original(self, audit, audit_args, snapshot, *args, **kwargs)
        except Exception as exc:
            error = describe(exc)
            _tell(told, lambda: about(duration=time.perf_counter() - began, error=error))
            if wanted is None:
                raise
            # Audits alone: the others of this model can still be run.
            return AuditResult(audit=audit, audit_args=audit_args, model=snapshot.model_or_none, skipped=True)
        _tell(told, lambda: about(duration=time.perf_counter() - began, result=result))
        return result

    SnapshotEvaluator._audit = watched  # noqa: SLF001
    try:
        yield
    finally:
        SnapshotEvaluator._audit = original  # noqa: SLF001


def _tell(told: Callable[[AuditRun], None], run: Callable[[], AuditRun]) -> None:
    try:
        told(run())
    except Exception:  # an error of ours must not fail the model's batch
        logger.exception("An audit's result could not be reported")


def _about(evaluator: Any, audit: Any, audit_args: dict[Any, Any], snapshot: Any, kwargs: dict[str, Any]) -> Callable[..., AuditRun]:
    """Give a function that describes this execution. The arguments are copied: `_audit` takes `blocking` out of them."""
    given = dict(audit_args)

    def about(*, duration: float = 0.0, result: Any = None, error: str | None = None) -> AuditRun:
        dialect = evaluator.get_adapter(snapshot.model_gateway).dialect
        skipped = bool(audit.skip) if result is None else bool(result.skipped)
        query = result.query.sql(dialect=dialect, pretty=True) if result is not None and result.query is not None else _as_written(audit)
        return AuditRun(
            id=audit_id(audit.name, given),
            name=audit.name,
            args=argument_texts(given),
            blocking=_blocking(audit, given) if result is None else bool(result.blocking),
            skipped=skipped,
            interval=_interval(kwargs),
            duration=duration,
            failing_rows=int(result.count or 0) if result is not None else 0,
            query=query,
            dialect=dialect,
            error=error,
            write_audit_publish="this_model" in kwargs and not isinstance(audit, StandaloneAudit),
        )

    return about


def _blocking(audit: Any, args: dict[Any, Any]) -> bool:
    own = args.get("blocking")  # the use's own argument wins over the audit's
    return bool(audit.blocking) if own is None else str(own).upper() == "TRUE"


def _as_written(audit: Any) -> str | None:
    try:
        return str(audit.query.sql(dialect=audit.dialect or None, pretty=True))
    except Exception:  # noqa: BLE001 - a Jinja query has no SQL before it is rendered
        return None


def _interval(kwargs: dict[str, Any]) -> Interval | None:
    start, end = kwargs.get("start"), kwargs.get("end")
    return None if start is None or end is None else (to_timestamp(start), to_timestamp(make_exclusive(end)))
