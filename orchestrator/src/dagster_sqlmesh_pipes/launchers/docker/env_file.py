"""Files of variables, by the rules of `docker run --env-file`."""

import os
from collections.abc import Iterator
from pathlib import Path

from dagster_sqlmesh_pipes.errors import LaunchError

__all__ = ["read_env_file"]


def read_env_file(file: str) -> dict[str, str]:
    """Read `NAME=value` lines, values as they stand. A bare `NAME` is passed on from this process
    where it is set there.

    Raises:
        LaunchError: the file or a line of it cannot be read. The line is not shown: there may be a
            secret in it.
    """
    try:
        return dict(_variables(Path(file).read_bytes()))
    except (OSError, ValueError) as exc:
        what = f"env_file {file!r} of the DockerLauncher could not be read: {exc}"
        msg = (
            f"{what}. It must be on the machine where the step runs, with lines as "
            "`docker run --env-file` takes them."
        )
        raise LaunchError(msg) from (exc if isinstance(exc, OSError) else None)


def _variables(content: bytes) -> Iterator[tuple[str, str]]:
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = raw.decode().removesuffix("\r").lstrip()
        except UnicodeDecodeError:
            msg = f"line {number} is not UTF-8"
            raise ValueError(msg) from None
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not name or any(character.isspace() for character in name):
            # `export A=1` is a shell's.
            msg = f"line {number} has no name without spaces before its ="
            raise ValueError(msg)
        if equals:
            yield name, value
        elif name in os.environ:
            yield name, os.environ[name]
