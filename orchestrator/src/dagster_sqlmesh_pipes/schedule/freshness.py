"""Freshness policies derived from the models' crons."""

import datetime

import dagster as dg

from dagster_sqlmesh_pipes.manifest import Model
from dagster_sqlmesh_pipes.schedule.cron import longest_gap
from dagster_sqlmesh_pipes.schedule.models import is_runnable, model_end
from dagster_sqlmesh_pipes.schedule.zones import time_zone

__all__ = ["freshness_from_cron"]


def freshness_from_cron(
    model: Model, *, grace: datetime.timedelta = datetime.timedelta(hours=1)
) -> dg.FreshnessPolicy | None:
    """Return a policy that fails after the longest time between two ticks, plus `grace`.

    Where clocks change, the time is longer by as much. Pass the function to a factory as
    `freshness_policy=freshness_from_cron`. Seeds have no policy, nor have models whose end has
    passed.

    Raises:
        ConfigurationError: the cron is not valid.
    """
    end = model_end(model)
    if not is_runnable(model) or (end and end <= datetime.datetime.now(datetime.UTC)):
        return None
    return dg.FreshnessPolicy.time_window(
        fail_window=longest_gap(model.cron) + time_zone(model.cron_tz).largest_change + grace
    )
