"""Run what is due in an environment: SQLMesh's own run, recorded."""

from sqlmesh.utils import CompletionStatus

from sqlmesh_runner.job import Job
from sqlmesh_runner.options import RunOptions
from sqlmesh_runner.recording.run_state import Completion
from sqlmesh_runner.sqlmesh_api.audit_hook import audit_hook
from sqlmesh_runner.sqlmesh_api.context import with_open_project
from sqlmesh_runner.sqlmesh_api.errors import sqlmesh_errors
from sqlmesh_runner.sqlmesh_api.gateways import gateway_errors
from sqlmesh_runner.sqlmesh_api.queries import RunningQueries
from sqlmesh_runner.sqlmesh_api.run_context import RunContext
from sqlmesh_runner.sqlmesh_api.run_scope import load_scope, run_request

__all__ = ["main"]


def main(job: Job[RunOptions]) -> None:
    """Run what is due in the environment.

    Raises:
        RunnerError: the run as a whole failed. A model's failure is an event instead.
    """
    with_open_project(job, _evaluate)


def _evaluate(job: Job[RunOptions], context: RunContext, _queries: RunningQueries) -> None:
    scope, options = load_scope(job, context, needed_only=True), job.options
    if scope.selected is not None and not scope.selected:
        return  # SQLMesh takes an empty selection for a mistake
    if scope.selected is not None:
        context.limit_to(run_request(options, scope.selected))
    names = scope.snapshots if scope.selected is None else scope.selected
    with (
        sqlmesh_errors(f"The run of environment '{scope.name}'"),
        gateway_errors(context, [scope.snapshots[name] for name in names]),
        audit_hook(job.recorder),
    ):
        status = context.run(
            scope.name,
            start=options.start,
            end=options.end,
            execution_time=options.execution_time,
            ignore_cron=options.ignore_cron,
            skip_janitor=options.skip_janitor,
            select_models=None if scope.selected is None else sorted(scope.selected),
            no_auto_upstream=True,
        )
    job.recorder.evaluation_ended(_completion(status))


def _completion(status: CompletionStatus) -> Completion:
    if status.is_nothing_to_do:
        return "nothing_to_do"
    return "failure" if status.is_failure else "success"
