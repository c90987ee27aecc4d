#!/bin/sh
# Runs once, when the volume is empty: a database each for Dagster, for the warehouse and for SQLMesh's state.
set -eu
psql -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres \
  -v dagster_password="$DAGSTER_PG_PASSWORD" -v shop_password="$SHOP_PG_PASSWORD" <<'SQL'
CREATE ROLE dagster LOGIN PASSWORD :'dagster_password';
CREATE ROLE shop LOGIN PASSWORD :'shop_password';
CREATE DATABASE dagster OWNER dagster;
CREATE DATABASE shop OWNER shop;
CREATE DATABASE sqlmesh_state OWNER shop;
SQL
