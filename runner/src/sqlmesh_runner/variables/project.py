"""Environment variables that a project's files read, for the manifest, the doctor and hints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sqlmesh_runner.variables.python import parse_python
from sqlmesh_runner.variables.text import parse_config, parse_text

__all__ = ["CONFIG_FILES", "ProjectVariable", "project_variables"]

CONFIG_FILES: Final = (
    "config.yaml",
    "config.yml",
    "config.py",
    "sqlmesh.yaml",
    "sqlmesh.yml",
    "dbt_project.yml",
)
"""The files that make a folder a SQLMesh project."""

_CODE_FOLDERS: Final = ("macros", "materializations", "models", "signals", "linter")
_TEXT_FOLDERS: Final = ("audits", "external_models", "macros", "models", "seeds", "snapshots")
_YAML: Final = {".yaml", ".yml"}
_TEXTS: Final = _YAML | {".sql"}


@dataclass(frozen=True, order=True)
class ProjectVariable:
    """A variable, and the first file that reads it, relative to its project's folder."""

    name: str
    required: bool
    """It is read without a default, in this file or in another."""
    path: str
    project_dir_index: int


def project_variables(
    directories: Sequence[Path], *, gateway: str | None, also: str = ""
) -> list[ProjectVariable]:
    """Return the variables that projects read, by name.

    Read are the configuration, the files from which SQLMesh loads models, macros, signals, audits
    and materializations, and the modules in the project that these import. Names that are put
    together while the code runs are not found, nor are those of gateways that are neither in use
    nor named in `also`.
    """
    found: dict[str, ProjectVariable] = {}
    for index, directory in enumerate(directories):
        for path, variables in _reads(directory, gateway, also):
            for name, required in variables.items():
                known = found.setdefault(name, ProjectVariable(name, required, path, index))
                if required and not known.required:
                    found[name] = replace(known, required=True)
    return sorted(found.values())


def _reads(
    directory: Path, gateway: str | None, also: str
) -> Iterator[tuple[str, dict[str, bool]]]:
    for file in sorted(directory.iterdir()):
        if file.suffix in _YAML and file.is_file():
            yield file.name, _yaml_reads(file, gateway, also)
    for file in _files(directory, _TEXT_FOLDERS, _TEXTS):
        yield file.relative_to(directory).as_posix(), parse_text(_text(file))
    yield from _python_reads(directory)


def _yaml_reads(file: Path, gateway: str | None, also: str) -> dict[str, bool]:
    text = _text(file)
    if file.name in CONFIG_FILES:
        return parse_config(text, gateway=gateway, also=also)
    if file.stem == "profiles":  # dbt's: only the target in use is rendered
        return dict.fromkeys(parse_text(text), False)
    return parse_text(text)


def _python_reads(directory: Path) -> Iterator[tuple[str, dict[str, bool]]]:
    config = [file for file in (directory / "config.py",) if file.is_file()]
    ahead = [*config, *_files(directory, _CODE_FOLDERS, {".py"})]
    seen = set(ahead)
    while ahead:
        file = ahead.pop(0)
        reads = parse_python(_text(file))
        yield file.relative_to(directory).as_posix(), reads.variables
        for dots, module in sorted(reads.imports):
            base = file.parents[dots - 1] if 0 < dots <= len(file.parents) else directory
            for imported in _module_files(base, module):
                if imported not in seen and imported.is_relative_to(directory):
                    seen.add(imported)
                    ahead.append(imported)


def _module_files(base: Path, module: str) -> Iterator[Path]:
    path = base.joinpath(*module.split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            yield file


def _files(directory: Path, folders: Sequence[str], suffixes: set[str]) -> list[Path]:
    return sorted(
        file
        for folder in folders
        for file in (directory / folder).rglob("*")
        if file.suffix in suffixes and file.is_file()
    )


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
