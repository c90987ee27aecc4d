"""Follow docs/quickstart.md command by command in an empty folder, up to a scheduled run.

    python tests/quickstart.py FOLDER PACKAGES

FOLDER: a new one. PACKAGES: the folder with both packages' wheels, as `make build` writes them.
Two things differ from the page: pip looks for packages in PACKAGES, too (as the page says), and the
webserver's port is a free one.
"""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
from documentation import Block, blocks, commands
from patience import PATIENCE, wait_until

PAGE = "docs/quickstart.md"
LAST = "dagster-env/bin/dagster dev -f definitions.py"
TICK = 300.0  # seconds between two ticks of the page's model
SHOWN = 60  # lines of the output, if something fails
MODEL = "db/sqlmesh_example/full_model"


def main(folder: Path, packages: Path) -> None:
    folder.mkdir(parents=True)
    with following(folder, packages) as (process, port):
        wait_until(lambda: answers(port) or process.poll() is not None, "Dagster's UI answers")
        assert process.poll() is None, "a command of the page failed"
        with dg.DagsterInstance.from_config(str(folder / "dagster-home")) as instance:
            (run, *_) = wait_until(
                lambda: finished_ticks(instance),
                "the schedule's run has ended",
                every=1,
                patience=TICK + PATIENCE,
            )
            check_results(instance, run)
    print(f"The scheduled run {run.run_id} of the quickstart succeeded.")


def script(block: Block) -> str:
    """Return a block as lines of a shell script: its commands, or its file."""
    if block.language == "console":
        return "\n".join(commands(block))
    return f"cat > {block.title} <<'END-OF-FILE'\n{block.text}END-OF-FILE"


@contextmanager
def following(folder: Path, packages: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Run the page's commands; gives the process, which stays with the last one, and its port."""
    steps = [script(block) for block in blocks() if block.page == PAGE]
    assert steps[-1].endswith(LAST), f"the last command of {PAGE} is another"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = "\n".join(["set -eux", *steps]).removesuffix(LAST) + f"exec {LAST} --port {port}"
    log = folder / "quickstart.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", text],
            cwd=folder,
            env=environ(folder, packages),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process, port
    except AssertionError:
        print(*log.read_text().splitlines()[-SHOWN:], sep="\n")
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environ(folder: Path, packages: Path) -> dict[str, str]:
    """Return the variables of somebody who has Python, and nothing of ours."""
    interpreters = folder / ".bin"
    interpreters.mkdir()
    (interpreters / "python3").symlink_to(sys._base_executable)  # type: ignore[attr-defined]  # as `venv` takes it
    ours = ("DAGSTER", "SQLMESH", "PYTHON", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **inherited,
        "PATH": f"{interpreters}:/usr/local/bin:/usr/bin:/bin",
        "PIP_FIND_LINKS": str(packages.absolute()),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
            return True
    except OSError:
        return False


def finished_ticks(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the schedule's runs that have ended."""
    return [run for run in instance.get_runs() if "sqlmesh/tick" in run.tags and run.is_finished]


def check_results(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Check that the run did what the page says."""
    logs = instance.all_logs(run.run_id)
    assert run.is_success, "\n".join(entry.user_message for entry in logs)
    events = [entry.asset_materialization for entry in logs]
    outside = {
        event.asset_key.to_user_string(): "sqlmesh/recorded_by" in event.metadata
        for event in events
        if event is not None
    }
    assert outside.pop(MODEL) is False, "SQLMesh did not run the model"
    assert len(outside) == 2, outside
    assert all(outside.values()), "the plan had filled the other models"
    checks = [
        entry.dagster_event.asset_check_evaluation_data
        for entry in logs
        if entry.dagster_event
        and entry.dagster_event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    assert [(check.check_name, check.passed) for check in checks] == [
        ("assert_positive_order_ids", True)
    ]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
