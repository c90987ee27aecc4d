"""What the runner needs of the installed SQLMesh, beyond its public API.

A run is recorded through SQLMesh's console callbacks and a few private names. If a release renames
one, SQLMesh would evaluate everything and nothing would be recorded: each is checked before a run.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlmesh import Context
from sqlmesh import __version__ as sqlmesh_version
from sqlmesh.core.console import Console
from sqlmesh.core.engine_adapter import EngineAdapter
from sqlmesh.core.snapshot import SnapshotEvaluator

from sqlmesh_runner import __version__
from sqlmesh_runner.errors import ConfigurationError

__all__ = ["CALLBACKS", "PRIVATE_NAMES", "Callback", "PrivateName", "require_compatible_sqlmesh"]

Version = tuple[int, ...]

_ALWAYS: Final[Version] = ()


@dataclass(frozen=True)
class Callback:
    """A method of SQLMesh's `Console` that the recorder listens to."""

    name: str
    parameters: Mapping[str, Version]  # that are read: the SQLMesh release that introduced each
    since: Version = _ALWAYS  # the SQLMesh release that introduced the callback


@dataclass(frozen=True)
class PrivateName:
    """A private method of SQLMesh that the runner wraps, overrides or calls."""

    owner: type
    name: str
    reason: str
    parameters: tuple[str, ...] = ()  # that are read
    attributes: tuple[str, ...] = field(default=())  # that the method itself must use


def _always(*names: str) -> dict[str, Version]:
    return dict.fromkeys(names, _ALWAYS)


CALLBACKS: Final = (
    Callback("start_evaluation_progress", _always("batched_intervals")),
    Callback("start_snapshot_evaluation_progress", _always("snapshot")),
    Callback(
        "update_snapshot_evaluation_progress",
        {
            **_always(
                "snapshot", "interval", "duration_ms", "num_audits_passed", "num_audits_failed"
            ),
            "auto_restatement_triggers": (0, 210),
            "execution_stats": (0, 211, 2),
        },
    ),
    Callback(
        "update_signal_progress",
        _always("snapshot", "signal_name", "ready_intervals", "check_intervals"),
        since=(0, 199),
    ),
    Callback("log_failed_models", _always("errors")),
    Callback("log_status_update", _always("message")),
    Callback("log_warning", _always("short_message")),
    Callback("log_error", _always("message")),
)

PRIVATE_NAMES: Final = (
    PrivateName(
        SnapshotEvaluator,
        "_audit",
        "wrapped: the only place that has the result of every audit, passed ones included",
        parameters=("audit", "audit_args", "snapshot"),
    ),
    PrivateName(
        EngineAdapter,
        "_execute",
        "wrapped: the only place that has the final SQL of a failed query",
        parameters=("sql",),
    ),
    PrivateName(
        Context,
        "_get_engine_adapter",
        "called: the public property has the default gateway's adapter only",
        parameters=("gateway",),
    ),
    PrivateName(
        Context,
        "_new_state_sync",
        "called: the public property creates the state's tables where there are none",
        attributes=("_provided_state_sync",),
    ),
    PrivateName(
        Context,
        "_select_models_for_run",
        "overridden: `select_models` takes expressions, and never a standalone audit",
        parameters=("select_models", "no_auto_upstream", "snapshots"),
    ),
    PrivateName(
        Context,
        "_new_selector",
        "overridden: a name with a selector's characters is a name where models are restated",
        parameters=("models", "dag"),
    ),
)


def require_compatible_sqlmesh(
    *, console: type = Console, private_names: tuple[PrivateName, ...] = PRIVATE_NAMES
) -> None:
    """Check that the installed SQLMesh has all callbacks and private names that a run needs.

    Raises:
        ConfigurationError: it lacks some; names them and the versions of SQLMesh and the runner.
    """
    version = _parsed(sqlmesh_version)
    missing = [
        *(text for callback in CALLBACKS for text in _missing_of(callback, console, version)),
        *(text for name in private_names for text in _missing_private(name)),
    ]
    if missing:
        msg = (
            f"sqlmesh-runner {__version__} can't record a run of SQLMesh {sqlmesh_version}, which "
            f"lacks {', '.join(missing)}. Nothing was run. Upgrade sqlmesh-runner, or install a "
            "SQLMesh release that it supports."
        )
        raise ConfigurationError(msg)


def _parsed(version: str) -> Version:
    """Return a release as numbers. A development build counts as the newest release."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?$", version)
    numbers = tuple(int(number or 0) for number in match.groups()) if match else ()
    return numbers if any(numbers) else (10**6,)


def _missing_of(callback: Callback, console: type, version: Version) -> Iterator[str]:
    if version < callback.since:
        return
    method = getattr(console, callback.name, None)
    if method is None:
        yield f"Console.{callback.name}"
        return
    present = _parameters(method)
    for parameter, since in callback.parameters.items():
        if version >= since and parameter not in present:
            yield f"the parameter `{parameter}` of Console.{callback.name}"


def _missing_private(private: PrivateName) -> Iterator[str]:
    name = f"{private.owner.__name__}.{private.name}"
    method = getattr(private.owner, private.name, None)
    if method is None:
        yield name
        return
    present = _parameters(method)
    yield from (
        f"the parameter `{each}` of {name}" for each in private.parameters if each not in present
    )
    used = inspect.unwrap(method).__code__.co_names
    yield from (
        f"the attribute `{each}` in {name}" for each in private.attributes if each not in used
    )


def _parameters(method: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(method).parameters)
