"""Settings of all tests, in both environments."""

import signal

import profiles  # noqa: F401 - loads what is asked for

# A shell has what it starts in the background ignore SIGINT. Dagster then lets SIGTERM be ignored, too, and can't end its log readers.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
