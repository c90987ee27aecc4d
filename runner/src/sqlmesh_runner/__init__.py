"""Run SQLMesh outside Dagster and report each result as it happens, by the command line."""

from typing import Final

__all__ = ["PROTOCOL_VERSION", "__version__"]

__version__: Final = "0.1.0"

PROTOCOL_VERSION: Final = 1
"""The version of launch and messages that this runner speaks (docs/reference/contract.md)."""
