"""The errors that end a run, other than a model's failure.

RunnerError                what failed, where, and what to do next; `exit_code` is the process's
├── ConfigurationError      2: no project, invalid configuration, unknown gateway or protocol
├── NotPlannedError         3: environment never planned, model not in it, state of another SQLMesh
├── UnreachableError        4: state or warehouse can't be reached
├── LockTimeoutError        5: another run holds the lock on the state
├── RunError                1: SQLMesh failed the run as a whole (a signal or a hook failed)
├── RecordingError          1: what SQLMesh did could not be recorded or reported completely
└── InterruptedRunError     130 or 143: asked to stop before anything ran

StopEvaluationError is none of these: the recorder raises it inside SQLMesh to stop a run in order.
"""

import re
from typing import ClassVar, Final

__all__ = [
    "EXIT_DONE",
    "EXIT_FAILED",
    "ConfigurationError",
    "InterruptedRunError",
    "LockTimeoutError",
    "NotPlannedError",
    "RecordingError",
    "RunError",
    "RunnerError",
    "StopEvaluationError",
    "UnreachableError",
    "cause",
    "describe",
    "is_connection_error",
    "plain_text",
]

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1

_CONNECTION_ERRORS: Final = {
    "OperationalError",
    "InterfaceError",
    "IOException",
    "ConnectionException",
    "ConnectionError",
    "TimeoutError",
}
"""Classes that DB-API drivers, DuckDB and Python raise if the other side does not answer."""


_ESCAPE_CODE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])"
)
"""ECMA-48: control sequences, such as colors; operating system commands, such as links."""


class RunnerError(Exception):
    """Base of all errors that end a run, with a message for its user."""

    exit_code: ClassVar[int] = EXIT_FAILED


class ConfigurationError(RunnerError):
    """The command line, the project or its configuration is wrong."""

    exit_code = 2


class NotPlannedError(RunnerError):
    """The environment lacks what was selected, or this SQLMesh can't read its state."""

    exit_code = 3


class UnreachableError(RunnerError):
    """The state or the warehouse does not answer."""

    exit_code = 4


class LockTimeoutError(RunnerError):
    """Another run is at work on the state, and this one is not to wait for it (any longer).

    Args:
        holder: who is at work, and since when.
        state: the state, in words.
        waited: seconds that it was waited for.
    """

    exit_code = 5

    def __init__(self, holder: str, state: str, waited: float) -> None:
        super().__init__(
            f"{holder} is at work on {state}, and two runs at once would double rows. It was "
            f"waited for {waited:.0f} s (--lock-timeout). Start this run again when it has ended."
        )
        self.holder = holder


class RunError(RunnerError):
    """SQLMesh ended the run with an error that belongs to no model."""


class RecordingError(RunnerError):
    """What SQLMesh did could not be recorded or reported completely, so the run can't succeed."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"This run was not recorded completely: {problem}. SQLMesh went on to the end and its "
            "state is right, but results may be missing here. The runner's log has the details; "
            "please report them together with the versions of sqlmesh and sqlmesh-runner."
        )


class InterruptedRunError(RunnerError):
    """The runner was asked to stop before SQLMesh began to evaluate."""


class StopEvaluationError(Exception):
    """Raised into SQLMesh, where that is safe, to keep further batches from starting."""


def cause(error: BaseException) -> BaseException:
    """Return the error that SQLMesh's scheduler wrapped in a `NodeExecutionFailedError`."""
    while type(error).__name__ == "NodeExecutionFailedError" and error.__cause__ is not None:
        error = error.__cause__
    return error


def describe(error: BaseException) -> str:
    """Return an error's message, with its class where that is empty or only a key."""
    return plain_text(_message(error))


def plain_text(text: str) -> str:
    """Return a text without the terminal's escape codes, which SQLMesh and sqlglot add."""
    return _ESCAPE_CODE.sub("", text)


def _message(error: BaseException) -> str:
    audit_errors = getattr(error, "errors", None)  # NodeAuditsErrors: its own text only lists names
    if type(error).__name__ == "NodeAuditsErrors" and audit_errors:
        return "; ".join(str(each) for each in audit_errors)
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called"
    if isinstance(error, KeyError):
        return f"KeyError: {error}"
    return str(error).strip() or type(error).__name__


def is_connection_error(error: BaseException | None) -> bool:
    """Return whether a driver's error for "can't connect" is the error or its cause.

    An error that was only being handled meanwhile (`__context__`) doesn't count: in a failure of a
    signal or a hook it comes from the user's code.
    """
    while error is not None:
        if _CONNECTION_ERRORS & {cls.__name__ for cls in type(error).__mro__}:
            return True
        error = error.__cause__
    return False
