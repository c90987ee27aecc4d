"""The subprocess launcher, with scripts for runners: real processes, pipes and signals."""

import os
import signal
import subprocess
import sys
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
    lines, end = read_all(script('say("{\\"a\\": 1}\\n{\\"b\\""); say(": 2}\\n"); say("x" * 5_000_000 + "\\n"); say("last")'))
    assert lines[:2] == [b'{"a": 1}', b'{"b": 2}']
    assert len(lines[2]) == 5_000_000
    assert lines[3] == b"last"
    assert end.code == 0


def test_a_message_can_be_read_while_the_runner_still_runs(script: Script) -> None:
    # The runner waits for a file that is made only after its message was read: reading at its end would never end.
    launcher = script('say("first\\n")\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\nsay("second\\n")')
    go = Path(launcher.executable or "").with_name("go")
    with launcher.launch(request(str(go))) as invocation:
        assert invocation.read() == b"first"
        go.touch()
        assert invocation.read() == b"second"
        assert invocation.read() is None
        assert invocation.read() is None


def test_the_context_of_5000_models_reaches_the_runner(script: Script) -> None:
    launcher = script(
        'path = decode_param(os.environ["DAGSTER_PIPES_CONTEXT"])["path"]\nsay(str(len(json.load(open(path))["extras"]["models"])) + "\\n")'
    )
    models = {f'"warehouse"."a_schema"."a_model_with_a_long_name_{i}"': {"checks": {"not_null": "not_null"}} for i in range(5000)}
    lines, _ = read_all(launcher, models=models)
    assert lines == [b"5000"]


def test_output_goes_to_this_process_and_its_end_into_the_tail(script: Script, capfd: pytest.CaptureFixture[str]) -> None:
    with script('print("to stdout"); print("gr\\u00fc\\u00dfe", file=sys.stderr)').launch(request()) as invocation:
        assert invocation.read() is None
        tail = invocation.log_tail()
    captured = capfd.readouterr()
    assert captured.out == "to stdout\n"
    assert captured.err == "grüße\n"
    assert sorted(tail.splitlines()) == ["grüße", "to stdout"]


def test_only_listed_variables_reach_the_runner(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("SNOWFLAKE_USER", "me")
    monkeypatch.setenv("SQLMESH__DEFAULT_GATEWAY", "dev")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    body = 'say("\\n".join(f"{k}={os.environ.get(k)}" for k in ["AWS_SECRET_ACCESS_KEY", "SNOWFLAKE_USER", "SQLMESH__DEFAULT_GATEWAY", "PYTHONPATH", "A"]) + "\\n")'
    lines, _ = read_all(script(body, pass_env=["SNOWFLAKE_*"], env={"A": "b"}))
    assert lines == [b"AWS_SECRET_ACCESS_KEY=None", b"SNOWFLAKE_USER=me", b"SQLMESH__DEFAULT_GATEWAY=dev", b"PYTHONPATH=None", b"A=b"]


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
        child = subprocess.Popen([sys.executable, "-c", "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; time.sleep(600)"])
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


def test_a_runner_that_does_not_heed_sigint_is_asked_with_sigterm_before_it_is_killed(script: Script) -> None:
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
    with script('say(f"{os.getpid()}\\n")\nwhile True: time.sleep(1)').launch(request()) as invocation:
        pid = int(invocation.read() or 0)
    assert not _lives(pid)


def test_the_runner_sees_its_stdin_end_when_the_step_process_is_killed(script: Script, tmp_path: Path) -> None:
    launcher = script('say("ready\\n"); sys.stdin.read(); open(sys.argv[1], "w").close()')
    gone = tmp_path / "gone"
    step = textwrap.dedent(f"""\
        import time
        from dagster_sqlmesh_pipes import SubprocessLauncher
        from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
        with SubprocessLauncher(executable={launcher.executable!r}).launch(LaunchRequest(arguments=[{str(gone)!r}], context={{}})) as invocation:
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
def test_a_missing_executable_is_named_with_what_asked_for_it(missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
    path.write_text(f"#!{sys.executable}\nimport sys\nprint('out')\nsys.exit('no model here: models/a.sql' if 'fail' in sys.argv else 0)\n")
    path.chmod(0o755)
    launcher = SubprocessLauncher(executable=str(path))
    assert launcher.run_to_end(["manifest"]) == "out\n"
    with pytest.raises(LaunchError, match=r"exit code 1:\nno model here: models/a\.sql"):
        launcher.run_to_end(["manifest", "fail"])


def test_run_to_end_reads_utf_8_in_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "runner"
    path.write_text(f"#!{sys.executable}\nimport sys\nsys.stdout.buffer.write('Zürich'.encode())\n", encoding="utf-8")
    path.chmod(0o755)
    code = f"from dagster_sqlmesh_pipes import SubprocessLauncher as L; print(ascii(L(executable={str(path)!r}).run_to_end([])))"
    locale = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=locale, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == r"'Z\xfcrich'", done.stderr


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it went between opening and reading
        return False


def test_an_executable_is_looked_up_from_here_although_it_is_started_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = tmp_path / "bin" / "sqlmesh-runner"
    runner.parent.mkdir()
    runner.write_text("#!/bin/sh\npwd\n")
    runner.chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    launcher = SubprocessLauncher(executable="bin/sqlmesh-runner", cwd="elsewhere")
    assert launcher.run_to_end([]).strip() == str(tmp_path / "elsewhere")
