"""What the parser makes of a command line: typed values, defaults from the options' classes."""

import argparse
from pathlib import Path

import pytest

from sqlmesh_runner.cli import main
from sqlmesh_runner.commands import doctor
from sqlmesh_runner.options import (
    DoctorOptions,
    ManifestOptions,
    ProjectOptions,
    RunOptions,
    add_options,
    read_options,
)


def parse(options: type[ProjectOptions], *arguments: str) -> ProjectOptions:
    parser = argparse.ArgumentParser()
    add_options(parser, options)
    return read_options(options, parser.parse_args(arguments))


def test_no_arguments_give_the_declared_defaults() -> None:
    assert parse(RunOptions) == RunOptions()
    assert RunOptions().project_dir == (Path.cwd(),)


def test_each_option_reaches_its_field() -> None:
    given = parse(
        RunOptions,
        *("--project-dir", "/a", "--project-dir", "/b", "--gateway", "pg", "--environment", "dev"),
        *("--debug", "--select", "x", "y", "--select", "z", "--start", "2026-01-01"),
        *("--end", "2026-01-02", "--execution-time", "2026-01-03", "--events", "-"),
        *("--stop-when-stdin-closes", "--cancel-grace", "1.5"),
        *("--ignore-cron", "--skip-janitor", "--row-counts"),
    )  # fmt: skip

    assert given == RunOptions(
        project_dir=(Path("/a"), Path("/b")),
        gateway="pg",
        environment="dev",
        debug=True,
        select=("x", "y", "z"),
        start="2026-01-01",
        end="2026-01-02",
        execution_time="2026-01-03",
        events="-",
        stop_when_stdin_closes=True,
        cancel_grace=1.5,
        ignore_cron=True,
        skip_janitor=True,
        row_counts=True,
    )


def test_relative_paths_are_of_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    given = parse(ManifestOptions, "--project-dir", "shop", "-o", "manifest.json")

    monkeypatch.chdir("/")  # as opening a project does

    assert given.project_dir[0].is_absolute()
    assert isinstance(given, ManifestOptions)
    assert given.output is not None
    assert given.output.is_absolute()


@pytest.mark.parametrize("arguments", [["dev", "--ignore-cron"], ["--ignore-cron", "dev"]])
def test_environment_may_be_positional_as_in_sqlmesh(arguments: list[str]) -> None:
    assert parse(RunOptions, *arguments) == RunOptions(environment="dev", ignore_cron=True)


def test_environment_given_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(RunOptions, "dev", "--environment", "prod")

    assert "not allowed with argument" in capsys.readouterr().err


def test_interrupted_command_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_options: DoctorOptions) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "main", interrupted)
    assert main(["doctor"]) == 130
