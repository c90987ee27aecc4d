"""What a manifest is made from, as far as it can change in development: files and variables."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

__all__ = ["inputs_digest"]

_SUFFIXES = (
    ".sql", ".py", ".yaml", ".yml", ".csv", ".toml", ".json", ".md", ".j2", ".jinja", ".env",
)  # fmt: skip
"""What SQLMesh and dbt projects read; `.md` has dbt's doc blocks."""

_OUTPUTS = frozenset({"logs", "target", "node_modules"})
"""Folders that hold no models where they are in the project's own folder; deeper ones may."""


def inputs_digest(
    folders: Iterable[str | Path],
    variables: Mapping[str, str | None],
    settings: object,
    *,
    files: Iterable[Path] = (),
) -> str:
    """Return a digest of a manifest's inputs.

    Args:
        folders: the project's, on this machine. Of files names, sizes and times count.
        variables: the environment variables that the project reads, with their values.
        settings: what else counts, as something with a `repr`.
        files: further files, which need not exist.
    """
    found = [file for folder in folders for file in _files(str(folder))]
    found += [_described(str(file), file.stat()) for file in files if file.is_file()]
    inputs = (sorted(variables.items()), settings, sorted(found))
    return hashlib.sha256(repr(inputs).encode()).hexdigest()


def _files(root: str) -> Iterator[tuple[str, int, int]]:
    pending, seen = [root], set[tuple[int, int]]()
    while pending:
        folder = pending.pop()
        status = os.stat(folder)  # noqa: PTH116 - 1,000 files in few milliseconds
        if (status.st_dev, status.st_ino) in seen:  # symbolic links may make circles
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if not _is_ignored(entry, is_top=folder == root):
                        pending.append(entry.path)
                elif entry.name.endswith(_SUFFIXES) and entry.is_file():
                    yield _described(entry.path, entry.stat())


def _described(path: str, status: os.stat_result) -> tuple[str, int, int]:
    return path, status.st_size, status.st_mtime_ns


def _is_ignored(folder: os.DirEntry[str], *, is_top: bool) -> bool:
    if folder.name.startswith(".") or folder.name == "__pycache__":
        return True
    if not is_top:
        return False
    return folder.name in _OUTPUTS or os.path.exists(os.path.join(folder.path, "pyvenv.cfg"))  # noqa: PTH110, PTH118
