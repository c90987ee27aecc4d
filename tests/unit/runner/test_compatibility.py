"""What is checked of the installed SQLMesh before a run."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmesh import __version__ as sqlmesh_version
from sqlmesh.core.console import Console

import sqlmesh_runner
from sqlmesh_runner import __version__
from sqlmesh_runner.errors import ConfigurationError
from sqlmesh_runner.sqlmesh_api import compatibility
from sqlmesh_runner.sqlmesh_api.compatibility import (
    CALLBACKS,
    PRIVATE_NAMES,
    PrivateName,
    require_compatible_sqlmesh,
)

INSTALLED = tuple(int(part) for part in sqlmesh_version.split("."))


def _console(**replaced: Callable[..., None] | None) -> type:
    """Return a class with the callbacks of the installed console, some of them replaced."""
    methods = {
        callback.name: getattr(Console, callback.name)
        for callback in CALLBACKS
        if callback.since <= INSTALLED
    }
    present = {name: method for name, method in {**methods, **replaced}.items() if method}
    return type("Console", (), present)


def test_installed_sqlmesh_is_compatible() -> None:
    require_compatible_sqlmesh()


@pytest.mark.parametrize(
    "name", [callback.name for callback in CALLBACKS if callback.since <= INSTALLED]
)
def test_missing_callback_names_both_versions(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"lacks Console\.{name}\. ") as raised:
        require_compatible_sqlmesh(console=_console(**{name: None}))

    assert f"SQLMesh {sqlmesh_version}," in str(raised.value)
    assert f"sqlmesh-runner {__version__} " in str(raised.value)


def test_missing_parameter_is_named() -> None:
    def log_failed_models(self: Any, failures: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="the parameter `errors` of Console"):
        require_compatible_sqlmesh(console=_console(log_failed_models=log_failed_models))


@pytest.mark.parametrize(
    ("version", "is_required"),
    [("0.198.9", False), ("0.199.0", True), ("0.0.0", True), ("x", True)],
)
def test_later_callback_is_required_from_its_release(
    monkeypatch: pytest.MonkeyPatch, version: str, *, is_required: bool
) -> None:
    monkeypatch.setattr(compatibility, "sqlmesh_version", version)

    def check() -> None:
        require_compatible_sqlmesh(console=_full_console(update_signal_progress=None))

    if is_required:
        with pytest.raises(ConfigurationError, match="update_signal_progress"):
            check()
    else:
        check()


def _full_console(**replaced: None) -> type:
    """Return a class with every callback and parameter of the table."""
    parameter = inspect.Parameter
    methods = {}
    for callback in CALLBACKS:

        def method(self: Any, **_arguments: Any) -> None: ...

        names = ("self", *callback.parameters)
        method.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter(name, parameter.POSITIONAL_OR_KEYWORD) for name in names]
        )
        methods[callback.name] = method
    return _console(**{**methods, **replaced})


class Owner:
    def _used(self, sql: str) -> str:
        return f"{self}{sql}"


@pytest.mark.parametrize(
    ("private", "missing"),
    [
        (PrivateName(Owner, "_gone", "why"), "Owner._gone"),
        (PrivateName(Owner, "_used", "why", ("query",)), "the parameter `query` of Owner._used"),
        (
            PrivateName(Owner, "_used", "why", attributes=("_x",)),
            "the attribute `_x` in Owner._used",
        ),
    ],
)
def test_missing_private_name_is_named(private: PrivateName, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"lacks {missing}. ")):
        require_compatible_sqlmesh(private_names=(private,))


def test_every_private_name_used_on_sqlmesh_is_listed() -> None:
    listed = {each.name for each in PRIVATE_NAMES} | {
        attribute for each in PRIVATE_NAMES for attribute in each.attributes
    }
    room = Path(sqlmesh_runner.__file__).parent / "sqlmesh_api"
    used = {
        name
        for file in room.glob("*.py")
        for name in re.findall(
            r"(?:context|adapter|SnapshotEvaluator|EngineAdapter)\.(_[a-z]\w+)", file.read_text()
        )
    }
    assert used <= listed
