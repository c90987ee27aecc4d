"""Settings of all tests, in both environments."""

from hypothesis import settings

# How long an example takes says nothing on a loaded machine; and a test must fail again when it is run again.
settings.register_profile("default", deadline=None, derandomize=True, database=None)
settings.load_profile("default")
