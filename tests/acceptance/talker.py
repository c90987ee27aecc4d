"""A stand-in for the runner, for tests: does on its command line's word what a real one does only
now and then.

It runs in a bare Python image, so it imports nothing but the standard library.
"""

import base64
import itertools
import json
import os
import signal
import sys
import threading
import time
import zlib
from pathlib import Path

NUMBERS = itertools.count()
GO = Path(os.environ.get("TALK_GO", "/talk/go"))  # the test makes it
PART = int(os.environ.get("TALK_PART", "0"))  # characters of a message's parts; 0: whole messages


def say(method: str = "report_custom_message", **params: object) -> None:
    """Write one numbered Pipes message, in parts where it is long."""
    version = {"__dagster_pipes_version": "0.1"}
    number = next(NUMBERS)
    text = json.dumps({**version, "method": method, "params": params, "seq": number})
    if not PART or len(text) <= 2 * PART:
        print(text, flush=True)
        return
    pieces = [text[at : at + PART] for at in range(0, len(text), PART)]
    for at, data in enumerate(pieces):
        part = {"of": number, "part": at, "parts": len(pieces), "data": data}
        print(json.dumps({**version, "method": "part", "params": part}), flush=True)


def context() -> dict[str, object]:
    """Read the Pipes context, in one variable or cut over several."""

    def decode(text: str) -> dict[str, object]:
        decoded: dict[str, object] = json.loads(zlib.decompress(base64.b64decode(text)))
        return decoded

    params = decode(os.environ["DAGSTER_PIPES_CONTEXT"])
    if "chunks" in params:
        params = decode(
            "".join(
                os.environ[f"DAGSTER_PIPES_CONTEXT_{n}"] for n in range(int(str(params["chunks"])))
            )
        )
    data = params["data"]
    assert isinstance(data, dict)
    return data


def wait_for_go() -> None:
    """Wait until the test says so."""
    while not GO.exists():
        time.sleep(0.02)


def big(size: str) -> None:
    """Send one message of that many bytes."""
    say("opened")
    say(payload="x" * int(size))
    say("closed")


def many(count: str, size: str, rate: str = "0") -> None:
    """Send `count` messages of `size` bytes, `rate` bytes a second."""
    say("opened")
    began, written = time.monotonic(), 0
    for number in range(int(count)):
        say(payload=f"{number} ".ljust(int(size), "z"))
        written += int(size)
        if int(rate):
            time.sleep(max(0.0, written / int(rate) - (time.monotonic() - began)))
    say("closed")


def noisy(count: str, size: str) -> None:
    """Send long messages while a thread writes to stderr without a pause."""
    quiet = threading.Event()

    def shout() -> None:
        while not quiet.is_set():
            print("noise " * 5, file=sys.stderr, flush=True)
            time.sleep(0.001)

    threading.Thread(target=shout).start()
    many(count, size)
    quiet.set()


def last_words() -> None:
    """Send a long message, write a line to stderr right after it, and exit."""
    say("opened")
    say(payload="w" * 100_000)
    print("the last line", file=sys.stderr, flush=True)


def pause(seconds: str) -> None:
    """Be silent for a while."""
    say("opened")
    time.sleep(float(seconds))
    say("closed")


def clock(count: str) -> None:
    """Send the time, again and again."""
    say("opened")
    for _ in range(int(count)):
        say(payload=time.time())
        time.sleep(0.05)
    say("closed")


def words() -> None:
    """Send what is not ASCII, as a runner that does not escape would, and print beside the
    messages.
    """
    say("opened")
    print("plain output", end="")
    sys.stdout.flush()
    message = {
        "__dagster_pipes_version": "0.1",
        "method": "log",
        "params": {"text": "Größe → 数 " * 3000},
        "seq": next(NUMBERS),
    }
    print(json.dumps(message, ensure_ascii=False), flush=True)
    print("a line of the log", file=sys.stderr, flush=True)
    sys.exit(3)


def halves(count: str) -> None:
    """Send `count` messages, wait for the test, and send as many again."""
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
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
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
    """Allocate all the memory there is."""
    say("opened")
    time.sleep(1)  # containerd misses what happens right after a start
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20)))


def child_eats() -> None:
    """Have a child killed for its memory, and end well."""
    if os.fork() == 0:
        eat()
    os.wait()
    time.sleep(1)  # its kill is reported before the container's end


def child_eats_and(then: str) -> None:
    """Have a child killed for its memory, say so, and then fail or ignore every request to stop."""
    say("opened")
    if os.fork() == 0:
        eat()
    os.wait()
    time.sleep(1)
    say("closed")
    sys.exit(1) if then == "fail" else stubborn()


def finish(*_: str) -> None:
    """Run as the runner does when nothing is due."""
    say("opened")
    say(
        payload={
            "type": "run_finished",
            "outcome": "nothing_to_do",
            "exit_code": 0,
            "duration": 0.0,
            "materialized": [],
            "failed": [],
            "skipped": [],
            "unknown_models": [],
            "next_due": None,
            "error": None,
        }
    )
    say("closed")


def fail() -> None:
    """Run, and end with an exit code of the runner's own."""
    say("opened")
    say("closed")
    sys.exit(3)


def models() -> None:
    """Send how much context has come."""
    say("opened")
    extras = context()["extras"]
    assert isinstance(extras, dict)
    say(payload=max(extras["models"]), count=len(extras["models"]))
    say("closed")


def show_env() -> None:
    """Print the environment as JSON, as `run_to_end` expects; in a message where asked to."""
    text = json.dumps(dict(os.environ))
    if "DAGSTER_PIPES_MESSAGES" in os.environ:
        say("output", text=text)
    else:
        print(text)
    print("on the side", file=sys.stderr)


def crash() -> None:
    """End before the first message."""
    print("ImportError: no such thing", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    word, *arguments = sys.argv[1:]
    globals()[word.replace("-", "_")](*arguments)
