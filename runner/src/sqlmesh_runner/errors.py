"""What can stop a run before or besides its models.

RunnerError                 what failed, where, and what to do next; `exit_code` is the process's
├── ConfigurationError      2: no project there, invalid config or model, unknown gateway, unsupported protocol
├── NotPlannedError         3: environment never planned, model not in it, state of another SQLMesh
├── UnreachableError        4: state or warehouse can't be reached
├── RunError                1: SQLMesh gave up on the run as a whole (a signal raised, a hook failed)
└── InterruptedRunError     130 or 143: asked to stop before anything ran

StopEvaluationError is none of these: the console raises it inside SQLMesh to keep further batches from starting.
"""

from typing import ClassVar, Final

__all__ = [
    "EXIT_DONE",
    "EXIT_FAILED",
    "ConfigurationError",
    "InterruptedRunError",
    "NotPlannedError",
    "RunError",
    "RunnerError",
    "StopEvaluationError",
    "UnreachableError",
    "cause",
    "describe",
    "is_connection_error",
]

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1

_CONNECTION_ERRORS: Final = {"OperationalError", "InterfaceError", "IOException", "ConnectionException", "ConnectionError", "TimeoutError"}
"""Names of the classes by which DB-API drivers, DuckDB and Python say that the other side isn't there."""


class RunnerError(Exception):
    """Base of all errors that end a run with a clear sentence."""

    exit_code: ClassVar[int] = EXIT_FAILED


class ConfigurationError(RunnerError):
    """The command line, the project or its configuration is wrong."""

    exit_code = 2


class NotPlannedError(RunnerError):
    """The environment does not hold what is asked for, or not in a form this SQLMesh reads."""

    exit_code = 3


class UnreachableError(RunnerError):
    """The state or the warehouse does not answer."""

    exit_code = 4


class RunError(RunnerError):
    """SQLMesh ended the run with an error that belongs to no model."""


class InterruptedRunError(RunnerError):
    """The runner was asked to stop before SQLMesh began to evaluate."""


class StopEvaluationError(Exception):
    """Raised into SQLMesh where that is safe, so that no further batch starts."""


def cause(error: BaseException) -> BaseException:
    """Give the error that SQLMesh's scheduler wrapped (`NodeExecutionFailedError` only says which node it was)."""
    while type(error).__name__ == "NodeExecutionFailedError" and error.__cause__ is not None:
        error = error.__cause__
    return error


def describe(error: BaseException) -> str:
    """Give an error's own words, with its class where they are none or only a key."""
    audit_errors = getattr(error, "errors", None)  # NodeAuditsErrors: its own text only lists names
    if type(error).__name__ == "NodeAuditsErrors" and audit_errors:
        return "; ".join(str(each) for each in audit_errors)
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called"
    if isinstance(error, KeyError):
        return f"KeyError: {error}"
    return str(error).strip() or type(error).__name__


def is_connection_error(error: BaseException | None) -> bool:
    """Tell whether an error, or its stated cause, is a driver's word for "can't connect".

    What an error was merely raised beside (`__context__`) doesn't count: in a signal's or a hook's own failure it is the user's code.
    """
    while error is not None:
        if _CONNECTION_ERRORS & {cls.__name__ for cls in type(error).__mro__}:
            return True
        error = error.__cause__
    return False
