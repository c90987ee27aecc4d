"""The run config: what may be set for a single run, in the launchpad or by a schedule."""

import datetime
import re
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from pydantic import field_validator, model_validator

from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.options import LaunchpadOptions

__all__ = ["SQLMeshRunConfig", "config_of_run"]

_RELATIVE_TIME = re.compile(
    r"now|today|yesterday|tomorrow|(\d+|an?) (minute|hour|day|week|month|year)s? ago", re.IGNORECASE
)


class SQLMeshRunConfig(LaunchpadOptions, dg.Config):
    """Options of a single run, set in the launchpad or in a schedule's run config."""

    @field_validator("start", "end", "execution_time")
    @classmethod
    def _is_time(cls, value: str | None) -> str | None:
        if (
            value is not None
            and _parse_time(value) is None
            and not _RELATIVE_TIME.fullmatch(value.strip())
        ):
            msg = (
                f"{value!r} is not a valid time. Use a date (2026-01-31), a time "
                "(2026-01-31T12:00:00) or a phrase like '1 week ago'."
            )
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _start_is_before_end(self) -> Self:
        start, end = _parse_time(self.start), _parse_time(self.end)
        if start and end and start > end:
            msg = f"start ({self.start}) is after end ({self.end})."
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _restatement_has_start(self) -> Self:
        if self.restate and self.start is None:
            msg = (
                "restate needs a start: without one, all intervals of the models would be restated."
            )
            raise ValueError(msg)
        return self


_OPTIONS = set(SQLMeshRunConfig.model_fields)


def config_of_run(context: dg.AssetExecutionContext, config: SQLMeshRunConfig) -> SQLMeshRunConfig:
    """Return the options of the whole run, whichever of its steps they were set for.

    Dagster splits the assets into several steps where another asset lies between two models.

    Raises:
        ConfigurationError: the steps have different options.
    """
    set_for = _options_by_step(context)
    first, *others = set_for.values() or [{}]
    if any(options != first for options in others):
        msg = (
            f"The run's config sets different options for {' and '.join(set_for)}. They are steps "
            "of one SQLMesh run: set the options of one of them, or the same for all."
        )
        raise ConfigurationError(msg)
    return SQLMeshRunConfig(**{**first, **_changed(config)})


def _options_by_step(context: dg.AssetExecutionContext) -> Mapping[str, dict[str, Any]]:
    step = context.op_execution_context.get_step_execution_context()
    set_for = {}
    for node in sorted(context.job_def.nodes, key=lambda node: node.name):
        of_node = step.resolved_run_config.ops[node.name].config
        if node.definition.name == step.op_def.name and isinstance(of_node, Mapping):
            options = {name: value for name, value in of_node.items() if name in _OPTIONS}
            set_for[node.name] = _changed(SQLMeshRunConfig(**options))
    return {name: options for name, options in set_for.items() if options}


def _changed(config: SQLMeshRunConfig) -> dict[str, Any]:
    return config.model_dump(include=_OPTIONS, exclude_defaults=True)


def _parse_time(value: str | None) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(value) if value else None
    except ValueError:
        return None
    return moment.replace(tzinfo=datetime.UTC) if moment and moment.tzinfo is None else moment
