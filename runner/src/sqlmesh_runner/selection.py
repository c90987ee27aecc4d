"""What a run was asked for, by Dagster (Pipes extras) or on the command line, by SQLMesh's names only."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmesh_runner import PROTOCOL_VERSION
from sqlmesh_runner.errors import ConfigurationError, NotPlannedError

__all__ = ["Selection", "listed"]

_LISTED = 20  # names in one message


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The models and standalone audits to run, or None for all that the environment holds, and the audits to run alone.

    `audits` maps FQNs to audit ids; None as its value means all audits of that model. `named` are the names that were given, also where
    all is to be run; `externals` are EXTERNAL models whose audits guard those, run too where they are held. What the environment does not hold of them is an error, or with `skip_unplanned` left out: then it is in `unplanned`.
    """

    models: frozenset[str] | None = None
    audits: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    named: frozenset[str] = frozenset()
    externals: frozenset[str] = frozenset()
    skip_unplanned: bool = False
    unplanned: tuple[str, ...] = ()

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
        return cls(
            models=frozenset({*models, *standalone}) if extras.get("selection") == "models" else None,
            audits=audits,
            named=frozenset({*models, *standalone}),
            externals=frozenset(extras.get("externals") or {}),
            skip_unplanned=extras.get("unplanned") == "skip",
        )

    def resolved(self, held: Iterable[str], *, environment: str) -> "Selection":
        """Check the selection against what the environment holds, and spell names as SQLMesh does.

        Raises:
            ConfigurationError: a name may mean several models.
            NotPlannedError: the environment does not hold one of them, and they are not to be left out.
        """
        by_plain_name = {name.replace('"', ""): name for name in held}
        spelled = {name: _spelled(name, by_plain_name) for name in self._looked_for()}
        unknown = sorted(name for name, found in spelled.items() if found is None)
        if unknown and not self.skip_unplanned:
            msg = (
                f"Environment '{environment}' does not hold {listed(unknown)}. What is selected must have been promoted there: run "
                f"`sqlmesh plan {environment}`, or make the manifest again if it was removed from the project."
            )
            raise NotPlannedError(msg)
        names = {name: found for name, found in spelled.items() if found is not None}
        guards = {by_plain_name[name.replace('"', "")] for name in self.externals if name.replace('"', "") in by_plain_name}
        return Selection(
            models=None if self.models is None else frozenset({*(names[name] for name in self.models if name in names), *guards}),
            audits={names[name]: ids for name, ids in self.audits.items() if name in names},
            unplanned=tuple(unknown),
        )

    def left_out(self, environment: str) -> str:
        """Say what was left out because the environment does not hold it, and what to do about it."""
        return (
            f"Environment '{environment}' does not hold {listed(self.unplanned)}: left out. Run `sqlmesh plan {environment}` to have it run, "
            "or make the manifest again if it was removed from the project."
        )

    def _looked_for(self) -> set[str]:
        asked = {*(self.models or ()), *self.audits}
        return asked | self.named if self.skip_unplanned else asked


def _spelled(name: str, held: Mapping[str, str]) -> str | None:
    """Find what is held by its FQN, with its quotes or without them, or as a model's file has it: without the catalog, in any case.

    Raises:
        ConfigurationError: several models have that name.
    """
    exact = held.get(name.replace('"', ""))
    if exact is not None or '"' in name or "." not in name:
        return exact
    found = sorted(fqn for plain, fqn in held.items() if f".{plain}".casefold().endswith(f".{name}".casefold()))
    if len(found) > 1:
        msg = f"{name} may be any of {listed(found)}. Select by the whole name."
        raise ConfigurationError(msg)
    return found[0] if found else None


def listed(names: Sequence[str]) -> str:
    """Name the first of many."""
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
