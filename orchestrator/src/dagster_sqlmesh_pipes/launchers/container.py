"""What launchers that start the project's image have in common."""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from dagster_sqlmesh_pipes.launchers.base import Launcher, LaunchRequest
from dagster_sqlmesh_pipes.launchers.labels import KEEP_LABEL, RUN_ID_LABEL

__all__ = ["NOT_EXECUTABLE", "NO_COMMAND", "ContainerLauncher", "image_hint", "runner_name"]

NO_COMMAND = (
    "the image has no such command; it must have `sqlmesh-runner` installed, and as its ENTRYPOINT"
)
NOT_EXECUTABLE = "the image's entrypoint may not be executed by the container's user"


class ContainerLauncher(Launcher):
    """The settings of a launcher whose runner is a container."""

    image: str = Field(min_length=1)
    """An image whose entrypoint is `sqlmesh-runner`."""
    env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Variables for the runner, over all others."""
    pass_env: Sequence[str] = ()
    """Names of variables of this process to pass on where they are set."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Labels besides those that say which Dagster run, step and code location it is."""
    keep: Literal["never", "failed", "always"] = "never"
    """Which runners to leave on the engine once they have ended."""
    stop_grace: float = 30.0
    """Seconds a runner has to stop by itself before it is signalled again."""
    kill_grace: float = 10.0
    """Seconds after that before it is killed."""
    reconnect_timeout: float = 300.0
    """Seconds that the engine may be unreachable (restarted, say) before the runner is given up."""

    def runner_labels(self, request: LaunchRequest | None) -> dict[str, str]:
        """Return the labels of a runner; `request` is None outside of a Dagster run."""
        return {**self.labels, **(request.labels if request else {}), KEEP_LABEL: self.keep}

    def own_variables(self) -> dict[str, str]:
        """Return the variables of `pass_env` and `env`."""
        passed = {name: os.environ[name] for name in self.pass_env if name in os.environ}
        return {**passed, **self.env}

    def is_kept(self, code: int | None) -> bool:
        """Return whether a runner that ended with `code` (None: it is not known) is left there."""
        return self.keep == "always" or (self.keep == "failed" and bool(code))


def runner_name(request: LaunchRequest | None) -> str:
    """Return a new name for a container or pod, with the run's id in it."""
    run_id = request.labels.get(RUN_ID_LABEL, "") if request else ""
    start = re.sub(r"[^a-z0-9]+", "-", run_id[:8].lower()).strip("-")  # as pods' names must be
    return "-".join(filter(None, ["sqlmesh", start, secrets.token_hex(4)]))


def image_hint(image: str, code: int) -> str:
    """Return what may be wrong with an image whose container ended without a message."""
    by_code = {126: NOT_EXECUTABLE, 127: NO_COMMAND}  # as a shell and docker-init exit
    return by_code.get(code) or (
        "if the log is not the runner's, check that `sqlmesh-runner` is the ENTRYPOINT of "
        f"image {image}"
    )
