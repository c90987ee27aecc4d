"""Connections that a project's configuration has and that nobody may ever use.

SQLMesh validates every gateway's connection when it reads the configuration: its driver must be
installed, its credentials must be set. A runner that uses one gateway needs only that one.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Final

from sqlmesh.core.config import ConnectionConfig
from sqlmesh.core.config import connection as sqlmesh_connection
from sqlmesh.utils.errors import ConfigError

from sqlmesh_runner.errors import describe

__all__ = ["UnusableConnection", "deferred_connection_errors"]

_EXTRAS: Final = {"gcp_postgres": "gcppostgres"}  # by connection type, where they differ


class UnusableConnection(ConnectionConfig):  # type: ignore[misc]  # SQLMesh is not followed by mypy
    """A connection whose settings are not valid. Whoever connects by it is told why."""

    DIALECT: ClassVar[str] = ""
    DISPLAY_NAME: ClassVar[str] = ""
    DISPLAY_ORDER: ClassVar[int] = 0

    type_: str
    reason: str
    concurrent_tasks: int = 1
    register_comments: bool = False
    pre_ping: bool = False

    def create_engine_adapter(self, *_: Any, **__: Any) -> Any:
        """Raise what is wrong with the settings."""
        raise ConfigError(self.reason)

    @property
    def _connection_kwargs_keys(self) -> set[str]:
        return set()

    @property
    def _engine_adapter(self) -> Any:
        raise ConfigError(self.reason)

    @property
    def _connection_factory(self) -> Callable[..., Any]:
        raise ConfigError(self.reason)


@contextmanager
def deferred_connection_errors() -> Iterator[list[UnusableConnection]]:
    """Let invalid settings and missing drivers be errors of whoever connects, not of the reader.

    Hooked are `parse_connection_config`, which makes each connection of a YAML configuration, and
    `ConnectionConfig._connection_factory_with_kwargs`, which imports the driver. The latter stays.

    Yields the connections that are not valid, as they are found.
    """
    _defer_driver_imports()
    logger = logging.getLogger(sqlmesh_connection.__name__)  # logs a traceback for a missing driver
    original, was_disabled = sqlmesh_connection.parse_connection_config, logger.disabled
    unusable: list[UnusableConnection] = []

    def parse(settings: dict[str, Any]) -> ConnectionConfig:
        try:
            return original(dict(settings))
        except Exception as exc:  # noqa: BLE001 - pydantic's, SQLMesh's, and OSErrors of key files
            with suppress(Exception):  # what it is without its driver
                return original({**settings, "check_import": False})
            unusable.append(_unusable(settings, exc))
            return unusable[-1]

    sqlmesh_connection.parse_connection_config = parse
    logger.disabled = True
    try:
        yield unusable
    finally:
        sqlmesh_connection.parse_connection_config = original
        logger.disabled = was_disabled


def _unusable(settings: Mapping[str, Any], error: Exception) -> UnusableConnection:
    kind = str(settings.get("type"))
    if isinstance(error.__context__, ImportError):  # SQLMesh's check of the driver
        reason = _driver_missing(kind, error.__context__)
    else:
        reason = (
            f"The {kind} connection of the configuration is not valid: {_why(error).rstrip('.')}. "
            "Correct it there, or the variables that it reads."
        )
    return UnusableConnection(type_=kind, reason=reason)


def _why(error: Exception) -> str:
    details = getattr(error, "errors", None)  # pydantic's ValidationError, without the values
    if not callable(details):
        return describe(error)
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in details()
    )


def _defer_driver_imports() -> None:
    original = ConnectionConfig._connection_factory_with_kwargs  # noqa: SLF001 - has no public name
    if getattr(original.fget, "is_deferred", False):
        return

    def factory(self: ConnectionConfig) -> Callable[[], Any]:
        try:
            return original.fget(self)  # type: ignore[no-any-return]  # a callable
        except ImportError as exc:
            return _connect_without_driver(self.type_, exc)

    factory.is_deferred = True  # type: ignore[attr-defined]
    ConnectionConfig._connection_factory_with_kwargs = property(factory)  # noqa: SLF001


def _connect_without_driver(kind: str, error: ImportError) -> Callable[[], Any]:
    def connect(*_: Any, **__: Any) -> Any:
        raise ConfigError(_driver_missing(kind, error)) from error

    return connect


def _driver_missing(kind: str, error: ImportError) -> str:
    return (
        f"The driver for {kind} is not installed ({error}). Install it where the runner is: "
        f"`{sys.executable} -m pip install 'sqlmesh[{_EXTRAS.get(kind, kind)}]'`."
    )
