"""`python -m sqlmesh_runner`, for launchers that are given an interpreter."""

import sys

from sqlmesh_runner.cli import main

if __name__ == "__main__":
    sys.exit(main())
