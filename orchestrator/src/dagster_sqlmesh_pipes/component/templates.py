"""Templates in YAML, and the errors about them."""

from functools import partial
from typing import Any

import dagster as dg
from pydantic import BaseModel, TypeAdapter, ValidationError

from dagster_sqlmesh_pipes.errors import ConfigurationError

__all__ = ["describe_errors", "describe_fields", "resolve_written"]


def resolve_written(context: dg.ResolutionContext, name: str, value: Any) -> Any:
    """Return a value with its templates filled in.

    Raises:
        ConfigurationError: something was written, and nothing is left of it: Dagster fills in
            None for a variable that is not set.
    """
    if isinstance(value, dict):
        return {
            key: resolve_written(context.at_path(key), f"{name}.{key}", each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            resolve_written(context.at_path(index), f"{name}[{index}]", each)
            for index, each in enumerate(value)
        ]
    resolved = context.resolve_value(value)
    if value not in (None, "") and resolved in (None, "", "None"):
        msg = (
            f"{name}: {value} is empty. Set the variable that it names where definitions are "
            f"loaded, or leave {name} out."
        )
        raise ConfigurationError(msg)
    return resolved


def describe_fields(component: type[BaseModel]) -> None:
    """Set resolvers with descriptions and examples on a component's fields.

    `Resolvable` reads those from resolvers only (1.13). Strings that are not resolved otherwise
    get the check for what is left of their templates.
    """
    for name, field in component.model_fields.items():
        texts: dict[str, Any] = {"description": field.description, "examples": field.examples}
        own = next((each for each in field.metadata if isinstance(each, dg.Resolver)), None)
        if own is not None:
            own.description, own.examples = texts["description"], texts["examples"]
        elif name in _PASSED_THROUGH:
            field.metadata.append(dg.Resolver.passthrough(**texts))
        elif name in _NESTED:
            field.metadata.append(dg.Resolver.default(**texts))
        else:
            resolve = partial(_resolve_field, name=name, field_type=field.rebuild_annotation())
            field.metadata.append(dg.Resolver(resolve, inject_before_resolve=False, **texts))


_PASSED_THROUGH = {"external_asset_mapping"}
"""Fields whose braces are for this package, not for Dagster."""

_NESTED = {"op", "retry_policy", "freshness"}
"""Fields with resolvers in their types."""


def _resolve_field(context: dg.ResolutionContext, value: Any, *, name: str, field_type: Any) -> Any:
    """Return a field's value. Checked here, a value that can't be used has a file and line."""
    resolved = resolve_written(context, name, value)
    try:
        TypeAdapter(field_type).validate_python(resolved)
    except ValidationError as exc:
        raise ConfigurationError(describe_errors(exc, name)) from None
    return resolved


def describe_errors(error: ValidationError, name: str) -> str:
    """Return what is wrong with the values of a field, by their keys."""
    return "; ".join(
        f"{'.'.join(map(str, (name, *each['loc'])))}: {each['msg']}" for each in error.errors()
    )
