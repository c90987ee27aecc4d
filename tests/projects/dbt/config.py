from pathlib import Path

from sqlmesh.core.config import ModelDefaultsConfig
from sqlmesh.dbt.loader import sqlmesh_config

config = sqlmesh_config(
    Path(__file__).parent, model_defaults=ModelDefaultsConfig(dialect="duckdb", start="2026-01-01")
)
