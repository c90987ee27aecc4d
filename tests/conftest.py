"""Settings of all tests, in both environments."""

import signal

import profiles  # noqa: F401 - loads what is asked for

# A shell starts background processes with SIGINT ignored. Dagster then ignores SIGTERM, too, and
# cannot stop the processes that read its logs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
