"""A step's connection to Dagster's event log on PostgreSQL, which it keeps."""

from pathlib import Path

import pytest
from acceptance.local.deployment import preloaded_runner
from acceptance.schedule.conftest import Database
from acceptance.schedule.test_lock_on_postgres import POSTGRES_STORAGE, deployed
from acceptance.schedule.test_lock_on_state import run_id_of, wait_until_stored
from patience import PATIENCE, wait_until

pytestmark = pytest.mark.postgres

CUT = """SELECT COUNT(PG_TERMINATE_BACKEND(pid)) FROM pg_stat_activity
WHERE application_name = '{}' AND state = 'idle' AND backend_start < NOW() - INTERVAL '1 second'"""


def test_cut_connection_to_the_event_log_loses_no_result(
    tmp_path: Path, database: Database
) -> None:
    deployment = deployed(tmp_path, database, storage="postgres", runner=preloaded_runner())
    url = f"{database.url}?application_name={database.name}"
    (deployment.home / "dagster.yaml").write_text(POSTGRES_STORAGE.format(url=url))
    with deployment.executing() as (worker, log):
        with database.held():
            wait_until(database.waiting, "the model waits")
            wait_until_stored(deployment, run_id_of(deployment))
            assert database.ask(CUT.format(database.name)) == (1,)
        assert worker.wait(PATIENCE) == 0, log.read_text()
    run = deployment.last_run()
    assert run.status == "SUCCESS"
    assert run.materialized.keys() == {"days", "appended"}
