"""A stand-in for the runner, for tests: does on its command line's word what a real one does only now and then.

It runs in a bare Python image, so it imports nothing but the standard library.
"""

import base64
import itertools
import json
import os
import signal
import sys
import time
import zlib
from pathlib import Path

NUMBERS = itertools.count()
GO = Path("/talk/go")  # the test makes it


def say(method: str = "report_custom_message", **params: object) -> None:
    """Write one numbered Pipes message."""
    print(json.dumps({"__dagster_pipes_version": "0.1", "method": method, "params": params, "seq": next(NUMBERS)}), flush=True)


def context() -> dict[str, object]:
    """Read the Pipes context, in one variable or cut over several."""

    def decode(text: str) -> dict[str, object]:
        decoded: dict[str, object] = json.loads(zlib.decompress(base64.b64decode(text)))
        return decoded

    params = decode(os.environ["DAGSTER_PIPES_CONTEXT"])
    if "chunks" in params:
        params = decode("".join(os.environ[f"DAGSTER_PIPES_CONTEXT_{n}"] for n in range(int(str(params["chunks"])))))
    data = params["data"]
    assert isinstance(data, dict)
    return data


def wait_for_go() -> None:
    """Wait until the test says so."""
    while not GO.exists():
        time.sleep(0.02)


def big(size: str) -> None:
    """Say one message of that many bytes."""
    say("opened")
    say(payload="x" * int(size))
    say("closed")


def words() -> None:
    """Say what is not ASCII, as a runner that does not escape would, and print beside the messages."""
    say("opened")
    print("plain output", end="")
    sys.stdout.flush()
    message = {"__dagster_pipes_version": "0.1", "method": "log", "params": {"text": "Größe → 数 " * 3000}, "seq": next(NUMBERS)}
    print(json.dumps(message, ensure_ascii=False), flush=True)
    print("a line of the log", file=sys.stderr, flush=True)
    sys.exit(3)


def halves(count: str) -> None:
    """Say `count` messages, wait for the test, and say as many again."""
    say("opened")
    for half in range(2):
        for number in range(int(count)):
            say(payload=f"{half}/{number} " + "y" * 2000)
            print(f"log {half}/{number}", file=sys.stderr, flush=True)
        if half == 0:
            wait_for_go()
    say("closed")


def wait_for_signal() -> None:
    """Stop in order at the first SIGINT, as the runner does."""

    def stop(number: int, _frame: object) -> None:
        say(payload=signal.Signals(number).name)
        say("closed")
        sys.exit(130)

    signal.signal(signal.SIGINT, stop)
    say("opened")
    while True:
        time.sleep(60)


def stubborn() -> None:
    """Ignore every request to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("opened")
    while True:
        time.sleep(60)


def eat() -> None:
    """Take all the memory there is."""
    say("opened")
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20)))


def child_eats() -> None:
    """Have a child killed for its memory, and end well."""
    if os.fork() == 0:
        eat()
    os.wait()


def child_eats_and(then: str) -> None:
    """Have a child killed for its memory, say so, and then fail or ignore every request to stop."""
    say("opened")
    if os.fork() == 0:
        eat()
    os.wait()
    say("closed")
    sys.exit(1) if then == "fail" else stubborn()


def finish(*_: str) -> None:
    """Run as the runner does when nothing is due."""
    say("opened")
    say(payload={"type": "run_finished", "outcome": "nothing_to_do"})
    say("closed")


def models() -> None:
    """Tell how much context has come."""
    say("opened")
    extras = context()["extras"]
    assert isinstance(extras, dict)
    say(payload=max(extras["models"]), count=len(extras["models"]))
    say("closed")


def show_env() -> None:
    """Print the environment as JSON, as `run_to_end` expects output."""
    print(json.dumps(dict(os.environ)))
    print("on the side", file=sys.stderr)


def crash() -> None:
    """End before the first message."""
    print("ImportError: no such thing", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    word, *arguments = sys.argv[1:]
    globals()[word.replace("-", "_")](*arguments)
