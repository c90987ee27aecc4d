"""Functions that take a group of options as keyword arguments."""

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dagster_sqlmesh_pipes.errors import ConfigurationError

__all__ = ["keyword_arguments"]

P = ParamSpec("P")
R = TypeVar("R")
Group = TypeVar("Group", bound=BaseModel)


def keyword_arguments(
    options: Callable[P, Group],
) -> Callable[[Callable[[Group], R]], Callable[P, R]]:
    """Call a function of an options object with the options as keyword arguments.

    Type checkers and editors read them from the class, `help()` and `inspect.signature` from what
    is added here.
    """
    group = cast("type[Group]", options)

    def decorate(function: Callable[[Group], R]) -> Callable[P, R]:
        signature = _signature(group, function)

        @functools.wraps(function)
        def with_keywords(*args: P.args, **kwargs: P.kwargs) -> R:
            signature.bind(*args, **kwargs)  # an unknown name is a TypeError, as of any function
            try:
                found = group(**kwargs)
            except ValidationError as exc:
                raise ConfigurationError(_invalid(function.__name__, exc)) from exc
            return function(found)

        with_keywords.__signature__ = signature  # type: ignore[attr-defined]  # inspect reads it
        with_keywords.__doc__ = _with_arguments(function.__doc__ or "", group)
        return with_keywords

    return decorate


def _signature(options: type[BaseModel], function: Callable[..., Any]) -> inspect.Signature:
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else field.get_default(),
            annotation=field.annotation,
        )
        for name, field in options.model_fields.items()
    ]
    return inspect.Signature(
        parameters, return_annotation=inspect.signature(function).return_annotation
    )


def _with_arguments(doc: str, options: type[BaseModel]) -> str:
    """Return a docstring with a section of arguments, before the one of errors."""
    doc = inspect.cleandoc(doc)
    before, raises, after = doc.partition("\nRaises:")
    arguments = "\n".join(_argument_lines(options))
    return f"{before}\nArgs:\n{arguments}\n{raises}{after}"


def _argument_lines(options: type[BaseModel]) -> Iterator[str]:
    for name, field in options.model_fields.items():
        text = f"{name}: {field.description}"
        yield textwrap.fill(text, 96, initial_indent=" " * 4, subsequent_indent=" " * 8)


def _invalid(name: str, exc: ValidationError) -> str:
    problems = "; ".join(map(_problem, exc.errors()))
    return f"{name} got options that can't be used: {problems}."


def _problem(error: ErrorDetails) -> str:
    value = error["input"]
    given = f", not {value!r}" if isinstance(value, str | int | float) else ""
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}{given}"
