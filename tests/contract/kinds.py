"""SQLMesh's `is_…` answers for its model kinds, which the orchestrator's must equal."""

from types import SimpleNamespace
from typing import Any

from sqlmesh.core.model.kind import ModelKindMixin, ModelKindName

__all__ = ["QUESTIONS", "kinds"]

QUESTIONS = sorted(
    name
    for name, value in vars(ModelKindMixin).items()
    if name.startswith("is_") and isinstance(value, property)
)


def kinds() -> dict[str, list[str]]:
    """Return the questions that each kind answers with yes."""
    return {
        kind.value: [question for question in QUESTIONS if getattr(_asked(kind), question)]
        for kind in ModelKindName
    }


def _asked(kind: ModelKindName) -> Any:
    return type("Asked", (ModelKindMixin, SimpleNamespace), {"model_kind_name": kind})()
