MODEL (
  name marts.broken_audit,
  kind FULL,
  audits (no_zero)
);

SELECT CASE WHEN @execution_ds = '2026-01-05' THEN 'none' ELSE '1' END AS written
