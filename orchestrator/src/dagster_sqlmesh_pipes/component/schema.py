"""The model and JSON schema of the component's YAML, by which `dg check yaml` finds mistakes.

Pydantic writes a field's alternatives as `anyOf`. Of a value that fits none, a validator can only
say that, because it does not know which was meant. Alternatives that the value's JSON type or its
`type` key tells apart become conditions here, so the error is of the one that was meant: at its own
key and line.
"""

import functools
import operator
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from annotated_types import BaseMetadata
from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

__all__ = ["precise_model"]

_Schema = dict[str, Any]


@functools.cache
def precise_model(model: type[BaseModel]) -> type[BaseModel]:
    """Return a model of the same YAML, whose errors name what is wrong."""
    bounded = {
        name: _with_bounds_on_numbers(field)
        for name, field in model.model_fields.items()
        if _bounds(field)
    }
    base: type[BaseModel] = create_model(model.__name__, __base__=model, **bounded)

    class Precise(base):  # type: ignore[valid-type,misc]  # a class that is not known before
        @classmethod
        def model_json_schema(cls, *args: Any, **kwargs: Any) -> _Schema:
            schema = super().model_json_schema(*args, **kwargs)
            precise: _Schema = _with_conditions(schema, schema.get("$defs", {}))
            return precise

    Precise.__name__ = Precise.__qualname__ = model.__name__
    return Precise


def _bounds(field: FieldInfo) -> list[BaseMetadata]:
    return [each for each in field.metadata if isinstance(each, BaseMetadata)]


def _with_bounds_on_numbers(field: FieldInfo) -> Any:
    """Return a field whose numbers have bounds, and whose templates have none.

    Dagster's model has the bounds of `int | str` on both, and fails at each string.
    """
    alternatives = [
        Annotated[(each, *_bounds(field))] if each in (int, float) else each
        for each in get_args(field.annotation)
    ]
    annotation: Any = functools.reduce(operator.or_, alternatives)
    described = Field(default=field.default, description=field.description, examples=field.examples)
    return annotation, described


def _with_conditions(schema: Any, definitions: Mapping[str, _Schema]) -> Any:
    if isinstance(schema, list):
        return [_with_conditions(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    converted = {name: _with_conditions(each, definitions) for name, each in schema.items()}
    if "discriminator" in converted:
        return _by_tag(converted)
    alternatives = converted.get("anyOf")
    return _by_json_type(converted, definitions) if isinstance(alternatives, list) else converted


def _by_tag(schema: _Schema) -> _Schema:
    """Return a tagged union as conditions on its tag."""
    tag = schema["discriminator"]["propertyName"]
    references = schema["discriminator"]["mapping"]
    return {
        "type": "object",
        "required": [tag],
        "properties": {tag: {"enum": sorted(references)}},
        "allOf": [
            _condition({"properties": {tag: {"const": value}}, "required": [tag]}, {"$ref": model})
            for value, model in references.items()
        ],
    }


def _by_json_type(schema: _Schema, definitions: Mapping[str, _Schema]) -> _Schema:
    """Return alternatives as conditions on the value's type, where each has a type of its own."""
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    by_type = {_json_type(each, definitions): each for each in schema["anyOf"]}
    types = by_type.keys()
    if None in types or {"integer", "number"} <= types or len(types) < len(schema["anyOf"]):
        return schema
    return {
        **rest,
        "type": list(types),
        "allOf": [_condition({"type": name}, each) for name, each in by_type.items()],
    }


def _json_type(schema: _Schema, definitions: Mapping[str, _Schema]) -> str | None:
    reference = schema.get("$ref")
    if reference is not None:
        schema = definitions[reference.rpartition("/")[2]]
    found = schema.get("type")
    return found if isinstance(found, str) else None


def _condition(fits: _Schema, then: _Schema) -> _Schema:
    return {"if": fits, "then": then}
