"""Write down what SQLMesh's own `cron_floor` gives. Run it in the runner's environment:

python tests/unit/orchestrator/data/make_cron_floors.py > tests/unit/orchestrator/data/cron_floors.json
"""  # noqa: D400 - ends in a command

import datetime
import itertools
import json

from sqlmesh.core.model.meta import ModelMeta

CRONS = [
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "0 12 * * *",
    "30 2 * * *",
    "0 6 * * 1-5",
    "0 0 L * *",
    "0 0 * * mon#1",
    "*/15 * * * *",
    "0 */6 * * *",
]
ZONES = [None, "Europe/Berlin", "America/New_York", "Asia/Kolkata"]
MOMENTS = [
    *("2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30"),
    *("2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:30"),
    *("2026-11-01T05:30", "2026-11-01T06:30", "2026-11-01T07:30", "2028-02-29T12:00", "2026-12-31T23:59", "2027-01-01T00:00"),
]


def text(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M")


rows = []
for cron, zone, at in itertools.product(CRONS, ZONES, MOMENTS):
    model = ModelMeta(name="a.b", cron=cron, **({"cron_tz": zone} if zone else {}))
    floor = model.cron_floor(datetime.datetime.fromisoformat(at).replace(tzinfo=datetime.UTC))
    rows.append([cron, zone, model.interval_unit.value, at, text(floor), text(model.interval_unit.cron_floor(floor))])
print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
