"""Model selections in SQLMesh's syntax, resolved from the manifest.

It has names with wildcards, `tag:`, `resource_type:`, `+` for what is upstream or downstream, `^`
(not), `&`, `|` and parentheses. The grammar and its results are those of SQLMesh's
`sqlmesh.core.selector.NativeSelector` (0.236); tests/contract/model_selectors.json compares them.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence

from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.manifest.values import Manifest

__all__ = ["select_models"]

_TOKEN = re.compile(r"[()&|^+*:]|[^()&|^+*:\s]+")
_SYMBOLS = frozenset("()&|^+*:")
_METHODS = ("tag", "resource_type", "git")
_FQN_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')

_UPPERCASE = frozenset({"snowflake", "oracle", "exasol"})
_CASE_SENSITIVE = frozenset({"clickhouse", "doris", "fabric", "mysql", "starrocks"})
"""How sqlglot's dialects normalize names; other dialects make them lower case."""

_Fqns = frozenset[str]

_NOT_CLOSED = "a parenthesis is not closed, or `&` follows `&` without one"
_NO_NAME = "a model's name is expected"
_GIT = "git: can't be resolved from a manifest, which has no history"


def select_models(
    manifest: Manifest, select: Sequence[str] = (), exclude: Sequence[str] = ()
) -> _Fqns:
    """Return the FQNs of the models that any of `select` and none of `exclude` selects.

    EXTERNAL and EMBEDDED models are among them. Without `select`, all are selected.

    Raises:
        ConfigurationError: a selection can't be read, or selects no model.
    """
    selected = _select_each(manifest, select) if select else frozenset(manifest.models)
    return selected - _select_each(manifest, exclude)


def _select_each(manifest: Manifest, texts: Sequence[str]) -> _Fqns:
    if not texts:
        return frozenset()
    graph = _Graph(manifest)
    found: set[str] = set()
    for text in texts:
        fqns = _Parser(text, graph).parse()
        if not fqns:
            msg = (
                f"The selection {text!r} matches no model of the manifest. Check its names and "
                "tags."
            )
            raise ConfigurationError(msg)
        found |= fqns
    return frozenset(found)


class _Graph:
    """The manifest's models, as selections ask for them."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.all = frozenset(manifest.models)
        self._reads = {fqn: model.depends_on & self.all for fqn, model in manifest.models.items()}
        self._read_by: dict[str, set[str]] = {fqn: set() for fqn in self.all}
        for fqn, reads in self._reads.items():
            for read in reads:
                self._read_by[read].add(fqn)

    def named(self, pattern: str) -> _Fqns:
        if "*" in pattern:
            return frozenset(
                fqn
                for fqn, model in self._manifest.models.items()
                if fnmatch.fnmatchcase(model.name, pattern)
            )
        return self.all & {self._fqn(pattern)}

    def tagged(self, pattern: str) -> _Fqns:
        pattern = pattern.lower()
        return frozenset(
            fqn
            for fqn, model in self._manifest.models.items()
            if any(_matches_tag(tag.lower(), pattern) for tag in model.tags)
        )

    def upstream(self, fqns: _Fqns) -> _Fqns:
        return _reachable(fqns, self._reads)

    def downstream(self, fqns: _Fqns) -> _Fqns:
        return _reachable(fqns, self._read_by)

    def _fqn(self, name: str) -> str:
        parts = [
            self._normalized(plain) if plain else self._normalized_quoted(quoted)
            for quoted, plain in _FQN_PART.findall(name)
        ]
        catalog = self._manifest.default_catalog
        if catalog and len(parts) == 2:  # noqa: PLR2004 - schema and name
            parts.insert(0, catalog)
        return ".".join(f'"{part}"' for part in parts)

    def _normalized(self, part: str) -> str:
        dialect = self._manifest.dialect
        if dialect in _CASE_SENSITIVE:
            return part
        return part.upper() if dialect in _UPPERCASE else part.lower()

    def _normalized_quoted(self, part: str) -> str:
        part = part.replace('""', '"')
        model_has_it = any(part in fqn for fqn in self.all)
        return part if model_has_it else self._normalized(part)


class _Parser:
    """Evaluate a selection while it is read, by recursive descent."""

    def __init__(self, text: str, graph: _Graph) -> None:
        self._text = text
        # As SQLMesh does it: a `+` after the whole is one of the parentheses around it.
        self._tokens = ["(", *_TOKEN.findall(text), ")"]
        self._position = 0
        self._graph = graph

    def parse(self) -> _Fqns:
        found = self._conjunction()
        if self._position < len(self._tokens):
            raise self._error(f"{self._tokens[self._position]!r} is not expected")
        return found

    def _conjunction(self) -> _Fqns:
        found = self._unary()
        if self._next_is("&"):
            found &= self._unary()
        if self._next_is("|"):
            found |= self._conjunction()
        return found

    def _unary(self) -> _Fqns:
        return self._graph.all - self._unary() if self._next_is("^") else self._operand()

    def _operand(self) -> _Fqns:
        upstream = self._next_is("+")
        method = next((each for each in _METHODS if self._next_is_method(each)), None)
        if method is None and self._next_is("("):
            found = self._conjunction()
            downstream = self._next_is("+")  # SQLMesh looks for it before the parenthesis
            if not self._next_is(")"):
                raise self._error(_NOT_CLOSED)
        else:
            found = self._matching(method, self._pattern())
            downstream = self._next_is("+")
        selected = found
        if upstream:
            selected |= self._graph.upstream(found)
        if downstream:
            selected |= self._graph.downstream(found)
        return selected

    def _pattern(self) -> str:
        left = "*" if self._next_is("*") else ""
        if self._position < len(self._tokens) and self._tokens[self._position] not in _SYMBOLS:
            name = self._tokens[self._position]
            self._position += 1
            return f"{left}{name}{'*' if self._next_is('*') else ''}"
        if left:
            return left
        raise self._error(_NO_NAME)

    def _matching(self, method: str | None, pattern: str) -> _Fqns:
        match method:
            case "tag":
                return self._graph.tagged(pattern)
            case "git":
                raise self._error(_GIT)
            case "resource_type" if pattern.lower() == "model":
                return self._graph.all
            case "resource_type" if pattern.lower() == "audit":
                return frozenset()
            case "resource_type":
                raise self._error(f"there is no resource type {pattern!r}, but model and audit")
        return self._graph.named(pattern)

    def _next_is(self, token: str) -> bool:
        found = self._tokens[self._position : self._position + 1] == [token]
        self._position += found
        return found

    def _next_is_method(self, method: str) -> bool:
        ahead = [token.lower() for token in self._tokens[self._position : self._position + 2]]
        found = ahead == [method, ":"]
        self._position += 2 * found
        return found

    def _error(self, problem: str) -> ConfigurationError:
        return ConfigurationError(
            f"The selection {self._text!r} can't be read: {problem}. Use SQLMesh's syntax: "
            "`marts.*`, `tag:finance`, `+marts.orders+`, `a & ^b`, `a | b`."
        )


def _matches_tag(tag: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(tag, pattern) if "*" in pattern else tag == pattern


def _reachable(fqns: Iterable[str], edges: Mapping[str, Iterable[str]]) -> _Fqns:
    pending, seen = list(fqns), set[str]()
    while pending:
        fqn = pending.pop()
        if fqn not in seen:
            seen.add(fqn)
            pending.extend(edges[fqn])
    return frozenset(seen)
