"""Names as Dagster allows them, made from those that SQLMesh allows."""

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["digest", "is_legal_owner", "legal_name", "legal_tags", "split_fqn"]

_OWNER = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}|team:[A-Za-z0-9_-]+")
_FQN_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')
_QUOTES = str.maketrans("", "", "\"'")
_TAG_LENGTH = 63  # characters, Dagster's limit


@functools.lru_cache(maxsize=1 << 16)
def legal_name(name: str) -> str:
    """Return a name for asset keys, groups and checks: letters, digits and `_`.

    Quotes are dropped, other characters become `_`. Where that loses letters (any that is not
    ASCII), a suffix made from the name keeps it different from others.
    """
    name = name.translate(_QUOTES)
    legal = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return legal if name.isascii() else f"{legal}_{digest(name)}"


def legal_tags(tags: Iterable[str]) -> list[str]:
    """Return tags' names as keys of Dagster tags, in the same order.

    Characters that are not allowed become `_`. Where letters are lost by that, a name is too long,
    or two would be the same, a suffix made from the tag is added.
    """
    legal = {tag: _legal_tag(tag) for tag in tags}
    counts = Counter(legal.values())
    return [
        name if name == tag or counts[name] == 1 else _with_digest(name, tag)
        for tag, name in legal.items()
    ]


def is_legal_owner(owner: str) -> bool:
    """Return whether Dagster accepts an owner: an email address or `team:name`."""
    return _OWNER.fullmatch(owner) is not None


def split_fqn(fqn: str) -> list[str]:
    """Return the parts of a quoted or plain FQN: shop, raw, events for `"shop"."raw"."events"`."""
    return [quoted.replace('""', '"') or plain for quoted, plain in _FQN_PART.findall(fqn)]


def digest(text: str) -> str:
    """Return eight hex digits that tell names apart which would be the same once legal."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _legal_tag(tag: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", tag)
    return _with_digest(name, tag) if not tag.isascii() or len(name) > _TAG_LENGTH else name


def _with_digest(name: str, tag: str) -> str:
    return f"{name[: _TAG_LENGTH - 9]}_{digest(tag)}"
