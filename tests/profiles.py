"""How many examples property tests take, and which."""

import os

from hypothesis import settings

# How long an example takes says nothing on a loaded machine; and a test must fail again when it is run again.
settings.register_profile("default", deadline=None, derandomize=True, database=None)
# To look further, now and then: others each time, and twenty times as many. A failure prints how to have it again.
settings.register_profile("search", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def examples(number: int) -> settings:
    """Take that many examples where the default is a hundred: for tests whose examples are slow, or must be many."""
    return settings(max_examples=number * settings().max_examples // 100)
