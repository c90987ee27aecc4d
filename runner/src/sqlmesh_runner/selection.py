"""What a run was asked for, by Dagster (Pipes extras) or on the command line, by SQLMesh's names only."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlmesh_runner import PROTOCOL_VERSION
from sqlmesh_runner.errors import ConfigurationError, NotPlannedError

__all__ = ["Selection"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The models and standalone audits to run, or None for all that the environment holds, and the audits to run alone.

    `audits` maps FQNs to audit ids; None as its value means all audits of that model.
    """

    models: frozenset[str] | None = None
    audits: Mapping[str, frozenset[str] | None] = field(default_factory=dict)

    @classmethod
    def from_names(cls, names: Collection[str] | None) -> "Selection":
        """Select by the command line's `--select`."""
        if not names:
            return cls()
        return cls(models=frozenset(names), audits=dict.fromkeys(names))

    @classmethod
    def from_extras(cls, extras: Mapping[str, Any]) -> "Selection":
        """Select what Dagster selected.

        Raises:
            ConfigurationError: the extras are of a protocol version that this runner does not speak.
        """
        version = extras.get("protocol_version", PROTOCOL_VERSION)
        if version != PROTOCOL_VERSION:
            upgrade = "sqlmesh-runner" if version > PROTOCOL_VERSION else "dagster-sqlmesh-pipes"
            msg = f"The orchestrator speaks protocol version {version}, this runner version {PROTOCOL_VERSION}. Upgrade {upgrade}."
            raise ConfigurationError(msg)
        models: Mapping[str, Any] = extras.get("models") or {}
        standalone: Mapping[str, Any] = extras.get("standalone_audits") or {}
        audits: dict[str, frozenset[str] | None] = {fqn: frozenset(model["checks"]) for fqn, model in models.items() if model.get("checks")}
        audits |= dict.fromkeys(standalone)
        return cls(models=frozenset({*models, *standalone}) if extras.get("selection") == "models" else None, audits=audits)

    def resolved(self, held: Iterable[str], *, environment: str) -> "Selection":
        """Check the selection against what the environment holds, and spell names as SQLMesh does.

        Names without quotes are taken for FQNs whose quotes were left out.

        Raises:
            NotPlannedError: the environment does not hold one of them.
        """
        by_plain_name = {name.replace('"', ""): name for name in held}
        spelled = {name: by_plain_name.get(name.replace('"', "")) for name in {*(self.models or ()), *self.audits}}
        unknown = sorted(name for name, found in spelled.items() if found is None)
        if unknown:
            shown = ", ".join(unknown[:20]) + (f" and {len(unknown) - 20} more" if len(unknown) > 20 else "")  # noqa: PLR2004
            msg = (
                f"Environment '{environment}' does not hold {shown}. What is selected must have been promoted there: run "
                f"`sqlmesh plan {environment}`, or make the manifest again if it was removed from the project."
            )
            raise NotPlannedError(msg)
        names = {name: found for name, found in spelled.items() if found is not None}
        return Selection(
            models=None if self.models is None else frozenset(names[name] for name in self.models),
            audits={names[name]: ids for name, ids in self.audits.items()},
        )
