"""What a run was asked for: by Dagster in the Pipes extras, or on the command line."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlmesh_runner import PROTOCOL_VERSION
from sqlmesh_runner.errors import ConfigurationError, NotPlannedError

__all__ = ["Selection", "list_names"]

_NAMES_PER_MESSAGE: Final = 20
_SELECTOR_CHARACTERS: Final = frozenset("*:+&|^() ")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The selected models and audits, by SQLMesh's names."""

    models: frozenset[str] | None = None
    """Models and standalone audits to run; None: everything in the environment."""
    audits: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    """For `audit`: audit ids by FQN; None: all audits of that model."""
    named: frozenset[str] = frozenset()
    """Every name that was given, also where everything is to be run."""
    externals: frozenset[str] = frozenset()
    """EXTERNAL models whose audits guard the others. Run where the environment has them."""
    has_selectors: bool = False
    """Whether names may be SQLMesh's selectors: the command line's may, Dagster's may not."""
    skip_unplanned: bool = False
    """Leave out names that the environment does not have, into `unplanned`; else an error."""
    unplanned: tuple[str, ...] = ()
    adopt: bool = False
    """Report what is recorded of the models that the run leaves alone."""

    @classmethod
    def from_names(cls, names: Collection[str] | None) -> "Selection":
        """Return the selection of the command line's `--select`."""
        if not names:
            return cls()
        return cls(models=frozenset(names), audits=dict.fromkeys(names), has_selectors=True)

    @classmethod
    def from_extras(cls, extras: Mapping[str, Any]) -> "Selection":
        """Return Dagster's selection.

        Raises:
            ConfigurationError: the runner does not support the extras' protocol version.
        """
        _require_protocol(extras.get("protocol_version", PROTOCOL_VERSION))
        models: Mapping[str, Any] = extras.get("models") or {}
        standalone: Mapping[str, Any] = extras.get("standalone_audits") or {}
        named = frozenset({*models, *standalone})
        audits: dict[str, frozenset[str] | None] = {
            fqn: frozenset(model["checks"]) for fqn, model in models.items() if model.get("checks")
        }
        return cls(
            models=named if extras.get("selection") == "models" else None,
            audits={**audits, **dict.fromkeys(standalone)},
            named=named,
            externals=frozenset(extras.get("externals") or {}),
            skip_unplanned=extras.get("unplanned") == "skip",
            adopt=bool(extras.get("adopt")),
        )

    def expanded(
        self, planned: Iterable[str], select: Callable[[str], Collection[str]], *, environment: str
    ) -> "Selection":
        """Return the selection with the names that its selectors match.

        What is the name of a model in the environment is never taken for a selector.

        Args:
            planned: the names that the environment has.
            select: returns the names that a selector matches.
            environment: for messages.

        Raises:
            ConfigurationError: a selector matches nothing, and `skip_unplanned` is not set.
        """
        if not self.has_selectors:
            return self
        fqns = _by_plain_name(planned)
        names: set[str] = set()
        for text in self.models or ():
            if _SELECTOR_CHARACTERS.isdisjoint(text) or _find(text, fqns):
                names.add(text)
                continue
            matched = select(text)
            if not matched and not self.skip_unplanned:
                msg = (
                    f"The selector '{text}' matches no model of environment '{environment}'. Check "
                    "its names and tags."
                )
                raise ConfigurationError(msg)
            names.update(matched)
        return replace(self, models=frozenset(names), audits=dict.fromkeys(names))

    def resolved(self, planned: Iterable[str], *, environment: str) -> "Selection":
        """Return the selection with the names that the environment has for what is selected.

        Raises:
            ConfigurationError: a name may mean several models.
            NotPlannedError: the environment lacks one, and `skip_unplanned` is not set.
        """
        fqns = _by_plain_name(planned)
        found = {name: _find(name, fqns) for name in self._required_names()}
        unknown = sorted(name for name, fqn in found.items() if fqn is None)
        if unknown and not self.skip_unplanned:
            msg = (
                f"Environment '{environment}' does not hold {list_names(unknown)}. What is "
                f"selected must be promoted there: run `sqlmesh plan {environment}`, or make the "
                "manifest again if it was removed from the project."
            )
            raise NotPlannedError(msg)
        known = {name: fqn for name, fqn in found.items() if fqn is not None}
        return Selection(
            models=None if self.models is None else self._models(known, fqns),
            audits={known[name]: ids for name, ids in self.audits.items() if name in known},
            unplanned=tuple(unknown),
            adopt=self.adopt,
        )

    def _required_names(self) -> set[str]:
        selected = {*(self.models or ()), *self.audits}
        return selected | self.named if self.skip_unplanned else selected

    def _models(self, known: Mapping[str, str], fqns: Mapping[str, str]) -> frozenset[str]:
        externals = [fqns.get(name.replace('"', "")) for name in self.externals]
        models = [known.get(name) for name in self.models or ()]
        return frozenset(fqn for fqn in [*models, *externals] if fqn is not None)

    def unplanned_message(self, environment: str) -> str:
        """Return which names were left out, why, and what to do."""
        return (
            f"Environment '{environment}' does not hold {list_names(self.unplanned)}: left out. "
            f"Run `sqlmesh plan {environment}` to have it run, or make the manifest again if it "
            "was removed from the project."
        )


def _require_protocol(version: int) -> None:
    if version == PROTOCOL_VERSION:
        return
    older = "sqlmesh-runner" if version > PROTOCOL_VERSION else "dagster-sqlmesh-pipes"
    msg = (
        f"The orchestrator has protocol version {version}, this runner version "
        f"{PROTOCOL_VERSION}. Upgrade {older}."
    )
    raise ConfigurationError(msg)


def _by_plain_name(fqns: Iterable[str]) -> dict[str, str]:
    return {fqn.replace('"', ""): fqn for fqn in fqns}


def _find(name: str, fqns: Mapping[str, str]) -> str | None:
    """Return the FQN of a name.

    The name may be the FQN, with or without quotes, or that of a model's file: without the
    catalog, in any case unless it is quoted.

    Raises:
        ConfigurationError: several models have that name.
    """
    plain_name = name.replace('"', "")
    exact = fqns.get(plain_name)
    if exact is not None or "." not in name:
        return exact
    fold = str if '"' in name else str.casefold
    suffix = fold(f".{plain_name}")
    found = sorted(fqn for plain, fqn in fqns.items() if fold(f".{plain}").endswith(suffix))
    if len(found) > 1:
        msg = f"{name} may be any of {list_names(found)}. Select by the whole name."
        raise ConfigurationError(msg)
    return found[0] if found else None


def list_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _NAMES_PER_MESSAGE
    return ", ".join(names[:_NAMES_PER_MESSAGE]) + (f" and {more} more" if more > 0 else "")
