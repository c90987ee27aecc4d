"""How many examples property tests take, and which."""

import os

from hypothesis import settings

# No deadline, as a loaded machine is slow; the same examples each time, so that a failure repeats.
settings.register_profile("default", deadline=None, derandomize=True, database=None)
# Twenty times as many examples, different ones each time. A failure prints how to reproduce it.
settings.register_profile("search", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def examples(number: int) -> settings:
    """Return settings with this many examples where the profile's default is a hundred."""
    return settings(max_examples=number * settings().max_examples // 100)
