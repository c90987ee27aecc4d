"""The subprocess launcher, with scripts for runners: real processes, pipes and signals."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE, wait_until

from dagster_sqlmesh_pipes import SubprocessLauncher
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import LaunchRequest

PREAMBLE = """\
import os, sys, time, json, signal
from dagster_pipes import decode_param
messages = decode_param(os.environ["DAGSTER_PIPES_MESSAGES"])["path"]
def say(text):
    with open(messages, "a") as f:
        f.write(text)
"""

Script = Callable[..., SubprocessLauncher]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Make a launcher whose runner is a Python script."""

    def make(body: str, **settings: Any) -> SubprocessLauncher:
        path = tmp_path / "runner"
        path.write_text(f"#!{sys.executable}\n{PREAMBLE}{textwrap.dedent(body)}")
        path.chmod(0o755)
        return SubprocessLauncher(executable=str(path), **settings)

    return make


def request(*arguments: str, extras: dict[str, Any] | None = None) -> LaunchRequest:
    context: Any = {"run_id": "r", "extras": extras or {}}
    return LaunchRequest(arguments=arguments or ["run"], context=context)


def read_all(launcher: SubprocessLauncher, **extras: Any) -> tuple[list[bytes], Any]:
    with launcher.launch(request(extras=extras)) as invocation:
        lines = list(iter(invocation.read, None))
        return lines, invocation.wait()


def test_messages_arrive_whole_however_they_were_written(script: Script) -> None:
    lines, end = read_all(
        script(
            'say("{\\"a\\": 1}\\n{\\"b\\""); say(": 2}\\n"); '
            'say("x" * 5_000_000 + "\\n"); say("last")'
        )
    )
    assert lines[:2] == [b'{"a": 1}', b'{"b": 2}']
    assert len(lines[2]) == 5_000_000
    assert lines[3] == b"last"
    assert end.code == 0


def test_a_message_can_be_read_while_the_runner_still_runs(script: Script) -> None:
    # The runner waits for a file that is made only after its message was read.
    launcher = script(
        'say("first\\n")\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\nsay("second\\n")'
    )
    go = Path(launcher.executable or "").with_name("go")
    with launcher.launch(request(str(go))) as invocation:
        assert invocation.read() == b"first"
        go.touch()
        assert invocation.read() == b"second"
        assert invocation.read() is None
        assert invocation.read() is None


def test_the_context_of_5000_models_reaches_the_runner(script: Script) -> None:
    launcher = script(
        'path = decode_param(os.environ["DAGSTER_PIPES_CONTEXT"])["path"]\n'
        'say(str(len(json.load(open(path))["extras"]["models"])) + "\\n")'
    )
    models = {
        f'"warehouse"."a_schema"."a_model_with_a_long_name_{i}"': {
            "checks": {"not_null": "not_null"}
        }
        for i in range(5000)
    }
    lines, _ = read_all(launcher, models=models)
    assert lines == [b"5000"]


def test_output_goes_to_this_process_and_its_end_into_the_tail(
    script: Script, capfd: pytest.CaptureFixture[str]
) -> None:
    with script('print("to stdout"); print("gr\\u00fc\\u00dfe", file=sys.stderr)').launch(
        request()
    ) as invocation:
        assert invocation.read() is None
        tail = invocation.log_tail()
    captured = capfd.readouterr()
    assert captured.out == "to stdout\n"
    assert captured.err == "grüße\n"
    assert sorted(tail.splitlines()) == ["grüße", "to stdout"]


def _environment(launcher: SubprocessLauncher) -> dict[str, str]:
    """Return the variables that a runner started by the launcher has."""
    lines, _ = read_all(launcher)
    variables: dict[str, str] = json.loads(lines[0])
    return variables


SAY_ENVIRONMENT = 'say(json.dumps(dict(os.environ)) + "\\n")'


