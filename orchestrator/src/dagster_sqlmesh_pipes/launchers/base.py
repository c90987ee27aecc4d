"""Launchers start a runner, let it be read and stopped, and clean up. They know nothing of SQLMesh.

A new launcher is a sub-package or module beside this one. It extends `Launcher`
(`ContainerLauncher` where it starts the project's image), and gets output, shutdown and context
from the modules here.
"""

import abc
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime

from dagster_pipes import PipesContextData
from pydantic import BaseModel, ConfigDict

__all__ = ["ExitStatus", "Invocation", "LaunchRequest", "Launcher", "RunnerInfo"]


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What to start.

    `arguments` follow the runner's executable (`["run", "--environment", "prod"]`). `context` is
    the runner's Pipes context. `labels` say who asked (`launchers.labels` has the names): launchers
    put them where their engine keeps labels, so that a runner can be found again. `run_tags` and
    `op_tags` are those of the Dagster run and of the op, which may ask for resources.
    """

    arguments: Sequence[str]
    context: PipesContextData
    labels: Mapping[str, str] = field(default_factory=dict)
    run_tags: Mapping[str, str] = field(default_factory=dict)
    op_tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExitStatus:
    """How a runner ended.

    `code` is the exit code as a shell shows it (128 + signal number for a signal). `reason` is a
    sentence for what the code alone does not say ("killed: out of memory (limit 512m)"), else None.
    """

    code: int
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunnerInfo:
    """A runner that a launcher's engine holds, running or ended."""

    name: str
    """The container's or pod's name."""
    labels: Mapping[str, str]
    """Those of its `LaunchRequest`."""
    created: datetime
    status: str
    """In the engine's own words: `running`, `exited`, `Failed`, …"""
    is_running: bool
    keep: str
    """The `keep` of the launcher that started it: `never`, `failed` or `always`."""


class Invocation(AbstractContextManager["Invocation"], abc.ABC):
    """One running runner. Leaving the context stops it if it still runs, and removes what was made
    for it.

    One thread reads; everything else may be called by any.
    """

    name: str
    """What and where, for messages: `process 4711`, `container sqlmesh-1a2b (engine …)`."""

    debug_command: str | None = None
    """The shell command that opens a shell where the runner runs, with the same settings."""

    command: Sequence[str] = ("sqlmesh-runner",)
    """The runner's command in that shell, without arguments."""

    @abc.abstractmethod
    def read(self) -> bytes | None:
        """Wait for the next whole message of the runner, without its newline; None after the last.

        Other output of the runner goes to this process's stdout and stderr (Dagster's compute
        logs).
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Ask the runner to stop, in the background; after its grace periods, kill it.

        Returns at once. `read` goes on until the runner's last message.
        """

    @abc.abstractmethod
    def wait(self) -> ExitStatus:
        """Wait for the runner's end (soon after `read` has returned None) and return its status."""

    @abc.abstractmethod
    def log_tail(self) -> str:
        """Return the last lines that the runner wrote besides its messages; empty when none."""


class Launcher(BaseModel, abc.ABC):
    """Start runners. One class per kind of place; its fields are that place's settings."""

    # An error about a setting must not show the others: there are secrets among them.
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    @abc.abstractmethod
    def launch(self, request: LaunchRequest) -> Invocation:
        """Start a runner.

        Raises:
            LaunchError: it could not be started; says what, where, and what to do next.
        """

    @abc.abstractmethod
    def run_to_end(self, arguments: Sequence[str], *, timeout: float | None = None) -> str:
        """Run the runner to its end outside of any Dagster run (to make a manifest) and return its
        stdout. After `timeout` seconds it is killed; None waits as long as it takes.

        Raises:
            LaunchError: it could not be started, exited with a code other than 0, or did not end
                in time; has the log's last lines.
        """

    def list_runners(self, labels: Mapping[str, str]) -> Sequence[RunnerInfo]:  # noqa: ARG002
        """Return the runners that launchers of this kind have started and that have all of
        `labels`.

        None by default: a runner that ends with the process that started it needs no listing.

        Raises:
            LaunchError: the engine can't be reached, or refuses.
        """
        return ()

    def remove_runner(self, runner: RunnerInfo) -> None:
        """Stop a runner in order, or kill it after its grace periods, and remove what was made for
        it.

        Raises:
            LaunchError: the engine can't be reached, or refuses.
        """
        raise NotImplementedError(runner.name)  # where list_runners lists none
