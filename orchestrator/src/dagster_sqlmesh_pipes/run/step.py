"""One step: it waits for its lock, launches a runner for each request and yields their results."""

from collections.abc import Generator, Sequence

import dagster as dg

from dagster_sqlmesh_pipes.contract import ENVIRONMENT_TAG
from dagster_sqlmesh_pipes.errors import RunFailedError
from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
from dagster_sqlmesh_pipes.launchers.leftovers import stop_leftovers
from dagster_sqlmesh_pipes.run.config import SQLMeshRunConfig
from dagster_sqlmesh_pipes.run.lock import ProjectLock, environment_key
from dagster_sqlmesh_pipes.run.request import StepSettings, launch_requests
from dagster_sqlmesh_pipes.run.results import RunResult
from dagster_sqlmesh_pipes.run.session import stream_results

__all__ = ["run_step"]


def run_step(
    context: dg.AssetExecutionContext, settings: StepSettings, config: SQLMeshRunConfig
) -> Generator[RunResult, None, None]:
    """Run what the step selected, and yield every result while the runner runs.

    Raises:
        ConfigurationError: the environment is not allowed, or the assets are of another project.
        ConcurrentRunError: another run is at work on the project.
        LaunchError: the runner could not be started.
        RunFailedError: models or audits failed, or the run broke off. What was reported has been
            yielded.
    """
    from dagster_sqlmesh_pipes.run.storage import connected  # noqa: PLC0415 - SQLAlchemy's

    requests = list(launch_requests(context, settings, config))
    environment = settings.other_environment(config)
    key = environment_key(settings.lock_key, environment or settings.project.environment)
    lock = ProjectLock(
        context,
        settings.lock_key,
        tags={ENVIRONMENT_TAG: key},
        limit=settings.options.concurrency_limit,
        timeout=settings.options.lock_timeout,
    )
    with connected(context.instance, context.run.run_id), lock:
        yield from _run_all(context, settings, requests, environment)


def _run_all(
    context: dg.AssetExecutionContext,
    settings: StepSettings,
    requests: Sequence[LaunchRequest],
    environment: str | None,
) -> Generator[RunResult, None, None]:
    """Run the requests one after the other, also after one that failed."""
    failure: RunFailedError | None = None
    for request in requests:
        stop_leftovers(settings.launcher, request.labels, context.instance)
        try:
            yield from stream_results(
                context,
                launcher=settings.launcher,
                request=request,
                manifest=settings.mapping.manifest,
                environment=environment,
            )
        except RunFailedError as exc:
            failure = failure or exc
    if failure is not None:
        raise failure
