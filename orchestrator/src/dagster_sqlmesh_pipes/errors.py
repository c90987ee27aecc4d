"""What can go wrong, as one tree.

SQLMeshPipesError
├── ManifestError          the manifest is missing, unreadable or of another schema version
├── TranslationError       models and asset keys, groups or checks do not fit together
├── ConfigurationError     an option that cannot work
├── LaunchError            the runner could not be started (or its engine not be reached)
├── ConcurrentRunError     another run is at work on the environment
└── RunFailedError         the runner ran, and its run did not succeed (also a `dagster.Failure`)
    └── ProtocolError      its messages were lost, cut or not understood
"""

import dagster as dg

__all__ = [
    "ConcurrentRunError",
    "ConfigurationError",
    "LaunchError",
    "ManifestError",
    "ProtocolError",
    "RunFailedError",
    "SQLMeshPipesError",
    "TranslationError",
]


class SQLMeshPipesError(Exception):
    """Base of every error this package raises."""


class ManifestError(SQLMeshPipesError):
    """The manifest is missing, unreadable, of another schema version, or could not be made."""


class TranslationError(SQLMeshPipesError):
    """Models and asset keys, groups or checks do not fit together."""


class ConfigurationError(SQLMeshPipesError):
    """An option has a value that cannot work."""


class LaunchError(SQLMeshPipesError):
    """The runner could not be started, or what should start it could not be reached."""


class ConcurrentRunError(SQLMeshPipesError):
    """Another run is at work on the same environment."""


class RunFailedError(dg.Failure, SQLMeshPipesError):
    """The runner ran, and its run did not succeed. Fails the step with its text and metadata."""


class ProtocolError(RunFailedError):
    """The runner's messages were lost, cut or not understood, so what it did is not fully known."""
