"""Restate models: evaluate recorded intervals again, of what is promoted, and never deploy."""

from sqlmesh.core.context_diff import ContextDiff
from sqlmesh.core.plan import Plan
from sqlmesh.utils.errors import PlanError

from sqlmesh_runner.errors import ConfigurationError
from sqlmesh_runner.job import Job
from sqlmesh_runner.options import RestateOptions
from sqlmesh_runner.recording.run_state import Completion
from sqlmesh_runner.recording.scope import RunScope
from sqlmesh_runner.selection import list_names
from sqlmesh_runner.sqlmesh_api.audit_hook import audit_hook
from sqlmesh_runner.sqlmesh_api.context import with_open_project
from sqlmesh_runner.sqlmesh_api.errors import sqlmesh_errors
from sqlmesh_runner.sqlmesh_api.gateways import gateway_errors
from sqlmesh_runner.sqlmesh_api.queries import RunningQueries
from sqlmesh_runner.sqlmesh_api.run_context import RunContext
from sqlmesh_runner.sqlmesh_api.run_scope import load_scope

__all__ = ["main"]


def main(job: Job[RestateOptions]) -> None:
    """Restate the selected models and what is downstream of them.

    Raises:
        ConfigurationError: nothing is selected, or the project's files differ from the environment.
        RunnerError: restating failed as a whole. A model's failure is an event instead.
    """
    if job.selection.models is None:
        msg = "Nothing is selected. Name the models to restate with --select."
        raise ConfigurationError(msg)
    with_open_project(job, _restate)


def _restate(job: Job[RestateOptions], context: RunContext, _queries: RunningQueries) -> None:
    scope = load_scope(job, context)
    models = sorted(name for name in scope.selected or () if scope.snapshots[name].is_model)
    with sqlmesh_errors("Reading the project's files", otherwise=ConfigurationError):
        context.load()
    with sqlmesh_errors(f"Planning the restatement of environment '{scope.name}'"):
        _require_same_files(context, scope)
        plan = _plan(job.options, context, scope, models)
    if not plan.restatements:
        job.recorder.evaluation_ended("nothing_to_do")
        return
    job.recorder.plan_made(plan.plan_id)
    completion: Completion = "success"
    with (
        sqlmesh_errors(f"The restatement of environment '{scope.name}'"),
        gateway_errors(context, [scope.snapshots[name] for name in models]),
        audit_hook(job.recorder),
    ):
        try:
            context.apply(plan)
        except PlanError:
            if not job.recorder.has_failures and not job.stop.requested:
                raise
            completion = "failure"  # SQLMesh raises it after it has reported the models' failures
    job.recorder.evaluation_ended(completion)


def _plan(options: RestateOptions, context: RunContext, scope: RunScope, models: list[str]) -> Plan:
    builder = context.plan_builder(
        scope.name,
        start=options.start,
        end=options.end,
        execution_time=options.execution_time,
        restate_models=models,
        skip_tests=True,
    )
    return builder.build()


def _require_same_files(context: RunContext, scope: RunScope) -> None:
    """Check that a plan of the project's files would change nothing.

    Raises:
        ConfigurationError: it would.
    """
    diff = context.plan_builder(scope.name, skip_tests=True).build().context_diff
    if diff.has_changes:
        msg = (
            f"The project's files differ from environment '{scope.name}': {_differences(diff)}. "
            f"Restating deploys nothing. Restate with the files that were planned, or run "
            f"`sqlmesh plan {scope.name}` first."
        )
        raise ConfigurationError(msg)


def _differences(diff: ContextDiff) -> str:
    changes = {
        "changed": diff.modified_snapshots,
        "added": [snapshot.name for snapshot in diff.added],
        "removed": [snapshot.name for snapshot in diff.removed_snapshots],
    }
    texts = [f"{change} {list_names(sorted(names))}" for change, names in changes.items() if names]
    return "; ".join(texts) or "its statements or requirements changed"
