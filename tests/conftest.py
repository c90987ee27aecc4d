"""Settings of all tests, in both environments."""

import signal

import profiles  # noqa: F401 - loads what is asked for

# A shell has what it runs in the background ignore SIGINT, and all that this starts; but Dagster ends its log readers with it, and we our runners.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
