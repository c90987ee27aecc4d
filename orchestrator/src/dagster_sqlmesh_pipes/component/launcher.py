"""The launchers as YAML: one mapping for each, distinguished by its `type`."""

import ast
import functools
import inspect
import operator
import textwrap
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, Literal

import dagster as dg
from pydantic import Field, ValidationError, create_model, model_validator

from dagster_sqlmesh_pipes.component.templates import describe_errors, resolve_written
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.launchers.base import Launcher

__all__ = ["LAUNCHER_MODEL", "resolve_launcher"]

_LAUNCHERS = {
    "subprocess": ("subprocess", "SubprocessLauncher"),
    "docker": ("docker", "DockerLauncher"),
    "kubernetes": ("kubernetes", "KubernetesLauncher"),
}
"""By type: the launcher's module, which may need an extra of the same name, and its class."""


def resolve_launcher(context: dg.ResolutionContext, model: Any) -> Launcher:
    """Return the launcher that YAML describes.

    Raises:
        ConfigurationError: a template in it is empty, or a setting can't be used.
    """
    if isinstance(model, str):
        msg = (
            f"launcher: {model!r} is not a launcher. Write a mapping with a `type` "
            f"({', '.join(_LAUNCHERS)}) and that launcher's options."
        )
        raise ConfigurationError(msg)
    written = model.model_dump(exclude_unset=True)
    settings = {
        name: resolve_written(context.at_path(name), f"launcher.{name}", value)
        for name, value in written.items()
        if name != "type"
    }
    try:
        return _launcher_class(model.type)(**settings)
    except ValidationError as exc:
        raise ConfigurationError(describe_errors(exc, "launcher")) from None


def _launcher_class(kind: str) -> type[Launcher]:
    module, name = _LAUNCHERS[kind]
    found: type[Launcher] = getattr(
        import_module(f"dagster_sqlmesh_pipes.launchers.{module}"), name
    )
    return found


def _model(kind: str) -> type[dg.Model]:
    try:
        launcher = _launcher_class(kind)
    except ModuleNotFoundError as exc:
        return _without_extra(kind, exc)
    descriptions = _descriptions(launcher)
    fields: dict[str, Any] = {
        name: (
            field.annotation | str,  # a template
            Field(default=None, description=descriptions.get(name))
            if not field.is_required()
            else Field(description=descriptions.get(name)),
        )
        for name, field in launcher.model_fields.items()
    }
    tag: Any = (Literal[kind], Field(description=(launcher.__doc__ or "").partition("\n")[0]))
    return create_model(f"{launcher.__name__}Model", __base__=dg.Model, type=tag, **fields)


def _without_extra(kind: str, missing: ModuleNotFoundError) -> type[dg.Model]:
    class MissingExtra(dg.Model, extra="allow"):
        type: Literal[kind]  # type: ignore[valid-type]

        @model_validator(mode="before")
        @classmethod
        def _refuse(cls, _value: object) -> object:
            msg = (
                f"launcher.type {kind} needs the package {missing.name}: "
                f"pip install 'dagster-sqlmesh-pipes[{kind}]'"
            )
            raise ValueError(msg)

    return MissingExtra


def _descriptions(launcher: type[Launcher]) -> Mapping[str, str]:
    """Return what stands below the fields in a launcher's source, its bases' included."""
    found: dict[str, str] = {}
    for base in reversed(launcher.__mro__):
        if issubclass(base, Launcher):
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, text in zip(body.body, body.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[ast.unparse(field.target)] = " ".join(
                        ast.literal_eval(text.value).split()
                    )
    return found


LAUNCHER_MODEL: Any = Annotated[
    functools.reduce(operator.or_, map(_model, _LAUNCHERS)), Field(discriminator="type")
]
"""What YAML may have as a launcher. `Resolvable`'s own unions accept a wrong `type`."""
