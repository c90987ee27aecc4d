"""The id of one use of an audit on a model: the same from a project's files and its state."""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlmesh.core.dialect import parse_one

__all__ = ["argument_texts", "audit_id"]

_DIGEST_LENGTH: Final = (
    8  # hex digits; enough for the handful of uses that one model makes of one audit
)
_BLOCKING: Final = "blocking"


def audit_id(name: str, args: Mapping[str, exp.Expression]) -> str:
    """Return the id of one use of the audit `name`, as `not_null:6b1f0c2a`.

    The digits are the start of the SHA-256 of the arguments. `blocking` is left out: turning a
    blocking audit into a warning must not start a new history of the check. Two identical uses on
    a model share their id.
    """
    payload = json.dumps(
        sorted(argument_texts(args).items()), ensure_ascii=True, separators=(",", ":")
    )
    return f"{name}:{hashlib.sha256(payload.encode()).hexdigest()[:_DIGEST_LENGTH]}"


def argument_texts(args: Mapping[str, exp.Expression]) -> dict[str, str]:
    """Return each argument but `blocking` as canonical SQL text, sorted by name."""
    return {name: _canonical(args[name]) for name in sorted(args) if name.lower() != _BLOCKING}


def _canonical(value: exp.Expression) -> str:
    """Return the text of a value after a round trip through SQLMesh's state.

    State keeps an argument as text and parses it again without the model's dialect
    (`ModelMeta._func_call_validator`). The same round trip here makes both origins equal.
    """
    text = str(value.sql(comments=False))
    try:
        return str(parse_one(text).sql(comments=False))
    except (
        SqlglotError
    ):  # text of one dialect that the generic parser refuses: from state it can't come at all
        return text
