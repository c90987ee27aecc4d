"""Environment variables that Python source reads, and the modules that it imports."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["PythonReads", "parse_python"]


@dataclass(frozen=True)
class PythonReads:
    """What is read in one file."""

    variables: dict[str, bool] = field(default_factory=dict)
    """By name, whether the file can't do without it: `os.environ["X"]`, `env_var("X")`."""
    imports: frozenset[tuple[int, str]] = frozenset()
    """Imported modules: how many dots they are relative by, and their name."""


def parse_python(source: str) -> PythonReads:
    """Return what a file reads by a literal name or by a constant of the module's own.

    A file that is no valid Python reads nothing: SQLMesh says so when it loads it.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return PythonReads()
    names = _Names(tree)
    variables: dict[str, bool] = {}
    for node in ast.walk(tree):
        for name, required in names.reads_of(node):
            variables[name] = variables.get(name, False) or required
    return PythonReads(variables, frozenset(_imports(tree)))


class _Names:
    """What names of a module stand for: `os`, its `environ` and `getenv`, and string constants."""

    def __init__(self, tree: ast.Module) -> None:
        self._modules, self._environs, self._getenvs = {"os"}, set[str](), set[str]()
        self._constants: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._modules |= {a.asname for a in node.names if a.name == "os" and a.asname}
            elif isinstance(node, ast.ImportFrom) and node.module == "os":
                self._environs |= {a.asname or a.name for a in node.names if a.name == "environ"}
                self._getenvs |= {a.asname or a.name for a in node.names if a.name == "getenv"}
        for statement in tree.body:
            if isinstance(statement, ast.Assign):
                self._note_constant(statement)

    def _note_constant(self, statement: ast.Assign) -> None:
        value = statement.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    self._constants[target.id] = value.value

    def reads_of(self, node: ast.AST) -> Iterator[tuple[str, bool]]:
        """Return the variable that an expression reads, and whether it must be set."""
        match node:
            case ast.Subscript(value=value, slice=key, ctx=ast.Load()) if self._is_environ(value):
                yield from self._named(key, required=True)
            case ast.Compare(left=key, ops=[ast.In() | ast.NotIn()], comparators=[value]) if (
                self._is_environ(value)
            ):
                yield from self._named(key, required=False)
            case ast.Call(func=ast.Attribute(value=value, attr="get" | "pop"), args=[key, *_]) if (
                self._is_environ(value)
            ):
                yield from self._named(key, required=False)
            case ast.Call(func=func, args=[key, *_]) if self._is_of_os(
                func, "getenv", self._getenvs
            ):
                yield from self._named(key, required=False)
            case ast.Call(func=ast.Name(id="env_var"), args=[key, *more], keywords=keywords):
                yield from self._named(key, required=not more and not keywords)
            case _:
                pass

    def _is_environ(self, node: ast.expr) -> bool:
        return self._is_of_os(node, "environ", self._environs)

    def _is_of_os(self, node: ast.expr, attribute: str, imported: set[str]) -> bool:
        match node:
            case ast.Name(id=name):
                return name in imported
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                return module in self._modules and name == attribute
            case _:
                return False

    def _named(self, key: ast.expr, *, required: bool) -> Iterator[tuple[str, bool]]:
        match key:
            case ast.Constant(value=str(name)):
                yield name, required
            case ast.Name(id=constant) if constant in self._constants:
                yield self._constants[constant], required
            case _:  # worked out while it runs
                pass


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield node.level, module
            yield from ((node.level, f"{module}.{alias.name}".lstrip(".")) for alias in node.names)
