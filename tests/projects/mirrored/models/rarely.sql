MODEL (
  name mirror.rarely,
  kind FULL,
  cron '0 0 29 2 *', -- no tick while a test runs
  start '2020-01-01',
  audits (not_null(columns := (id)))
);

SELECT id FROM mirror.names
