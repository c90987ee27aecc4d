"""One step: its lock, its request to the runner, the session with it, and its outcome."""
