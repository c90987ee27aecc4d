"""Read a manifest file, which `sqlmesh-runner manifest` writes.

Its format is in docs/reference/manifest.md. Reading it is all that importing a user's
definitions costs: no SQLMesh, no project files, no process.
"""

import functools
import zoneinfo
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic_core
from pydantic import BaseModel, TypeAdapter, ValidationError

from dagster_sqlmesh_pipes.errors import ManifestError
from dagster_sqlmesh_pipes.manifest.values import (
    EnvironmentVariable,
    Manifest,
    Model,
    StandaloneAudit,
)

__all__ = ["SCHEMA_VERSION", "load_manifest", "parse_manifest"]

SCHEMA_VERSION = 1
"""The one manifest schema this package reads."""

_MAKE_AGAIN = "Make the manifest again with `sqlmesh-runner manifest`."


class _Project(BaseModel):
    gateway: str | None = None
    environment: str = "prod"
    default_catalog: str | None = None
    dialect: str | None = None
    state_engine: str | None = None


_MODELS = TypeAdapter(list[Model])
_STANDALONE_AUDITS = TypeAdapter(tuple[StandaloneAudit, ...])
_ENVIRONMENT_VARIABLES = TypeAdapter(tuple[EnvironmentVariable, ...])


def load_manifest(path: str | Path) -> Manifest:
    """Read a manifest file, once per process and state of the file.

    Raises:
        ManifestError: the file is missing, not a manifest, or of a schema version that this
            package does not read.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as exc:
        msg = (
            f"There is no SQLMesh manifest at {path} ({exc.strerror}). Make it where SQLMesh is "
            f"installed: `sqlmesh-runner manifest --project-dir PROJECT -o {path}`."
        )
        raise ManifestError(msg) from exc
    return _load(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=32)
def _load(path: Path, _mtime_ns: int, _size: int) -> Manifest:
    try:
        raw = pydantic_core.from_json(path.read_bytes(), cache_strings="all")
    except ValueError as exc:  # also if it is nested too deeply
        msg = f"{path} is not JSON that can be read ({exc}). {_MAKE_AGAIN}"
        raise ManifestError(msg) from exc
    except OSError as exc:
        msg = f"The SQLMesh manifest {path} can't be read: {exc.strerror}."
        raise ManifestError(msg) from exc
    try:
        return parse_manifest(raw)
    except ManifestError as exc:
        msg = f"{path}: {exc}"
        raise ManifestError(msg) from exc


def parse_manifest(raw: Any) -> Manifest:
    """Return the manifest that parsed JSON describes.

    Raises:
        ManifestError: it is not a manifest, of another schema version, has a model twice, or a
            time zone that does not exist.
    """
    _check_schema_version(raw)
    try:
        project = _Project.model_validate(raw.get("project", {}))
        models = _MODELS.validate_python(raw["models"])
        manifest = Manifest(
            gateway=project.gateway,
            environment=project.environment,
            default_catalog=project.default_catalog,
            dialect=project.dialect or "",
            state_engine=project.state_engine,
            sqlmesh_version=raw.get("generator", {}).get("sqlmesh_version"),
            models={model.fqn: model for model in models},
            standalone_audits=_STANDALONE_AUDITS.validate_python(raw.get("standalone_audits", ())),
            environment_variables=_ENVIRONMENT_VARIABLES.validate_python(
                raw.get("environment_variables", ())
            ),
        )
    except (KeyError, TypeError, AttributeError, RecursionError, ValidationError) as exc:
        msg = f"the manifest is damaged: {exc}. {_MAKE_AGAIN}"
        raise ManifestError(msg) from exc
    _check_models_are_different(models)
    _check_time_zones(models)
    return manifest


def _check_schema_version(raw: Any) -> None:
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version is None:
        msg = f"it has no `schema_version`, so it is not a manifest. {_MAKE_AGAIN}"
        raise ManifestError(msg)
    if version == SCHEMA_VERSION:
        return
    if isinstance(version, int) and version < SCHEMA_VERSION:
        upgrade = "sqlmesh-runner and make the manifest again"
    else:
        upgrade = "dagster-sqlmesh-pipes"
    msg = (
        f"the manifest has schema version {version}, this dagster-sqlmesh-pipes reads version "
        f"{SCHEMA_VERSION}. Upgrade {upgrade}."
    )
    raise ManifestError(msg)


def _check_models_are_different(models: Sequence[Model]) -> None:
    counts = Counter(model.fqn for model in models)
    twice = sorted(fqn for fqn, count in counts.items() if count > 1)
    if twice:
        msg = f"the manifest has these models more than once: {', '.join(twice)}. {_MAKE_AGAIN}"
        raise ManifestError(msg)


def _check_time_zones(models: Sequence[Model]) -> None:
    for name in {model.cron_tz for model in models if model.cron_tz}:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as exc:
            model = next(model for model in models if model.cron_tz == name)
            msg = (
                f"the time zone {name!r} (cron_tz) of the model {model.fqn} is not in this "
                "machine's time zone database. Use an IANA name such as Europe/Berlin."
            )
            raise ManifestError(msg) from exc
