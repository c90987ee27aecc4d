"""Write the manifest: the project's files described as JSON."""

import os
from contextlib import suppress
from pathlib import Path

from sqlmesh_runner.errors import EXIT_DONE, ConfigurationError
from sqlmesh_runner.manifest.build import build_manifest, dump
from sqlmesh_runner.options import ManifestOptions
from sqlmesh_runner.sinks.output import open_output
from sqlmesh_runner.sqlmesh_api.context import require_project
from sqlmesh_runner.sqlmesh_api.errors import sqlmesh_errors
from sqlmesh_runner.sqlmesh_api.variables import naming_missing_variables

__all__ = ["main"]


def main(options: ManifestOptions) -> int:
    """Write the manifest to the output file or to stdout, and return the exit code.

    Raises:
        ConfigurationError: the project can't be read, or the file can't be written.
    """
    if options.output is not None:
        _write_atomically(_manifest_text(options), options.output)
        return EXIT_DONE
    with open_output(os.environ) as output:
        output.write(_manifest_text(options))
    return EXIT_DONE


def _manifest_text(options: ManifestOptions) -> str:
    require_project(options.project_dir)
    with (
        naming_missing_variables(options.project_dir, gateway=options.gateway),
        sqlmesh_errors("Reading the project's files", otherwise=ConfigurationError),
    ):
        manifest = build_manifest(
            paths=options.project_dir,
            gateway=options.gateway,
            environment=options.environment,
            config=options.config,
            dotenv=options.dotenv,
            column_lineage=options.column_lineage,
        )
    return dump(manifest)


def _write_atomically(text: str, output: Path) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(output)
    except OSError as exc:
        msg = (
            f"The manifest can't be written to {output}: {exc.strerror}. Give --output a file "
            "that may be written."
        )
        raise ConfigurationError(msg) from exc
    finally:
        with suppress(OSError):  # replaced, or never made
            draft.unlink()
