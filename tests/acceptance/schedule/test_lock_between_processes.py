"""Steps in processes of their own, of two runs and of one: they do not overlap."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import dagster as dg
import pytest
from dagster_home import make_home

JOB = """
    import os, pathlib, time
    import dagster as dg
    from dagster_sqlmesh_pipes.run.lock import ProjectLock

    BUSY = pathlib.Path(os.environ["BUSY"])

    def others_waited(context):
        ids = {record.dagster_run.run_id for record in context.instance.get_run_records()}
        logs = [log for run_id in ids for log in context.instance.all_logs(run_id)]
        return any("Waiting for run" in log.message for log in logs)

    @dg.asset
    def orders(context: dg.AssetExecutionContext) -> None:
        with ProjectLock(context, "shop/duckdb", poll_interval=0.05):
            descriptor = os.open(BUSY, os.O_CREAT | os.O_EXCL)  # fails if the other is in
            deadline = time.monotonic() + float(os.environ["STAY"])
            while time.monotonic() < deadline and not others_waited(context):
                time.sleep(0.05)
            os.close(descriptor)
            BUSY.unlink()

    run_orders = dg.define_asset_job("run_orders", selection="orders")
    defs = dg.Definitions(assets=[orders], jobs=[run_orders])
"""


STEPS = """
    import os, pathlib, time
    import dagster as dg
    from dagster_sqlmesh_pipes.run.lock import ProjectLock

    HERE = pathlib.Path(os.environ["BUSY"])
    ROUNDS, STEPS = 8, 2

    def all_are_at(number):
        HERE.joinpath(f"{number} {os.getpid()}").touch()
        deadline = time.monotonic() + 60  # the other may have failed
        while len(list(HERE.glob(f"{number} *"))) < STEPS:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    @dg.op
    def step(context):
        HERE.mkdir(exist_ok=True)
        for number in range(ROUNDS):
            all_are_at(number)
            with ProjectLock(context, "shop/duckdb", poll_interval=0.01):
                # This fails if the other step is in.
                descriptor = os.open(HERE / "busy", os.O_CREAT | os.O_EXCL)
                context.instance.get_run_records(limit=1)  # gives the other time to come in
                os.close(descriptor)
                (HERE / "busy").unlink()

    @dg.job(config={"execution": {"config": {"multiprocess": {"max_concurrent": STEPS}}}})
    def steps():
        for number in range(STEPS):
            step.alias(f"step_{number}")()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    home = make_home(tmp_path / "home")
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return {**os.environ, "DAGSTER_HOME": str(home), "BUSY": str(tmp_path / "busy"), "STAY": "90"}


def test_two_steps_of_one_run_never_overlap(tmp_path: Path, environment: dict[str, str]) -> None:
    module = tmp_path / "location.py"
    module.write_text(textwrap.dedent(STEPS))
    command = [sys.executable, "-m", "dagster", "job", "execute", "-f", str(module), "-j", "steps"]
    done = subprocess.run(
        command,
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


def test_second_of_two_runs_waits_for_the_first(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    module = tmp_path / "location.py"
    module.write_text(textwrap.dedent(JOB))
    command = [
        sys.executable,
        "-m",
        "dagster",
        "job",
        "execute",
        "-f",
        str(module),
        "-j",
        "run_orders",
    ]

    processes = [
        subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=180)[0].decode() for process in processes]

    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        runs = [record.dagster_run for record in instance.get_run_records()]
        waited = [
            (run, log.message)
            for run in runs
            for log in instance.all_logs(run.run_id)
            if "Waiting for run" in log.message
        ]
    assert [run.is_success for run in runs] == [True, True]
    ((waiting, message),) = (
        waited  # it may end before the other does: the rest of its run holds no lock
    )
    (other,) = (run for run in runs if run.run_id != waiting.run_id)
    assert other.run_id in message
