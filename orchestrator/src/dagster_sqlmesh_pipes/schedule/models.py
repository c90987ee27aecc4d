"""What the schedule needs to know of models: which ones run, when they end, what they inherit."""

import datetime
from collections.abc import Callable, Collection, Mapping

from dagster_sqlmesh_pipes.manifest import Model

__all__ = ["is_runnable", "model_end", "models_behind_signals", "restatement_crons"]


def is_runnable(model: Model) -> bool:
    """Return whether runs execute the model.

    They don't execute EXTERNAL and EMBEDDED models, nor seeds, which plans load.
    """
    return model.materialized and model.enabled and model.kind.name != "SEED"


def model_end(model: Model) -> datetime.datetime | None:
    """Return a model's end, exclusive.

    None also for a phrase such as 'yesterday', which SQLMesh alone understands.
    """
    try:
        end = datetime.datetime.fromisoformat(model.end) if model.end else None
    except ValueError:
        return None
    if model.end is None or end is None:
        return None
    if len(model.end) <= len("2026-01-31"):
        end += datetime.timedelta(days=1)  # a date means the end of its day
    return end.replace(tzinfo=end.tzinfo or datetime.UTC)


def models_behind_signals(models: Mapping[str, Model]) -> frozenset[str]:
    """Return the FQNs of the models with signals, and of all models downstream of them.

    A run succeeds while a signal holds them back, so its success says nothing about them.
    """
    return frozenset(_inherited(models, lambda model: model.signals))


def restatement_crons(models: Mapping[str, Model]) -> Mapping[str, Collection[str]]:
    """Return, by FQN, the crons (in UTC) at which SQLMesh restates a model.

    These are its own `auto_restatement_cron`, and those upstream. As in SQLMesh's
    `apply_auto_restatements`, a model with `disable_restatement` keeps its intervals, and so do
    the models downstream of it.
    """

    def own(model: Model) -> Collection[str]:
        cron = getattr(model.kind, "auto_restatement_cron", None)
        return [cron] if cron else ()

    def is_disabled(model: Model) -> bool:
        return bool(getattr(model.kind, "disable_restatement", False))

    return _inherited(models, own, stops_at=is_disabled)


def _inherited(
    models: Mapping[str, Model],
    own: Callable[[Model], Collection[str]],
    *,
    stops_at: Callable[[Model], bool] = lambda _model: False,
) -> Mapping[str, Collection[str]]:
    """Return, by FQN, the models' own values and those of everything upstream.

    Models without any are left out.
    """
    downstream: dict[str, list[Model]] = {}
    for model in models.values():
        for upstream in model.depends_on:
            downstream.setdefault(upstream, []).append(model)
    inherited: dict[str, set[str]] = {}
    for source in models.values():
        values = set(own(source))
        reached = [source] if values else []
        for model in reached:  # grows while it is read
            if not stops_at(model) and not values <= inherited.get(model.fqn, set()):
                inherited.setdefault(model.fqn, set()).update(values)
                reached += downstream.get(model.fqn, ())
    return inherited
