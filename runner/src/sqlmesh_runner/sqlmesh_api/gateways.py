"""A SQLMesh context that runs what is named, and that other gateways' connections can't break."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from sqlmesh import Context
from sqlmesh.core.config import Config
from sqlmesh.core.snapshot import Snapshot
from sqlmesh.utils.errors import ConfigError

from sqlmesh_runner.errors import (
    ConfigurationError,
    UnreachableError,
    describe,
    is_connection_error,
)
from sqlmesh_runner.selection import list_names
from sqlmesh_runner.sqlmesh_api.connections import UnusableConnection

__all__ = ["ProjectContext", "gateway_errors", "require_answers", "require_usable_connections"]


class ProjectContext(Context):  # type: ignore[misc]  # SQLMesh is not followed by mypy
    """A context that runs exactly the snapshots that are named, and needs only used connections.

    `--select-model` of SQLMesh takes expressions, which are matched with every model (slow for
    thousands) and never with standalone audits. `Context.engine_adapters` connects to every
    gateway that does not name its catalog, whether or not a model uses it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.unusable_gateways: dict[str, str] = {}
        """By gateway that can't be used, the reason."""
        super().__init__(*args, **kwargs)

    def match_models(self, selector: str, snapshots: Collection[Snapshot]) -> set[str]:
        """Return the FQNs of the models that one of SQLMesh's selectors matches, as its run does.

        Raises:
            SqlglotError, SQLMeshError: it can't be read.
        """
        return set(
            super()._select_models_for_run([selector], no_auto_upstream=True, snapshots=snapshots)
        )

    def _select_models_for_run(
        self, select_models: Collection[str], *_: Any, **__: Any
    ) -> set[str]:
        return set(select_models)

    def _new_selector(self, models: Any = None, dag: Any = None) -> Any:
        """Return SQLMesh's selector, which takes no model's FQN for an expression."""
        selector = super()._new_selector(models=models, dag=dag)
        expand, known = selector.expand_model_selections, {*(models or self._models)}

        def expand_expressions(selections: Iterable[str], *args: Any, **kwargs: Any) -> set[str]:
            given = set(selections)
            expressions, names = given - known, given & known
            if expressions:
                names.update(expand(expressions, *args, **kwargs))
            return names

        selector.expand_model_selections = expand_expressions
        return selector

    @cached_property
    def engine_adapters(self) -> dict[str, Any]:
        """Return the adapters of the gateways that can be used; others are `unusable_gateways`."""
        for config in self.configs.values():
            gateways = config.gateways if isinstance(config.gateways, dict) else {}
            for name in [*gateways]:
                connection = gateways[name].connection
                if isinstance(connection, UnusableConnection) and name != self.selected_gateway:
                    self.unusable_gateways[name] = connection.reason
                    del gateways[name]
        adapters: dict[str, Any] = super().engine_adapters
        for name, adapter in [*adapters.items()]:
            if name != self.selected_gateway and (reason := _catalog_error(adapter)):
                self.unusable_gateways[name] = reason
                del adapters[name]
        return adapters

    @cached_property
    def default_catalog_per_gateway(self) -> dict[str, str]:
        """Return the catalogs of usable gateways; asking for another's is an error."""
        catalogs = super().default_catalog_per_gateway
        return _Catalogs(catalogs, self.unusable_gateways)

    def _get_engine_adapter(self, gateway: str | None = None) -> Any:
        if gateway in self.unusable_gateways:
            raise ConfigError(_unusable(gateway, self.unusable_gateways[gateway]))
        return super()._get_engine_adapter(gateway)


class _Catalogs(dict[str, str]):
    """Catalogs by gateway. A model's name begins with its catalog, so a guess would rename it."""

    def __init__(self, known: dict[str, str], unusable: dict[str, str]) -> None:
        super().__init__(known)
        self._unusable = unusable

    def __bool__(self) -> bool:
        return bool(len(self) or self._unusable)

    def get(self, key: str, default: Any = None) -> Any:
        if key in self._unusable:
            raise ConfigError(_unusable(key, self._unusable[key]))
        return super().get(key, default)


def require_usable_connections(config: Config, gateway: str | None) -> None:
    """Check the settings of a gateway's warehouse and state.

    Raises:
        ConfigError: they are not valid, or there is no such gateway.
    """
    for connection in (config.get_connection(gateway), config.get_state_connection(gateway)):
        if isinstance(connection, UnusableConnection):
            selected = config.get_gateway(gateway)
            name = next((name for name, each in config.gateways.items() if each is selected), "")
            msg = f"Gateway '{name}' can't be used: {connection.reason}"
            raise ConfigError(msg)


@contextmanager
def gateway_errors(context: ProjectContext, snapshots: Iterable[Any]) -> Iterator[None]:
    """Name the gateway that keeps these models from running. SQLMesh's errors don't.

    Raises:
        ConfigurationError: a gateway of theirs can't be used.
        UnreachableError: one does not answer. It is asked only if SQLMesh fails.
    """
    gateways = _models_by_gateway(context, snapshots)
    _ = context.engine_adapters  # finds those that can't be used
    for gateway, reason in context.unusable_gateways.items():
        if gateway in gateways:
            raise ConfigurationError(_unusable(gateway, reason, gateways[gateway]))
    try:
        yield
    except Exception as exc:
        if is_connection_error(exc) or isinstance(exc, ConfigError):
            _require_answers(context, gateways)
        raise


def require_answers(context: ProjectContext, snapshots: Iterable[Any]) -> None:
    """Check that the gateways on which these models run answer.

    Raises:
        ConfigurationError: one can't be used.
        UnreachableError: one does not answer.
    """
    with gateway_errors(context, snapshots):
        _require_answers(context, _models_by_gateway(context, snapshots))


def _models_by_gateway(
    context: ProjectContext, snapshots: Iterable[Any]
) -> Mapping[str, Sequence[str]]:
    gateways: dict[str, list[str]] = {}
    for snapshot in sorted(snapshots, key=lambda each: each.name):
        gateways.setdefault(snapshot.model_gateway or context.selected_gateway, []).append(
            snapshot.name
        )
    return gateways


def _require_answers(context: ProjectContext, gateways: Mapping[str, Sequence[str]]) -> None:
    for gateway, models in gateways.items():
        try:
            context._get_engine_adapter(gateway).ping()  # noqa: SLF001 - see compatibility.PRIVATE_NAMES
        except Exception as exc:
            if isinstance(exc, ConfigError):
                raise ConfigurationError(_unusable(gateway, describe(exc), models)) from exc
            msg = (
                f"Gateway '{gateway}', which {list_names(models)} needs, does not answer: "
                f"{' '.join(describe(exc).split())} Check its connection in the project's "
                "configuration, and that its server is there."
            )
            raise UnreachableError(msg) from exc


def _unusable(gateway: str, reason: str, models: Sequence[str] = ()) -> str:
    users = f"which {list_names(models)} needs" if models else "which a model needs"
    return f"Gateway '{gateway}', {users}, can't be used: {reason}"


def _catalog_error(adapter: Any) -> str | None:
    """Return why an adapter does not know its catalog, which some engines must be asked for."""
    if adapter.catalog_support.is_unsupported:
        return None
    try:
        adapter.default_catalog  # noqa: B018 - a property that may connect
    except Exception as exc:  # noqa: BLE001 - the driver's or SQLMesh's
        return describe(exc)
    return None