def test_runner_inherits_environment_but_not_dagsters_own(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = {"REGION": "EU", "SNOWFLAKE_PASSWORD": "secret", "A": "over"}
    withheld = {
        "PYTHONPATH": "/dagster",
        "VIRTUAL_ENV": "/dagster",
        "DAGSTER_CLOUD_AGENT_TOKEN": "secret",
        "DAGSTER_PG_PASSWORD": "secret",
    }
    for name, value in {**passed, **withheld}.items():
        monkeypatch.setenv(name, value)
    found = _environment(script(SAY_ENVIRONMENT, env={"A": "b"}))
    assert {name: found.get(name) for name in passed} == {**passed, "A": "b"}
    assert not {name for name in found if name in withheld}


def test_storage_credentials_of_dagster_yaml_are_withheld(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dagster.yaml").write_text(
        "run_queue:\n  tag: {env: WAREHOUSE_HOST}\nstorage:\n  postgres:\n    postgres_db:\n"
        "      # username: {env: WAREHOUSE_USER}\n"
        "      username:\n        env: META_USER\n\n      password: {env: 'META_PASSWORD'}\n"
        "telemetry:\n  enabled: false\n"
    )
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    for name in ("META_USER", "META_PASSWORD", "WAREHOUSE_HOST", "WAREHOUSE_USER"):
        monkeypatch.setenv(name, "x")
    found = _environment(script(SAY_ENVIRONMENT, pass_env=["META_USER"]))
    assert {name for name in found if name.startswith(("META", "WAREHOUSE"))} == {
        "META_USER",
        "WAREHOUSE_HOST",
        "WAREHOUSE_USER",
    }


def test_runner_without_inheritance_gets_listed_variables_only(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("SNOWFLAKE_USER", "me")
    monkeypatch.setenv("SQLMESH__DEFAULT_GATEWAY", "dev")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    found = _environment(
        script(SAY_ENVIRONMENT, inherit_env=False, pass_env=["SNOWFLAKE_*"], env={"A": "b"})
    )
    assert found["SNOWFLAKE_USER"] == "me"
    assert found["SQLMESH__DEFAULT_GATEWAY"] == "dev"
    assert found["A"] == "b"
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert "PYTHONPATH" not in found


def test_stop_asks_with_sigint_and_what_is_said_after_it_is_read(script: Script) -> None:
    body = """\
        def bye(*_):
            say("stopping\\n")
            sys.exit(130)
        signal.signal(signal.SIGINT, bye)
        say("ready\\n")
        while True: time.sleep(1)
    """
    with script(body).launch(request()) as invocation:
        assert invocation.read() == b"ready"
        invocation.stop()
        assert invocation.read() == b"stopping"
        assert invocation.read() is None
        assert invocation.wait().code == 130


def test_a_runner_that_does_not_stop_is_killed_with_its_children(script: Script) -> None:
    body = """\
        import subprocess
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ignore = "[signal.signal(s, signal.SIG_IGN) for s in (2, 15)]"
        code = f"import signal, time; {ignore}; time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code])
        say(f"{child.pid}\\n")
        while True: time.sleep(1)
    """
    with script(body, stop_grace=0.1, kill_grace=0.1).launch(request()) as invocation:
        child = int(invocation.read() or 0)
        invocation.stop()
        assert invocation.read() is None
        end = invocation.wait()
    assert (end.code, end.reason) == (137, "killed by SIGKILL")
    wait_until(lambda: not _lives(child), "its child is gone")


def test_what_a_runner_leaves_in_its_process_group_is_killed(script: Script) -> None:
    body = """\
        import subprocess
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleep, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        say(f"{child.pid}\\n")
    """
    with script(body).launch(request()) as invocation:
        child = int(invocation.read() or 0)
        assert invocation.wait().code == 0
        assert _lives(child)
    wait_until(lambda: not _lives(child), "its child is gone")


def test_the_context_is_in_no_file_that_could_be_left(script: Script, tmp_path: Path) -> None:
    """A killed step can't remove one."""
    launcher = script('say("ready\\n"); sys.stdin.read()')
    with pytest.MonkeyPatch.context() as environment:
        environment.setattr(tempfile, "tempdir", str(tmp_path))
        before = set(tmp_path.iterdir())
        with launcher.launch(request()) as invocation:
            invocation.read()
            assert set(tmp_path.iterdir()) == before


def test_runner_ignoring_sigint_gets_sigterm(
    script: Script,
) -> None:
    body = """\
        def bye(*_):
            say("terminating\\n")
            sys.exit(143)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, bye)
        say("ready\\n")
        while True: time.sleep(1)
    """
    with script(body, stop_grace=0.1, kill_grace=PATIENCE).launch(request()) as invocation:
        assert invocation.read() == b"ready"
        invocation.stop()
        assert invocation.read() == b"terminating"
        assert invocation.read() is None
        assert invocation.wait().code == 143


def test_leaving_the_context_stops_a_runner_that_still_runs(script: Script) -> None:
    with script('say(f"{os.getpid()}\\n")\nwhile True: time.sleep(1)').launch(
        request()
    ) as invocation:
        pid = int(invocation.read() or 0)
    assert not _lives(pid)


def test_killed_step_process_ends_the_runners_stdin(script: Script, tmp_path: Path) -> None:
    launcher = script('say("ready\\n"); sys.stdin.read(); open(sys.argv[1], "w").close()')
    gone = tmp_path / "gone"
    step = textwrap.dedent(f"""\
        import time
        from dagster_sqlmesh_pipes import SubprocessLauncher
        from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
        launcher = SubprocessLauncher(executable={launcher.executable!r})
        request = LaunchRequest(arguments=[{str(gone)!r}], context={{}})
        with launcher.launch(request) as invocation:
            invocation.read()
            print("ready", flush=True)
            time.sleep(600)
    """)
    process = subprocess.Popen([sys.executable, "-c", step], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_until(gone.exists, "the runner has seen its stdin end")


@pytest.mark.parametrize("missing", ["setting", "variable", "path"])
def test_a_missing_executable_is_named_with_what_asked_for_it(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SQLMESH_RUNNER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if missing == "variable":
        monkeypatch.setenv("SQLMESH_RUNNER", "/nowhere/sqlmesh-runner")
    launcher = SubprocessLauncher(executable="/nothing/there" if missing == "setting" else None)
    named = {
        "setting": "'/nothing/there'",
        "variable": "'/nowhere/sqlmesh-runner' to run SQLMesh with (from SQLMESH_RUNNER)",
        "path": "the PATH",
    }
    with pytest.raises(LaunchError) as error:
        launcher.launch(request())
    assert named[missing] in str(error.value)
    assert "pip install sqlmesh-runner" in str(error.value)


def test_a_python_without_the_runner_says_what_to_install_where() -> None:
    with pytest.raises(LaunchError) as error:
        SubprocessLauncher(executable=sys.executable).run_to_end(["manifest"])
    assert f"{sys.executable} -m pip install sqlmesh-runner" in str(error.value)


def test_run_to_end_gives_stdout_or_the_end_of_stderr(tmp_path: Path) -> None:
    path = tmp_path / "runner"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nprint('out')\n"
        "sys.exit('no model here: models/a.sql' if 'fail' in sys.argv else 0)\n"
    )
    path.chmod(0o755)
    launcher = SubprocessLauncher(executable=str(path))
    assert launcher.run_to_end(["manifest"]) == "out\n"
    with pytest.raises(LaunchError, match=r"exit code 1:\nno model here: models/a\.sql"):
        launcher.run_to_end(["manifest", "fail"])


def test_run_to_end_after_timeout_kills_runner_and_raises(tmp_path: Path) -> None:
    path = tmp_path / "runner"
    path.write_text("#!/bin/sh\necho runner $$ >&2\nexec sleep 600\n")
    path.chmod(0o755)
    with pytest.raises(LaunchError, match=r"did not end within 3 seconds:\nrunner") as error:
        SubprocessLauncher(executable=str(path)).run_to_end(["state"], timeout=3)
    pid = str(error.value).split()[-1]
    assert not Path("/proc", pid).exists()


def test_run_to_end_reads_utf_8_in_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "runner"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdout.buffer.write('Zürich'.encode())\n",
        encoding="utf-8",
    )
    path.chmod(0o755)
    code = (
        "from dagster_sqlmesh_pipes import SubprocessLauncher; "
        f"print(ascii(SubprocessLauncher(executable={str(path)!r}).run_to_end([])))"
    )
    locale = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=locale,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == r"'Z\xfcrich'", done.stderr


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (
        FileNotFoundError,
        ProcessLookupError,
    ):  # the latter if it went between opening and reading
        return False


def test_executable_is_relative_to_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = tmp_path / "bin" / "sqlmesh-runner"
    runner.parent.mkdir()
    runner.write_text("#!/bin/sh\npwd\n")
    runner.chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    launcher = SubprocessLauncher(executable="bin/sqlmesh-runner", cwd="elsewhere")
    assert launcher.run_to_end([]).strip() == str(tmp_path / "elsewhere")
