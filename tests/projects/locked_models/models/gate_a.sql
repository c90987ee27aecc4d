MODEL (
  name marts.gate_a,
  kind FULL,
  audits (not_null(columns := (id)))
);

SELECT 1 AS id, PG_ADVISORY_XACT_LOCK_SHARED(42)::TEXT AS passed
